"""Blocks of output channels in parallel: the same bits as panels in parallel, for any threads."""

import dataclasses
import threading

import numpy as np
import pytest
from kernel_cases import Case, check, conv

from tvm_sparsewino import _compat
from tvm_sparsewino.config import ConvShape, Epilogue, LayerPlan
from tvm_sparsewino.cook_toom import cook_toom
from tvm_sparsewino.geometry import make_panels
from tvm_sparsewino.packing import pack
from tvm_sparsewino.reference import winograd_conv2d
from tvm_sparsewino.schedules.build import build_conv
from tvm_sparsewino.schedules.target import parse_target
from tvm_sparsewino.thread_pool import use_threads

HOST = parse_target("native")
EPILOGUE = Epilogue(bias=True, residual=True, activation="relu")
ONE_PANEL = LayerPlan(
    "one panel",
    ConvShape(1, 13, 9, 11, 21, 3, (1, 0, 1, 1)),
    0.3,
    "sparse_winograd",
    m=4,
    panel_vectors=2,
    k_block=8,
    channel_block=4,
    rows_at_once=2,
    split_k=True,
)
PLANS = {
    "one panel": ONE_PANEL,
    "several panels": dataclasses.replace(
        ONE_PANEL, conv=ConvShape(3, 5, 9, 11, 7, 3, (1, 1, 1, 1)), panel_vectors=1, k_block=3
    ),
    "dense": dataclasses.replace(
        ONE_PANEL, density=1.0, algorithm="dense_winograd", m=2, rows_at_once=4
    ),
    "more blocks than input channels": dataclasses.replace(
        ONE_PANEL, conv=ConvShape(1, 2, 9, 11, 9, 3, (1, 1, 1, 1)), k_block=2
    ),
    "a panel left over": dataclasses.replace(
        ONE_PANEL, conv=ConvShape(1, 13, 23, 19, 21, 3, (1, 0, 1, 1)), panel_vectors=1, sharers=2
    ),
    "more parts than threads": dataclasses.replace(
        ONE_PANEL, conv=ConvShape(2, 5, 23, 19, 21, 3, (1, 1, 1, 1)), panel_vectors=1, sharers=3
    ),
    "shared out, in groups": dataclasses.replace(
        ONE_PANEL, conv=ConvShape(1, 6, 23, 19, 9, 3, (1, 1, 1, 1), 3), k_block=4, sharers=2
    ),
    "shared out, dense": dataclasses.replace(
        ONE_PANEL,
        conv=ConvShape(3, 5, 9, 11, 13, 3, (1, 1, 1, 1)),
        density=1.0,
        algorithm="dense_winograd",
        m=2,
        panel_vectors=4,
        rows_at_once=4,
        sharers=2,
    ),
    "fewer panels than sharers": dataclasses.replace(ONE_PANEL, sharers=4),
    "groups": dataclasses.replace(
        ONE_PANEL, conv=ConvShape(1, 6, 9, 11, 9, 3, (1, 1, 1, 1), 3), k_block=4
    ),
}


def operands(plan, seed=0):
    rng, s = np.random.default_rng(seed), plan.conv
    u = rng.standard_normal(((plan.m + s.r - 1) ** 2, s.k, s.c // s.groups))
    u[rng.random(u.shape) >= plan.density] = 0
    x = rng.standard_normal((s.n, s.c, s.h, s.w))
    residual = rng.standard_normal((s.n, s.k, s.oh, s.ow))
    return [a.astype(np.float32) for a in (x, u, rng.standard_normal(s.k), residual)]


def kernel(plan):
    x, u, bias, residual = operands(plan)
    packed = pack(u, plan, HOST.lanes)
    func = build_conv(plan, EPILOGUE, packed.specs, HOST.lanes, HOST.vector_registers)
    module = _compat.build_module(func, HOST.tvm_target())[func.attrs["global_symbol"]]

    def run():
        out = np.full(residual.shape, np.nan, np.float32)
        tensors = [_compat.runtime_tensor(a) for a in (x, *packed.arrays, bias, residual, out)]
        module(*tensors)
        return tensors[-1].numpy()

    return run


def with_threads(threads, run):
    """``run()`` in a thread of its own: TVM keeps a pool per calling thread."""
    results = []
    thread = threading.Thread(target=lambda: (use_threads(threads), results.append(run())))
    thread.start()
    thread.join()
    return results[0]


@pytest.mark.parametrize("name", PLANS)
def test_split_gives_the_bits_of_the_fused_kernel(name):
    plan = PLANS[name]
    fused, split = kernel(dataclasses.replace(plan, split_k=False, sharers=0))(), kernel(plan)
    assert np.isfinite(fused).all()
    for threads in (1, 2, 3):
        np.testing.assert_array_equal(with_threads(threads, split), fused)


@pytest.mark.parametrize("name", PLANS)
def test_split_is_the_reference(name):
    """Float32 sums of at most 13 products between two transforms: 1e-5 of the largest output."""
    plan = PLANS[name]
    x, u, bias, residual = operands(plan)
    s = plan.conv
    exact = winograd_conv2d(x, u, cook_toom(plan.m, s.r), bias, s.padding, s.groups)
    exact = np.maximum(exact + residual, 0)
    assert abs(kernel(plan)() - exact).max() < 1e-5 * exact.max()


@pytest.mark.parametrize("structure", ["rows2", "rows4", "balanced", "kernel"])
def test_structures_of_zeros_share_out_panels(structure):
    """Five panels for two threads, three blocks of output channels, the last one smaller."""
    rows = 4 if structure == "rows4" else 2
    shape, sizes = conv(23, 19, c=8, k=20), {"panel_vectors": 3, "k_block": 8, "lanes": 8}
    case = Case(shape, 2, rows_at_once=rows, structure=structure, split_k=True, sharers=2, **sizes)
    assert make_panels(shape, 2, 8, 3).count == 5
    check(case)
