"""Long sums are cut into chains: what a chain of float32 additions would lose is there."""

import numpy as np
import pytest

from tvm_sparsewino import _compat
from tvm_sparsewino.config import ConvShape, Epilogue, LayerPlan
from tvm_sparsewino.packing import pack
from tvm_sparsewino.schedules.build import build_conv
from tvm_sparsewino.schedules.chains import CHAIN, has_long_rows
from tvm_sparsewino.schedules.target import parse_target

HOST = parse_target("native")
HUGE = 2.0**24  # one more is lost beside it
KINDS = {
    "sparse": ("sparse_winograd", "unstructured", 2),
    "rows alike": ("sparse_winograd", "rows2", 2),
    "rows of one length": ("sparse_winograd", "balanced", 1),
    "one pattern": ("sparse_winograd", "kernel", 2),
    "dense": ("dense_winograd", "unstructured", 4),
}


def plan_of(kind, channels, groups=1, block=8, density=1.0):
    algorithm, structure, rows = KINDS[kind]
    shape = ConvShape(1, channels * groups, 3, 5, 6 * groups, 1, groups=groups)
    sizes = {"m": 1, "panel_vectors": 2, "channel_block": block, "rows_at_once": rows}
    return LayerPlan("long", shape, density, algorithm, structure=structure, **sizes)


def run(plan, x, u):
    shape = plan.conv
    packed = pack(u, plan, HOST.lanes)
    func = build_conv(plan, Epilogue(), packed.specs, HOST.lanes, HOST.vector_registers)
    built = _compat.build_module(func, HOST.tvm_target())
    output = np.zeros((1, shape.k, shape.oh, shape.ow), np.float32)
    tensors = [_compat.runtime_tensor(a) for a in (x, *packed.arrays, output)]
    built[str(func.attrs["global_symbol"])](*tensors)
    return tensors[-1].numpy()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("channels", "groups", "block"),
    [(2 * CHAIN, 1, 8), (2 * CHAIN, 1, 12), (2 * CHAIN + 3, 1, 16), (300, 2, 8), (304, 2, 16)],
)
def test_a_chain_ends_where_it_should(kind, channels, groups, block):
    """One huge product in front: all others of its chain are lost, those of the next are not."""
    plan = plan_of(kind, channels, groups, block)
    x = np.ones((1, plan.conv.c, 3, 5), np.float32)
    u = np.ones((1, plan.conv.k, channels), np.float32)
    u[:, :, 0] = HUGE
    rest = channels - CHAIN
    # A third chain of three is lost beside the sum of two: one float32 there is 2 wide.
    expected = np.float32(np.float32(HUGE + min(rest, CHAIN)) + np.float32(max(rest - CHAIN, 0)))
    assert (run(plan, x, u) == expected).all()


def test_short_rows_are_one_chain():
    """Their kernels hold no second loop: it would cost at every row."""
    assert not has_long_rows(plan_of("sparse", CHAIN))
    assert has_long_rows(plan_of("sparse", CHAIN + 1))
    assert not has_long_rows(plan_of("sparse", 2 * CHAIN, density=0.5))
    assert has_long_rows(plan_of("dense", 2 * CHAIN, density=0.5))
    assert not has_long_rows(plan_of("dense", CHAIN, groups=4))


@pytest.mark.parametrize("density", [0.6, 1.0])
def test_rows_of_other_lengths(density):
    """Some of two chains, some of one, one without a nonzero; beside float64."""
    rng = np.random.default_rng(0)
    plan = plan_of("sparse", 2 * CHAIN, density=density)
    x = rng.standard_normal((1, plan.conv.c, 3, 5), np.float32)
    u = rng.standard_normal((1, plan.conv.k, plan.conv.c), np.float32)
    u[rng.random(u.shape) >= density] = 0
    u[0, 1, CHAIN // 2 :] = 0
    u[0, 4] = 0
    exact = np.einsum("kc,nchw->nkhw", u[0].astype(np.float64), x.astype(np.float64))
    # 512 additions, each rounded by 6e-8 of a sum: errors of both signs add up to a few of them.
    assert np.abs(run(plan, x, u) - exact).max() < 2e-6 * np.abs(exact).max()
