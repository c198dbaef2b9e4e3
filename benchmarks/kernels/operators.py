"""Operators without kernels of their own: time, floor, share of the floor.

    python benchmarks/kernels/operators.py [--only NAME ...] [--out FILE.json]

Each operator is compiled as a network of its own, with shapes that ResNet, VGG, MobileNet, U-Net,
DenseNet, SqueezeNet, FFDNet and super-resolution have, checked against PyTorch, and timed on one
thread (CPU time, least of many). The floor is what a copy of as many bytes as the operator reads
and writes takes in the same process. Sigmoid and the like, and LRN with its power, have a floor of
arithmetic beside it: ten cycles per vector, 20 operations.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.nn import functional as F

from tvm_sparsewino import driver
from tvm_sparsewino._compat import runtime_tensor
from tvm_sparsewino.bench.machine import machine, versions
from tvm_sparsewino.profile import profile
from tvm_sparsewino.relay_passes.plan_layers import as_cpu_target
from tvm_sparsewino.timing import fastest

MATH_NANOSECONDS = 0.4  # per number: 10 cycles for 8 of them at 3.2 GHz
RUNS = 50
WRONG = 2e-5  # PyTorch takes coordinates of enlarged maps in float32


def _scaled(x: torch.Tensor) -> torch.Tensor:
    """A BatchNorm that no convolution takes in, and what follows it in DenseNet."""
    factor = torch.linspace(0.5, 2, x.shape[1])[:, None, None]
    return torch.relu(x * factor + factor)


# Name -> function, whether it is arithmetic that decides, shapes of its operands.
CASES: dict[str, tuple[Callable[..., torch.Tensor], bool, tuple[tuple[int, ...], ...]]] = {
    "max pool 3x3/2 64@112": (lambda x: F.max_pool2d(x, 3, 2, 1), False, ((1, 64, 112, 112),)),
    "max pool 2x2/2 64@224": (lambda x: F.max_pool2d(x, 2, 2), False, ((1, 64, 224, 224),)),
    "max pool 2x2/2 512@14": (lambda x: F.max_pool2d(x, 2, 2), False, ((1, 512, 14, 14),)),
    "max pool 3x3/2 64@55": (lambda x: F.max_pool2d(x, 3, 2), False, ((1, 64, 55, 55),)),
    "max pool 3x3/1 480@14": (lambda x: F.max_pool2d(x, 3, 1, 1), False, ((1, 480, 14, 14),)),
    "average pool 2x2/2 128@56": (lambda x: F.avg_pool2d(x, 2, 2), False, ((1, 128, 56, 56),)),
    "global pool 2048@7": (lambda x: F.adaptive_avg_pool2d(x, 1), False, ((1, 2048, 7, 7),)),
    "global pool 512@13": (lambda x: F.adaptive_avg_pool2d(x, 1), False, ((1, 512, 13, 13),)),
    "adaptive pool to 7 512@14": (
        lambda x: F.adaptive_avg_pool2d(x, 7),
        False,
        ((1, 512, 14, 14),),
    ),
    "adaptive pool to 6 256@13": (
        lambda x: F.adaptive_avg_pool2d(x, 6),
        False,
        ((1, 256, 13, 13),),
    ),
    "LRN 64@55": (lambda x: F.local_response_norm(x, 5), True, ((1, 64, 55, 55),)),
    "softmax 1000": (lambda x: torch.softmax(x, -1), True, ((1, 1000),)),
    "softmax 16x 1000": (lambda x: torch.softmax(x, -1), True, ((16, 1000),)),
    "softmax channels 21@128": (lambda x: torch.softmax(x, 1), True, ((1, 21, 128, 128),)),
    "add, ReLU 256@56": (lambda x, y: F.relu(x + y), False, ((1, 256, 56, 56),) * 2),
    "add, ReLU 2048@7": (lambda x, y: F.relu(x + y), False, ((1, 2048, 7, 7),) * 2),
    "scale, ReLU 256@28": (_scaled, False, ((1, 256, 28, 28),)),
    "scale, ReLU 1024@7": (_scaled, False, ((1, 1024, 7, 7),)),
    "sigmoid 96@56": (torch.sigmoid, True, ((1, 96, 56, 56),)),
    "SiLU 96@55": (F.silu, True, ((1, 96, 55, 55),)),
    "hardswish 96@55": (F.hardswish, False, ((1, 96, 55, 55),)),
    "GELU 197x 3072": (F.gelu, True, ((197, 3072),)),
    "gate 96@55": (lambda x, y: x * torch.sigmoid(y), False, ((1, 96, 55, 55), (1, 96, 1, 1))),
    "LayerNorm 197x 768": (lambda x: F.layer_norm(x, (768,)), False, ((197, 768),)),
    "concat 64+64@55": (lambda x, y: torch.cat([x, y], 1), False, ((1, 64, 55, 55),) * 2),
    "concat 256+32@28": (
        lambda x, y: torch.cat([x, y], 1),
        False,
        ((1, 256, 28, 28), (1, 32, 28, 28)),
    ),
    "nearest x2 128@28": (lambda x: F.interpolate(x, scale_factor=2), False, ((1, 128, 28, 28),)),
    "bilinear x2 64@56": (
        lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
        False,
        ((1, 64, 56, 56),),
    ),
    "bilinear to 55 128@28": (
        lambda x: F.interpolate(x, size=(55, 55), mode="bilinear"),
        False,
        ((1, 128, 28, 28),),
    ),
    "bilinear x2, corners 64@56": (
        lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True),
        False,
        ((1, 64, 56, 56),),
    ),
    "bilinear x8 21@32": (
        lambda x: F.interpolate(x, scale_factor=8, mode="bilinear"),
        False,
        ((1, 21, 32, 32),),
    ),
    "bicubic x1/2 3@424x640": (
        lambda x: F.interpolate(x, scale_factor=0.5, mode="bicubic"),
        False,
        ((1, 3, 424, 640),),
    ),
    "pixel shuffle 12@212x320": (lambda x: F.pixel_shuffle(x, 2), False, ((1, 12, 212, 320),)),
    "pixel unshuffle 3@424x640": (lambda x: F.pixel_unshuffle(x, 2), False, ((1, 3, 424, 640),)),
    "NHWC to NCHW 64@56": (
        lambda x: x.permute(0, 3, 1, 2).contiguous(),
        False,
        ((1, 56, 56, 64),),
    ),
    "pad 64@55": (lambda x: F.pad(x, (1, 2, 1, 2)), False, ((1, 64, 55, 55),)),
}


class _Network(torch.nn.Module):
    def __init__(self, function: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *operands: torch.Tensor) -> torch.Tensor:
        return self.function(*operands)


def measure(name: str) -> dict[str, Any]:
    """Seconds of one operator and of its floor.

    Raises:
        SystemExit: the answer is wrong.
    """
    function, is_math, shapes = CASES[name]
    torch.manual_seed(0)
    operands = tuple(torch.randn(shape) for shape in shapes)
    network = _Network(function).eval()
    exe = driver.compile(driver.import_torch(network, operands), "native", num_threads=1)
    arrays = [operand.numpy() for operand in operands]
    got, want = exe(*arrays), network(*operands).numpy()
    if np.abs(got - want).max() > WRONG * np.abs(want).max():
        raise SystemExit(f"{name}: wrong by {np.abs(got - want).max():.2g}")
    tensors = [runtime_tensor(array) for array in arrays]
    seen = profile(exe.machines, exe.description, tensors, RUNS, time.thread_time)
    moved = sum(array.nbytes for array in arrays) + want.nbytes
    floor = copy_seconds(moved)
    if is_math:
        floor = max(floor, want.size * MATH_NANOSECONDS * 1e-9)
    seconds = sum(min(kernel.seconds) for kernel in seen.kernels)
    return {"operator": name, "seconds": seconds, "floor": floor, "bytes": moved}


def copy_seconds(moved: int) -> float:
    """What a copy that moves ``moved`` bytes, half of them read, takes."""
    source = np.ones(moved // 8, np.float32)
    target = np.empty_like(source)
    return fastest({"copy": lambda: np.copyto(target, source)}, RUNS)["copy"]


def main() -> None:
    """Measure, print the table, write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=CASES, metavar="NAME")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows = [measure(name) for name in arguments.only or CASES]
    table = Table()
    for column in ("operator", "ms", "floor ms", "share"):
        table.add_column(column, justify="left" if column == "operator" else "right")
    for row in rows:
        numbers = (f"{row['seconds'] * 1e3:.4f}", f"{row['floor'] * 1e3:.4f}")
        table.add_row(row["operator"], *numbers, f"{row['floor'] / row['seconds']:.0%}")
    Console().print(table)
    if arguments.out:
        target = as_cpu_target("native")
        record = {"machine": machine(target), "versions": versions(), "operators": rows}
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
