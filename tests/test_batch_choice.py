"""Static batches: at once or in pieces, and nothing that a caller sees depends on it."""

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
from relax_networks import const, module
from torch import nn
from tvm import relax

from tvm_sparsewino import batch_choice, batch_costs, driver, signature
from tvm_sparsewino._compat import load_module, runtime_tensor, virtual_machine
from tvm_sparsewino.batch_choice import planned
from tvm_sparsewino.bench.profile_run import profile_network
from tvm_sparsewino.cli import main as cli
from tvm_sparsewino.errors import ShapeError
from tvm_sparsewino.nn import models
from tvm_sparsewino.relay_passes.pipeline import prepare
from tvm_sparsewino.relay_passes.plan_layers import plan as plan_layers

ROWS = 6


class Net(nn.Module):
    """Two inputs with the batch, one without; two outputs."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, image, scale, shift):
        x = torch.relu(self.stem(image) * scale.view(-1, 1, 1, 1))
        x = torch.relu(self.body(x) + x) + shift
        return self.head(x.mean((2, 3))).softmax(1), x


def inputs(rows):
    random = torch.Generator().manual_seed(rows)
    some = torch.randn((rows, 3, 18, 14), generator=random)
    return some, torch.rand(rows, generator=random), torch.rand(14, generator=random)


@pytest.fixture(scope="module")
def model():
    return models.seed_weights(Net()).eval()


@pytest.fixture
def costs(monkeypatch):
    """Say what a call with some rows takes, in place of the model."""

    def told(by_rows):
        def cycles(plans, threads):
            (rows,) = {plan.conv.n for plan in plans if getattr(plan, "conv", None)}
            return by_rows(rows)

        monkeypatch.setattr(batch_choice, "call_cycles", cycles)

    return told


def compiled(model, rows, threads=1, **options):
    mod = driver.import_torch(model, inputs(rows))
    return driver.compile(mod, "llvm", num_threads=threads, **options)


def plans(network, threads, records):
    return plan_layers(network, "llvm", None, threads, records)


def on_a_new_thread(call):
    """What a call returns in a thread without a pool of TVM's, which may then have any size."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(call).result(timeout=120)


