"""Conversion of whole networks: the same function, and a record of everything left."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from tvm_sparsewino.config import ConvShape
from tvm_sparsewino.cost import predict
from tvm_sparsewino.cost_quantities import CORES
from tvm_sparsewino.errors import ConfigError
from tvm_sparsewino.nn import WinogradConv2d, convert

# The promise for 3x3 and m <= 4, relative to the output's maximum.
SAME = 1e-5


def image(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def error(have, want):
    return ((have - want).abs().max() / want.abs().max()).item()


def records(model):
    return {record.name: record for record in model.conversion}


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 7, stride=2, padding=3)
        self.first = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding="same", groups=4)
        self.down = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.wide = nn.Conv2d(16, 16, 3, padding=2, dilation=2)
        self.point = nn.Conv2d(16, 4, 1)
        self.big = nn.Conv2d(4, 4, 5, padding=(2, 1))
        self.flat = nn.Conv2d(4, 4, (1, 3))

    def forward(self, x):
        x = self.stem(x).relu()
        x = x + self.second(self.norm(self.first(x)).relu())
        return self.flat(self.big(self.point(self.wide(self.down(x)))))


@pytest.mark.parametrize("tile", [2, 4])
def test_a_network_keeps_its_function(tile):
    torch.manual_seed(2)
    model = Residual().eval()
    before = copy.deepcopy(model.state_dict())
    converted = convert(model, tile)
    x = image(2, 3, 45, 64)
    assert error(converted(x), model(x)) < SAME
    assert [n for n, r in records(converted).items() if r.converted] == ["first", "second", "big"]
    assert {n: r.reason for n, r in records(converted).items() if not r.converted} == {
        "stem": "stride (2, 2)",
        "down": "stride (2, 2)",
        "wide": "dilation (2, 2)",
        "point": "kernel 1x1",
        "flat": "kernel 1x3",
    }
    # The given model is untouched, and its parameters are not the converted one's.
    assert type(model.first) is nn.Conv2d
    assert not hasattr(model, "conversion")
    with torch.no_grad():
        for parameter in converted.parameters():
            parameter.zero_()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_auto_takes_small_tiles_on_small_maps():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),  # 24x24: tiles of 4 fit
        nn.AdaptiveAvgPool2d(2),
        nn.Conv2d(4, 4, 3, padding=1),  # 2x2: three quarters of a tile of 4 would be waste
        nn.Conv2d(4, 4, 1),
    )
    converted = convert(model, "auto", image(1, 3, 24, 24))
    assert {n: r.m for n, r in records(converted).items()} == {"0": 4, "2": 2, "3": 0}
    shape = ConvShape(1, 3, 26, 26, 4, 3)
    cycles = {
        m: min(predict(shape, f"{a}_winograd", m, 1 - 0.9).cycles for a in ("sparse", "dense"))
        for m in (2, 4)
    }
    assert records(converted)["0"].reason == (
        f"predicted at {cycles[4] / 1e6:.3g} Mcycles with 90% zeros on 24x24; "
        f"F(2,3) {cycles[2] / cycles[4]:.2f}x"
    )
    x = image(2, 3, 24, 24)
    assert error(converted(x), model(x)) < SAME


@pytest.mark.parametrize("lanes", [4, 8, 16])
@pytest.mark.parametrize("sparsity", [0.0, 0.95])
def test_auto_follows_the_cost_model(lanes, sparsity):
    """For several calls the sum decides; a batch counts."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(16, 16, 3, padding=1)

        def forward(self, x):
            return self.conv(x).sum() + self.conv(x[..., :7, :7]).sum()

    converted = convert(Twice(), "auto", image(2, 16, 15, 15), sparsity=sparsity, lanes=lanes)
    cycles = dict.fromkeys((2, 4), 0.0)
    for m in cycles:
        for size in (15, 7):
            shape = ConvShape(2, 16, size + 2, size + 2, 16, 3)
            kinds = (f"{a}_winograd" for a in ("sparse", "dense"))
            cycles[m] += min(predict(shape, a, m, 1 - sparsity, CORES[lanes]).cycles for a in kinds)
    assert records(converted)["conv"].m == min(cycles, key=cycles.get)
    assert "on 15x15, 7x7" in records(converted)["conv"].reason


