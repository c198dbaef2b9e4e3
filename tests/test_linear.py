"""Linear kernels against float64, their packing, and their layouts."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tvm_sparsewino import _compat as tvm_ir
from tvm_sparsewino.config import Epilogue
from tvm_sparsewino.config_linear import LinearPlan, LinearShape
from tvm_sparsewino.errors import ConfigError, WeightsError
from tvm_sparsewino.geometry_linear import dense_linear_layout, sparse_linear_layout
from tvm_sparsewino.packing_linear import pack_bias, pack_linear, unpack_linear
from tvm_sparsewino.schedules.linear_build import build_linear, linear_layout, linear_name
from tvm_sparsewino.schedules.target import parse_target
from tvm_sparsewino.thread_pool import use_threads

HOST = parse_target("native")
PLAIN = Epilogue()
ALL = Epilogue(bias=True, activation="relu")
# Of the largest possible sum (all products with one sign): float32 rounds every addition.
F32 = 1e-6

# Rows, input and output features, around register blocks, vectors, blocks and cache blocks.
SIZES = [
    *((n, 19, 21) for n in (1, 2, 3, 5, 7, 8, 16, 33)),
    *((1, 1, 1), (3, 1, 1), (1, 300, 10), (5, 13, 129)),
    *((1, 6200, 9), (50, 700, 67), (97, 40, 130), (300, 9, 8)),
]


def weights(rng, shape, density):
    values = rng.standard_normal((shape.k, shape.c)).astype("float32")
    return values * (rng.random(values.shape) < density)


def run(shape, algorithm, weight, x, bias, epilogue, lanes=HOST.lanes, leading=None):
    """The kernel's result for weights [K, C], rows ``x`` and a bias."""
    plan, unit = LinearPlan("layer", shape, 1.0, algorithm), (lanes, HOST.vector_registers)
    layout = linear_layout(plan, *unit)
    packed = pack_linear(weight, layout)
    specs = [(array.shape, array.dtype.name) for array in packed]
    kernel = build_linear(plan, epilogue, specs, *unit, leading)
    built = tvm_ir.build_module(kernel, HOST.tvm_target())
    out = np.full((*x.shape[:-1], shape.k), np.nan, np.float32)
    operands = [x, *packed, *([pack_bias(bias, layout)] if epilogue.bias else []), out]
    tensors = [tvm_ir.runtime_tensor(array) for array in operands]
    built[str(kernel.attrs["global_symbol"])](*tensors)
    return tensors[-1].numpy()


def check(got, weight, x, bias, activation=lambda y: np.maximum(y, 0)):
    w, rows = weight.astype("float64"), x.astype("float64")
    want = activation(rows @ w.T + bias)
    largest = (np.abs(rows) @ np.abs(w).T + np.abs(bias)).max()
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= F32 * largest


