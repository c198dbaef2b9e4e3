"""Networks as files that other engines read, and what PyTorch computes for them."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..errors import ExportFailed
from .export import exported_program
from .layers import WinogradConv2d

OPSET = 13  # what the oldest engines read
INPUT, OUTPUT = "x", "y"


def write_onnx(model: nn.Module, x: np.ndarray, path: Path) -> None:
    """Write a network of plain operators as ONNX with input "x" and output "y", BatchNorm folded.

    PyTorch's older exporter does it, which knows older opsets than the one behind
    :func:`tvm_sparsewino.export_onnx`.

    Args:
        model: any module without Winograd layers; it stays as it is.
        x: the input it is exported with; all shapes are fixed.
        path: the file to write.

    Raises:
        ExportFailed: PyTorch cannot export the model; the message gives its reason.
    """
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model.eval(),
                (torch.from_numpy(x),),
                str(path),
                dynamo=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
            )
    except Exception as error:  # PyTorch's kinds of export failure share no base
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ExportFailed(f"{type(model).__name__} cannot be exported: {reason}") from error


def write_program(model: nn.Module, x: np.ndarray, path: Path) -> None:
    """Write a network as ``torch.export.save`` does (.pt2), for the batch size of ``x``.

    Raises:
        ImportFailed: PyTorch cannot export the model.
    """
    torch.export.save(exported_program(model, (torch.from_numpy(x),)), path)


@torch.no_grad()
def answer(model: nn.Module, x: np.ndarray) -> np.ndarray:
    """What PyTorch computes, in evaluation mode."""
    return model.eval()(torch.from_numpy(x)).numpy()


@torch.no_grad()
def weight_arrays(model: nn.Module) -> list[np.ndarray]:
    """Weights of all convolutions and linear layers as they run: coefficients of Winograd layers,
    filters and matrices of others.
    """
    arrays = []
    for module in model.modules():
        if isinstance(module, WinogradConv2d):
            arrays.append(module.winograd_weight.numpy())
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            arrays.append(module.weight.numpy())
    return arrays
