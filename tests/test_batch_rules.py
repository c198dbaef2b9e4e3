"""Which operators may run on a batch in pieces, told by what they do to a batch in halves."""

import numpy as np
import pytest
import tvm
from relax_networks import const, module, winograd
from tvm import relax

from tvm_sparsewino.errors import ShapeError
from tvm_sparsewino.relay_passes.batch import batch_symbol, check_rows_apart
from tvm_sparsewino.relay_passes.batch_rules import Operand, RowsMeet, batch_axis

OP, NN = relax.op, relax.op.nn
VECTOR = const(np.ones(4))


def check(build, *shapes):
    """Check a network of one or two inputs; "n" in a shape is the batch."""
    symbol = tvm.tirx.Var("n", "int64")
    shapes = [[symbol if extent == "n" else extent for extent in shape] for shape in shapes]
    func = relax.transform.Normalize()(module(build, *shapes))["main"]
    check_rows_apart(func, symbol)


IMAGE = ("n", 4, 6, 6)
APART = {
    "add": (lambda x: OP.add(x, x), IMAGE),
    "add a constant": (lambda x: OP.add(const(np.ones((1, 4, 1, 1))), x), IMAGE),
    "add fewer dimensions": (lambda x: OP.add(x, const(np.ones(6))), IMAGE),
    "where": (lambda x: OP.where(OP.less(x, const(0)), x, OP.zeros_like(x)), IMAGE),
    "clip": (lambda x: OP.clip(x, 0, 6), IMAGE),
    "broadcast": (lambda x: OP.broadcast_to(x, [3, x.ty.shape[0], 4]), ("n", 4)),
    "conv": (lambda x: NN.conv2d(x, const(np.ones((2, 4, 3, 3)))), IMAGE),
    "NHWC": (lambda x: NN.conv2d(x, const(np.ones((2, 6, 3, 3))), data_layout="NHWC"), IMAGE),
    "conv transposed": (lambda x: NN.conv2d_transpose(x, const(np.ones((4, 2, 3, 3)))), IMAGE),
    "pooling": (lambda x: NN.max_pool2d(x, (2, 2)), IMAGE),
    "global pooling": (lambda x: NN.adaptive_avg_pool2d(x, (1, 1)), IMAGE),
    "resize": (lambda x: OP.image.resize2d(x, (9, 9)), IMAGE),
    "shuffle": (lambda x: NN.pixel_shuffle(x, 2), IMAGE),
    "pad": (lambda x: NN.pad(x, (0, 0, 1, 1, 0, 0, 0, 0)), IMAGE),
    "batch norm": (lambda x: NN.batch_norm(x, *[VECTOR] * 4, axis=1, training=False), IMAGE),
    "layer norm": (lambda x: NN.layer_norm(x, const(np.ones(6)), const(np.ones(6)), [-1]), IMAGE),
    "group norm": (lambda x: NN.group_norm(x, VECTOR, VECTOR, 2, 1, [2, 3]), IMAGE),
    "prelu": (lambda x: NN.prelu(x, VECTOR), IMAGE),
    "softmax": (lambda x: NN.softmax(x, 1), IMAGE),
    "sum": (lambda x: OP.sum(x, [1, -1]), IMAGE),
    "argmax": (lambda x: OP.argmax(x, 1, True), IMAGE),
    "concat": (lambda x: OP.concat([x, x], 1), IMAGE),
    "split": (lambda x: OP.split(x, 2, 1), IMAGE),
    "slice": (lambda x: OP.strided_slice(x, [1, 3], [1, 5], [3, 0], [1, -1]), IMAGE),
    "permute": (lambda x: OP.permute_dims(x, [0, 3, 1, 2]), IMAGE),
    "squeeze": (lambda x: OP.squeeze(x, [1, 2]), ("n", 1, 1, 6)),
    "expand": (lambda x: OP.expand_dims(x, [2]), ("n", 6)),
    "flatten": (NN.batch_flatten, IMAGE),
    "reshape": (lambda x: OP.reshape(x, (x.ty.shape[0], 24, 6)), IMAGE),
    "product": (lambda x: OP.matmul(x, const(np.ones((6, 5)))), ("n", 6)),
    "products": (lambda x: OP.matmul(x, OP.permute_dims(x, [0, 2, 1])), ("n", 3, 5)),
    "take": (lambda x: OP.take(x, relax.const([1, 0]), axis=1), IMAGE),
    "look up": (lambda x: OP.take(const(np.ones((9, 3))), OP.astype(x, "int64"), axis=0), ("n", 6)),
    "zeros": (lambda x: OP.concat([x, OP.zeros((x.ty.shape[0], 1), "float32")], 1), ("n", 6)),
    "constants only": (lambda x: OP.add(x, OP.mean(const(np.ones((3, 1))), [0])), ("n", 6)),
}