def check(model, results, given):
    with torch.no_grad():
        wanted = model.double()(*(x.double() for x in given))
        model.float()
    for result, reference in zip(results, wanted, strict=True):
        got, want = np.asarray(result), reference.numpy()
        assert got.shape == want.shape
        # float32, Winograd's rounding and sums in another order against float64
        assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    """Compiled in pieces of one row, and its file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_choice, "call_cycles", lambda plans, threads: plans[0].conv.n ** 1.5)
        exe = compiled(model, ROWS)
    path = tmp_path_factory.mktemp("pieces") / "net.so"
    exe.save(path)
    return exe, path


@pytest.mark.parametrize(
    ("rows", "cost", "batches"),
    [
        (6, lambda rows: rows**1.5, (1,)),
        (6, lambda rows: 1.0, ()),
        (6, lambda rows: rows, (1,)),  # equal costs
        (6, lambda rows: rows**0.99, (1,)),  # 2 % more
        (6, lambda rows: rows**0.97, ()),  # 6 % more
        (8, lambda rows: 1.0 if rows == 4 else rows, (4,)),
        (6, lambda rows: 1.0 if rows == 4 else rows**0.9, ()),  # 4 do not divide 6
        (7, lambda rows: rows**1.5, (1,)),
        (1, lambda rows: 1.0, ()),
    ],
)
def test_the_cheapest_way_is_chosen(model, costs, rows, cost, batches):
    costs(cost)
    asked = []

    def planning(network, threads, records):
        asked.append((threads, records))
        return plans(network, threads, None)

    mod = driver.import_torch(model, inputs(rows))
    found = planned(mod, None, planning, 16, "records")
    assert found.batches == batches
    assert found.choice.startswith("in pieces: " if batches else "at once: " if rows > 1 else "")
    assert bool(found.choice) == (rows > 1)
    assert {p.conv.n for p in found.plans if getattr(p, "conv", None)} == {*(batches or (rows,))}
    # The choice is the same for any number of threads and records; each piece has its share.
    assert set(asked[:-1]) <= {(1, None)}
    assert asked[-1] == (16 // (rows // batches[0]) if batches else 16, "records")


def test_predictions_decide(model):
    """The model itself: a small network is not worth many calls."""
    choice = planned(driver.import_torch(model, inputs(ROWS)), None, plans, 1).choice
    assert choice.startswith("at once: Mcycles for 6 rows on one thread, at once ")
    assert "in pieces of 1 " in choice


def test_any_number_of_threads_gives_the_same_bits(saved, model):
    exe, path = saved
    given = [x.numpy() for x in inputs(ROWS)]
    check(model, exe(*given), inputs(ROWS))
    machine = virtual_machine(load_module(str(path)))
    ways = [machine["main"](*map(runtime_tensor, given))]
    ways += [exe.machines(exe.tensors(*given))]  # main, where constants are handed over
    for threads in (1, 2, 3, 8):
        network = driver.load(path, 1)
        network.num_threads = threads
        ways += [on_a_new_thread(partial(network, *given))]
        ways += [on_a_new_thread(partial(network.session(1), *inputs(ROWS)))]
    for way in ways:
        for got, want in zip(way, exe(*given), strict=True):
            np.testing.assert_array_equal(np.from_dlpack(got), want)


def test_shapes_are_those_of_the_whole(saved):
    exe, _ = saved
    given = [x.numpy() for x in inputs(4)]
    with pytest.raises(ShapeError, match=r"expected float32 \[6, 3, 18, 14\], got float32 \[4,"):
        exe(*given)
    assert [a.shape for a in exe.session().empty_inputs()] == [(6, 3, 18, 14), (6,), (14,)]


def test_files_keep_it_all(saved, capsys):
    exe, path = saved
    assert driver.load(path, 1).description == exe.description
    assert cli.main(["inspect", str(path)]) == 0
    text = capsys.readouterr().out
    assert "in pieces: Mcycles for 6 rows" in text and "layers, batch 1: " in text


def test_a_piece_is_profiled(saved):
    exe, _ = saved
    kernels = profile_network(exe, 1).kernels
    assert {"stem", "body"} <= {kernel.plan.name for kernel in kernels if kernel.plan}


@pytest.fixture
def two(saved, monkeypatch):
    """The same on two threads, side by side however little a piece takes."""
    monkeypatch.setattr(batch_costs, "_HANDING_OVER", -1e9)
    network = driver.load(saved[1], 1)
    network.num_threads = 2
    return network


def test_many_callers_get_their_own_answers(two):
    given = [[x.numpy() for x in inputs(ROWS)] for _ in range(4)]
    for number in range(4):
        given[number][0] += number
    wanted = [on_a_new_thread(lambda arrays=arrays: two(*arrays)) for arrays in given]
    wrong, barrier = [], threading.Barrier(4)

    def work(number):
        barrier.wait(timeout=60)
        for _ in range(20):
            for got, want in zip(two(*given[number]), wanted[number], strict=True):
                if not np.array_equal(got, want):
                    wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_an_error_in_a_piece_reaches_the_caller(two, monkeypatch):
    given = [x.numpy() for x in inputs(ROWS)]
    want = on_a_new_thread(lambda: two(*given))
    fails, both, seen = iter([False, True]), threading.Barrier(2), set()

    def broken(original):
        def call(tensors, function):
            seen.add(threading.get_ident())
            fail = next(fails, None)
            if fail is not None:
                # The second piece goes to the other thread, however late it wakes up.
                both.wait(timeout=60)
            if fail:
                raise RuntimeError("broken piece")
            return original(tensors, function)

        return call

    monkeypatch.setattr(two._machines, "_machines", broken(two._machines._machines))
    with pytest.raises(RuntimeError, match="broken piece"):
        on_a_new_thread(lambda: two(*given))
    for got, reference in zip(on_a_new_thread(lambda: two(*given)), want, strict=True):
        np.testing.assert_array_equal(got, reference)
    assert len(seen) > 1


class Meeting(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)

    def forward(self, x):
        return self.conv(x - x.mean(0, keepdim=True))


def test_rows_that_meet_stay_together(costs):
    costs(lambda rows: rows**1.5)
    model, x = models.seed_weights(Meeting()).eval(), torch.randn(4, 2, 6, 5)
    exe = driver.compile(driver.import_torch(model, (x,)), "llvm", num_threads=1)
    assert exe.description.batches == ()
    assert exe.description.choice.startswith("at once: relax.mean works along the batch")
    with torch.no_grad():
        np.testing.assert_allclose(exe(x.numpy()), model(x).numpy(), rtol=1e-4, atol=1e-5)


def test_an_input_that_only_looks_like_a_batch(costs):
    """A square table of as many rows as the batch: it is added to every row as a whole."""
    costs(lambda rows: rows**1.5)

    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 4, 3, padding=1)

        def forward(self, x, table):
            return self.conv(x + table)

    model = models.seed_weights(Table()).eval()
    x, table = torch.randn(4, 2, 4, 4), torch.randn(4, 4)
    exe = driver.compile(driver.import_torch(model, (x, table)), "llvm", num_threads=1)
    assert exe.description.batches == ()
    with torch.no_grad():
        want = model(x, table).numpy()
    np.testing.assert_allclose(exe(x.numpy(), table.numpy()), want, rtol=1e-4, atol=1e-5)


def test_a_plan_that_is_given_is_for_the_whole(model, costs):
    costs(lambda rows: rows**1.5)
    mod = driver.import_torch(model, inputs(ROWS))
    _, network, _ = signature.with_batches(mod, None)
    plan = plan_layers(prepare()(network), "llvm")
    exe = driver.compile(mod, "llvm", num_threads=1, plan=plan)
    assert exe.plan == plan and exe.description.choice == "at once: the plan was given"


def test_layers_without_a_prediction_stay_together():
    mod = driver.import_torch(nn.ReLU(), (torch.ones(4, 3),))
    exe = driver.compile(mod, "llvm", num_threads=1)
    assert exe.description.choice == "at once: nothing is known of what its layers take"


def test_networks_without_a_batch():
    scalar = driver.compile(driver.import_torch(nn.ReLU(), (torch.tensor(2.0),)), "llvm")
    assert scalar.description.choice == ""
    mod = module(lambda b, x: b.emit(relax.op.add(x, const(np.ones((1, 3), "float32")))), (1, 3))
    assert driver.compile(mod, "llvm").description.choice == ""


def test_a_function_of_the_users_with_such_a_name(costs):
    costs(lambda rows: rows**1.5)
    mod, other = (module(lambda b, x: b.emit(relax.op.exp(x)), (4, 3)) for _ in range(2))
    mod["batch_1"] = other["main"].with_attr("global_symbol", "batch_1")
    exe = driver.compile(mod, "llvm", num_threads=1)
    assert "has a function 'batch_1' already" in exe.description.choice
    np.testing.assert_allclose(exe(np.zeros((4, 3), "float32")), 1)
