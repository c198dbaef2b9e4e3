"""The cost model: monotone where the work is, and blockings that the kernels can take."""

import dataclasses
import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_sparsewino.config import ConvShape, LayerPlan
from tvm_sparsewino.cook_toom import cook_toom
from tvm_sparsewino.cost import (
    MAX_K_BLOCK,
    Blocking,
    Core,
    predict,
    price,
    ranked,
)
from tvm_sparsewino.cost_prices import PRICES, Prices
from tvm_sparsewino.cost_quantities import Quantities, quantities
from tvm_sparsewino.geometry import kernel_layout, make_panels

AVX2 = Core()
AVX512 = Core(lanes=16, vector_registers=32, l2_bytes=1024 * 1024)
SSE = Core(lanes=4, vector_registers=16, l2_bytes=256 * 1024)
CORES = [SSE, AVX2, AVX512]
P = (1, 1, 1, 1)
# Layers of networks: FFDNet's inner ones on a photo, ResNet-18's, a wide one, and a tiny one.
LAYERS = [
    ConvShape(1, 96, 212, 320, 96, 3, P),
    ConvShape(1, 64, 56, 56, 64, 3, P),
    ConvShape(1, 256, 14, 14, 256, 3, P),
    ConvShape(8, 512, 7, 7, 512, 3, P),
    ConvShape(1, 48, 27, 27, 128, 5, (2, 2, 2, 2)),
    ConvShape(1, 8, 9, 9, 8, 3, P),
]


@pytest.mark.parametrize("core", CORES, ids=lambda core: f"lanes{core.lanes}")
@pytest.mark.parametrize("shape", LAYERS, ids=lambda s: f"{s.c}x{s.h}x{s.w}r{s.r}")
def test_cycles_rise_with_density_and_not_for_dense(shape, core):
    densities = (0.0, 0.02, 0.1, 0.3, 0.6, 1.0)
    sparse = [predict(shape, "sparse_winograd", 4, d, core) for d in densities]
    for a, b in pairwise(sparse):
        assert a.cycles <= b.cycles
        assert a.flops_done < b.flops_done
    assert len({predict(shape, "dense_winograd", 4, d, core) for d in densities}) == 1


@pytest.mark.parametrize("core", CORES[1:], ids=lambda core: f"lanes{core.lanes}")
@pytest.mark.parametrize("shape", LAYERS[:5], ids=lambda s: f"{s.c}x{s.h}x{s.w}r{s.r}")
@pytest.mark.parametrize("m", [2, 4])
def test_dense_is_preferred_without_zeros_and_sparse_with_many(shape, m, core):
    dense = predict(shape, "dense_winograd", m, 1.0, core).cycles
    assert dense < predict(shape, "sparse_winograd", m, 1.0, core).cycles
    assert dense > predict(shape, "sparse_winograd", m, 0.1, core).cycles