@pytest.mark.parametrize("name", APART)
def test_operators_that_keep_rows_apart(name):
    build, shape = APART[name]

    def network(builder, x):
        result = builder.emit(build(x))
        if isinstance(result.ty, relax.TupleType):
            result = builder.emit(relax.TupleGetItem(result, 0))
        if name == "broadcast":
            result = builder.emit(OP.permute_dims(result, [1, 0, 2]))
        return result

    check(network, shape)


def test_winograd_keeps_rows_apart():
    check(lambda b, x: winograd(b, x, np.ones((36, 2, 4))), IMAGE)


SLICE = "relax.strided_slice has the extent"
UNKNOWN = "relax.add has a shape that cannot be told"
MEETING = {
    "softmax": (lambda x: NN.softmax(x, 0), ("n", 6), "relax.nn.softmax works along the batch"),
    "softmax, negative": (lambda x: NN.softmax(x, -2), ("n", 6), "works along the batch"),
    "mean": (lambda x: OP.subtract(x, OP.mean(x, [0], True)), ("n", 6), "works along the batch"),
    "mean of all": (lambda x: OP.divide(x, OP.mean(x)), ("n", 6), "relax.mean works along"),
    "statistics": (
        lambda x: NN.batch_norm(x, *[VECTOR] * 4, axis=1, training=True),
        IMAGE,
        "relax.nn.batch_norm is in training mode",
    ),
    "flip": (lambda x: OP.flip(x, 0), ("n", 6), "relax.flip works along the batch"),
    "cumsum": (lambda x: OP.cumsum(x, 0), ("n", 6), "relax.cumsum works along the batch"),
    "sort": (lambda x: OP.sort(x, 0), ("n", 6), "relax.sort works along the batch"),
    "rows": (
        lambda x: OP.strided_slice(x, [0], [0], [1]),
        ("n", 6),
        SLICE,
    ),
    "last rows": (
        lambda x: OP.strided_slice(x, [0], [1], [9]),
        ("n", 6),
        SLICE,
    ),
    "reversed": (
        lambda x: OP.strided_slice(x, [0], [-1], [-(2**31)], [-1]),
        ("n", 6),
        "relax.strided_slice",
    ),
    "concat": (lambda x: OP.concat([x, x], 0), ("n", 6), "relax.concat has the extent"),
    "mixed reshape": (
        lambda x: OP.reshape(x, (2, x.ty.shape[0], 2)),
        ("n", 4),
        "relax.reshape mixes the batch with another axis",
    ),
    "products of rows": (
        lambda x: OP.matmul(x, OP.permute_dims(x)),
        ("n", 4),
        "relax.matmul has the batch in several axes",
    ),
    "sum of rows": (
        lambda x: OP.matmul(OP.permute_dims(x), x),
        ("n", 4),
        "relax.matmul sums over the batch",
    ),
    "vector": (
        lambda x: OP.matmul(x, const(np.ones(4))),
        ("n", 4),
        "relax.matmul multiplies a vector",
    ),
    "batch of channels": (
        lambda x: NN.max_pool2d(OP.permute_dims(x, [1, 0, 2, 3])),
        IMAGE,
        "relax.nn.max_pool2d has the batch in another axis than the first",
    ),
    "take rows": (
        lambda x: OP.take(x, relax.const([0]), axis=0),
        ("n", 6),
        "relax.take works along the batch",
    ),
    "the size": (
        lambda x: OP.multiply(x, OP.astype(OP.shape_to_tensor(OP.shape_of(x)), "float32")),
        ("n", 2),
        "relax.shape_of is not known",
    ),
    "a size as a number": (
        lambda x: OP.add(x, OP.astype(OP.arange(0, x.ty.shape[0], 1), "float32")),
        ("n", 1),
        "relax.arange computes with the batch size",
    ),
    "unknown": (
        lambda x: OP.einsum([x, x], "ab,ab->ab"),
        ("n", 6),
        "relax.einsum is not known to keep the rows of a batch apart",
    ),
    "two places": (
        lambda x: OP.add(OP.expand_dims(x, [0]), OP.expand_dims(x, [1])),
        ("n", 6),
        "several axes",
    ),
    "joined with others": (
        lambda x: OP.concat([OP.expand_dims(x, [0]), const(np.ones((1, 3, 6)))], 0),
        ("n", 6),
        "relax.concat",
    ),
    "rows of its own": (
        lambda x: OP.add(x, const(np.ones((3, 6)))),
        ("n", 6),
        UNKNOWN,
    ),
}


