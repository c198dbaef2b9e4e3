"""The Winograd convolution as one PyTorch operator, ``torch.ops.sparsewino.winograd_conv2d``.

Export and ``torch.compile`` see one node per layer instead of the tile arithmetic; eager code
calls :mod:`.functional` directly, which has less overhead. Importing this module registers the
operator, as PyTorch's own libraries do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import functional

NAME = "sparsewino::winograd_conv2d"

_SCHEMA = (
    "(Tensor x, Tensor weight, Tensor? bias, int m, int r, SymInt[] padding, int groups, "
    "bool relu=False) -> Tensor"
)


@torch.library.custom_op(NAME, mutates_args=(), schema=_SCHEMA)
def winograd_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    m: int,
    r: int,
    padding: Sequence[int],
    groups: int,
    relu: bool = False,
) -> Tensor:
    """:func:`tvm_sparsewino.nn.functional.winograd_conv2d` as an operator; same arguments."""
    return functional.winograd_conv2d(x, weight, bias, m, r, tuple(padding), groups, relu)


@winograd_conv2d.register_fake
def _shape_only(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    m: int,
    r: int,
    padding: Sequence[int],
    groups: int,
    relu: bool = False,
) -> Tensor:
    functional.check_operands(x, weight, bias, m, r, tuple(padding), groups)
    oh, ow = functional.output_size(x.shape[2], x.shape[3], r, tuple(padding))
    out = x.new_empty((x.shape[0], weight.shape[1], oh, ow))
    return out.contiguous(memory_format=functional.memory_format(x))


def _save(ctx: Any, inputs: tuple, output: Tensor) -> None:
    x, weight, _, m, r, padding, groups, relu = inputs
    ctx.save_for_backward(x, weight)
    ctx.spec = (m, r, tuple(padding), groups, relu)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    need_x, need_weight, need_bias = ctx.needs_input_grad[:3]
    grad_x, grad_weight = _gradients(grad, x, weight, *ctx.spec)
    return (
        grad_x if need_x else None,
        grad_weight if need_weight else None,
        grad.sum((0, 2, 3)) if need_bias else None,
        *(None,) * 5,
    )


@torch.library.custom_op("sparsewino::winograd_conv2d_backward", mutates_args=())
def _gradients(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    m: int,
    r: int,
    padding: Sequence[int],
    groups: int,
    relu: bool,
) -> tuple[Tensor, Tensor]:
    spec = (m, r, tuple(padding), groups)
    return functional.gradients(grad, x, weight, *spec, needs=(True, True), relu=relu)


@_gradients.register_fake
def _gradient_shapes(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    m: int,
    r: int,
    padding: Sequence[int],
    groups: int,
    relu: bool,
) -> tuple[Tensor, Tensor]:
    grad_x = torch.empty_like(x, memory_format=functional.memory_format(x))
    return grad_x, torch.empty_like(weight, memory_format=torch.contiguous_format)


winograd_conv2d.register_autograd(_backward, setup_context=_save)
