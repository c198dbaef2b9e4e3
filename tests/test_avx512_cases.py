"""The cases of the emulated CPU: each kernel variant that a plan can name is among them."""

import dataclasses

import pytest
from avx512_cases import CASES, CPU, LANES, REGISTERS, name_of
from kernel_cases import (
    DENSE,
    DIRECT,
    EPILOGUES,
    PLAIN,
    SPARSE,
    SPARSE_DIRECT,
    SPATIAL,
    conv,
    expected,
    operands,
)

from tvm_sparsewino.config import ALGORITHMS, STRUCTURES
from tvm_sparsewino.cost import Core, blockings
from tvm_sparsewino.cost_direct import predict_direct
from tvm_sparsewino.cost_sparse import ranked_sparse_direct
from tvm_sparsewino.geometry import kernel_layout
from tvm_sparsewino.geometry_depthwise import depthwise_layout, is_depthwise
from tvm_sparsewino.geometry_direct import direct_layout
from tvm_sparsewino.geometry_sparse import register_tile, sparse_layout
from tvm_sparsewino.schedules.depthwise import UNROLLED_TAPS
from tvm_sparsewino.schedules.shared_gemm import vector_parts
from tvm_sparsewino.structure import detect_structure

TILES = {(2, 3), (4, 3), (6, 3), (2, 5), (4, 5), (2, 7)}
CORE = Core(LANES, REGISTERS, l2_bytes=CPU.l2_bytes)


def chosen(algorithm, structure="unstructured"):
    return [c for c in CASES if (c.algorithm, c.structure) == (algorithm, structure)]


def test_they_are_of_the_target():
    assert (LANES, REGISTERS) == (16, 32)
    assert {(c.lanes, c.registers) for c in CASES} == {(16, 32), (8, 32)}
    assert len({name_of(c) for c in CASES}) == len(CASES)


@pytest.mark.parametrize("algorithm", [a for a in ALGORITHMS if a != "left"])
def test_every_algorithm(algorithm):
    assert chosen(algorithm)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_every_structure_with_several_tiles(structure):
    """And with weights of that structure, which fill it without padding."""
    cases = chosen(SPARSE, structure)
    assert len({c.m for c in cases}) > 1
    found = {detect_structure(operands(c)[1], c.shape.groups) for c in cases if c.has_it}
    assert structure in found


@pytest.mark.parametrize("algorithm", [SPARSE, DENSE])
def test_every_tile(algorithm):
    assert {(c.m, c.shape.r) for c in CASES if c.algorithm == algorithm} == TILES


@pytest.mark.parametrize("structure", STRUCTURES)
def test_all_rows_at_once_that_the_planner_may_choose(structure):
    shape = conv(28, 28, c=64, k=64)
    choices = {b.rows_at_once for b in blockings(shape, SPARSE, 4, CORE, structure)}
    assert choices and {c.rows_at_once for c in chosen(SPARSE, structure)} >= choices


def test_all_rows_at_once_of_the_other_kernels():
    shape = conv(28, 28, c=64, k=64)
    choices = {b.rows_at_once for b in blockings(shape, DENSE, 4, CORE)}
    assert {c.rows_at_once for c in chosen(DENSE)} >= choices
    assert {c.rows_at_once for c in chosen(SPARSE)} >= {1, 2, 3, 4}
    rows = predict_direct(shape, CORE).blocking.rows_at_once
    assert rows in {c.rows_at_once for c in chosen(DIRECT)}


@pytest.mark.parametrize("algorithm", [SPARSE, DIRECT, SPARSE_DIRECT])
def test_every_epilogue(algorithm):
    assert {c.epilogue for c in CASES if c.algorithm == algorithm} >= set(EPILOGUES)


@pytest.mark.parametrize("case", [c for c in CASES if c.epilogue != PLAIN], ids=name_of)
def test_epilogues_have_something_to_do(case):
    """Outputs on both sides of 0, and of 6 where that matters."""
    plain, _ = expected(dataclasses.replace(case, epilogue=PLAIN), *operands(case))
    if case.density > 0:
        assert plain.min() < 0
        assert plain.max() > (12 if case.epilogue.activation == "relu6" else 0)


