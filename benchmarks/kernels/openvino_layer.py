"""The process that times one convolution in OpenVINO; it runs in the peer's environment.

    {"do": "load", "model": FILE.onnx, "inputs": FILE.npz}  -> {}
    {"do": "time", "repeats": N}    -> {"calls": [seconds, ...], "shares": [0 to 1, ...]}
    {"do": "run", "out": FILE.npy}  -> {}

JSON lines on stdin and stdout. "calls" are in processor time; "shares" are what the convolution's
node takes of a call, as the engine's counters tell it. The rest brings a map into the engine's own
layout and back, which a network does once. Errors are answered with {"error": TEXT}.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import numpy as np
import openvino

CONFIG = {
    "INFERENCE_PRECISION_HINT": "f32",
    "INFERENCE_NUM_THREADS": 1,
    "PERFORMANCE_HINT": "LATENCY",
    "NUM_STREAMS": 1,
    "PERF_COUNT": True,
}


def load(state: dict[str, Any], model: str, inputs: str) -> dict[str, Any]:
    core = openvino.Core()
    state["request"] = core.compile_model(
        core.read_model(model), "CPU", CONFIG
    ).create_infer_request()
    with np.load(inputs) as file:
        x = np.ascontiguousarray(file["x"])
    state["request"].set_input_tensor(openvino.Tensor(x, shared_memory=False))
    state["request"].infer()
    return {}


def measure(state: dict[str, Any], repeats: int) -> dict[str, Any]:
    answer: dict[str, Any] = {"calls": [], "shares": []}
    for _ in range(repeats):
        start = time.process_time()
        state["request"].infer()
        answer["calls"].append(time.process_time() - start)
        nodes = state["request"].get_profiling_info()
        took = {n.node_name: n.real_time.total_seconds() for n in nodes}
        own = sum(took[n.node_name] for n in nodes if "Convolution" in n.node_type)
        answer["shares"].append(own / sum(took.values()))
    return answer


def run(state: dict[str, Any], out: str) -> dict[str, Any]:
    np.save(out, state["request"].get_output_tensor().data)
    return {}


COMMANDS = {"load": load, "time": measure, "run": run}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the library prints
    state: dict[str, Any] = {}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = COMMANDS[request.pop("do")](state, **request)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
