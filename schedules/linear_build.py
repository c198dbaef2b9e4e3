"""The kernel of one linear layer as a PrimFunc: its parameters, and what fills it."""

from __future__ import annotations

from collections.abc import Sequence

from .. import _compat as tvm_ir
from .._compat import tir
from ..config import Epilogue
from ..config_linear import LinearPlan
from ..errors import ConfigError
from ..geometry_linear import (
    DenseLinearLayout,
    SparseLinearLayout,
    dense_linear_layout,
    sparse_linear_layout,
)
from .build import Spec
from .linear_dense import emit_dense_linear
from .linear_epilogue import LinearEpilogue
from .linear_sparse import emit_sparse_linear

_OPERANDS = {"dense_linear": ("values",), "sparse_linear": ("starts", "rows", "inputs", "values")}


def linear_layout(
    plan: LinearPlan, lanes: int, vector_registers: int
) -> DenseLinearLayout | SparseLinearLayout:
    """The memory layout of the kernel of ``plan``.

    Raises:
        ConfigError: a plan that has no kernel.
    """
    if plan.algorithm not in _OPERANDS:
        raise ConfigError(f"there is no kernel for algorithm {plan.algorithm!r}")
    layout = sparse_linear_layout if plan.algorithm == "sparse_linear" else dense_linear_layout
    return layout(plan.linear, lanes, vector_registers)


def build_linear(
    plan: LinearPlan,
    epilogue: Epilogue,
    packed: Sequence[Spec],
    lanes: int,
    vector_registers: int,
    leading: Sequence[int] | None = None,
) -> tir.PrimFunc:
    """Build the kernel of ``plan``.

    Parameters of the PrimFunc: data float32 [*leading, C], the packed arrays, bias [padded K] as
    far as the epilogue has one, output float32 [*leading, K].

    Args:
        plan: what the planner decided.
        epilogue: what follows the product: bias and an activation without operands.
        packed: shape and dtype of every packed array.
        lanes: float32 lanes of a vector.
        vector_registers: vector registers of the target.
        leading: leading dimensions, whose product is the shape's n; [n] if None.

    Raises:
        ConfigError: a plan or an epilogue that has no kernel.
    """
    layout, shape = linear_layout(plan, lanes, vector_registers), plan.linear
    if epilogue.residual or epilogue.activation == "prelu":
        raise ConfigError(f"linear kernels have no residual and no PReLU, got {epilogue}")
    leading = (shape.n,) if leading is None else tuple(leading)
    with tvm_ir.prim_func(linear_name(plan, epilogue, leading)) as builder:
        data = tvm_ir.arg("data", (*leading, shape.c), "float32")
        names = _OPERANDS[plan.algorithm]
        weights = [tvm_ir.arg(n, *spec) for n, spec in zip(names, packed, strict=True)]
        bias = tvm_ir.arg("bias", (layout.padded_k,), "float32") if epilogue.bias else None
        output = tvm_ir.arg("output", (*leading, shape.k), "float32")
        following = LinearEpilogue(epilogue, bias)
        with (
            tvm_ir.flat_view(data, shape.n * shape.c) as rows,
            tvm_ir.flat_view(output, shape.n * shape.k) as sums,
        ):
            if isinstance(layout, DenseLinearLayout):
                emit_dense_linear(rows, weights[0], sums, layout, following)
            else:
                emit_sparse_linear(rows, weights, sums, layout, following)
    return builder.get()


def linear_name(plan: LinearPlan, epilogue: Epilogue, leading: Sequence[int]) -> str:
    """A name that states operator, sizes and epilogue."""
    rows = "x".join(map(str, leading)) or "1"
    parts = [plan.algorithm, f"n{rows}", f"c{plan.linear.c}k{plan.linear.k}"]
    parts += ["bias"] * epilogue.bias
    parts += [epilogue.activation] * (epilogue.activation != "none")
    return "_".join(parts)