@pytest.mark.parametrize("algorithm", [SPARSE, DENSE])
def test_both_ways_to_share_the_work(algorithm):
    assert {c.split_k for c in CASES if c.algorithm == algorithm} == {True, False}


@pytest.mark.parametrize("algorithm", [SPARSE, DENSE, DIRECT, SPARSE_DIRECT])
def test_shapes_of_every_kind(algorithm):
    shapes = [c.shape for c in CASES if c.algorithm == algorithm]
    assert max(s.n for s in shapes) > 1 and max(s.groups for s in shapes) > 1
    assert any(len(set(s.padding)) > 2 for s in shapes)
    assert any(s.oh % 2 and s.ow % 2 and s.ow > 16 for s in shapes)
    assert any(s.oh == s.ow == 1 for s in shapes)
    assert max(c.density for c in CASES if c.algorithm == algorithm) == 1


def test_sparse_cases_without_any_nonzero():
    assert min(c.density for c in chosen(SPARSE)) == 0
    assert min(c.density for c in chosen(SPARSE_DIRECT)) == 0


def test_panels_of_every_kind():
    """Rows of tiles that are cut into panels, and panels of several rows, images or parts."""
    cases = [c for c in CASES if c.algorithm not in SPATIAL]
    panels = [kernel_layout(c.plan, c.lanes).panels for c in cases]
    assert any(p.segments > 1 for p in panels)
    assert any(p.cuts_rows for p in panels)
    assert any(p.rows > p.tiles_y for p in panels)
    shared = zip(cases, panels, strict=True)
    shared = [(c, p) for c, p in shared if c.structure.startswith("rows")]
    parts = [vector_parts(p.vectors, c.rows_at_once, REGISTERS) for c, p in shared]
    assert max(map(len, parts)) > 1


def test_direct_layouts_of_every_kind():
    plans = [c.plan for c in chosen(DIRECT) if not is_depthwise(c.shape)]
    layouts = [direct_layout(plan, LANES) for plan in plans]
    assert {layout.kind for layout in layouts} == {"plain", "shifted", "tiled"}
    assert {layout.from_map for layout in layouts if layout.kind == "tiled"} == {True, False}
    blocks = {(layout.channel_blocks > 1, layout.kind) for layout in layouts}
    assert blocks >= {(True, kind) for kind in ("plain", "shifted", "tiled")}
    assert {layout.slices_outside for layout in layouts} == {True, False}
    assert max(layout.k_blocks for layout in layouts) > 1
    assert max(layout.panels for layout in layouts) > 1
    assert {layout.shape.r for layout in layouts} >= {1, 3, 5, 7}


def test_depthwise_layouts_of_every_kind():
    plans = [c.plan for c in chosen(DIRECT) if is_depthwise(c.shape)]
    layouts = [depthwise_layout(plan, LANES) for plan in plans]
    assert {layout.shape.stride for layout in layouts} == {(1, 1), (2, 2)}
    assert max(layout.panels for layout in layouts) > 1
    assert max(layout.outputs for layout in layouts) > 1
    assert {layout.shape.taps > UNROLLED_TAPS for layout in layouts} == {True, False}


def test_sparse_direct_layouts_of_every_kind():
    layouts = [sparse_layout(c.plan, LANES) for c in chosen(SPARSE_DIRECT)]
    assert {(x.in_place, x.is_merged) for x in layouts} >= {(True, True), (False, True), (False, 0)}
    assert {x.slices_outside for x in layouts} == {True, False}
    assert max(x.k_blocks for x in layouts) > 1 and max(x.panels for x in layouts) > 1
    assert {x.channel_blocks > 1 for x in layouts} == {True, False}
    tiles = [register_tile(x, REGISTERS) for x in layouts]
    assert {(t.is_buffered, t.lines > 1, t.lines > 0) for t in tiles} >= {
        (True, True, True),
        (False, True, True),
        (False, False, False),
    }
    assert {s.stride for s in (x.shape for x in layouts)} >= {(1, 1), (2, 2), (1, 3)}
    costs = ranked_sparse_direct(conv(28, 28, c=64, k=64), 0.1, CORE)
    rows = {cost.blocking.rows_at_once for cost in costs}
    assert {x.rows_at_once for x in layouts} >= rows
