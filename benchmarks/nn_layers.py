"""Time and memory of Winograd layers against nn.Conv2d on this machine's CPU.

    python benchmarks/nn_layers.py [--out benchmarks/results/nn_layers.json] [--repeats 11]

Forward, and forward with backward (input and weights), of single layers in both memory formats,
and a training step of FFDNet in time and in peak resident memory. One thread, timed in its own
CPU time, so that other work on the core disturbs little. The two sides alternate; figures are
medians and medians of the ratios of neighbouring runs. The outputs are compared before anything
is timed.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from tvm_sparsewino import host
from tvm_sparsewino.nn import WinogradConv2d, convert
from tvm_sparsewino.nn.models import FFDNet

SHAPES = [  # N, C, H, W, K
    (8, 96, 32, 32, 96),
    (1, 64, 56, 56, 64),
    (8, 128, 28, 28, 128),
    (8, 256, 14, 14, 256),
]
FORMATS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}
TILES = (2, 4, 6)
TOLERANCE = 5e-5  # of the output's maximum; F(6,3) is expected at 1.5e-5


def compare(a: Callable[[], object], b: Callable[[], object], repeats: int) -> dict[str, float]:
    """CPU milliseconds of a and b in turn after one untimed call each, and the ratio b / a."""
    a()
    b()
    times: list[tuple[float, float]] = []
    for _ in range(repeats):
        pair = []
        for call in (a, b):
            start = time.process_time()
            call()
            pair.append(1e3 * (time.process_time() - start))
        times.append((pair[0], pair[1]))
    ratios = sorted(y / x for x, y in times)
    return {
        "ms_conv": statistics.median(x for x, _ in times),
        "ms_winograd": statistics.median(y for _, y in times),
        "ratio": statistics.median(ratios),
        "ratio_quartiles": [ratios[repeats // 4], ratios[-1 - repeats // 4]],
    }


def layer_row(shape: tuple[int, ...], layout: str, m: int, repeats: int) -> dict[str, object]:
    n, c, h, w, k = shape
    memory_format = FORMATS[layout]
    torch.manual_seed(1)
    conv = nn.Conv2d(c, k, 3, padding=1)
    layer = WinogradConv2d.from_conv(conv, m)
    conv = conv.to(memory_format=memory_format)
    x = torch.randn(n, c, h, w).contiguous(memory_format=memory_format).requires_grad_()
    grad = torch.randn(n, k, h, w).contiguous(memory_format=memory_format)
    check(layer(x), conv(x))

    def step(module: nn.Module) -> Callable[[], None]:
        inputs = [x, *module.parameters()]
        return lambda: torch.autograd.grad(module(x), inputs, grad)

    with torch.no_grad():
        forward = compare(lambda: conv(x), lambda: layer(x), repeats)
    both = compare(step(conv), step(layer), repeats)
    return {"shape": shape, "format": layout, "m": m, "forward": forward, "step": both}


def check(have: torch.Tensor, want: torch.Tensor) -> None:
    error = ((have - want).abs().max() / want.abs().max()).item()
    if not error < TOLERANCE:
        raise SystemExit(f"wrong answer: error {error:.1e} of the output's maximum")


def network(m: int) -> nn.Module:
    torch.manual_seed(2)
    model = FFDNet()
    return convert(model, m) if m else model


def training_step(model: nn.Module) -> Callable[[], None]:
    x = torch.rand(8, 3, 64, 64)

    def step() -> None:
        model.zero_grad()
        (model(x, 0.1) - x).square().mean().backward()

    return step


def peak_memory(m: int) -> int:
    """Peak resident bytes of two training steps over those before, in a process of its own."""
    command = [sys.executable, __file__, "--peak", str(m)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_peak(m: int) -> None:
    step = training_step(network(m))
    before = host.resident_bytes(host.HELD)
    host.reset_peak()
    step()
    step()
    print(host.resident_bytes(host.PEAK) - before)


def network_row(m: int, repeats: int, peak_conv: int) -> dict[str, object]:
    dense, winograd = network(0), network(m)
    x = torch.rand(1, 3, 64, 64)
    check(winograd(x, 0.1), dense(x, 0.1))
    row = compare(training_step(dense), training_step(winograd), repeats)
    peak = peak_memory(m)
    return {
        "network": "FFDNet, batch 8 of 64x64, forward and backward",
        "m": m,
        "step": row,
        "peak_bytes_conv": peak_conv,
        "peak_bytes_winograd": peak,
        "memory_ratio": peak / peak_conv,
    }


def machine() -> dict[str, object]:
    isa = torch.backends.cpu.get_cpu_capability()
    return {"cpu": host.processor(), "isa": isa, "system": platform.platform(), "threads": 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/nn_layers.json"))
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.peak is not None:
        print_peak(args.peak)
        return
    layers = []
    for shape in SHAPES:
        for layout in FORMATS:
            for m in TILES:
                row = layer_row(shape, layout, m, args.repeats)
                layers.append(row)
                print(
                    f"{shape} {layout:13} F({m},3)  forward {row['forward']['ratio']:.2f}  "
                    f"forward+backward {row['step']['ratio']:.2f}",
                    flush=True,
                )
    networks = []
    peak_conv = peak_memory(0)
    for m in TILES:
        row = network_row(m, args.repeats, peak_conv)
        networks.append(row)
        print(f"FFDNet F({m},3)  step {row['step']['ratio']:.2f}  memory {row['memory_ratio']:.2f}")
    record = {
        "command": "python benchmarks/nn_layers.py",
        "repeats": args.repeats,
        "machine": machine(),
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "layers": layers,
        "networks": networks,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
