"""Convert networks in NHWC to NCHW once, at their border."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tvm
from tvm import relax
from tvm.ir import IRModule, Op

from .._compat import constant
from .bindings import Bindings, map_functions
from .ops import BATCH_NORM, CONV2D

_TO_NHWC, _TO_NCHW = (0, 2, 3, 1), (0, 3, 1, 2)
# Where an axis of NHWC is in NCHW.
_AXIS = (0, 2, 3, 1)
_UNARY = frozenset(
    f"relax.{name}"
    for name in (
        *("abs", "ceil", "clip", "erf", "exp", "floor", "log", "negative", "round", "rsqrt"),
        *("sigmoid", "sqrt", "square", "tanh"),
        *("nn.gelu", "nn.gelu_tanh", "nn.leakyrelu", "nn.relu", "nn.relu6", "nn.selu", "nn.silu"),
        "nn.softplus",
    )
)
_BINARY = frozenset(
    f"relax.{name}"
    for name in ("add", "subtract", "multiply", "divide", "maximum", "minimum", "power")
)
_POOLS = frozenset(("relax.nn.max_pool2d", "relax.nn.avg_pool2d", "relax.nn.adaptive_avg_pool2d"))
_REDUCTIONS = frozenset(("relax.mean", "relax.sum", "relax.max", "relax.min"))


@tvm.transform.module_pass(opt_level=0, name="ToNCHW")
class ToNCHW:
    """Make convolutions and what is between them NCHW, as our kernels are.

    ``permute(conv_nchw(permute(x)))`` per layer, which is how networks from TensorFlow come
    through ONNX, and ``conv_nhwc(x)`` become ``conv_nchw`` alone: a permutation is carried along,
    through element-wise operators, sums, products, concatenation, padding, BatchNorm, pooling and
    reductions, until its inverse cancels it. What is left are one at the input and, where the
    network gives maps, one at the output.

    Checked: weights are constants (others keep their layout, and the plan says so), constants of
    element-wise operators are permuted too, and an operator that is not known to commute gets its
    operands as they were. Variables of convolutions keep their names. Networks without any NHWC
    stay as they are. TVM's own pass converts operators one by one and leaves permutations between.
    """

    def transform_module(self, mod: IRModule, _ctx: tvm.transform.PassContext) -> IRModule:
        """Apply the pass to every function of ``mod``."""
        return map_functions(mod, _convert)


def _convert(func: relax.Function) -> relax.Function:
    bindings = Bindings(func)
    if not any(_is_nhwc(binding.value) for binding in bindings.order):
        return func
    return _Conversion(func, bindings).run()


def _is_nhwc(value: relax.Expr) -> bool:
    if not _is_call(value):
        return False
    if value.op.name == "relax.permute_dims":
        return _axes(value) == _TO_NHWC
    layout = getattr(value.attrs, "data_layout", None) or getattr(value.attrs, "layout", None)
    return layout == "NHWC" and value.op.name in (CONV2D, *_POOLS)


def _is_call(value: relax.Expr) -> bool:
    return isinstance(value, relax.Call) and isinstance(value.op, Op)


def _axes(call: relax.Call) -> tuple[int, ...] | None:
    axes = call.attrs.axes
    return None if axes is None else tuple(int(axis) for axis in axes)


class _Conversion:
    """One walk over the bindings.

    ``views`` holds variables that are not computed any more: each is the NHWC form of a variable
    in NCHW. ``renamed`` holds variables that are another one now.
    """

    def __init__(self, func: relax.Function, bindings: Bindings) -> None:
        self.func, self.constant = func, bindings.constant
        self.builder = relax.BlockBuilder()
        self.views: dict[relax.Var, relax.Var] = {}
        self.renamed: dict[relax.Var, relax.Var] = {}
        self.made: dict[relax.Var, relax.Var] = {}
        self.out: list[relax.Binding] = []
        self.variable: type[relax.Var] = relax.DataflowVar

    def run(self) -> relax.Function:
        blocks = []
        for block in self.func.body.blocks:
            inside = isinstance(block, relax.DataflowBlock)
            self.variable = relax.DataflowVar if inside else relax.Var
            self.out = []
            self.made = {}  # variables of a dataflow block are not known outside
            for binding in block.bindings:
                self._bind(binding)
            blocks.append((relax.DataflowBlock if inside else relax.BindingBlock)(self.out))
        result = self.builder.normalize(relax.SeqExpr(blocks, self.func.body.body))
        func = self.func
        rebuilt = relax.Function(func.params, result, func.ret_ty, func.is_pure, func.attrs)
        return relax.analysis.remove_all_unused(rebuilt)

    def _bind(self, binding: relax.Binding) -> None:
        var, value = binding.var, getattr(binding, "value", None)
        can_vanish = not isinstance(binding, relax.MatchCast) and self._is_inner(var)
        if can_vanish and (_is_call(value) or isinstance(value, relax.TupleGetItem)):
            converted = self._converted(var, value)
            if converted is not None:
                self.views[var] = converted
                return
            if var in self.renamed:
                return
        if isinstance(binding, relax.MatchCast):
            self.out.append(relax.MatchCast(var, self._plain(value), binding.ty))
            return
        value = self.builder.normalize(self._plain(value))
        self.out.append(relax.VarBinding(var, value))

    def _is_inner(self, var: relax.Var) -> bool:
        """Whether nothing outside of the block sees the variable."""
        return isinstance(var, relax.DataflowVar)

    # ---- operands ------------------------------------------------------------------------------

    def _plain(self, expr: relax.Expr) -> relax.Expr:
        """``expr`` with views computed, since it is not known to commute."""
        if isinstance(expr, relax.Var):
            expr = self.renamed.get(expr, expr)
            if expr in self.views:
                return self._permuted(self.views[expr], _TO_NHWC)
            return expr
        if isinstance(expr, relax.Tuple):
            return relax.Tuple([self._plain(field) for field in expr.fields])
        if isinstance(expr, relax.TupleGetItem):
            return relax.TupleGetItem(self._plain(expr.tuple_value), expr.index)
        if isinstance(expr, relax.Call):
            args = [self._plain(arg) for arg in expr.args]
            return relax.Call(expr.op, args, expr.attrs, expr.ty_args)
        return expr

    def _nchw(self, expr: relax.Expr) -> relax.Expr:
        """The NCHW form of a tensor in NHWC: of a view its source, of others a permutation."""
        array = self.constant(expr)
        if array is not None:
            wide = array.reshape((1,) * (4 - array.ndim) + array.shape)
            return constant(wide.transpose(_TO_NCHW))
        expr = self.renamed.get(expr, expr) if isinstance(expr, relax.Var) else expr
        return self.views[expr] if expr in self.views else self._permuted(expr, _TO_NCHW)

    def _permuted(self, expr: relax.Expr, axes: Sequence[int]) -> relax.Var:
        known = axes == _TO_NHWC and isinstance(expr, relax.Var)
        if known and expr in self.made:
            return self.made[expr]
        made = self._emit("permuted", relax.op.permute_dims(expr, list(axes)))
        if known:
            self.made[expr] = made
        return made

    def _emit(self, name: str, value: relax.Expr) -> relax.Var:
        value = self.builder.normalize(value)
        var = self.variable(name, value.ty)
        self.out.append(relax.VarBinding(var, value))
        return var

    def _is_view(self, expr: relax.Expr) -> bool:
        return isinstance(expr, relax.Var) and self.renamed.get(expr, expr) in self.views

    # ---- operators -----------------------------------------------------------------------------

    def _converted(self, var: relax.Var, value: relax.Expr) -> relax.Var | None:
        """The NCHW form of ``value``, which was in NHWC; None where that is not known."""
        if isinstance(value, relax.TupleGetItem):
            return self._batch_norm_result(var, value)
        name = value.op.name
        rules: dict[str, Callable[[relax.Var, relax.Call], relax.Var | None]] = {
            "relax.permute_dims": self._permute,
            "relax.concat": self._concat,
            "relax.nn.pad": self._pad,
            BATCH_NORM: self._batch_norm,
            CONV2D: self._conv,
            **dict.fromkeys(_POOLS, self._pool),
            **dict.fromkeys(_UNARY, self._unary),
            **dict.fromkeys(_BINARY, self._binary),
            **dict.fromkeys(_REDUCTIONS, self._reduction),
        }
        return rules[name](var, value) if name in rules else None

    def _permute(self, var: relax.Var, call: relax.Call) -> relax.Var | None:
        axes, data = _axes(call), call.args[0]
        if axes == _TO_NHWC and isinstance(data, relax.Var):
            data = self.renamed.get(data, data)
            return None if data in self.views else data
        if axes == _TO_NCHW and self._is_view(data):
            self.renamed[var] = self.views[self.renamed.get(data, data)]
        return None

    def _conv(self, var: relax.Var, call: relax.Call) -> relax.Var | None:
        attrs, weight = call.attrs, self.constant(call.args[1])
        if (attrs.data_layout, attrs.out_layout) != ("NHWC", "NHWC") or weight is None:
            return None
        letters = str(attrs.kernel_layout)
        if sorted(letters) != sorted("OIHW"):
            return None
        order = [letters.index(letter) for letter in "OIHW"]
        weight = weight.transpose(order)
        converted = relax.op.nn.conv2d(
            self._nchw(call.args[0]),
            constant(weight),
            strides=attrs.strides,
            padding=attrs.padding,
            dilation=attrs.dilation,
            groups=attrs.groups,
            data_layout="NCHW",
            kernel_layout="OIHW",
            out_layout="NCHW",
            out_dtype=attrs.out_dtype or None,
        )
        return self._emit(var.name, converted)

    def _pool(self, var: relax.Var, call: relax.Call) -> relax.Var | None:
        attrs = call.attrs
        if (attrs.layout, attrs.out_layout) != ("NHWC", "NHWC"):
            return None
        data = self._nchw(call.args[0])
        if call.op.name == "relax.nn.adaptive_avg_pool2d":
            pooled = relax.op.nn.adaptive_avg_pool2d(data, attrs.output_size, "NCHW")
            return self._emit(var.name, pooled)
        make = getattr(relax.op.nn, call.op.name.removeprefix("relax.nn."))
        options = {
            name: getattr(attrs, name)
            for name in ("pool_size", "strides", "padding", "dilation", "ceil_mode")
        }
        options["count_include_pad"] = attrs.count_include_pad
        return self._emit(var.name, make(data, layout="NCHW", **options))

    def _unary(self, var: relax.Var, call: relax.Call) -> relax.Var | None:
        if not self._is_view(call.args[0]):
            return None
        args = [self._nchw(call.args[0]), *call.args[1:]]
        return self._emit(var.name, relax.Call(call.op, args, call.attrs, call.ty_args))

    def _binary(self, var: relax.Var, call: relax.Call) -> relax.Var | None:
        if not any(map(self._is_view, call.args)):
            return None
        if not all(map(self._has_nhwc_form, call.args)):
            return None
        args = [self._nchw(arg) for arg in call.args]
        return self._emit(var.name, relax.Call(call.op, args, call.attrs))

    def _has_nhwc_form(self, expr: relax.Expr) -> bool:
        array = self.constant(expr)
        return array.ndim <= 4 if array is not None else _rank(expr) == 4

    def _concat(self, var: relax.Var, call: relax.Call) -> relax.Var | None:
        tensors = call.args[0].fields if isinstance(call.args[0], relax.Tuple) else []
        if not any(map(self._is_view, tensors)) or call.attrs.axis is None:
            return None
        axis = _AXIS[int(call.attrs.axis)]
        return self._emit(var.name, relax.op.concat([self._nchw(t) for t in tensors], axis))

    def _pad(self, var: relax.Var, call: relax.Call) -> relax.Var | None:
        if not self._is_view(call.args[0]):
            return None
        widths = [int(width) for width in call.attrs.pad_width]
        order = [widths[2 * axis + side] for axis in _TO_NCHW for side in (0, 1)]
        made = relax.op.nn.pad(
            self._nchw(call.args[0]), order, call.attrs.pad_mode, call.attrs.pad_value
        )
        return self._emit(var.name, made)

    def _reduction(self, var: relax.Var, call: relax.Call) -> relax.Var | None:
        attrs, data = call.attrs, call.args[0]
        if not self._is_view(data) or attrs.axis is None:
            return None
        before = [int(axis) % 4 for axis in attrs.axis]
        make = getattr(relax.op, call.op.name.removeprefix("relax."))
        axes = sorted(_AXIS[axis] for axis in before)
        if attrs.keepdims:
            return self._emit(var.name, make(self._nchw(data), axes, keepdims=True))
        kept = [_AXIS[axis] for axis in range(4) if axis not in before]
        if kept == sorted(kept):  # the other axes stay in their order
            self.renamed[var] = self._emit(var.name, make(self._nchw(data), axes))
        return None

    def _batch_norm(self, var: relax.Var, call: relax.Call) -> relax.Var | None:
        attrs = call.attrs
        if int(attrs.axis) % 4 != 3 or not self._is_view(call.args[0]):
            return None
        names = ("epsilon", "center", "scale", "momentum", "training")
        options = {name: getattr(attrs, name) for name in names}
        args = [self._nchw(call.args[0]), *map(self._plain, call.args[1:])]
        return self._emit(var.name, relax.op.nn.batch_norm(*args, axis=1, **options))

    def _batch_norm_result(self, var: relax.Var, value: relax.TupleGetItem) -> relax.Var | None:
        norm = value.tuple_value
        if norm not in self.views:
            return None
        result = self._emit(var.name, relax.TupleGetItem(self.views[norm], value.index))
        if value.index:  # a statistic, which has no layout
            self.renamed[var] = result
            return None
        return result


def _rank(expr: relax.Expr) -> int:
    ty = expr.ty
    return int(ty.ndim) if isinstance(ty, relax.TensorType) else -1
