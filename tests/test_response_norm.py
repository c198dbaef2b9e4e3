"""Local response normalisation in one kernel, against float64."""

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from relax_networks import const, evaluate, module
from tvm import relax, te

from tvm_sparsewino import _compat as tvm_ir
from tvm_sparsewino import driver
from tvm_sparsewino.relay_passes.response_norm import JoinResponseNorms
from tvm_sparsewino.schedules import vector_math
from tvm_sparsewino.schedules.response_norm import LEAST, ResponseNorm, build_response_norm
from tvm_sparsewino.schedules.target import parse_target

HOST = parse_target("native")
POWER = 4e-7  # what :func:`vector_math.inverse_power` promises
F32 = 1e-6  # of each number: a power, a sum of squares, a product


def exact(x, norm):
    squares, c = x.astype("float64") ** 2, x.shape[1]
    total = np.stack(
        [squares[:, max(i - norm.before, 0) : i + norm.after + 1].sum(1) for i in range(c)], axis=1
    )
    return x / (norm.offset + norm.scale * total) ** (norm.quarters / 4)


def run(x, norm, lanes=HOST.lanes):
    kernel = build_response_norm(x.shape, norm, lanes)
    built = tvm_ir.build_module(kernel, HOST.tvm_target())
    arrays = x, np.array([norm.scale, norm.offset], np.float32), np.full_like(x, np.nan)
    tensors = [tvm_ir.runtime_tensor(array) for array in arrays]
    built[str(kernel.attrs["global_symbol"])](*tensors)
    return tensors[-1].numpy()


