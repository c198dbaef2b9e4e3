"""The Relax operators: types, errors, and the dense meaning against the NumPy oracle."""

import numpy as np
import pytest
import tvm
from relax_networks import const, evaluate, module, winograd
from tvm import relax

from tvm_sparsewino import reference
from tvm_sparsewino.config import ConvShape, Epilogue, LayerPlan
from tvm_sparsewino.cook_toom import cook_toom
from tvm_sparsewino.errors import ConfigError, ShapeError
from tvm_sparsewino.relay_passes import ops
from tvm_sparsewino.relay_passes.operators import packed_plan

# Coefficients of normal size, float32 sums over at most 36 * 5 products: a few units of 1e-7.
TOLERANCE = 1e-5


@pytest.mark.parametrize(
    ("m", "r", "shape", "k", "padding", "groups", "with_bias"),
    [
        (2, 3, (2, 3, 5, 7), 4, (1, 1, 1, 1), 1, True),
        (4, 3, (1, 4, 9, 6), 6, (0, 2, 1, 0), 2, False),
        (2, 5, (1, 2, 8, 5), 3, (2, 2, 2, 2), 1, True),
        (4, 3, (1, 1, 3, 3), 1, (0, 0, 0, 0), 1, False),  # a single output
        (4, 3, (1, 2, 3, 3), 2, (5, 4, 3, 4), 1, True),  # more padding than a filter
    ],
)
def test_dense_meaning_in_tvms_own_pipeline(rng, m, r, shape, k, padding, groups, with_bias):
    algorithm = cook_toom(m, r)
    x = rng.standard_normal(shape).astype("float32")
    u = rng.standard_normal((algorithm.coordinates, k, shape[1] // groups)).astype("float32")
    bias = rng.standard_normal(k).astype("float32") if with_bias else None
    mod = module(lambda b, v: winograd(b, v, u, m, r, padding, groups, bias), shape)
    got = evaluate(mod, x)
    want = reference.winograd_conv2d(x, u, algorithm, bias, padding, groups)
    assert tuple(int(d) for d in mod["main"].ret_ty.shape.values) == want.shape == got.shape
    assert np.abs(got - want).max() <= TOLERANCE * np.abs(want).max()


def test_weights_need_not_be_constant(rng):
    algorithm = cook_toom(2, 3)
    x = rng.standard_normal((1, 2, 4, 4)).astype("float32")
    u = rng.standard_normal((16, 3, 2)).astype("float32")

    def build(builder, data, weight):
        points = ("0", "1", "-1", "inf")
        call = ops.winograd_conv2d(data, weight, m=2, r=3, points=points, padding=(1, 1, 1, 1))
        return builder.emit(call)

    got = evaluate(module(build, x.shape, u.shape), x, u)
    want = reference.winograd_conv2d(x, u, algorithm, padding=(1, 1, 1, 1))
    assert np.abs(got - want).max() <= TOLERANCE * np.abs(want).max()


def call(data=(1, 4, 8, 8), weight=(36, 6, 4), bias=None, **attrs):
    """The type of a call with operands of these shapes, or (dtype, shape)."""

    def variable(name, spec):
        dtype, shape = spec if isinstance(spec[0], str) else ("float32", spec)
        return relax.Var(name, relax.TensorType(shape, dtype))

    attrs = {"m": 4, "r": 3, "points": ("0", "1", "-1", "2", "-2", "inf")} | attrs
    attrs = {"padding": (1, 1, 1, 1)} | attrs
    made = ops.winograd_conv2d(
        variable("x", data), variable("w", weight), bias and variable("b", bias), **attrs
    )
    return ops.infer_winograd_conv2d(made, None)


def test_a_call_that_fits_has_a_type():
    ty = call(bias=(6,))
    assert tuple(int(d) for d in ty.shape.values) == (1, 6, 8, 8)


@pytest.mark.parametrize(
    ("kind", "text", "changes"),
    [
        (ShapeError, "4 input and 6 output channels do not fit 3 groups of 4", {"groups": 3}),
        (ShapeError, "do not fit 0 groups", {"groups": 0}),
        (ShapeError, r"needs weights \[36, K, C\], got \(16, 6, 4\)", {"weight": (16, 6, 4)}),
        (ShapeError, r"needs weights \[36, K, C\], got \(36, 6\)", {"weight": (36, 6)}),
        (ShapeError, r"data must be \[N, C, H, W\]", {"data": (4, 8, 8)}),
        (ShapeError, r"bias must be \[6\], got \(4,\)", {"bias": (4,)}),
        (ShapeError, "padding must be 4 numbers", {"padding": (1, 1)}),
        (ShapeError, "padding must be 4 numbers", {"padding": (1, 1, -1, 1)}),
        (ShapeError, "smaller than the filter", {"data": (1, 4, 2, 9), "padding": (0, 0, 0, 0)}),
        (ShapeError, "data must be float32, got float16", {"data": ("float16", (1, 4, 8, 8))}),
        (ShapeError, "weight must be float32, got int8", {"weight": ("int8", (36, 6, 4))}),
        (ConfigError, "needs 5 finite points, got 1", {"points": ("0", "inf")}),
        (ConfigError, "must end with 'inf'", {"points": ("0", "1", "-1", "2", "-2", "3")}),
        (ConfigError, "positive integers", {"m": 0}),
    ],
)
def test_a_call_that_does_not_fit_is_refused_by_name(kind, text, changes):
    with pytest.raises(kind, match=text) as error:
        call(**changes)
    assert str(error.value).startswith("sparsewino.winograd_conv2d: ")


def test_symbolic_and_unknown_shapes_are_refused():
    height = tvm.tirx.Var("height", "int64")
    with pytest.raises(ShapeError, match=r"data has the symbolic shape .*height"):
        call(data=(1, 4, height, 8))
    unknown = relax.Var("x", relax.TensorType(ndim=4, dtype="float32"))
    with pytest.raises(ShapeError, match="data has an unknown shape"):
        ops.static_shape(unknown, "data")
    pair = relax.Var("x", relax.TupleType([relax.TensorType((1,), "float32")]))
    with pytest.raises(ShapeError, match="data must be a tensor"):
        ops.static_shape(pair, "data")


def test_the_batch_may_be_open():
    batch = tvm.tirx.Var("batch", "int64")
    shape = call(data=(batch, 4, 8, 8)).shape.values
    assert shape[0].same_as(batch) and [int(extent) for extent in shape[1:]] == [6, 8, 8]
    data = relax.Var("x", relax.TensorType((batch, 4, 8, 8), "float32"))
    assert ops.static_shape(data, "data", batch=3) == (3, 4, 8, 8)
    with pytest.raises(ShapeError, match=r"data has the symbolic shape .*batch"):
        ops.static_shape(data, "data")


def test_errors_keep_their_kind_through_tvm():
    """Raised in Python, carried through TVM's C++, and still ours."""
    with pytest.raises(ShapeError, match="do not fit 1 groups of 3"):
        module(lambda b, v: winograd(b, v, np.zeros((36, 6, 3))), (1, 4, 8, 8))


def test_the_operator_takes_two_or_three_operands():
    made = ops.winograd_conv2d(
        const(np.zeros((1, 1, 4, 4))),
        const(np.zeros((16, 1, 1))),
        m=2,
        r=3,
        points=("0", "1", "-1", "inf"),
        padding=(0, 0, 0, 0),
    )
    one = relax.Call(made.op, [made.args[0]], made.attrs)
    with pytest.raises(ShapeError, match="got 1 operands"):
        ops.infer_winograd_conv2d(one, None)


# ---- the sparse operator -----------------------------------------------------------------------

SHAPE = ConvShape(1, 3, 8, 6, 5, 3, (1, 1, 1, 1))
PLAN = LayerPlan(name="features.3", conv=SHAPE, density=0.1, algorithm="sparse_winograd", m=4)


def sparse(epilogue, *operands, data=(1, 3, 8, 6)):
    def variable(shape):
        return relax.Var("v", relax.TensorType(shape, "float32"))

    made = ops.packed_conv2d(
        variable(data),
        [variable((7,)), variable((9,))],
        [variable(shape) for shape in operands],
        plan=PLAN,
        epilogue=epilogue,
        lanes=8,
        vector_registers=16,
    )
    return made, ops.infer_packed_conv2d(made, None)


def test_the_sparse_operator_carries_its_plan():
    epilogue = Epilogue(bias=True, residual=True, activation="prelu")
    made, ty = sparse(epilogue, (5,), (5,), (1, 5, 8, 6))
    assert tuple(int(d) for d in ty.shape.values) == (1, 5, 8, 6)
    assert packed_plan(made.attrs) == (PLAN, epilogue)


@pytest.mark.parametrize(
    ("text", "epilogue", "operands", "more"),
    [
        (r"takes the operands \['bias'\] after the weights, got 0", Epilogue(bias=True), (), {}),
        ("got 1", Epilogue(), [(5,)], {}),
        (r"bias must be \(5,\), got \(3,\)", Epilogue(bias=True), [(3,)], {}),
        (r"slope must be \(5,\)", Epilogue(activation="prelu"), [(1,)], {}),
        (r"residual must be \(1, 5, 8, 6\)", Epilogue(residual=True), [(1, 5, 1, 1)], {}),
        (
            r"data must be \(1, 3, 8, 6\), got \(2, 3, 8, 6\)",
            Epilogue(),
            (),
            {"data": (2, 3, 8, 6)},
        ),
    ],
)
def test_sparse_operands_that_do_not_fit_name_the_layer(text, epilogue, operands, more):
    with pytest.raises(ShapeError, match=text) as error:
        sparse(epilogue, *operands, **more)
    assert str(error.value).startswith("layer 'features.3': ")
