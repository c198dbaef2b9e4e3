"""Rows put together from batch sizes: which ones, and that every row comes out in its place."""

import dataclasses
import itertools

import numpy as np
import pytest

from tvm_sparsewino._compat import from_dlpack
from tvm_sparsewino.artefact import Description, TensorInfo
from tvm_sparsewino.batches import AnyBatch, Pieces, checked_sizes, predicted_costs
from tvm_sparsewino.config import ConvShape, LayerPlan
from tvm_sparsewino.errors import ConfigError, ShapeError
from tvm_sparsewino.exchange import any_tensor, array_of


def cheapest(costs, rows):
    """The least cost of calls for at least so many rows, by trying all that are not too many."""
    most = [range(-(-rows // size) + 1) for size in costs]
    counts = itertools.product(*most)
    enough = (c for c in counts if sum(n * s for n, s in zip(c, costs, strict=True)) >= rows)
    return min(sum(n * costs[s] for n, s in zip(c, costs, strict=True)) for c in enough)


@pytest.mark.parametrize(
    "costs",
    [
        {1: 10.0, 4: 25.0, 16: 80.0},
        {1: 10.0, 4: 40.0, 16: 160.0},
        {1: 1.0, 4: 40.0},
        {3: 7.0, 5: 10.0},
        {1: 30.0, 8: 31.0},
        {6: 1.0},
    ],
)
def test_pieces_are_the_cheapest(costs):
    pieces = Pieces(costs)
    for rows in range(1, 3 * max(costs)):
        chosen = pieces(rows)
        assert sum(chosen) >= rows and set(chosen) <= set(costs)
        assert list(chosen) == sorted(chosen, reverse=True)
        if rows <= 2 * max(costs):
            assert sum(costs[size] for size in chosen) == pytest.approx(cheapest(costs, rows))


def test_many_rows_take_the_size_that_is_cheapest_per_row():
    chosen = Pieces({1: 10.0, 4: 25.0, 16: 80.0})(100_003)
    assert sum(chosen) >= 100_003
    assert chosen.count(16) >= 100_003 // 16 - 2 and sum(chosen) - 100_003 < 4


def test_equal_costs_take_few_calls_and_few_rows():
    assert Pieces({1: 1.0, 4: 4.0, 16: 16.0})(16) == (16,)
    assert Pieces({2: 5.0, 4: 5.0})(1) == (2,)


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
    assert predicted_costs(description()) == {1: 1.5, 4: 4.5}
    assert predicted_costs(description({1: 1e6})) == {1: 1.5, 4: 4.5}  # a part says nothing


def test_maps_that_no_cache_keeps_make_large_batches_dear():
    def costs(side):
        plan = tuple(
            LayerPlan(
                f"conv@batch_{size}",
                ConvShape(size, 64, side, side, 64, 3, (1, 1, 1, 1)),
                1.0,
                "left",
                cost_cycles=1e6 * size,
            )
            for size in (1, 16)
        )
        return predicted_costs(dataclasses.replace(description(batches=(1, 16)), plan=plan))

    assert Pieces(costs(28))(16) == (16,)  # 3 MB
    assert Pieces(costs(112))(16) == (1,) * 16  # 51 MB


class Functions:
    """Stands for the machines: x * s[0] + s[1] and the sums of its rows; notes its calls."""

    def __init__(self):
        self.calls = []

    def __call__(self, tensors, function):
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


def test_batch_sizes_must_agree():
    infos = (TensorInfo("x", ("n", 3), "float32"), TensorInfo("s", ("n",), "float32"))
    batched = AnyBatch(Functions(), dataclasses.replace(description(), inputs=infos))
    with pytest.raises(ShapeError, match=r"must have one batch size, got \{'x': 2, 's': 3\}"):
        run(batched, np.zeros((2, 3), np.float32), np.zeros(3, np.float32))
    with pytest.raises(ShapeError, match=r"at least one row, got \{'x': 0, 's': 0\}"):
        run(batched, np.zeros((0, 3), np.float32), np.zeros(0, np.float32))
