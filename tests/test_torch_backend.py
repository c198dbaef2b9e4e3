"""torch.compile(model, backend="sparsewino"): right, for inference, and honest about the rest."""

import threading

import numpy as np
import pytest
import torch
from torch import nn

from tvm_sparsewino import driver, torch_backend
from tvm_sparsewino.errors import ConfigError, ImportFailed
from tvm_sparsewino.nn import convert, dynamo
from tvm_sparsewino.torch_backend import sparsewino

TOLERANCE = 1e-5  # of the output's maximum: float32 sums of some dozen terms, in another order
SHAPE = (1, 3, 8, 9)


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Graphs of one test must not serve another; small networks on one thread."""
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)


@pytest.fixture
def compiled(monkeypatch):
    """Every network that is compiled, in order."""
    made, original = [], driver.compile

    def watched(*args, **options):
        made.append(original(*args, **options))
        return made[-1]

    monkeypatch.setattr(driver, "compile", watched)
    return made


def network():
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3)]
    return nn.Sequential(*layers).eval()


def tiny():
    """Parameters and buffers, and little to compile."""
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval()


def check(got, want):
    assert (got.shape, got.dtype) == (want.shape, want.dtype)
    assert (got - want).abs().max() <= TOLERANCE * want.abs().max()


def test_it_is_found_by_its_name():
    assert "sparsewino" in torch._dynamo.list_backends()
    model, x = network(), torch.rand(SHAPE)
    with torch.no_grad():
        check(torch.compile(model, backend="sparsewino")(x), model(x))


def test_winograd_layers_keep_their_zeros(compiled):
    model = convert(network(), tile=4)
    for layer in (model[0], model[3]):
        layer.set_mask(torch.rand(layer.weight.shape) < 0.2)
    fast = torch.compile(model, backend=sparsewino)
    x = torch.rand(SHAPE)
    with torch.inference_mode():
        check(fast(x), model(x))
    assert [plan.m for plan in compiled[0].plan] == [4, 4]
    assert all(0.1 < plan.density < 0.3 for plan in compiled[0].plan)


def test_other_shapes_are_compiled_once_each(compiled):
    model = tiny()
    fast = torch.compile(model, backend=sparsewino)
    with torch.no_grad():
        for shape in (SHAPE, (2, 3, 8, 9), (3, 3, 11, 7), (2, 3, 8, 9), (3, 3, 11, 7)):
            x = torch.rand(shape)
            check(fast(x), model(x))
    assert len(compiled) <= 4  # the second may be compiled with a fixed and with an open batch


def test_changed_weights_are_noticed(compiled):
    model = tiny()
    fast = torch.compile(model, backend=sparsewino)
    x = torch.rand(SHAPE)
    with torch.no_grad():
        fast(x)
        for change in (
            lambda: model[0].weight.mul_(2),
            lambda: model[1].running_mean.add_(1),
            lambda: model.load_state_dict(tiny().state_dict()),
            lambda: setattr(model[0].weight, "data", torch.rand(4, 3, 1, 1)),
        ):
            change()
            check(fast(x), model(x))
            fast(x)
    assert len(compiled) == 5


def test_layouts_views_and_repeated_results():
    model = tiny()
    fast = torch.compile(model, backend=sparsewino)
    x = torch.rand(SHAPE)
    with torch.no_grad():
        want = model(x)
        shifted = torch.empty(x.numel() + 1)[1:].view(SHAPE).copy_(x)
        for same in (x, x.to(memory_format=torch.channels_last), shifted):
            check(fast(same), want)
        kept = fast(x)
        fast(-x)
        check(kept, want)
        check(fast(x.requires_grad_()), want)  # no gradient is asked for


def test_several_inputs_and_outputs():
    def function(a, b):
        return a + b, {"product": a * b, "size": a.shape[0]}

    fast = torch.compile(function, backend=sparsewino)
    a, b = torch.rand(2, 3), torch.rand(2, 3)
    total, rest = fast(a, b)
    check(total, a + b)
    check(rest["product"], a * b)
    assert rest["size"] == 2


def test_gradients_are_refused():
    model, x = tiny(), torch.rand(SHAPE)
    fast = torch.compile(model, backend=sparsewino)
    with pytest.raises(ImportFailed, match="is for inference and computes no gradients"):
        fast(x)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    check(fast(x), model(x))
    with pytest.raises(ImportFailed, match=r"under torch\.no_grad\(\)"):
        fast(x.requires_grad_())


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda x: torch.linalg.svd(x)[1], r"Unsupported function types.*svd"),
        (torch.nn.functional.dropout, "dropout.* is random"),
        (lambda x: x.add_(1), "in place"),
    ],
)
def test_what_cannot_be_compiled_is_named_or_left_to_pytorch(function, text):
    x = torch.rand(SHAPE)
    with pytest.raises(ImportFailed, match=text), torch.no_grad():
        torch.compile(function, backend=sparsewino)(x.clone())
    torch._dynamo.reset()
    left = torch.compile(function, backend=sparsewino, options={"fallback": True})
    with pytest.warns(RuntimeWarning, match="left to PyTorch: .*" + text), torch.no_grad():
        torch.manual_seed(1)
        got = left(x.clone())
    torch.manual_seed(1)
    torch.testing.assert_close(got, function(x.clone()))
    with torch.no_grad():
        left(x.clone())  # one warning per graph is enough


def test_other_element_types_are_refused():
    fast = torch.compile(torch.relu, backend=sparsewino)
    with pytest.raises(ImportFailed, match="is float64; only float32 is supported"):
        fast(torch.rand(2, 3, dtype=torch.float64))


def test_statistics_of_the_batch_are_refused():
    """Training mode that does not count its batches shows in the operator alone."""
    mean, variance = torch.zeros(3), torch.ones(3)

    def function(x):
        return nn.functional.batch_norm(x, mean, variance, training=True)

    with pytest.raises(ImportFailed, match="changes buffers or inputs in place"):
        torch.compile(function, backend=sparsewino)(torch.rand(SHAPE))
    assert mean.abs().max() == 0


def test_training_mode_is_refused():
    fast = torch.compile(network().train(), backend=sparsewino)
    with pytest.raises(ImportFailed, match=r"call model\.eval\(\)"), torch.no_grad():
        fast(torch.rand(SHAPE))


def test_tensors_elsewhere_are_refused():
    with pytest.raises(ImportFailed, match="a tensor is on meta; only the CPU"):
        torch.compile(torch.relu, backend=sparsewino)(torch.rand(2, 3, device="meta"))


def test_parameters_whose_changes_are_invisible_are_refused():
    with torch.inference_mode():
        model = network()
        with pytest.raises(ImportFailed, match=r"was made under torch\.inference_mode"):
            torch.compile(model, backend=sparsewino)(torch.rand(SHAPE))


def test_constants_alone_may_not_change():
    """A graph that counts its calls in a buffer, as BatchNorm does."""
    graph = torch.fx.Graph()
    counter, x = graph.placeholder("counter"), graph.placeholder("x")
    graph.call_method("add_", (counter, 1))
    graph.output((graph.call_function(torch.relu, (x,)),))
    module = torch.fx.GraphModule(nn.Module(), graph)
    state = torch.zeros(1)
    with pytest.raises(ImportFailed, match="changes its parameters or buffers"):
        dynamo.program_of(module, (state, torch.rand(2)), (True, False))
    assert state.item() == 0


def test_options_reach_the_compiler(compiled):
    options = {"target": "llvm", "num_threads": 1}
    fast = torch.compile(torch.relu, backend=sparsewino, options=options)
    fast(torch.rand(2, 3))
    assert (compiled[0].target, compiled[0].num_threads) == ("llvm", 1)
    with pytest.raises(ConfigError, match=r"unknown options \['tile'\]; there are \['target'"):
        sparsewino(torch.fx.GraphModule(nn.Module(), torch.fx.Graph()), [], options={"tile": 4})


@pytest.mark.parametrize(("torchs", "default", "want"), [(1, 8, 1), (8, 2, 2), (3, 3, 3)])
def test_no_more_threads_than_pytorch_uses(monkeypatch, torchs, default, want):
    seen = {}

    class Stop(Exception):
        pass

    def stop(module, **options):
        seen.update(options)
        raise Stop

    monkeypatch.setattr(torch, "get_num_threads", lambda: torchs)
    monkeypatch.setattr(torch_backend, "default_threads", lambda: default)
    monkeypatch.setattr(driver, "compile", stop)
    with pytest.raises(Stop):
        torch.compile(torch.relu, backend=sparsewino)(torch.rand(2, 3))
    assert seen == {"num_threads": want}


def test_several_threads_share_one_graph(compiled):
    model = tiny()
    fast = torch.compile(model, backend=sparsewino)
    inputs = [torch.rand(SHAPE) for _ in range(3)]
    with torch.no_grad():
        wanted = [fast(x).numpy() for x in inputs]
    wrong = []

    def work(number):
        with torch.no_grad():
            for _ in range(50):
                if not np.array_equal(fast(inputs[number]).numpy(), wanted[number]):
                    wrong.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (wrong, len(compiled)) == ([], 1)