@st.composite
def shapes(draw):
    r = draw(st.sampled_from([1, 3, 5]))
    groups = draw(st.sampled_from([1, 2, 3]))
    c, k = groups * draw(st.integers(1, 300)), groups * draw(st.integers(1, 300))
    h, w = r + draw(st.integers(0, 120)), r + draw(st.integers(0, 300))
    return ConvShape(draw(st.integers(1, 4)), c, h, w, k, r, ((r - 1) // 2,) * 4, groups)


@settings(max_examples=25)
@given(
    shapes(),
    st.sampled_from(["sparse_winograd", "dense_winograd"]),
    st.sampled_from([2, 4, 6]),
    st.sampled_from([0.0, 0.1, 1.0]),
    st.sampled_from(CORES),
)
def test_blockings_fit_kernels_and_registers(shape, algorithm, m, density, core):
    cost = predict(shape, algorithm, m, density, core)
    for part in (cost.input_cycles, cost.gemm_cycles, cost.output_cycles):
        assert 0 < part < math.inf
    assert cost.cycles == cost.input_cycles + cost.gemm_cycles + cost.output_cycles
    blocking = cost.blocking
    plan = LayerPlan(
        "layer",
        shape,
        density,
        algorithm,
        m,
        blocking.panel_vectors,
        blocking.k_block,
        blocking.channel_block,
        blocking.rows_at_once,
    )
    layout = kernel_layout(plan, core.lanes)
    assert 1 <= blocking.k_block <= shape.k
    assert layout.k_blocks == 1 or blocking.k_block % 8 == 0
    if algorithm == "sparse_winograd":
        # The broadcast value, and what the compiler needs beside it, must find room as well.
        accumulators = layout.panels.vectors * blocking.rows_at_once
        assert accumulators <= core.vector_registers - 4


@pytest.mark.parametrize("algorithm", ["sparse_winograd", "dense_winograd"])
@pytest.mark.parametrize("core", CORES, ids=lambda core: f"lanes{core.lanes}")
def test_products_of_wide_layers_are_never_in_memory_together(core, algorithm):
    shape = ConvShape(1, 64, 14, 14, 2 * MAX_K_BLOCK, 3, P)
    assert predict(shape, algorithm, 4, 0.2, core).blocking.k_block <= MAX_K_BLOCK


def test_flops_are_counted_exactly():
    """F(2, 3) on one tile of one channel: 16 products, and both transforms' multiply-adds."""
    shape = ConvShape(1, 1, 4, 4, 1, 3)
    nonzero = {
        name: sum(1 for row in getattr(cook_toom(2, 3), name) for c in row if c)
        for name in ("bt", "at")
    }
    assert nonzero == {"bt": 8, "at": 6}
    for density in (1.0, 0.5):
        cost = predict(shape, "sparse_winograd", 2, density, AVX2)
        transforms = 2 * (8 * 4) * 2 // 2 + 2 * (6 * 4)
        assert cost.flops_done == 2 * 16 * density + transforms


def test_more_work_costs_more():
    small, large = LAYERS[1], ConvShape(2, 64, 56, 56, 64, 3, P)
    for algorithm in ("sparse_winograd", "dense_winograd"):
        one, two = (predict(s, algorithm, 4, 0.2, AVX2) for s in (small, large))
        assert two.cycles == pytest.approx(2 * one.cycles, rel=0.1)
        assert predict(small, algorithm, 4, 0.2, AVX512).cycles < one.cycles


@pytest.mark.parametrize("algorithm", ["sparse_winograd", "dense_winograd"])
def test_every_price_counts(algorithm):
    """Each quantity occurs in some layer, and dearer units never make a layer cheaper."""
    matters = set()
    for shape in LAYERS:
        blocking = predict(shape, algorithm, 4, 0.2, AVX2).blocking
        args = (shape, algorithm, 4, 0.2, Core(threads=2), blocking)
        before = price(*args).cycles
        for name, value in dataclasses.asdict(PRICES).items():
            dearer = dataclasses.replace(PRICES, **{name: 2 * value + 1})
            after = price(*args, prices=dearer).cycles
            assert after >= before
            matters |= {name} if after > before else set()
    assert matters == set(dataclasses.asdict(PRICES))


def test_rows_that_panels_cut_count_as_more_segments():
    shape = LAYERS[1]
    whole, cut = (
        quantities(shape, "sparse_winograd", 4, 0.1, AVX2, Blocking(vectors, 64, 8, 2))[0]
        for vectors in (4, 5)
    )
    assert cut.transform_ops < whole.transform_ops
    assert whole.segments == 64 * 14 < cut.segments


def test_cycles_are_quantities_times_prices():
    work = Quantities(steps=10, slices=2)
    assert work.cycles(Prices(steps=1.5, slices=3)) == 21


@pytest.mark.parametrize("shape", LAYERS, ids=lambda s: f"{s.c}x{s.h}x{s.w}r{s.r}")
def test_smaller_caches_never_help(shape):
    small = Core(l1_bytes=16 * 1024, l2_bytes=128 * 1024)
    blocking = predict(shape, "sparse_winograd", 4, 0.1, AVX2).blocking
    args = (shape, "sparse_winograd", 4, 0.1)
    assert price(*args, small, blocking).cycles >= price(*args, AVX2, blocking).cycles


@pytest.mark.parametrize("shape", LAYERS[:4], ids=lambda s: f"{s.c}x{s.h}x{s.w}r{s.r}")
def test_two_threads_take_between_half_and_all_of_the_time(shape):
    one = predict(shape, "sparse_winograd", 2, 0.1, AVX2)
    two = predict(shape, "sparse_winograd", 2, 0.1, Core(threads=2))
    assert 0.5 * one.cycles < two.cycles < one.cycles
    assert not one.split_k


def test_one_panel_is_shared_out_by_output_channels():
    shape = ConvShape(1, 512, 7, 7, 512, 3, P)
    args = (shape, "sparse_winograd", 2, 0.1, Core(threads=2), Blocking(2, 256, 8, 2))
    whole, split = price(*args), price(*args, split_k=True)
    assert split.split_k and split.gemm_cycles < 0.7 * whole.gemm_cycles
    launched = price(*args[:4], AVX2, args[5]).cycles + PRICES.launches
    assert whole.cycles == pytest.approx(launched)  # one panel: the second thread waits


@pytest.mark.parametrize(("structure", "rows", "parts"), [("rows2", 2, 2), ("rows4", 4, 3)])
def test_shared_rows_walk_a_wide_panel_in_parts(structure, rows, parts):
    """Seven vectors: 6 or 3 fit 16 registers, so every slice is walked two or three times."""
    blocking = Blocking(7, 128, 8, rows)
    shape = ConvShape(1, 128, 28, 28, 128, 3, P)
    middle = quantities(shape, "sparse_winograd", 4, 0.1, AVX2, blocking, structure)[1]
    assert middle.slices == parts * 36 * 128 / rows
    on_avx512 = dataclasses.replace(AVX2, vector_registers=32)
    middle = quantities(shape, "sparse_winograd", 4, 0.1, on_avx512, blocking, structure)[1]
    assert middle.slices == (parts - 1) * 36 * 128 / rows


@pytest.mark.parametrize("structure", ["rows2", "rows4", "kernel"])
def test_structures_of_zeros_save(structure):
    blocking = Blocking(3, 64, 8, {"rows2": 2, "rows4": 4}.get(structure, 2))
    args = (LAYERS[1], "sparse_winograd", 4, 0.2, AVX2, blocking)
    free, bound = (quantities(*args, s)[1] for s in ("unstructured", structure))
    assert bound.weight_lines < free.weight_lines
    assert bound.steps <= free.steps
    best = predict(*args[:5], structure)
    assert best.blocking.rows_at_once == blocking.rows_at_once or structure == "kernel"


def test_all_blockings_are_ranked():
    costs = ranked(LAYERS[1], "sparse_winograd", 4, 0.1, AVX2)
    assert costs[0] == predict(LAYERS[1], "sparse_winograd", 4, 0.1, AVX2)
    assert [c.cycles for c in costs] == sorted(c.cycles for c in costs)
    assert len({c.blocking for c in costs}) == len(costs) > 10


def test_blocking_is_what_a_plan_takes():
    assert tuple(Blocking.__dataclass_fields__) == (
        "panel_vectors",
        "k_block",
        "channel_block",
        "rows_at_once",
    )


def test_products_in_the_place_of_inputs_miss_l2_less():
    """Half of the scratch, where a task computes one block of output channels."""
    shape, blocking = ConvShape(1, 128, 28, 28, 128, 3, (1, 1, 1, 1)), Blocking(4, 64, 16, 2)

    def misses(**how):
        sizes = dataclasses.replace(blocking, **how.pop("sizes", {}))
        kind = ("sparse_winograd", 4, 0.1, AVX2, sizes)
        return quantities(shape, *kind, **how)[1].l2_misses

    assert misses(split_k=True) < misses()
    assert misses(sizes={"k_block": 128}) < misses()


def test_wide_panels_of_large_tiles_turn_pages():
    """12 vectors of F(6,3): a channel's 64 rows lie 3 KB apart, in 48 pages; 5 vectors in 20."""
    shape = ConvShape(1, 64, 112, 112, 128, 3, P)

    def turns(m, vectors):
        blocking = Blocking(vectors, 128, 8, 1)
        stages = quantities(shape, "sparse_winograd", m, 0.1, AVX2, blocking)
        return [stage.page_turns for stage in stages]

    first, middle, last = turns(6, 12)
    assert first == pytest.approx(64 * 48 * 64 * (1 - 24 / 48))
    assert last == 2 * first and middle == 0
    assert turns(6, 5) == turns(4, 7) == [0, 0, 0]
    best = predict(shape, "sparse_winograd", 6, 0.1, AVX2).blocking
    assert (best.panel_vectors, best.rows_at_once) == (5, 2)


def test_a_panel_left_over_is_shared_out():
    """Five panels for two threads: 2.5 of each stage but the inputs, of which each transforms 3."""
    shape = ConvShape(1, 128, 56, 56, 256, 3, P)
    args = (shape, "sparse_winograd", 4, 0.1, Core(threads=2), Blocking(5, 128, 8, 2))
    whole, shared = price(*args), price(*args, split_k=True, sharers=2)
    one = price(*args[:4], AVX2, Blocking(5, 256, 8, 2))
    assert shared.sharers == 2 and shared.cycles < whole.cycles
    assert shared.input_cycles == pytest.approx(0.6 * one.input_cycles)
    assert shared.output_cycles == pytest.approx(0.5 * one.output_cycles)
    assert shared.gemm_cycles == pytest.approx(0.5 * one.gemm_cycles + PRICES.launches)


def test_only_panels_that_are_left_over_are_shared_out():
    """28 x 28: one panel or two, which two threads share as they are."""
    shape = ConvShape(1, 128, 28, 28, 128, 3, P)
    args = (shape, "sparse_winograd", 4, 0.1)
    for cost in ranked(*args, Core(threads=2)):
        count = make_panels(shape, 4, 8, cost.blocking.panel_vectors).count
        assert not cost.sharers or (count > 2 and count % 2)
    assert any(cost.sharers for cost in ranked(*args, Core(threads=2)))
    assert not any(cost.sharers for cost in ranked(*args, AVX2))


ZEN4 = Core(lanes=16, vector_registers=32, l2_bytes=1024 * 1024, vectors_per_cycle=1.0)


def test_half_of_wide_registers_is_compared_where_they_are_worked_on_in_halves():
    """Large maps gain, for most of their time goes into transforms; narrow panels do not."""
    large, small = ConvShape(1, 64, 112, 112, 64, 3, P), ConvShape(1, 512, 7, 7, 512, 3, P)
    for shape, m, lanes in ((large, 4, 8), (small, 2, 0)):
        assert predict(shape, "sparse_winograd", m, 0.1, ZEN4).lanes == lanes
    assert {cost.lanes for cost in ranked(large, "sparse_winograd", 4, 0.1, ZEN4)} == {0, 8}
    assert predict(large, "sparse_winograd", 4, 0.1, AVX512).lanes == 0
    assert {cost.lanes for cost in ranked(large, "sparse_winograd", 4, 0.1, AVX2)} == {0}


def test_halves_take_as_long_as_what_half_the_lanes_do():
    """Of a product whose inputs stay in L1 and whose panel is as wide."""
    shape = ConvShape(1, 32, 56, 56, 32, 3, P)
    wide, narrow = (
        price(shape, "dense_winograd", 4, 1.0, core, Blocking(vectors, 32, 8, 8))
        for core, vectors in ((ZEN4, 3), (ZEN4.widths()[1], 6))
    )
    assert wide.gemm_cycles == pytest.approx(narrow.gemm_cycles, rel=0.1)
    assert (
        price(shape, "dense_winograd", 4, 1.0, AVX512, Blocking(3, 32, 8, 8)).gemm_cycles
        < 0.7 * wide.gemm_cycles
    )