@pytest.mark.parametrize(("name", "value"), [("sparsity", 1.1), ("sparsity", -0.1), ("lanes", 7)])
def test_auto_refuses_what_no_layer_has(name, value):
    with pytest.raises(ConfigError, match=f"{name} must be .*, got {value}"):
        convert(nn.Conv2d(3, 4, 3), "auto", image(1, 3, 8, 8), **{name: value})


def test_auto_takes_example_in_every_form():
    class TwoInputs(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.unused = nn.Conv2d(3, 4, 3)

        def forward(self, x, shift):
            return self.conv(x) + shift

    x = image(1, 3, 10, 10)
    for example in ((x, 1.0), {"shift": 1.0, "x": x}):
        found = records(convert(TwoInputs(), "auto", example))
        assert found["conv"].converted
        assert found["unused"].reason == "the example does not reach it"


def test_auto_leaves_no_trace():
    """The example must not move running statistics, flags or hooks."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Conv2d(4, 4, 1))
    model[2].eval()
    before = copy.deepcopy(model.state_dict())
    converted = convert(model, "auto", image(1, 3, 9, 9))
    for name in ("running_mean", "num_batches_tracked"):
        assert torch.equal(getattr(converted[1], name), before[f"1.{name}"])
    assert [x.training for x in converted] == [True, True, False, True]
    assert not any(x._forward_hooks for x in converted.modules())


def test_hooks_are_gone_when_the_example_fails():
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    with pytest.raises(RuntimeError, match="expected input"):
        convert(model, "auto", image(1, 5, 9, 9))
    assert not model[0]._forward_hooks


def test_training_flags_requires_grad_and_dtype_stay():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)).double()
    model[0].eval().requires_grad_(False)
    model[1].bias.requires_grad_(False)
    converted = convert(model, 2)
    assert [x.training for x in converted] == [False, True]
    assert [p.requires_grad for p in converted.parameters()] == [False, False, True, False]
    assert {p.dtype for p in converted.parameters()} == {torch.float64}


def test_conversion_draws_no_random_numbers():
    model = Residual()
    state = torch.get_rng_state()
    convert(model, 4)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_module_used_twice_stays_one_module():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Conv2d(3, 3, 3, padding=1)
            self.b = self.a
            self.inner = nn.Sequential(self.a, nn.ReLU(), self.a)

        def forward(self, x):
            return self.b(self.inner(self.a(x)))

    model = Twice()
    converted = convert(model, "auto", image(1, 3, 8, 8))
    assert converted.a is converted.b is converted.inner[0] is converted.inner[2]
    assert [(r.name, r.converted) for r in converted.conversion] == [("a", True)]
    x = image(1, 3, 8, 8)
    assert error(converted(x), model(x)) < SAME
    assert len(list(converted.parameters())) == 2


def test_the_model_may_be_one_convolution():
    conv = nn.Conv2d(3, 4, 3)
    converted = convert(conv, 4)
    assert isinstance(converted, WinogradConv2d)
    assert [(r.name, r.m) for r in converted.conversion] == [("", 4)]


class MyConv(nn.Conv2d):
    """Anything may happen in a subclass."""


def weight_norm():
    return nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 3))


def hooked(kind):
    conv = nn.Conv2d(3, 3, 3)
    getattr(conv, f"register_{kind}")(lambda *args: None)
    return conv


def torch_pruned():
    conv = nn.Conv2d(3, 3, 3)
    with torch.no_grad():  # else the weight is no leaf and cannot be copied; tested below
        prune.l1_unstructured(conv, "weight", 0.5)
    return conv


def patched():
    conv = nn.Conv2d(3, 3, 3)
    conv.forward = torch.relu
    return conv


def extended():
    conv = nn.Conv2d(3, 3, 3)
    conv.register_buffer("extra", torch.zeros(1))
    return conv


def odd_mode():
    conv = nn.Conv2d(3, 3, 3)
    conv.padding_mode = "constant"
    return conv


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: MyConv(3, 3, 3), "MyConv is a subclass of Conv2d"),
        (lambda: nn.LazyConv2d(3, 3), "LazyConv2d is a subclass of Conv2d"),
        (weight_norm, "parametrized"),
        (lambda: hooked("forward_hook"), "has hooks"),
        (lambda: hooked("forward_pre_hook"), "has hooks"),
        (lambda: hooked("full_backward_hook"), "has hooks"),
        (torch_pruned, "has hooks"),
        (patched, "its forward has been replaced"),
        (extended, "has parameters, buffers or modules of its own"),
        (odd_mode, "padding_mode 'constant'"),
        (lambda: nn.Conv2d(3, 3, 3).half(), "dtype torch.float16"),
        (lambda: nn.Conv2d(3, 3, 4), "kernel 4x4"),
        (lambda: nn.Conv2d(3, 3, 9), "kernel 9x9"),
    ],
)
def test_left_with_a_reason(make, reason):
    model = nn.Sequential(make(), nn.Conv2d(3, 3, 3))
    converted = convert(model, 4)
    assert type(converted[0]).__name__ == type(model[0]).__name__
    assert isinstance(converted[1], WinogradConv2d)
    assert records(converted)["0"].m == 0
    assert records(converted)["0"].reason.startswith(reason)


def test_tied_weights_are_left():
    model = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3))
    model[1].weight = model[0].weight
    converted = convert(model, 4)
    assert [r.m for r in converted.conversion] == [0, 0, 4]
    assert converted[0].weight is converted[1].weight
    assert records(converted)["0"].reason == "its parameters are shared with another module"


def test_converting_again_keeps_the_record():
    model = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 1))
    again = convert(convert(model, 2), 4)
    assert {n: r.m for n, r in records(again).items()} == {"0": 2, "1": 0}
    assert again[0].m == 2


def test_a_converted_model_can_be_copied_and_pickled():
    converted = convert(Residual().eval(), 4)
    x = image(1, 3, 21, 33)
    for other in (copy.deepcopy(converted), pickle.loads(pickle.dumps(converted))):
        assert torch.equal(other(x), converted(x))
        assert other.conversion == converted.conversion


def test_converted_models_train():
    torch.manual_seed(3)
    converted = convert(
        nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1)), 4
    )
    x = image(4, 1, 12, 12)
    optimiser = torch.optim.Adam(converted.parameters(), 1e-2)
    losses = []
    for _ in range(40):
        loss = (converted(x) - x).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.25 * losses[0]


@pytest.mark.parametrize("tile", [3, 0, True, "large", None])
def test_a_tile_that_is_none(tile):
    with pytest.raises(ConfigError, match="tile must be"):
        convert(nn.Conv2d(3, 3, 3), tile)


def test_a_model_that_cannot_be_copied():
    conv = nn.Conv2d(3, 3, 3)
    prune.l1_unstructured(conv, "weight", 0.5)
    with pytest.raises(ConfigError, match="Conv2d cannot be copied: Only Tensors created"):
        convert(conv, 4)


def test_auto_needs_an_example():
    with pytest.raises(ConfigError, match="needs example="):
        convert(nn.Conv2d(3, 3, 3))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_scripted_models_are_refused():
    with pytest.raises(ConfigError, match="scripted"):
        convert(torch.jit.script(nn.Conv2d(3, 3, 3)), 4)


def test_auto_leaves_depthwise_convolutions():
    depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
    model = convert(nn.Sequential(depthwise, nn.Conv2d(8, 8, 3)), example=torch.zeros(1, 8, 9, 9))
    assert [(c.name, c.converted) for c in model.conversion] == [("0", False), ("1", True)]
    assert "depthwise" in model.conversion[0].reason
    assert convert(depthwise, 2).conversion[0].converted
