"""A PyTorch network as an ONNX model, one node of our operator per Winograd layer."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..errors import ExportFailed
from .export import prepare_for_export

DynamicShapes = Mapping[str, Mapping[int, str]]

# It logs once per operator of torchvision when that is not installed.
_TALKATIVE = "torch.onnx._internal.exporter._registration"


def onnx_model(
    model: nn.Module | torch.export.ExportedProgram,
    example: tuple[Any, ...],
    emit: Callable[..., Any],
    opset: int | None = None,
    dynamic: DynamicShapes | None = None,
) -> Any:
    """The network as an ``onnx.ModelProto``, in evaluation mode; ``model`` stays as it is.

    Args:
        model: any module, with or without Winograd layers, or what ``torch.export`` made of one.
        example: the positional arguments to export a module with.
        emit: makes a node of our operator; takes its operands and, by name, m, r, padding,
            groups and relu.
        opset: version of ONNX's own operators; PyTorch's choice if None.
        dynamic: input name -> dimension -> symbol, for sizes that stay open.

    Raises:
        ExportFailed: PyTorch cannot export the model; the message gives its reason.
    """
    if not isinstance(example, tuple):
        raise ExportFailed(f"example must be a tuple of arguments, got {type(example).__name__}")
    operator = torch.ops.sparsewino.winograd_conv2d.default
    try:
        with torch.no_grad(), _quiet():
            is_module = isinstance(model, nn.Module)
            program = torch.onnx.export(
                prepare_for_export(model) if is_module else model,
                example if is_module else (),
                dynamo=True,
                opset_version=opset,
                dynamic_shapes=_dynamic_shapes(dynamic),
                custom_translation_table={operator: _translation(emit)},
                verbose=False,
            )
    except Exception as error:  # PyTorch's kinds of export failure share no base
        raise ExportFailed(
            f"{type(model).__name__} cannot be exported: {_reason(error)}"
        ) from error
    return _checked(program.model_proto, opset)


def _checked(proto: Any, opset: int | None) -> Any:
    """Refuse another opset than was asked for; the exporter gives one when conversion fails."""
    got = next(o.version for o in proto.opset_import if o.domain == "")
    if opset is not None and got != opset:
        raise ExportFailed(f"PyTorch can export this model to opset {got}, not to {opset}")
    return proto


def _translation(emit: Callable[..., Any]) -> Callable[..., Any]:
    """What the exporter calls for every call of our operator."""

    def winograd_conv2d(
        x: Any,
        weight: Any,
        bias: Any,
        m: int,
        r: int,
        padding: Any,
        groups: int,
        relu: bool = False,
    ) -> Any:
        operands = (x, weight) if bias is None else (x, weight, bias)
        return emit(*operands, m=m, r=r, padding=padding, groups=groups, relu=relu)

    return winograd_conv2d


def _dynamic_shapes(dynamic: DynamicShapes | None) -> dict[str, dict[int, str]] | None:
    return None if dynamic is None else {name: dict(dims) for name, dims in dynamic.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks about PyTorch itself."""
    logger = logging.getLogger(_TALKATIVE)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _reason(error: BaseException) -> str:
    """The first line of the error that began it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0]