@pytest.mark.parametrize("name", MEETING)
def test_operators_that_mix_rows_are_refused(name):
    build, shape, text = MEETING[name]

    def network(builder, x):
        result = builder.emit(build(x))
        if isinstance(result.ty, relax.TupleType):
            result = builder.emit(relax.TupleGetItem(result, 0))
        return result

    with pytest.raises(ShapeError, match=text):
        check(network, shape)


def static(*shape):
    return relax.Var("x", relax.TensorType(shape, "float32"))


@pytest.mark.parametrize(
    ("call", "operands", "text"),
    [
        (OP.add(static(3, 6), static(3, 6)), (((None, 6), 0), ((3, 6), None)), "rows of its own"),
        (OP.add(static(3, 3), static(3, 3)), (((None, 3), 0), ((3, None), 1)), "several axes"),
        (NN.prelu(static(3, 6), static(6)), (((None, 6), 0), ((None,), 0)), "weights that depend"),
        (NN.relu(static(3, 6)), (((None, 6), 0),), "moves it"),
        (
            OP.strided_slice(static(3, 6), [0], [-1], [-9], [-1]),
            (((None, 6), 0),),
            "takes some rows",
        ),
        (OP.take(static(3, 6), static(3), 1), (((None, 6), 0), ((None,), 0)), "from any row"),
        (OP.take(static(3), static(3)), (((3,), None), ((None,), 0)), "from any row"),
        (OP.matmul(static(3, 6), static(6, 3)), (((None, 6), 0), ((6, None), 1)), "several axes"),
        (OP.concat([static(3, 6), static(3, 6)], 1), (((None, 6), 0), ((3, 6), None)), "joins"),
        (OP.mean(static(3, 6), 1), (((3, 6), None),), "has its data without a batch"),
    ],
)
def test_what_types_would_show_too(call, operands, text):
    """Rules do not rely on TVM's inference of symbolic shapes."""
    marked = [Operand(*operand) for operand in operands]
    with pytest.raises(RowsMeet, match=text):
        batch_axis(call, marked, Operand((6, None), 1))


def test_outputs_begin_with_the_batch():
    with pytest.raises(ShapeError, match=r"output 0 .* does not begin with the batch"):
        check(lambda b, x: b.emit(OP.permute_dims(x)), ("n", 6))
    with pytest.raises(ShapeError, match=r"output 1 .* does not begin with the batch"):
        check(lambda b, x: b.emit(relax.Tuple([x, VECTOR])), ("n", 6))


def test_control_flow_is_refused():
    symbol = tvm.tirx.Var("n", "int64")
    x = relax.Var("x", relax.TensorType((symbol, 3), "float32"))
    condition = relax.Var("c", relax.TensorType((), "bool"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x, condition]):
        builder.emit_func_output(builder.emit(relax.If(condition, x, x)))
    with pytest.raises(ShapeError, match="control flow may depend on every row"):
        check_rows_apart(builder.get()["main"], symbol)


def test_the_symbol_of_the_batch():
    symbol, other = (tvm.tirx.Var(name, "int64") for name in "nm")

    def symbol_of(*shapes):
        return batch_symbol(module(lambda b, x, *_: b.emit(OP.abs(x)), *shapes)["main"])

    assert symbol_of((2, 3)) is None
    assert symbol_of((symbol, 3), (symbol, 5), (4,)).same_as(symbol)
    for shapes in (
        ((symbol, other),),
        ((symbol, 3), (other, 3)),
        ((symbol + 1, 3),),
        ((3, symbol),),
    ):
        with pytest.raises(
            ShapeError, match=r"input '[xy]' has the symbolic shape .*may stay open"
        ):
            symbol_of(*shapes)
