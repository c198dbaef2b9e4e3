"""Predicted cost of the direct convolution: floors it cannot go below, and how it ranks."""

import pytest

from tvm_sparsewino.config import ConvShape, LayerPlan
from tvm_sparsewino.cost import Core
from tvm_sparsewino.cost_direct import predict_direct
from tvm_sparsewino.errors import ShapeError
from tvm_sparsewino.geometry_direct import direct_layout

SAME = (1, 1, 1, 1)
AVX2, AVX512 = Core(8, 16), Core(16, 32, 1 << 20)


def shape(c=64, k=64, size=56, r=3, n=1, groups=1):
    return ConvShape(n, c, size, size, k, r, (r // 2,) * 4, groups)


@pytest.mark.parametrize("core", [AVX2, AVX512])
@pytest.mark.parametrize(
    "layer",
    [shape(), shape(128, 128, 28), shape(512, 512, 7), shape(3, 64, 224), shape(32, 32, 14, 5)],
)
def test_no_less_than_the_multiply_adds(layer, core):
    cost = predict_direct(layer, core)
    assert cost.flops_done == layer.direct_flops
    assert cost.gemm_cycles >= layer.direct_flops / (4 * core.lanes)


def test_cost_grows_with_the_work():
    one, batch = predict_direct(shape(), AVX2), predict_direct(shape(n=4), AVX2)
    assert batch.cycles == pytest.approx(4 * one.cycles)
    assert predict_direct(shape(k=128), AVX2).cycles > 1.8 * one.cycles
    assert predict_direct(shape(groups=4), AVX2).cycles < one.cycles / 2


def test_wider_vectors_cost_less():
    assert predict_direct(shape(), AVX512).cycles < 0.7 * predict_direct(shape(), AVX2).cycles


@pytest.mark.parametrize("layer", [shape(), shape(256, 256, 14), shape(60, 60, 9, groups=6)])
def test_the_blocking_is_what_the_kernel_uses(layer):
    blocking = predict_direct(layer, AVX2).blocking
    plan = LayerPlan("", layer, 1.0, "dense_direct", 0, *vars(blocking).values())
    layout = direct_layout(plan, AVX2.lanes)
    assert layout.k_block == blocking.k_block
    assert layout.channel_block == blocking.channel_block
    assert layout.rows_at_once == blocking.rows_at_once
    assert layout.vectors <= max(blocking.panel_vectors, layout.row_vectors)


def test_a_shape_without_a_kernel_is_refused():
    with pytest.raises(ShapeError, match="do not divide"):
        predict_direct(shape(groups=3), AVX2)


@pytest.mark.parametrize("threads", [2, 4])
@pytest.mark.parametrize(
    "layer", [(512, 2048, 7, 1), (1024, 256, 14, 1), (512, 512, 7), (160, 96, 7)]
)
def test_small_maps_have_work_for_every_thread(layer, threads):
    """Blocks of output channels are tasks where there are few pixels."""
    core = Core(threads=threads)
    cost = predict_direct(shape(*layer), core)
    plan = LayerPlan("", shape(*layer), 1.0, "dense_direct", 0, *vars(cost.blocking).values())
    assert direct_layout(plan, core.lanes).tasks >= threads
    assert cost.cycles < 1.3 / threads * predict_direct(shape(*layer), AVX2).cycles


@pytest.mark.parametrize(
    "steps", [{"stride": 2}, {"stride": (1, 3)}, {"dilation": 2}, {"columns": 5}, {"columns": 1}]
)
def test_every_filter_has_a_cost(steps):
    layer = ConvShape(1, 32, 28, 28, 48, 3, (2,) * 4, **steps)
    cost = predict_direct(layer, AVX2)
    assert layer.direct_flops / 32 <= cost.gemm_cycles < layer.direct_flops / 16
