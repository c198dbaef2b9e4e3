"""Pooling that moves into a Winograd kernel: what is taken, what stays, and the numbers."""

import dataclasses

import numpy as np
import pytest
from relax_networks import conv, evaluate, module, operators, winograd
from tvm import relax

from tvm_sparsewino import reference
from tvm_sparsewino.config import Epilogue
from tvm_sparsewino.cook_toom import cook_toom
from tvm_sparsewino.cost import saved_by_pool
from tvm_sparsewino.cost_quantities import AVX2
from tvm_sparsewino.errors import ConfigError
from tvm_sparsewino.geometry_sparse import sparse_layout
from tvm_sparsewino.planner import machine, with_pool
from tvm_sparsewino.pool_window import HALVING
from tvm_sparsewino.relay_passes import SparsifyConvs, plan, sparsewino_pipeline
from tvm_sparsewino.relay_passes import operators as names
from tvm_sparsewino.schedules.target import parse_target

TARGET = "llvm"
C, K = 4, 4
SHAPE = (1, C, 6, 7)
RELU = relax.op.nn.relu
BIAS = np.array([1.0, -2.0, 3.0, 0.5])


@pytest.fixture
def u(rng):
    """Coefficients of F(4,3), 80 % zeros."""
    values = rng.standard_normal((36, K, C)).astype("float32")
    return np.where(rng.random(values.shape) < 0.8, 0, values).astype("float32")


def max_pool(b, x, **options):
    return b.emit(relax.op.nn.max_pool2d(x, (2, 2), **{"strides": (2, 2), **options}))


def average_pool(b, x):
    return b.emit(relax.op.nn.avg_pool2d(x, (2, 2), strides=(2, 2)))


def sparsify(mod):
    plans = plan(mod, TARGET)
    after = SparsifyConvs(plans, TARGET)(mod)
    relax.analysis.well_formed(after)
    return after, plans


def epilogue_of(mod):
    call = mod["main"].body.blocks[0].bindings[0].value
    return names.packed_plan(call.attrs)[1]


@pytest.mark.parametrize(
    ("follow", "epilogue"),
    [
        (max_pool, Epilogue(pool="max")),
        (average_pool, Epilogue(pool="average")),
        (lambda b, y: max_pool(b, b.emit(RELU(y))), Epilogue(activation="relu", pool="max")),
        (
            lambda b, y: average_pool(b, b.emit(RELU(y))),
            Epilogue(False, False, "relu", 0, "average"),
        ),
        # The maximum of what never falls: in either order.
        (lambda b, y: b.emit(RELU(max_pool(b, y))), Epilogue(activation="relu", pool="max")),
        (
            lambda b, y: max_pool(b, b.emit(relax.op.nn.leakyrelu(y, -0.5))),
            Epilogue(False, False, "leaky_relu", -0.5, "max"),
        ),
    ],
)
def test_a_pool_moves_into_the_operator(u, follow, epilogue):
    after, (layer,) = sparsify(module(lambda b, x: follow(b, winograd(b, x, u)), SHAPE))
    assert operators(after) == [names.SPARSE]
    assert epilogue_of(after) == epilogue
    assert layer.pool == epilogue.pool
    assert f"with the 2x2 {epilogue.pool} pool behind it" in layer.reason


@pytest.mark.parametrize(
    ("follow", "left"),
    [
        (lambda b, x, y: max_pool(b, y, padding=(1, 1)), ["relax.nn.max_pool2d"]),
        (lambda b, x, y: max_pool(b, y, strides=(1, 1)), ["relax.nn.max_pool2d"]),
        (lambda b, x, y: max_pool(b, y, dilation=(2, 2)), ["relax.nn.max_pool2d"]),
        # Seven columns: a last window that juts out of the map.
        (lambda b, x, y: max_pool(b, y, ceil_mode=True), ["relax.nn.max_pool2d"]),
        # A mean of negative numbers is not that of what ReLU leaves of them.
        (lambda b, x, y: b.emit(RELU(average_pool(b, y))), ["relax.nn.relu"]),
        (
            lambda b, x, y: b.emit(relax.op.nn.leakyrelu(max_pool(b, y), -0.5)),
            ["relax.nn.leakyrelu"],
        ),
        (lambda b, x, y: max_pool(b, b.emit(relax.op.add(y, x))), ["relax.nn.max_pool2d"]),
    ],
)
def test_what_is_no_such_pool_stays(u, follow, left):
    after, _ = sparsify(module(lambda b, x: follow(b, x, winograd(b, x, u)), SHAPE))
    assert operators(after) == [names.SPARSE, *left]


