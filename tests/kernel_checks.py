"""What holds for every kernel: threads, what a run leaves behind, how far a bad number reaches."""

import numpy as np
from kernel_cases import HOST, arguments, expected, in_new_thread, operands, run

from tvm_sparsewino import _compat
from tvm_sparsewino.schedules.build import adds_in_place, build_conv


def check_threads(case):
    """The same bits from run to run and with any number of threads."""
    values = operands(case)
    first = run(case, *values)
    assert np.isfinite(first).all()
    for threads in (1, 2, 3):
        for _ in range(2):
            out = in_new_thread(threads, lambda: run(case, *values))
            np.testing.assert_array_equal(out, first)


def check_scratch(case, everywhere=True):
    """A run with NaN everywhere fills the scratch with NaN; the next must not see any of it."""
    x, *rest = operands(case)
    clean = run(case, x, *rest)
    bad = np.isnan(run(case, np.full_like(x, np.nan), *rest))
    assert bad.all() if everywhere else bad.any()
    np.testing.assert_array_equal(run(case, x, *rest), clean)


def check_reach(case, bad, reached, everywhere=True):
    """NaN in a part of the input spoils a part of the output, and nothing else.

    Args:
        case: the kernel.
        bad: index of what is NaN in the input.
        reached: index of the outputs that read it.
        everywhere: whether all of them do, or some: those of sparse kernels.
    """
    x, *rest = operands(case)
    clean = run(case, x, *rest)
    x[bad] = np.nan
    out = run(case, x, *rest)
    reads = np.zeros(out.shape, bool)
    reads[reached] = True
    spoiled = np.isnan(out[reads])
    assert spoiled.all() if everywhere else spoiled.any()
    np.testing.assert_array_equal(out[~reads], clean[~reads])


def over_what_is_added(case, values, threads=1):
    """The output of a kernel that writes it over the map that it adds."""
    packed, arrays = arguments(case, *values)
    func = build_conv(case.plan, case.epilogue, packed.specs, case.lanes, case.registers)
    name = func.attrs["global_symbol"]
    func = _compat.in_memory_of(func, len(func.params) - 2)
    kernel = _compat.build_module(func, HOST.tvm_target())[name]
    tensors = [_compat.runtime_tensor(a) for a in arrays[:-1]]
    in_new_thread(threads, lambda: kernel(*tensors))
    return tensors[-1].numpy()


def check_in_place(case):
    """Bits are equal, not close: what is stored twice is added twice."""
    assert adds_in_place(case.plan, case.epilogue, case.lanes)
    values = operands(case)
    y, bound = expected(case, *values)
    beside = run(case, *values)
    assert (abs(beside - y) <= bound).all()
    np.testing.assert_array_equal(over_what_is_added(case, values), beside)
