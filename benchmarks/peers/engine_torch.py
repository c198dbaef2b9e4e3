"""PyTorch on the CPU (oneDNN): the fastest of eager, channels_last and a frozen trace."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

NAME = "torch"
_RUNS_TO_CHOOSE = 5
_SECONDS_TO_CHOOSE = 0.3
_IMAGES_TO_CHOOSE = 2
Layers = list[tuple[np.ndarray, np.ndarray]]


def versions() -> dict[str, str]:
    return {"torch": torch.__version__}


def build(x: np.ndarray, layers: Layers, threads: int) -> tuple[Callable[[], np.ndarray], Any]:
    return chosen(lambda: network(layers), x, x[:_IMAGES_TO_CHOOSE], threads)


def build_network(model: str, x: np.ndarray, threads: int) -> tuple[Callable[[], np.ndarray], Any]:
    # Loaded anew for every variant, since they change parameters in place; the program is of one
    # batch size, so the choice is made with all of it.
    def make() -> nn.Module:
        net = torch.export.load(model).module()
        # What is exported evaluates; its own eval() only says that it cannot be changed.
        return nn.Module.train(net, False)

    return chosen(make, x, x, threads)


def chosen(
    make: Callable[[], nn.Module], x: np.ndarray, some: np.ndarray, threads: int
) -> tuple[Callable[[], np.ndarray], Any]:
    """The fastest variant on ``some``, for ``x``; variants not taken are freed one by one."""
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    few = torch.from_numpy(some)
    took = {name: fastest(variant(make(), few)) for name, variant in VARIANTS.items()}
    best = min(took, key=lambda name: took[name])
    call = VARIANTS[best](make(), torch.from_numpy(x))
    return call, f"num_threads={threads}, {best} (fastest of {', '.join(VARIANTS)})"


def network(layers: Layers) -> nn.Sequential:
    modules: list[nn.Module] = []
    for weight, bias in layers:
        conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
        conv.weight.copy_(torch.from_numpy(weight))
        conv.bias.copy_(torch.from_numpy(bias))
        modules += [conv, nn.ReLU(inplace=True)]
    return nn.Sequential(*modules).eval()


def eager(net: nn.Module, x: torch.Tensor) -> Callable[[], torch.Tensor]:
    def call() -> torch.Tensor:
        with torch.inference_mode():
            return net(x)

    return call


def channels_last(net: nn.Module, x: torch.Tensor) -> Callable[[], torch.Tensor]:
    return eager(net.to(memory_format=torch.channels_last), in_channels_last(x))


def in_channels_last(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def frozen_trace(net: nn.Module, x: torch.Tensor) -> Callable[[], torch.Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.freeze(torch.jit.trace(net, x, check_trace=False))
        return eager(torch.jit.optimize_for_inference(traced), x)


VARIANTS = {"eager": eager, "channels_last": channels_last, "frozen trace": frozen_trace}


def fastest(call: Callable[[], Any]) -> float:
    call()
    times: list[float] = []
    while len(times) < _RUNS_TO_CHOOSE and sum(times) < _SECONDS_TO_CHOOSE:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)