def test_a_map_that_others_read_is_written_whole(u):
    def build(b, x):
        y = winograd(b, x, u)
        return b.emit(relax.Tuple([y, max_pool(b, y)]))

    after, (layer,) = sparsify(module(build, SHAPE))
    assert names.SPARSE in operators(after) and "relax.nn.max_pool2d" in operators(after)
    assert layer.pool == "none"


def test_a_kernel_that_cannot_pool_leaves_it(rng):
    weight = rng.standard_normal((K, C, 1, 1)).astype("float32")
    before = module(lambda b, x: max_pool(b, conv(b, x, weight, padding=0)), SHAPE)
    after, (layer,) = sparsify(before)
    assert operators(after)[1:] == ["relax.nn.max_pool2d"]
    assert layer.pool == "none" and "pool" not in layer.reason


def test_a_plan_with_another_pool_is_refused(u):
    before = module(lambda b, x: max_pool(b, winograd(b, x, u)), SHAPE)
    (layer,) = plan(before, TARGET)
    other = dataclasses.replace(layer, pool="average")
    with pytest.raises(ConfigError, match=r"layer 'conv': the plan.s pool is .average., .* .max."):
        SparsifyConvs([other], TARGET)(before)
    without = module(lambda b, x: winograd(b, x, u), SHAPE)
    with pytest.raises(ConfigError, match="the plan's pool is 'max', the layer's 'none'"):
        SparsifyConvs([layer], TARGET)(without)


def test_a_plan_without_the_pool_leaves_it(u):
    before = module(lambda b, x: max_pool(b, winograd(b, x, u)), SHAPE)
    (layer,) = plan(before, TARGET)
    after = SparsifyConvs([dataclasses.replace(layer, pool="none")], TARGET)(before)
    assert operators(after) == [names.SPARSE, "relax.nn.max_pool2d"]


def test_three_of_four_lines_count_as_saved(u):
    """Of a map beyond L2, on every core its share; a plan's cost never falls below nothing."""
    (layer,) = plan(module(lambda b, x: winograd(b, x, u), SHAPE), TARGET)
    cpu = parse_target(TARGET)
    assert with_pool(layer, "max", HALVING, cpu).cost_cycles == layer.cost_cycles  # all in L2
    large = dataclasses.replace(layer.conv, k=64, h=224, w=224)
    saved = saved_by_pool(large, machine(cpu))
    whole = 64 * large.oh * large.ow / 16
    assert 0.7 * 18.5 * whole < saved < 0.8 * 18.5 * whole
    assert saved_by_pool(large, dataclasses.replace(AVX2, threads=2)) == pytest.approx(
        saved_by_pool(large, AVX2) / 2
    )
    cheap = dataclasses.replace(layer, conv=large, cost_cycles=1.0)
    assert with_pool(cheap, "max", HALVING, cpu).cost_cycles == 0


# A map beyond half of L2, so that it pays, and one that is not; 90 % zeros.
LARGE, SMALL = (1, 3, 96, 130), (1, 3, 24, 26)


def stem_module(rng, shape, k=32, stride=2, **options):
    weight = rng.standard_normal((k, 3, 7, 7)) * (rng.random((k, 3, 7, 7)) < 0.1)

    def build(b, x):
        y = b.emit(RELU(conv(b, x, weight.astype("float32"), strides=stride, padding=3)))
        return b.emit(relax.op.nn.max_pool2d(y, (3, 3), (2, 2), **options))

    return module(build, shape)


