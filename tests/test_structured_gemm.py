"""Kernels for structures of zeros: against the float64 oracle, and their machine code.

Any weights can be stored in any structure, so the oracle sees weights without one as well: exact
zeros complete the pattern there.
"""

import numpy as np
import pytest
from kernel_cases import Case, check, conv, operands, run
from kernel_checks import check_reach, check_scratch, check_threads
from test_kernel_code import CPUS, fma_loops

from tvm_sparsewino import _compat
from tvm_sparsewino.config import ConvShape, Epilogue, LayerPlan
from tvm_sparsewino.geometry import kernel_layout
from tvm_sparsewino.packing import pack
from tvm_sparsewino.schedules.build import build_conv, kernel_name
from tvm_sparsewino.schedules.shared_gemm import vector_parts
from tvm_sparsewino.schedules.target import parse_target

STRUCTURES = ("balanced", "rows2", "rows4", "kernel")


def cases(structure):
    rows = {"rows2": 2, "rows4": 4}.get(structure, 2)
    give = {"structure": structure, "rows_at_once": rows}
    yield Case(conv(9, 11, n=2, c=9, k=8), 4, panel_vectors=3, lanes=8, **give)
    # Channels that do not divide; blocks that cut slices; groups; three rows at once.
    yield Case(conv(5, 9, c=9, k=7), k_block=3, **give)
    yield Case(conv(5, 9, c=6, k=9, groups=3, n=2), k_block=4, **give)
    yield Case(conv(5, 9, c=4, k=10, groups=2), k_block=7, channel_block=1, **give)
    give["rows_at_once"] = 3
    yield Case(conv(5, 9, c=9, k=7), channel_block=0, **give)
    # One channel, no zeros, nothing but zeros, another filter.
    give["rows_at_once"] = rows
    yield Case(conv(1, 1, c=1, k=1), density=1.0, **give)
    yield Case(conv(5, 9, c=9, k=7), density=1.0, k_block=4, **give)
    yield Case(conv(5, 9, c=9, k=7), density=0.0, **give)
    yield Case(conv(6, 9, r=5, padding=(2, 2, 2, 2)), m=2, lanes=8, **give)
    # Weights without the structure, and a bias and a ReLU behind it.
    yield Case(conv(9, 11, c=9, k=7), k_block=5, has_it=False, **give)
    epilogue = Epilogue(True, True, "relu")
    yield Case(conv(9, 11, c=9, k=8), density=0.2, epilogue=epilogue, **give)


@pytest.mark.parametrize("case", [c for s in STRUCTURES for c in cases(s)], ids=str)
def test_kernel_is_the_oracle(case):
    check(case)


# Seven vectors of tiles, which registers cannot hold for all rows at once.
PARTS = [
    Case(conv(16, 28, c=9, k=8), 4, panel_vectors=7, rows_at_once=4, structure="rows4"),
    Case(conv(16, 28, c=9, k=8), 4, panel_vectors=7, rows_at_once=2, structure="rows2"),
    Case(
        conv(16, 28, c=9, k=8), 4, panel_vectors=7, rows_at_once=4, structure="rows2", registers=4
    ),
]


@pytest.mark.parametrize("case", PARTS, ids=str)
def test_panels_in_parts(case):
    vectors = kernel_layout(case.plan, case.lanes).panels.vectors
    assert len(vector_parts(vectors, case.rows_at_once, case.registers)) > 1
    check(case)


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("registers", [4, 16, 32])
def test_parts_are_even_and_fit(rows, registers):
    for vectors in range(1, 17):
        parts = vector_parts(vectors, rows, registers)
        assert sum(parts) == vectors and max(parts) - min(parts) <= 1
        needed = rows * max(parts) + min(rows, max(parts)) + 1
        assert needed <= registers or max(parts) == 1
        # No fewer parts would do.
        fewer = -(-vectors // (len(parts) - 1)) if len(parts) > 1 else None
        assert fewer is None or rows * fewer + min(rows, fewer) + 1 > registers


def many_panels(structure):
    shape = conv(9, 11, n=3, c=9, k=7)
    return Case(shape, panel_vectors=3, k_block=3, rows_at_once=2, structure=structure)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_same_bits_from_run_to_run_and_with_any_number_of_threads(structure):
    case = many_panels(structure)
    assert kernel_layout(case.plan, case.lanes).panels.count > 3
    check_threads(case)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_nothing_is_left_in_the_scratch(structure):
    check_scratch(many_panels(structure), everywhere=False)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_bad_pixel_stays_in_its_group(structure):
    """Zeros that complete a pattern must not read another group's inputs."""
    shape = conv(5, 9, c=6, k=9, groups=3)
    case = Case(shape, rows_at_once=4, density=0.5, structure=structure, has_it=False)
    check_reach(case, (0, 0), np.s_[:, :3], everywhere=False)


def test_structures_sum_in_the_same_order():
    """Padding adds exact zeros: the same weights give the same bits in every structure."""
    shape = conv(9, 11, c=9, k=8)
    values = operands(Case(shape))
    plain = run(Case(shape, rows_at_once=2), *values)
    for structure in STRUCTURES:
        case = Case(shape, rows_at_once=2, structure=structure)
        np.testing.assert_array_equal(run(case, *values), plain)


def test_the_name_tells_the_structure():
    plan = LayerPlan("c", conv(5, 5), 0.1, "sparse_winograd", 2, structure="rows4")
    assert kernel_name(plan, Epilogue()) == "sparse_winograd_f2x3_c3k4_n1h5w5_rows4"


# (structure, rows, vectors): the largest that one part can hold, for 16 and 32 registers.
HOT = {
    "znver3": [("balanced", 2, 6), ("kernel", 2, 6), ("rows2", 2, 6), ("rows4", 4, 3)],
    "skylake-avx512": [("balanced", 2, 12), ("kernel", 3, 9), ("rows2", 2, 14), ("rows4", 4, 6)],
}


@pytest.mark.parametrize(
    ("cpu", "structure", "rows", "vectors"), [(cpu, *hot) for cpu in HOT for hot in HOT[cpu]]
)
def test_accumulators_stay_in_registers(cpu, structure, rows, vectors):
    """Every step: each accumulator once, no store, and as many loads as the structure promises."""
    core, register = CPUS[cpu]
    shape = ConvShape(1, 64, 4 * vectors, 2 * core.lanes, 64, 3, (1, 1, 1, 1))
    plan = LayerPlan(
        "c", shape, 0.1, "sparse_winograd", 2, vectors, 64, 8, rows, structure=structure
    )
    assert kernel_layout(plan, core.lanes).panels.vectors == vectors
    packed = pack(np.ones((16, 64, 64), np.float32), plan, core.lanes)
    func = build_conv(plan, Epilogue(), packed.specs, core.lanes, core.vector_registers)
    module = _compat.build_module(func, parse_target(f"llvm -mcpu={cpu}").tvm_target())
    loops = fma_loops(_compat.inspect_asm(module), register)
    assert loops, "no loop of multiply-adds"
    for loop in loops:
        text, products = "\n".join(loop.body), len(loop.multiply_adds)
        assert len(loop.accumulators) == rows * vectors, text
        assert not products % (rows * vectors), text
        assert not loop.vector_stores and not loop.spills, text
        if structure.startswith("rows"):
            # Vectors come through a register, once a step, whether by a move or in a multiply-add.
            loads = [x for x in loop.vector_loads if x.startswith(("vmovups", "vfmadd"))]
            assert len(loads) == vectors * products // (rows * vectors), text