@pytest.mark.parametrize("algorithm", ["dense_linear", "sparse_linear"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_sizes(algorithm, sizes, rng):
    shape = LinearShape(*sizes)
    weight = weights(rng, shape, 0.3)
    x = rng.standard_normal((shape.n, shape.c)).astype("float32")
    bias = rng.standard_normal(shape.k).astype("float32")
    check(run(shape, algorithm, weight, x, bias, ALL), weight, x, bias)


@pytest.mark.parametrize("lanes", {4, 8, 16} - {HOST.lanes})
@pytest.mark.parametrize("algorithm", ["dense_linear", "sparse_linear"])
def test_lanes(algorithm, lanes, rng):
    for n in (1, 11):
        shape = LinearShape(n, 37, 45)
        weight = weights(rng, shape, 0.4)
        x = rng.standard_normal((n, 37)).astype("float32")
        bias = rng.standard_normal(45).astype("float32")
        check(run(shape, algorithm, weight, x, bias, ALL, lanes), weight, x, bias)


@pytest.mark.parametrize("density", [0.0, 1.0])
@pytest.mark.parametrize("algorithm", ["dense_linear", "sparse_linear"])
def test_all_and_no_zeros(algorithm, density, rng):
    for n in (1, 5):
        shape = LinearShape(n, 23, 150)
        weight = weights(rng, shape, density)
        x = rng.standard_normal((n, 23)).astype("float32")
        zero = np.zeros(150, np.float32)
        check(run(shape, algorithm, weight, x, zero, PLAIN), weight, x, zero, lambda y: y)


@pytest.mark.parametrize(
    ("activation", "function"),
    [
        ("none", lambda y: y),
        ("relu6", lambda y: np.clip(y, 0, 6)),
        ("leaky_relu", lambda y: np.where(y > 0, y, 0.25 * y)),
    ],
)
@pytest.mark.parametrize("algorithm", ["dense_linear", "sparse_linear"])
def test_activations(algorithm, activation, function, rng):
    shape = LinearShape(2, 30, 13)
    weight = 3 * weights(rng, shape, 0.5)
    x = rng.standard_normal((2, 30)).astype("float32")
    bias = rng.standard_normal(13).astype("float32")
    epilogue = Epilogue(True, False, activation, 0.25 if activation == "leaky_relu" else 0.0)
    check(run(shape, algorithm, weight, x, bias, epilogue), weight, x, bias, function)


@pytest.mark.parametrize("algorithm", ["dense_linear", "sparse_linear"])
def test_leading_dimensions(algorithm, rng):
    shape = LinearShape(6, 9, 10)
    weight = weights(rng, shape, 0.5)
    x = rng.standard_normal((2, 1, 3, 9)).astype("float32")
    bias = rng.standard_normal(10).astype("float32")
    got = run(shape, algorithm, weight, x, bias, ALL, leading=(2, 1, 3))
    check(got, weight, x, bias)
    vector = run(LinearShape(1, 9, 10), algorithm, weight, x[0, 0, 0], bias, ALL, leading=())
    check(vector, weight, x[0, 0, 0], bias)


@pytest.mark.parametrize("algorithm", ["dense_linear", "sparse_linear"])
def test_threads_change_nothing(algorithm, rng, monkeypatch):
    """In a thread of its own, whose pool is as large as this test says, whatever ran before."""
    shape = LinearShape(9, 50, 700)
    weight = weights(rng, shape, 0.3)
    x = rng.standard_normal((9, 50)).astype("float32")
    bias = rng.standard_normal(700).astype("float32")
    monkeypatch.setenv("TVM_NUM_THREADS", "2")

    def on_threads():
        for threads in (2, 1):
            use_threads(threads)
            yield run(shape, algorithm, weight, x, bias, ALL)

    with ThreadPoolExecutor(1) as alone:
        two, one = alone.submit(lambda: list(on_threads())).result()
    assert np.array_equal(two, one)


# ---- packing and layouts -----------------------------------------------------------------------


@pytest.mark.parametrize("layout", [dense_linear_layout, sparse_linear_layout])
@pytest.mark.parametrize("density", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("sizes", [(1, 7000, 3), (4, 13, 200), (33, 900, 17), (1, 1, 1)], ids=str)
def test_unpacking_gives_the_weights(layout, density, sizes, rng):
    layout = layout(LinearShape(*sizes), 8, 16)
    weight = weights(rng, layout.shape, density)
    assert np.array_equal(unpack_linear(pack_linear(weight, layout), layout), weight)


@pytest.mark.parametrize("registers", [16, 32])
@pytest.mark.parametrize("n", [1, 2, 5, 6, 16, 33, 200])
def test_accumulators_fit_the_registers(n, registers):
    for k in (1, 10, 1000):
        dense = dense_linear_layout(LinearShape(n, 100, k), 8, registers)
        kept = dense.vectors if dense.rows > 1 else 0
        assert dense.rows * dense.vectors + kept + 1 <= registers
        sparse = sparse_linear_layout(LinearShape(n, 100, k), 8, registers)
        assert sparse.slice_rows * sparse.vectors + 2 <= registers
        assert sparse.parts * sparse.width >= n


def test_one_row_streams_its_weights_once():
    layout = dense_linear_layout(LinearShape(1, 25088, 4096), 8, 16)
    assert (layout.rows, layout.vectors, layout.c_blocks) == (1, 8, 1)


@pytest.mark.parametrize("layout", [dense_linear_layout, sparse_linear_layout])
def test_bad_weights_are_refused(layout):
    layout = layout(LinearShape(1, 4, 5), 8, 16)
    with pytest.raises(WeightsError, match=r"must be float32 \(5, 4\), got float32 \(4, 5\)"):
        pack_linear(np.zeros((4, 5), np.float32), layout)
    with pytest.raises(WeightsError, match="got float64"):
        pack_linear(np.zeros((5, 4)), layout)
    with pytest.raises(WeightsError, match="NaN or infinity"):
        pack_linear(np.full((5, 4), np.inf, np.float32), layout)


def test_what_has_no_kernel_is_refused():
    shape = LinearShape(1, 4, 5)
    with pytest.raises(ConfigError, match="no kernel for algorithm 'left'"):
        linear_layout(LinearPlan("x", shape, 1.0, "left"), 8, 16)
    plan = LinearPlan("x", shape, 1.0, "dense_linear")
    for epilogue in (Epilogue(residual=True), Epilogue(activation="prelu")):
        with pytest.raises(ConfigError, match="no residual and no PReLU"):
            build_linear(plan, epilogue, [((20,), "float32")], 8, 16)


def test_names_state_sizes_and_epilogue():
    plan = LinearPlan("x", LinearShape(6, 4, 5), 1.0, "sparse_linear")
    assert linear_name(plan, ALL, (2, 3)) == "sparse_linear_n2x3_c4k5_bias_relu"
