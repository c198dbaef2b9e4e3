"""PyTorch networks as Relax modules, with the layers' names kept."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

from tvm import relax
from tvm.ir import IRModule

from .._compat import tir
from ..cook_toom import canonical_points, points_to_text
from ..errors import ImportFailed, SparseWinoError, in_context
from ..extras import require
from .bindings import Bindings
from .import_checks import checked_converters
from .import_resize import keep_resizes, resize_converters
from .operators import WINOGRAD
from .ops import winograd_conv2d
from .patterns import LAYER_NAMES

# What a dimension that stays open is called.
BATCH = "batch"

# Nodes of PyTorch's graph, and what the importer makes of each of them.
_CONVS = ("convolution.default", "winograd_conv2d.default")
_CONV_OPERATORS = (
    *(f"relax.nn.conv{rank}d{kind}" for rank in (1, 2, 3) for kind in ("", "_transpose")),
    WINOGRAD,
)
_PRODUCTS = (
    *("addmm.default", "mm.default", "bmm.default", "baddbmm.default"),
    *("linear.default", "matmul.default"),
)
# Operands of torch.ops.sparsewino.winograd_conv2d, in order.
_OPERANDS = ("x", "weight", "bias", "m", "r", "padding", "groups", "relu")


def import_exported_program(program: Any) -> IRModule:
    """A ``torch.export.ExportedProgram`` as an IRModule, parameters as constants.

    The function is called "main" and takes the program's inputs by their names. A first dimension
    that the program leaves open is called "batch". Convolutions keep
    the names of the modules they came from, so that a plan can name them.

    Raises:
        ImportFailed: an operator that TVM cannot import (all are named), or data that is not
            float32.
    """
    from tvm.relax.frontend.torch import from_exported_program

    _check_dtypes(program)
    with warnings.catch_warnings():
        # PyTorch 2.13 warns about its own tree specs when it copies a program.
        warnings.simplefilter("ignore", FutureWarning)
        program = program.run_decompositions(keep_resizes(_default_decompositions()))
    try:
        mod = from_exported_program(
            program,
            unwrap_unit_return_tuple=True,
            custom_convert_map=checked_converters(
                program, {"winograd_conv2d.default": _convert_winograd, **resize_converters()}
            ),
            run_ep_decomposition=False,
        )
    except SparseWinoError as error:
        raise ImportFailed(str(error)) from error
    except Exception as error:  # the importer raises AssertionError, ValueError, KeyError, ...
        raise ImportFailed(f"TVM cannot import the model: {error}") from error
    return _with_layer_names(_with_batch_name(mod), program)


def _default_decompositions() -> Any:
    return require("torch", "torch").export.default_decompositions()


def _convert_winograd(node: Any, importer: Any) -> relax.Var:
    """One call of ``torch.ops.sparsewino.winograd_conv2d`` as our operator."""
    values = dict(zip(_OPERANDS, importer.retrieve_args(node), strict=False))
    m, r = int(values["m"]), int(values["r"])
    with in_context(f"layer {_module_path(node)!r}"):
        call = winograd_conv2d(
            values["x"],
            values["weight"],
            values["bias"],
            m=m,
            r=r,
            points=points_to_text(canonical_points(m, r)),
            padding=values["padding"],
            groups=int(values.get("groups", 1)),
            relu=bool(values.get("relu", False)),
        )
        return importer.block_builder.emit(call)


def _check_dtypes(program: Any) -> None:
    """Refuse floating-point data other than float32."""
    tensors = dict(program.state_dict)
    for node in program.graph.nodes:
        if node.op == "placeholder" and hasattr(node.meta.get("val"), "dtype"):
            tensors.setdefault(node.name, node.meta["val"])
    for name, tensor in tensors.items():
        dtype = str(tensor.dtype).removeprefix("torch.")
        if tensor.dtype.is_floating_point and dtype != "float32":
            raise ImportFailed(f"{name!r} is {dtype}; only float32 is supported")


def _module_path(node: Any) -> str:
    """Path of the module whose forward made ``node``, "" for the model itself."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return str(stack[-1][0]).removeprefix("L['self'].") if stack else ""


def _with_batch_name(mod: IRModule) -> IRModule:
    """A name for people in place of PyTorch's, such as s77; other symbols keep theirs."""
    shapes = [getattr(getattr(p.ty, "shape", None), "values", ()) for p in mod["main"].params]
    first = {shape[0].name: shape[0] for shape in shapes if shape and isinstance(shape[0], tir.Var)}
    if len(first) == 1:
        (symbol,) = first.values()
        mod["main"] = mod["main"].bind_symbolic_vars({symbol: tir.Var(BATCH, "int64")})
    return mod


def _with_layer_names(mod: IRModule, program: Any) -> IRModule:
    """Note which module every convolution and every product came from, as an attribute of the
    function.

    The importer makes one of them per node, in order; should it ever make another number of
    either, the names of that kind are left out rather than put on the wrong layers.
    """
    func, names = mod["main"], {}
    for targets, operators in ((_CONVS, _CONV_OPERATORS), (_PRODUCTS, ("relax.matmul",))):
        paths = [_module_path(node) for node in program.graph.nodes if _calls(node, targets)]
        variables = list(_variables(func, operators))
        if len(paths) == len(variables):
            pairs = zip(variables, paths, strict=True)
            names |= {variable: path for variable, path in pairs if path}
    if names:
        mod["main"] = func.with_attr(LAYER_NAMES, names)
    return mod


def _calls(node: Any, targets: tuple[str, ...]) -> bool:
    return node.op == "call_function" and getattr(node.target, "__name__", "") in targets


def _variables(func: relax.Function, operators: tuple[str, ...]) -> Iterable[str]:
    for binding in Bindings(func).order:
        if getattr(getattr(binding.value, "op", None), "name", "") in operators:
            yield binding.var.name
