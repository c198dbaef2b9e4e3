"""The cost model of the sparse direct convolution: what must hold whatever the constants are."""

from dataclasses import astuple

import pytest

from tvm_sparsewino.config import ConvShape, LayerPlan
from tvm_sparsewino.cost import Core
from tvm_sparsewino.cost_sparse import predict_sparse_direct, ranked_sparse_direct
from tvm_sparsewino.cost_sparse_work import count_work, memory_bytes
from tvm_sparsewino.errors import ShapeError
from tvm_sparsewino.geometry_sparse import register_tile, sparse_layout

SHAPES = [
    ConvShape(1, 64, 56, 56, 256, 1),
    ConvShape(1, 256, 56, 56, 512, 1, stride=2),
    ConvShape(1, 128, 28, 28, 128, 3, (1, 1, 1, 1)),
    ConvShape(2, 32, 7, 7, 64, 3, (1, 1, 1, 1), 4),
    ConvShape(1, 3, 64, 64, 16, 7, (3, 3, 3, 3), stride=2),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("core", [Core(), Core(16, 32, l2_bytes=2**20), Core(4, threads=2)])
def test_more_nonzeros_cost_more(shape, core):
    costs = [predict_sparse_direct(shape, d, core) for d in (0.0, 0.05, 0.2, 1.0)]
    cycles = [cost.cycles for cost in costs]
    assert cycles == sorted(cycles) and 0 < cycles[0] < cycles[-1]
    assert [cost.flops_done for cost in costs][-1] == shape.direct_flops
    assert all(0 < cost.blocking.rows_at_once <= shape.k // shape.groups for cost in costs)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_never_below_the_floor(shape):
    """Two loads a cycle, one of which every product needs."""
    products = shape.direct_flops / 2 / Core().lanes
    assert predict_sparse_direct(shape, 1.0, Core()).cycles > products / 2


def test_blockings_are_told_apart_and_ranked():
    costs = ranked_sparse_direct(SHAPES[2], 0.1, Core())
    assert len(costs) == len({cost.blocking for cost in costs}) > 3
    assert [c.cycles for c in costs] == sorted(c.cycles for c in costs)


def test_large_maps_are_not_copied_whole():
    shape = ConvShape(1, 64, 1080, 1920, 64, 3, (1, 1, 1, 1))
    for cost in ranked_sparse_direct(shape, 0.1, Core()):
        plan = LayerPlan("", shape, 0.1, "sparse_direct", 0, *astuple(cost.blocking))
        assert memory_bytes(sparse_layout(plan, 8), Core()) < 4 * 2**20


def test_two_threads_share_a_map_that_one_panel_would_hold():
    shape = ConvShape(1, 512, 7, 7, 512, 3, (1, 1, 1, 1))
    one, two = (predict_sparse_direct(shape, 0.1, Core(threads=n)).cycles for n in (1, 2))
    assert two < 0.7 * one


def test_a_shape_that_no_kernel_takes():
    with pytest.raises(ShapeError, match="smaller than the filter"):
        predict_sparse_direct(ConvShape(1, 4, 2, 2, 4, 3), 0.1, Core())


@pytest.mark.parametrize(("vectors", "lines"), [(4, 2.5), (8, 4.5), (12, 8.5)])
def test_lines_that_come_for_a_run_of_a_channel(vectors, lines):
    """Behind more than four lines the CPU fetches others that nobody reads."""
    shape = ConvShape(1, 512, 32, 32, 128, 1)
    core = Core(l1_bytes=1)
    layout = sparse_layout(LayerPlan("", shape, 0.1, "sparse_direct", 0, vectors, 0, 0, 1), 8)
    tile = register_tile(layout, core.vector_registers)
    assert tile.vectors == vectors
    steps = layout.panels * tile.count * 128 * 0.1 * 512
    assert count_work(layout, 0.1, core).missed_lines / steps == pytest.approx(lines, rel=1e-3)


def test_a_run_of_every_channel_that_l1_holds_is_better_than_a_whole_map():
    """Inputs that outgrow L1 by far cost lines; a run is copied once, and then in L1."""
    shape, core = ConvShape(1, 256, 14, 14, 1024, 1), Core()

    def work(vectors):
        plan = LayerPlan("", shape, 0.1, "sparse_direct", 0, vectors, 0, 0, 4)
        return count_work(sparse_layout(plan, 8), 0.1, core)

    assert work(3).missed_lines < work(0).missed_lines / 2
    assert work(2).missed_lines < work(3).missed_lines
    assert predict_sparse_direct(shape, 0.1, core).blocking.panel_vectors in (3, 4, 5, 6)


ZEN4 = Core(16, 32, l2_bytes=2**20, vectors_per_cycle=1.0)


def test_half_of_the_lanes_is_chosen_where_whole_lines_would_lie_across_two():
    rows_of_planes = ConvShape(1, 128, 56, 56, 128, 3, (1, 1, 1, 1), stride=2)
    assert {cost.lanes for cost in ranked_sparse_direct(rows_of_planes, 0.1, ZEN4)} == {0, 8}
    assert predict_sparse_direct(rows_of_planes, 0.1, ZEN4).lanes == 8
    assert {cost.lanes for cost in ranked_sparse_direct(rows_of_planes, 0.1, Core())} == {0}


def test_wide_cores_may_copy_what_they_could_read_in_place():
    shape = ConvShape(1, 256, 56, 56, 128, 1)
    assert {cost.copied for cost in ranked_sparse_direct(shape, 0.1, ZEN4)} == {False, True}
    assert predict_sparse_direct(shape, 0.1, ZEN4).copied
    odd = ConvShape(1, 256, 15, 15, 128, 1)  # copied anyway
    for core, of in ((ZEN4, odd), (Core(), shape), (Core(4, 32), shape)):
        assert {cost.copied for cost in ranked_sparse_direct(of, 0.1, core)} == {False}
