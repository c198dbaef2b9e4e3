"""The hot loops of the kernels that run: sums stay in registers, and as many as there should be.

Compiled for two CPUs, whichever one the host is; nothing here runs.
"""

import functools

import numpy as np
import pytest
from kernel_cases import DENSE, DIRECT, SPARSE, Case, arguments, conv, operands

from tvm_sparsewino import _compat
from tvm_sparsewino.geometry import kernel_layout
from tvm_sparsewino.hot_loop import hot_loop
from tvm_sparsewino.schedules.build import build_conv
from tvm_sparsewino.schedules.target import parse_target

REGISTER = {8: "ymm", 16: "zmm"}

# Algorithm, structure of zeros, rows at once, vectors: what registers can hold at most, or nearly.
LOOPS = {
    "znver3": [
        *((SPARSE, "unstructured", *size) for size in ((1, 12), (2, 6), (3, 4), (4, 3))),
        (SPARSE, "balanced", 2, 6),
        (SPARSE, "kernel", 2, 6),
        (SPARSE, "rows2", 2, 6),
        (SPARSE, "rows4", 4, 3),
        (DENSE, "unstructured", 4, 3),
        (DIRECT, "unstructured", 4, 3),
    ],
    "skylake-avx512": [
        *((SPARSE, "unstructured", *size) for size in ((1, 12), (2, 12), (3, 8), (4, 6))),
        (SPARSE, "balanced", 2, 12),
        (SPARSE, "kernel", 3, 8),
        (SPARSE, "rows2", 2, 12),
        (SPARSE, "rows4", 4, 6),
        (DENSE, "unstructured", 8, 3),
        (DIRECT, "unstructured", 8, 3),
    ],
}
EVERY = [(cpu, *loop) for cpu, loops in LOOPS.items() for loop in loops]
parametrize = pytest.mark.parametrize(("cpu", "algorithm", "structure", "rows", "vectors"), EVERY)


@functools.cache
def compiled(cpu, algorithm, structure, rows, vectors, registers=0):
    """The hot loop of a whole kernel: F(2, 3) or direct, one panel of ``vectors`` vectors."""
    target = parse_target(f"llvm -mcpu={cpu}")
    lanes, is_direct = target.lanes, algorithm == DIRECT
    shape = conv(1 if is_direct else 2, vectors * lanes * (1 if is_direct else 2), c=64, k=8)
    case = Case(
        shape,
        m=0 if is_direct else 2,
        density=1.0,
        algorithm=algorithm,
        panel_vectors=vectors,
        channel_block=0,
        rows_at_once=rows,
        lanes=lanes,
        registers=registers or target.vector_registers,
        structure=structure,
    )
    if not is_direct:
        assert kernel_layout(case.plan, lanes).panels.vectors == vectors
    x, u, *rest = operands(case)
    packed, _ = arguments(case, x, np.ones_like(u), *rest)
    func = build_conv(case.plan, case.epilogue, packed.specs, lanes, case.registers)
    module = _compat.build_module(func, target.tvm_target())
    return hot_loop(_compat.inspect_asm(module)), REGISTER[lanes]


@parametrize
def test_nothing_of_the_stack_is_touched(cpu, algorithm, structure, rows, vectors):
    loop, _ = compiled(cpu, algorithm, structure, rows, vectors)
    assert not loop.spills and not loop.vector_stores, "\n".join(loop.body)


@parametrize
def test_every_sum_has_a_register(cpu, algorithm, structure, rows, vectors):
    """And gets one multiply-add a step, a step being a coefficient of every row."""
    loop, register = compiled(cpu, algorithm, structure, rows, vectors)
    text = "\n".join(loop.body)
    assert len(loop.accumulators) == rows * vectors, text
    assert all(x.startswith(f"%{register}") for x in loop.accumulators), text
    sums = [x.split(",")[-1].strip() for x in loop.multiply_adds]
    times = {sums.count(x) for x in loop.accumulators}
    assert len(times) == 1, text
    if algorithm == DIRECT:
        assert times <= {3, 9}, text  # a row of the filter, or all of it


@parametrize
def test_loads_are_those_that_the_kind_needs(cpu, algorithm, structure, rows, vectors):
    """Inputs once a step where rows share them, else once for every multiply-add.

    Coefficients come one by one, or for all rows at once.
    """
    loop, _ = compiled(cpu, algorithm, structure, rows, vectors)
    steps = len(loop.multiply_adds) / (rows * vectors)
    shared = algorithm != SPARSE or structure.startswith("rows")
    inputs = vectors if shared else rows * vectors
    loads = len(loop.vector_loads) / steps
    assert inputs + 1 <= loads <= inputs + rows, "\n".join(loop.body)


def test_sums_without_a_register_would_show():
    loop, _ = compiled("znver3", DENSE, "unstructured", 4, 6, registers=32)
    assert loop.spills
