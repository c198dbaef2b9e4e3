"""Predicted cost of the depthwise convolution: floors it cannot go below, and how it ranks."""

import pytest

from tvm_sparsewino.config import ConvShape, LayerPlan
from tvm_sparsewino.cost import Core
from tvm_sparsewino.cost_depthwise import PLANE_FLOATS
from tvm_sparsewino.cost_direct import predict_direct, price_direct
from tvm_sparsewino.geometry_depthwise import depthwise_layout

AVX2, AVX512 = Core(8, 16), Core(16, 32, 1 << 20)


def shape(c=144, size=56, r=3, stride=1, n=1):
    return ConvShape(n, c, size, size, c, r, (r // 2,) * 4, c, stride)


@pytest.mark.parametrize("core", [AVX2, AVX512])
@pytest.mark.parametrize("layer", [shape(), shape(960, 7), shape(96, 112, 3, 2), shape(240, 28, 5)])
def test_no_less_than_the_multiply_adds(layer, core):
    cost = predict_direct(layer, core)
    assert cost.flops_done == layer.direct_flops
    assert cost.gemm_cycles >= layer.direct_flops / (4 * core.lanes)


def test_cost_grows_with_the_work():
    one = predict_direct(shape(), AVX2).cycles
    assert predict_direct(shape(n=4), AVX2).cycles == pytest.approx(4 * one)
    assert predict_direct(shape(288), AVX2).cycles == pytest.approx(2 * one, rel=0.02)
    assert predict_direct(shape(stride=2), AVX2).cycles < one
    assert predict_direct(shape(r=5), AVX2).cycles > 2 * one
    assert predict_direct(shape(), AVX512).cycles < 0.7 * one


@pytest.mark.parametrize("layer", [shape(), shape(960, 7), shape(32, 224), shape(4, 64, 21)])
def test_planes_stay_in_l1(layer):
    blocking = predict_direct(layer, AVX2).blocking
    plan = LayerPlan("", layer, 1.0, "dense_direct", 0, *vars(blocking).values())
    assert depthwise_layout(plan, AVX2.lanes).scratch_size <= PLANE_FLOATS


@pytest.mark.parametrize("layer", [shape(), shape(16, 7), shape(960, 7), shape(1, 64)])
def test_threads_have_equal_shares(layer):
    one, two = (predict_direct(layer, Core(threads=threads)) for threads in (1, 2))
    assert two.cycles < 0.62 * one.cycles


def test_the_given_blocking_is_priced():
    best = predict_direct(shape(), AVX2)
    assert price_direct(shape(), AVX2, best.blocking) == best
