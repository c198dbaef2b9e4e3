"""Relax: what its versions spell in two ways. These functions need a TVM that has Relax."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tvm

from .building import runtime_tensor
from .running import from_dlpack


def module_text(mod: tvm.IRModule) -> str:
    """A module as TVMScript, large constants left out."""
    try:
        return mod.script(show_meta=False)
    except TypeError:  # 0.26 cannot print calls with attributes of operators from outside of TVM
        return f"# TVM {tvm.__version__} cannot print this module.\n"


def tensor_dtype(ty: tvm.relax.TensorType) -> str:
    """The element type of a tensor type, such as "float32"; "" when it is unknown."""
    return str(ty.dtype.dtype) if ty.dtype is not None else ""


def constant_tensor(expr: Any) -> Any:
    """The tensor of a constant in Relax, None for anything else."""
    if hasattr(tvm.relax, "Constant"):  # 0.26
        value = expr.data if isinstance(expr, tvm.relax.Constant) else None
    else:
        value = expr.value if isinstance(expr, tvm.ir.GenericConst) else None
    return value if isinstance(value, tvm.runtime.Tensor) else None


def constant_array(expr: Any) -> np.ndarray | None:
    """The value of a constant tensor in Relax, None for anything else; not to be written to.

    It is the constant's memory. TVM would copy it, and leave a cycle of Python objects that holds
    the copy until the next garbage collection.
    """
    tensor = constant_tensor(expr)
    if tensor is None:
        return None
    try:
        array = np.from_dlpack(tensor)
    except RuntimeError:  # a type that NumPy lacks, such as bfloat16
        return tensor.numpy()
    array.flags.writeable = False
    return array


def constant(array: np.ndarray) -> Any:
    """An array as a constant in Relax, of the same type."""
    return tvm.relax.const(runtime_tensor(array))


def constant_in_place(array: np.ndarray) -> Any:
    """A constant in Relax in the memory of ``array``, which is writable and C-contiguous, and which
    nobody writes to from now on.
    """
    return tvm.relax.const(from_dlpack(array))


def with_constants_replaced(
    expr: Any,
    replacement: Callable[[Any], Any],
    call_replacement: Callable[[Any], Any] = lambda call: call,
) -> Any:
    """An expression in Relax with ``replacement(constant)`` for each constant tensor in it, and
    ``call_replacement(call)`` for each call.
    """
    # TVM never frees a mutator, which its object in C++ holds, and what that is made of. So a
    # mutator must not hold replacements that know of a network's constants.
    replacements = [replacement, call_replacement]

    @tvm.relax.expr_functor.mutator
    class Replacing(tvm.relax.PyExprMutator):
        def visit_generic_const_(self, op: Any) -> Any:
            return op if constant_tensor(op) is None else replacements[0](op)

        visit_constant_ = visit_generic_const_  # 0.26

        def visit_call_(self, op: Any) -> Any:
            return replacements[1](super().visit_call_(op))

    try:
        return Replacing().visit_expr(expr)
    finally:
        replacements.clear()


def onnx_converters() -> Mapping[str, Any]:
    """TVM's converters of ONNX operators: type -> class with ``get_converter(opset)``."""
    from tvm.relax.frontend.onnx import onnx_frontend

    converters = onnx_frontend._get_convert_map()
    return {name: converter for name, converter in converters.items() if converter is not None}
