"""DeepSparse 1.8.0, which finds out by itself what the weights' zeros are good for."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import deepsparse
import numpy as np
from chain_onnx import Layers, onnx_model

NAME = "deepsparse"


def versions() -> dict[str, str]:
    return {"deepsparse": deepsparse.__version__}


def build(x: np.ndarray, layers: Layers, threads: int) -> tuple[Callable[[], np.ndarray], Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "chain.onnx"
        path.write_bytes(onnx_model(x, layers))
        return build_network(str(path), x, threads)


def build_network(model: str, x: np.ndarray, threads: int) -> tuple[Callable[[], np.ndarray], Any]:
    engine = deepsparse.compile_model(
        model, batch_size=x.shape[0], num_cores=threads, scheduler="single_stream"
    )

    def call() -> np.ndarray:
        return engine.run([x], val_inp=False)[0]

    return call, f"num_cores={threads}, scheduler=single_stream, no input validation"