@pytest.mark.parametrize("quarters", [1, 2, 3])
@pytest.mark.parametrize("lanes", [1, 4, 8])
def test_powers_over_all_normal_numbers(quarters, lanes):
    x = np.exp2(np.linspace(-126, 127.99, 1 << 15)).astype("float32")
    x[-2:] = np.finfo(np.float32).max, np.finfo(np.float32).tiny

    def power(v):
        if lanes == 1:
            return te.compute(x.shape, lambda i: vector_math.inverse_power(v[i], quarters, 1))
        with tvm_ir.prim_func("power") as builder:
            source = tvm_ir.arg("source", x.shape, "float32")
            target = tvm_ir.arg("target", x.shape, "float32")
            with tvm_ir.T.serial(0, x.size // lanes) as i:
                at = tvm_ir.ramp(i * lanes, 1, lanes)
                value = vector_math.inverse_power(source[at], quarters, lanes)
                tvm_ir.T.buffer_store(target, value, [at])
        return builder.get()

    if lanes == 1:
        v = te.placeholder(x.shape, name="v")
        function = te.create_prim_func([v, power(v)]).with_attr("global_symbol", "power")
    else:
        function = power(None)
    built = tvm_ir.build_module(function, HOST.tvm_target())
    tensors = [tvm_ir.runtime_tensor(array) for array in (x, np.zeros_like(x))]
    built["power"](*tensors)
    want = x.astype("float64") ** (-quarters / 4)
    assert (np.abs(tensors[1].numpy() - want) <= POWER * want).all()


# Less than a vector, runs with and without a rest, several tasks; fewer channels than are summed.
@pytest.mark.parametrize("shape", [(1, 7, 3), (2, 12, 5, 7), (1, 3, 40, 41), (1, 6, 150, 151)])
@pytest.mark.parametrize(
    "norm",
    [
        ResponseNorm(2, 2, 0.3, 1.0, 3),
        ResponseNorm(1, 2, 2.0, 0.5, 2),
        ResponseNorm(0, 0, 0.1, 2.0, 1),
        ResponseNorm(7, 8, 0.1, 1.0, 3),
    ],
    ids=str,
)
def test_against_float64(shape, norm, rng):
    x = rng.standard_normal(shape).astype("float32")
    want = exact(x, norm)
    assert (np.abs(run(x, norm) - want) <= F32 * np.abs(want)).all()


@pytest.mark.parametrize("offset", [LEAST, 1.0])
def test_extremes(offset):
    norm = ResponseNorm(1, 1, 0.5, offset, 3)
    x = np.zeros((1, 3, 64), np.float32)
    x[0, 1, :6] = 0, 1e-30, -1e-18, 1e4, -1e18, 1e-44
    want = exact(x, norm)
    assert (np.abs(run(x, norm) - want) <= F32 * np.abs(want)).all()


def test_sums_that_are_no_finite_numbers():
    """As with float32 arithmetic: a number over infinity is 0, infinity over it is none."""
    x = np.ones((1, 3, 64), np.float32)
    x[0, 1, :3] = 1e30, np.inf, np.nan
    got = run(x, ResponseNorm(1, 1, 1.0, 1.0, 3))
    assert (got[0, :, 0] == 0).all()
    assert (got[0, [0, 2], 1] == 0).all() and np.isnan(got[0, 1, 1])
    assert np.isnan(got[0, :, 2]).all()
    assert np.isfinite(got[0, :, 3:]).all()


# ---- how frontends write it --------------------------------------------------------------------


def kernels(mod):
    names = [v.name_hint for v in mod.get_global_vars()]
    return [name for name in names if name.startswith("response_norm")]


@pytest.mark.parametrize(("size", "beta", "k"), [(5, 0.75, 1.0), (3, 0.5, 2.0), (1, 0.25, 0.1)])
def test_onnx(size, beta, k, rng):
    node = helper.make_node("LRN", ["x"], ["y"], size=size, alpha=0.1, beta=beta, bias=k)
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 9, 5, 7]) for n in "xy"]
    graph = helper.make_graph([node], "graph", infos[:1], infos[1:])
    mod = driver.import_onnx(helper.make_model(graph))
    assert len(kernels(JoinResponseNorms(8)(mod))) == 1
    x = rng.standard_normal((2, 9, 5, 7)).astype("float32")
    norm = ResponseNorm((size - 1) // 2, size // 2, 0.1 / size, k, int(4 * beta))
    want = exact(x, norm)
    got = evaluate(mod, x, pipeline="sparsewino")
    assert (np.abs(got - want) <= F32 * np.abs(want)).all()


@pytest.mark.parametrize("shape", [(2, 9, 5, 7), (2, 9, 11)], ids=str)
def test_pytorch(shape):
    layer = torch.nn.LocalResponseNorm(4, alpha=0.2, beta=0.75, k=2.0)
    x = torch.randn(shape)
    mod = driver.import_torch(layer, (x,))
    assert len(kernels(JoinResponseNorms(8)(mod))) == (len(shape) == 4)
    want = layer(x.double()).numpy()
    assert (
        np.abs(evaluate(mod, x.numpy(), pipeline="sparsewino") - want) <= F32 * np.abs(want)
    ).all()


CHAIN = {"beta": 0.75, "k": 1.0, "alpha": 0.1, "window": 3, "around": 1, "of": "x", "swap": False}
CHAIN["count"] = True
OTHERS = [
    {"beta": 0.7},
    {"beta": 1.0},
    {"k": 0.0},
    {"alpha": -0.1},
    {"window": 17, "around": 8},
    {"of": "y"},
    {"swap": True},
    {"count": False},
]


def chain(beta, k, alpha, window, around, of, swap, count):
    def build(b, x, y):
        n, c, h, w = x.ty.shape.values
        other = x if of == "x" else y
        square = b.emit(relax.op.multiply(x, other))
        planes = b.emit(relax.op.reshape(square, (n, 1, h, c, w) if swap else (n, 1, c, h, w)))
        pool = relax.op.nn.avg_pool3d(
            planes, (window, 1, 1), padding=(around, 0, 0), count_include_pad=count
        )
        mean = b.emit(relax.op.reshape(b.emit(pool), x.ty.shape))
        sums = b.emit(relax.op.add(b.emit(relax.op.multiply(const(alpha), mean)), const(k)))
        return b.emit(relax.op.divide(x, b.emit(relax.op.power(sums, const(beta)))))

    return module(build, (1, 20, 4, 6), (1, 20, 4, 6))


def test_between_other_operators(rng):
    """Of the same size, and in a dataflow block."""

    x = rng.standard_normal((2, 6, 4, 5)).astype("float32")
    node = helper.make_node("LRN", ["z"], ["y"], size=3, alpha=0.1)
    nodes = [helper.make_node("Relu", ["x"], ["z"]), node, helper.make_node("Exp", ["y"], ["w"])]
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, list(x.shape)) for n in "xw"]
    mod = driver.import_onnx(helper.make_model(helper.make_graph(nodes, "g", infos[:1], infos[1:])))
    assert len(kernels(JoinResponseNorms(8)(mod))) == 1
    want = np.exp(exact(np.maximum(x, 0), ResponseNorm(1, 1, 0.1 / 3, 1.0, 3)))
    assert (np.abs(evaluate(mod, x, pipeline="sparsewino") - want) <= 3 * F32 * want).all()


def test_a_chain_is_recognised():
    assert len(kernels(JoinResponseNorms(8)(chain(**CHAIN)))) == 1


@pytest.mark.parametrize("change", OTHERS, ids=str)
def test_other_chains_stay(change):
    mod = chain(**{**CHAIN, **change})
    assert not kernels(JoinResponseNorms(8)(mod))
