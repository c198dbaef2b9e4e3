"""OpenVINO: float32, latency hint, input and output tensors set once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import openvino
from chain_onnx import Layers, onnx_model

NAME = "openvino"


def versions() -> dict[str, str]:
    return {"openvino": openvino.__version__}


def build(x: np.ndarray, layers: Layers, threads: int) -> tuple[Callable[[], np.ndarray], Any]:
    return compiled(onnx_model(x, layers), x, threads)


def build_network(model: str, x: np.ndarray, threads: int) -> tuple[Callable[[], np.ndarray], Any]:
    return compiled(model, x, threads)


def compiled(
    model: str | bytes, x: np.ndarray, threads: int
) -> tuple[Callable[[], np.ndarray], Any]:
    """A model with one input and one output."""
    core = openvino.Core()
    config = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    network = core.compile_model(core.read_model(model), "CPU", config)
    request = network.create_infer_request()
    request.set_input_tensor(openvino.Tensor(x, shared_memory=False))

    def call() -> np.ndarray:
        request.infer()
        return request.get_output_tensor().data

    return call, ", ".join(f"{k}={v}" for k, v in config.items())
