"""Which pieces, and how they run on some threads: what is predicted to be fastest."""

import itertools

import pytest

from tvm_sparsewino.batch_costs import Pieces, Round, call_cycles, rounds
from tvm_sparsewino.config import ConvShape, LayerPlan

LARGE = {1: 20e6, 4: 78e6}
TINY = {1: 60e3, 4: 150e3}


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


@pytest.mark.parametrize(
    ("pieces", "threads", "expected"),
    [
        ((1,) * 16, 1, [Round(1, 16, 1, 1)]),
        ((1,) * 16, 2, [Round(1, 16, 2, 1)]),
        ((1,) * 5, 2, [Round(1, 4, 2, 1), Round(1, 1, 1, 2)]),  # the last one has both threads
        ((1,) * 3, 8, [Round(1, 3, 3, 2)]),
        ((1,) * 7, 4, [Round(1, 4, 4, 1), Round(1, 3, 3, 1)]),
        ((4,), 4, [Round(4, 1, 1, 4)]),
        ((4, 4, 1), 2, [Round(4, 2, 2, 1), Round(1, 1, 1, 2)]),
    ],
)
def test_large_pieces_run_side_by_side(pieces, threads, expected):
    assert list(rounds(pieces, LARGE, threads)) == expected


@pytest.mark.parametrize("threads", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("costs", [LARGE, TINY])
def test_every_piece_runs_once_and_no_thread_is_taken_twice(threads, costs):
    for fours, ones in itertools.product(range(9), range(1, 9)):
        pieces = (4,) * fours + (1,) * ones
        found = rounds(pieces, costs, threads)
        assert tuple(p.size for p in found for _ in range(p.count)) == pieces
        assert all(1 <= p.at_once <= p.count and p.at_once * p.threads <= threads for p in found)


def test_pieces_that_take_less_than_handing_over_run_one_after_another():
    assert rounds((1, 1), TINY, 2) == (Round(1, 2, 1, 2),)
    assert rounds((1,) * 8, {1: 1.5}, 2) == (Round(1, 8, 1, 2),)  # rows say nothing


def layer(rows, side, cycles, algorithm="sparse_winograd"):
    shape = ConvShape(rows, 64, side, side, 64, 3, (1, 1, 1, 1))
    return LayerPlan("a", shape, 1.0, algorithm, m=4, cost_cycles=cycles)


def test_a_call_takes_its_layers_on_all_threads_and_something_for_itself():
    layers = [layer(1, 28, 1e6), layer(1, 28, 2e6)]
    one, two = call_cycles(layers, 1), call_cycles(layers, 2)
    assert one == pytest.approx(3.05e6) and two == pytest.approx(6.05e6)
    assert call_cycles([], 1) == 0
    assert call_cycles([LayerPlan("a", None, 1.0, "left", reason="left")], 1) == 0


def test_maps_that_no_cache_keeps_make_large_batches_dear():
    def costs(side):
        return {rows: call_cycles([layer(rows, side, 1e6 * rows)], 1) for rows in (1, 16)}

    assert Pieces(costs(28))(16) == (16,)  # 3 MB
    assert Pieces(costs(112))(16) == (1,) * 16  # 51 MB
