"""The process around one peer: commands as JSON lines on stdin, one JSON line of answer each.

    {"do": "hello"}                                     -> {"engine", "versions"}
    {"do": "load", "chain": FILE.npz, "threads": N}     -> {"settings"}
    {"do": "load_network", "model": FILE, "inputs": FILE.npz, "threads": N} -> {"settings"}
    {"do": "memory"}                                    -> {"start", "peak"} in MiB
    {"do": "run", "out": FILE.npy}                      -> {"shape"}
    {"do": "time", "repeats": N, "seconds": S, "clock": C}  -> {"seconds": [per call, ...]}
    {"do": "stop"}                                      -> {} and the process ends

A chain file holds ``x`` float32 [N, C, H, W] and, for layer i, ``w<i>`` float32 [K, C, 3, 3] and
``b<i>`` float32 [K]: 3x3 convolutions of stride 1 and padding 1, each with bias and ReLU. The
model of a network is what the engine reads, a file of ``torch.export.save`` for PyTorch and an ONNX
file for all others; ``inputs`` holds its one input, ``x``. "memory" tells what the process held
when it started to listen, its libraries loaded, and at its peak since. "time"
makes one call to warm up, which counts if it is long, then calls until ``repeats`` are done or
``seconds`` are over, at least one; the clock is "wall", or "cpu": what the
process computed, for one thread on a machine others use.
An error is answered with {"error": TEXT}; the process stays. What libraries print goes to stderr.

This file runs in the environments of the peers: it needs NumPy and nothing of this project.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

ENGINES = ("torch", "onnxruntime", "openvino", "ncnn", "deepsparse")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine", choices=ENGINES)
    serve(importlib.import_module("engine_" + parser.parse_args().engine))


def serve(engine: Any) -> None:
    """Answer commands until the input ends.

    ``engine`` has NAME, versions() and build(x, layers, threads), which gives a function that runs
    the network once, and what was set; perhaps build_network(model, x, threads), which gives the
    same for a file.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    state: dict[str, Any] = {"engine": engine, "call": None, "start": resident("VmRSS")}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = COMMANDS[request.pop("do")](state, **request)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)
        if answer == {}:
            return


def hello(state: dict[str, Any]) -> dict[str, Any]:
    return {"engine": state["engine"].NAME, "versions": state["engine"].versions()}


def load(state: dict[str, Any], chain: str, threads: int) -> dict[str, Any]:
    """Build the peer's network; ``call`` then runs it once and gives the output as an array."""
    state["call"] = None
    with np.load(chain) as file:
        x = np.ascontiguousarray(file["x"])
        count = sum(name.startswith("w") for name in file.files)
        layers = [(file[f"w{i}"], file[f"b{i}"]) for i in range(count)]
    state["call"], settings = state["engine"].build(x, layers, threads)
    return {"settings": settings}


def load_network(state: dict[str, Any], model: str, inputs: str, threads: int) -> dict[str, Any]:
    """Build a network from a file; ``call`` as after :func:`load`."""
    state["call"] = None
    with np.load(inputs) as file:
        x = np.ascontiguousarray(file["x"])
    state["call"], settings = state["engine"].build_network(model, x, threads)
    return {"settings": settings}


def memory(state: dict[str, Any]) -> dict[str, Any]:
    return {"start": state["start"], "peak": resident("VmHWM")}


def resident(field: str) -> float | None:
    """A line of the process's status in MiB; None where the system does not tell."""
    try:
        with open("/proc/self/status") as file:
            lines = [line.split() for line in file]
    except OSError:
        return None
    return next((int(line[1]) / 1024 for line in lines if line[0] == field + ":"), None)


def run(state: dict[str, Any], out: str) -> dict[str, Any]:
    output = np.asarray(state["call"]())
    np.save(out, output)
    return {"shape": list(output.shape)}


def measure(
    state: dict[str, Any], repeats: int, seconds: float, clock: str = "wall"
) -> dict[str, Any]:
    return {"seconds": timed(state["call"], repeats, seconds, CLOCKS[clock])}


def timed(
    call: Callable[[], Any], repeats: int, seconds: float, clock: Callable[[], float]
) -> list[float]:
    start = clock()
    call()
    first = clock() - start
    times = [first] if first > LONG_CALL else []
    while len(times) < repeats and (not times or sum(times) < seconds):
        start = clock()
        call()
        times.append(clock() - start)
    return times


def stop(state: dict[str, Any]) -> dict[str, Any]:
    return {}


LONG_CALL = 0.2  # seconds after which a call has warmed itself up
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
COMMANDS = {
    "hello": hello,
    "load": load,
    "load_network": load_network,
    "memory": memory,
    "run": run,
    "time": measure,
    "stop": stop,
}

if __name__ == "__main__":
    main()