@pytest.mark.parametrize("options", [{"padding": (1, 1)}, {}, {"ceil_mode": True}], ids=str)
def test_a_sparse_direct_kernel_pools_rows_where_it_pays(rng, options):
    before = stem_module(rng, LARGE, k=64, **options)
    after, (layer,) = sparsify(before)
    assert operators(after) == [names.SPARSE_DIRECT]
    assert (layer.pool, layer.window[:4]) == ("max", (3, 3, 2, 2))
    assert "with the 3x3 max pool behind it, which saves" in layer.reason
    assert epilogue_of(after).window == layer.window
    without = SparsifyConvs([plain(layer)], TARGET)(before)
    assert operators(without) == [names.SPARSE_DIRECT, "relax.nn.max_pool2d"]
    x = rng.standard_normal(LARGE).astype("float32")
    got, want = (evaluate(m, x, pipeline=sparsewino_pipeline()) for m in (after, without))
    np.testing.assert_array_equal(got, want)


def plain(layer):
    return dataclasses.replace(layer, pool="none", window=HALVING)


def test_a_sparse_direct_kernel_leaves_a_pool_that_saves_nothing(rng):
    after, (layer,) = sparsify(stem_module(rng, SMALL))
    assert operators(after) == [names.SPARSE_DIRECT, "relax.nn.max_pool2d"]
    assert layer.pool == "none"
    assert layer.reason.endswith("without the 3x3 max pool behind it: nothing is saved by both")


def test_a_sparse_direct_kernel_leaves_a_pool_of_rows_beyond_the_cache(rng):
    cpu = parse_target(TARGET)
    (layer,) = plan(stem_module(rng, LARGE, k=64, padding=(1, 1)), TARGET)
    small = dataclasses.replace(cpu, l2_bytes=2**14)
    left = with_pool(plain(layer), "max", layer.window, small)
    assert left.pool == "none"
    assert left.reason.endswith(
        "without the 3x3 max pool behind it: no blocking leaves its rows in L2"
    )


def test_every_thread_has_a_block_of_a_pooled_layer(rng):
    """All panels of a block are one task."""
    before = stem_module(rng, LARGE, k=64, padding=(1, 1))
    for threads in (1, 2, 3):
        (layer,) = plan(before, TARGET, threads=threads)
        layout = sparse_layout(layer, 4)
        assert layer.pool == "max" and layout.tasks >= threads


def test_a_plan_with_other_windows_is_refused(rng):
    before = stem_module(rng, LARGE, k=64, padding=(1, 1))
    (layer,) = plan(before, TARGET)
    other = dataclasses.replace(layer, window=HALVING)
    with pytest.raises(ConfigError, match=r"'max', the layer's 'max' of \(3, 3, 2, 2, 1, 1"):
        SparsifyConvs([other], TARGET)(before)


def test_windows_of_padding_alone_stay(rng, u):
    def build(b, x):
        y = winograd(b, x, u)
        return b.emit(relax.op.nn.max_pool2d(y, (1, 2), (1, 2), padding=(1, 0, 0, 0)))

    after, (layer,) = sparsify(module(build, SHAPE))
    assert operators(after) == [names.SPARSE, "relax.nn.max_pool2d"] and layer.pool == "none"


@pytest.mark.parametrize("pool", [max_pool, average_pool])
def test_numbers(rng, u, pool):
    def build(b, x):
        return pool(b, b.emit(RELU(winograd(b, x, u, padding=(1, 1, 1, 1), bias=BIAS))))

    x = rng.standard_normal((2, C, 9, 11)).astype("float32")
    want = reference.winograd_conv2d(x, u, cook_toom(4, 3), BIAS, (1, 1, 1, 1))
    want = np.maximum(want, 0)[:, :, :8, :10].reshape(2, K, 4, 2, 5, 2)
    want = want.max((3, 5)) if pool is max_pool else want.mean((3, 5))
    got = evaluate(module(build, x.shape), x, pipeline=sparsewino_pipeline())
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()
