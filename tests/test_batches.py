"""Rows put together from batch sizes: which ones, and that every row comes out in its place."""

import dataclasses
import threading

import numpy as np
import pytest

from tvm_sparsewino import batch_costs, batches
from tvm_sparsewino._compat import from_dlpack
from tvm_sparsewino.artefact import Description, TensorInfo
from tvm_sparsewino.batches import AnyBatch, checked_sizes, predicted_costs
from tvm_sparsewino.config import LayerPlan
from tvm_sparsewino.errors import ConfigError, ShapeError
from tvm_sparsewino.exchange import any_tensor, array_of


@pytest.mark.parametrize("sizes", [(), (0,), (1, 1), (-4,), (2.0,), (True,), ("4",)])
def test_sizes_that_are_none_are_refused(sizes):
    with pytest.raises(ConfigError, match="batches must be different positive numbers, got"):
        checked_sizes(sizes)


def test_sizes_come_in_order():
    assert checked_sizes(iter([16, 1, 4])) == (1, 4, 16)


def description(costs=None, batches=(1, 4)):
    plan = tuple(
        LayerPlan(f"conv@batch_{size}", None, 1.0, "left", cost_cycles=cycles)
        for size, cycles in (costs or {}).items()
    )
    return Description(
        inputs=(TensorInfo("x", ("n", 3), "float32"), TensorInfo("s", (2,), "float32")),
        outputs=(TensorInfo("a", ("n", 3), "float32"), TensorInfo("b", ("n",), "float32")),
        returns_tuple=True,
        target="llvm",
        features=(),
        plan=plan,
        weights="",
        constants={},
        versions={},
        batches=batches,
    )


def test_costs_are_the_plans_with_something_for_the_call():
    assert predicted_costs(description({1: 1e6, 4: 3e6})) == {1: 1.05e6, 4: 3.05e6}
    two = dataclasses.replace(description({1: 1e6, 4: 3e6}), threads=2)
    assert predicted_costs(two) == {1: 2.05e6, 4: 6.05e6}
    assert predicted_costs(description()) == {1: 1.5, 4: 4.5}
    assert predicted_costs(description({1: 1e6})) == {1: 1.5, 4: 4.5}  # a part says nothing


class Functions:
    """Stands for the machines: x * s[0] + s[1] and the sums of its rows; notes its calls."""

    def __init__(self, meet=None):
        self.calls, self.threads, self.meet = [], set(), meet

    def __call__(self, tensors, function):
        if self.meet:
            self.meet.wait(timeout=60)
        self.threads.add(threading.get_ident())
        x, s = map(array_of, tensors)
        assert function == f"batch_{len(x)}"
        self.calls.append(x.copy())
        y = x * s[0] + s[1]
        return list(map(from_dlpack, (y, y.sum(axis=1))))


def run(batched, x, s):
    infos = batched._description.inputs
    tensors = [any_tensor(info, a) for info, a in zip(infos, (x, s), strict=True)]
    return [np.array(array_of(output)) for output in batched(tensors)]


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 7, 8, 16, 21])
def test_every_row_is_in_its_place(rows):
    functions = Functions()
    batched = AnyBatch(functions, description({1: 1e6, 4: 2.5e6}))
    x = np.random.default_rng(rows).standard_normal((rows, 3)).astype(np.float32)
    s = np.array([2, -3], np.float32)
    a, b = run(batched, x, s)
    np.testing.assert_array_equal(a, x * s[0] + s[1])
    np.testing.assert_array_equal(b, a.sum(axis=1))
    # 3 rows are cheaper as 4; the row that is too many is zero.
    sizes = [len(call) for call in functions.calls]
    assert sizes == [4] * (rows // 4) + {0: [], 1: [1], 2: [1, 1], 3: [4]}[rows % 4]
    if rows % 4 == 3:
        np.testing.assert_array_equal(functions.calls[-1][3], 0)


@pytest.fixture
def two_threads(monkeypatch):
    """Pieces run on two threads, however little they take."""
    monkeypatch.setattr(batches, "threads_in_use", lambda: 2)
    monkeypatch.setattr(batch_costs, "_HANDING_OVER", -1e9)


@pytest.mark.parametrize("rows", [4, 16, 21])
def test_every_row_is_in_its_place_side_by_side(two_threads, rows):
    alone = AnyBatch(Functions(), description({1: 1e6}, (1,)))
    x = np.random.default_rng(rows).standard_normal((rows, 3)).astype(np.float32)
    s = np.array([2, -3], np.float32)
    a, b = run(alone, x, s)
    np.testing.assert_array_equal(a, x * s[0] + s[1])
    np.testing.assert_array_equal(b, a.sum(axis=1))


def test_pieces_are_under_way_at_the_same_time(two_threads):
    functions = Functions(threading.Barrier(2))
    batched = AnyBatch(functions, description({1: 1e6}, (1,)))
    for _ in range(2):
        run(batched, np.ones((6, 3), np.float32), np.ones(2, np.float32))
    assert len(functions.threads) == 2 and threading.get_ident() in functions.threads


def test_an_error_on_another_thread_reaches_the_caller(two_threads):
    class Broken(Functions):
        def __call__(self, tensors, function):
            both.wait(timeout=60)
            if threading.get_ident() != caller:
                raise ValueError("broken")
            return super().__call__(tensors, function)

    caller, both, functions = threading.get_ident(), threading.Barrier(2), Broken()
    batched = AnyBatch(functions, description({1: 1e6}, (1,)))
    with pytest.raises(ValueError, match="broken"):
        run(batched, np.ones((2, 3), np.float32), np.ones(2, np.float32))


def test_batch_sizes_must_agree():
    infos = (TensorInfo("x", ("n", 3), "float32"), TensorInfo("s", ("n",), "float32"))
    batched = AnyBatch(Functions(), dataclasses.replace(description(), inputs=infos))
    with pytest.raises(ShapeError, match=r"must have one batch size, got \{'x': 2, 's': 3\}"):
        run(batched, np.zeros((2, 3), np.float32), np.zeros(3, np.float32))
    with pytest.raises(ShapeError, match=r"at least one row, got \{'x': 0, 's': 0\}"):
        run(batched, np.zeros((0, 3), np.float32), np.zeros(0, np.float32))
