"""Dense convolutions of whole networks, layer by layer, beside PyTorch and OpenVINO.

    python benchmarks/kernels/dense_layers.py --network resnet50 --out dense_resnet50.json

Every distinct convolution of the network, with bias and ReLU, batch 1, one thread. Ours runs as the
planner has it for weights without zeros (``--direct``: without Winograd). Before a layer is timed
all answers are compared with float64. All take turns in rounds; the figure of each is its fastest
call in processor time, which a busy machine disturbs least. PyTorch is the faster of NCHW and
channels_last. OpenVINO's time is that of its convolution alone, in its own layout: the call's,
times the convolution's share of it. It takes part where its environment is installed
(``benchmarks/peers/install.py``).

A layer's floor is the longer of its multiply-adds at the measured peak and of its maps and weights
at the measured rate of copying; Winograd convolutions may go below.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

from tvm_sparsewino import _compat as tvm_ir
from tvm_sparsewino.bench.machine import fma_peak, machine, versions
from tvm_sparsewino.bench.peers import INDEX, default_folder
from tvm_sparsewino.bench.worker import Worker
from tvm_sparsewino.config import CompileConfig, ConvShape, Epilogue, LayerPlan
from tvm_sparsewino.packing import pack
from tvm_sparsewino.planner import plan_spatial, winograd_coefficients
from tvm_sparsewino.reference import conv2d
from tvm_sparsewino.schedules.build import build_conv
from tvm_sparsewino.schedules.target import CpuTarget, parse_target
from tvm_sparsewino.thread_pool import use_threads
from tvm_sparsewino.timing import fastest

EPILOGUE = Epilogue(bias=True, activation="relu")
TOLERANCE = 1e-4  # of the largest output; F(4, 3) of 512 channels is at 1e-5
COPIED = 8 << 20  # bytes read and bytes written by the copy that stands for memory
CALLS = 3  # of each in its turn
SEED = 0


@dataclass(frozen=True)
class Layer:
    """A convolution and how often the network has it."""

    shape: ConvShape
    count: int

    def __str__(self) -> str:
        s = self.shape
        kind = "depthwise" if s.groups == s.c > 1 else f"{s.c}>{s.k}"
        step = f" /{s.stride[0]}" if s.stride != (1, 1) else ""
        return f"{kind if s.groups == 1 else f'{s.c} {kind}'} {s.r}x{s.s}{step} {s.h}x{s.w}"


def conv(c: int, k: int, size: int, r: int = 1, stride: int = 1, groups: int = 1) -> ConvShape:
    return ConvShape(1, c, size, size, k, r, (r // 2,) * 4, groups, stride)


def resnet50() -> Iterator[ConvShape]:
    """He et al., 2016, with the stride in the 3x3 convolutions."""
    yield conv(3, 64, 224, 7, 2)
    c, size = 64, 56
    for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            step = stride if block == 0 else 1
            yield conv(c, width, size)
            yield conv(width, width, size, 3, step)
            if block == 0:
                yield conv(c, 4 * width, size, 1, step)
            size //= step
            yield conv(width, 4 * width, size)
            c = 4 * width


def mobilenet_v2() -> Iterator[ConvShape]:
    """Sandler et al., 2018, table 2."""
    yield conv(3, 32, 224, 3, 2)
    c, size = 32, 112
    table = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2))
    for expand, k, blocks, stride in (*table, (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)):
        for block in range(blocks):
            step, wide = stride if block == 0 else 1, expand * c
            if expand > 1:
                yield conv(c, wide, size)
            yield conv(wide, wide, size, 3, step, wide)
            size //= step
            yield conv(wide, k, size)
            c = k
    yield conv(320, 1280, size)


NETWORKS = {"resnet50": resnet50, "mobilenet_v2": mobilenet_v2}


def layers(network: str) -> list[Layer]:
    """The distinct convolutions of a network in their order."""
    shapes = list(NETWORKS[network]())
    return [Layer(shape, shapes.count(shape)) for shape in dict.fromkeys(shapes)]


# ---- contestants ---------------------------------------------------------------------------------


def ours(
    plan: LayerPlan, x: np.ndarray, weight: np.ndarray, bias: np.ndarray, target: CpuTarget
) -> tuple[Callable[[], Any], Callable[[], np.ndarray]]:
    """A call of our kernel, and its output."""
    u = winograd_coefficients(weight, plan.m).astype(np.float32) if plan.m else weight
    lanes = plan.lanes_on(target.lanes)
    packed = pack(u, plan, lanes)
    func = build_conv(plan, EPILOGUE, packed.specs, lanes, target.vector_registers)
    kernel = tvm_ir.build_module(func, target.tvm_target())[func.attrs["global_symbol"]]
    s = plan.conv
    out = np.zeros((s.n, s.k, s.oh, s.ow), np.float32)
    operands = [tvm_ir.runtime_tensor(a) for a in (x, *packed.arrays, bias, out)]
    return lambda: kernel(*operands), operands[-1].numpy


def pytorch(
    shape: ConvShape, x: np.ndarray, weight: np.ndarray, bias: np.ndarray, memory_format: Any
) -> Callable[[], torch.Tensor]:
    data, filters = (
        torch.from_numpy(a).contiguous(memory_format=memory_format) for a in (x, weight)
    )
    offset, sides = torch.from_numpy(bias), shape.padding[:2]

    def call() -> torch.Tensor:
        with torch.inference_mode():
            y = torch.conv2d(data, filters, offset, shape.stride, sides, 1, shape.groups)
            return y.relu_()

    return call


class OpenVino:
    """The peer's process with one layer at a time."""

    def __init__(self, python: str) -> None:
        self.worker = Worker(
            "openvino", [python, str(Path(__file__).with_name("openvino_layer.py"))]
        )
        self.folder = tempfile.TemporaryDirectory()
        self.taken: dict[str, list[float]] = {}

    def load(
        self, shape: ConvShape, x: np.ndarray, weight: np.ndarray, bias: np.ndarray
    ) -> np.ndarray:
        """Hand the layer over; returns its output."""
        model, inputs, out = (Path(self.folder.name, n) for n in ("m.onnx", "x.npz", "y.npy"))
        model.write_bytes(onnx_model(shape, weight, bias))
        np.savez(inputs, x=x)
        self.worker.ask("load", model=str(model), inputs=str(inputs))
        self.worker.ask("run", out=str(out))
        self.taken = {"calls": [], "shares": []}
        return np.load(out)

    def seconds(self) -> float:
        """The convolution of the fastest call since the layer was handed over, after more calls."""
        answer = self.worker.ask("time", repeats=CALLS)
        for name in self.taken:
            self.taken[name] += answer[name]
        return min(self.taken["calls"]) * statistics.median(self.taken["shares"])

    def close(self) -> None:
        self.worker.close()
        self.folder.cleanup()


def openvino() -> OpenVino | None:
    """The peer, None where it is not installed."""
    index = default_folder() / INDEX
    commands = json.loads(index.read_text()) if index.exists() else {}
    return OpenVino(commands["openvino"][0]) if "openvino" in commands else None


def onnx_model(shape: ConvShape, weight: np.ndarray, bias: np.ndarray) -> bytes:
    """Convolution and ReLU as a serialised model."""
    constants = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")]
    options = {"strides": shape.stride, "pads": shape.padding, "group": shape.groups}
    nodes = [
        helper.make_node(
            "Conv", ["x", "w", "b"], ["z"], kernel_shape=[shape.r, shape.s], **options
        ),
        helper.make_node("Relu", ["z"], ["y"]),
    ]
    sizes = {"x": (shape.n, shape.c, shape.h, shape.w), "y": (shape.n, shape.k, shape.oh, shape.ow)}
    x, y = (helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, sizes[n]) for n in "xy")
    graph = helper.make_graph(nodes, "layer", [x], [y], constants)
    opset = [helper.make_opsetid("", 13)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


# ---- measuring -----------------------------------------------------------------------------------


def measure(
    layer: Layer, plan: LayerPlan, target: CpuTarget, peer: OpenVino | None, rounds: int
) -> dict[str, float]:
    """Fastest milliseconds of every contestant.

    Raises:
        SystemExit: one of them gives a wrong answer.
    """
    rng, s = np.random.default_rng(SEED), layer.shape
    x = rng.standard_normal((s.n, s.c, s.h, s.w)).astype(np.float32)
    weight = rng.standard_normal((s.k, s.c // s.groups, s.r, s.s)).astype(np.float32)
    bias = rng.standard_normal(s.k).astype(np.float32)
    expected = np.maximum(conv2d(x, weight, bias, s.padding, s.stride, groups=s.groups), 0)
    kernel, output = ours(plan, x, weight, bias, target)
    formats = {"torch": torch.contiguous_format, "torch_last": torch.channels_last}
    calls = {name: pytorch(s, x, weight, bias, f) for name, f in formats.items()}
    kernel()
    answers = {"ours": output(), **{name: call().numpy() for name, call in calls.items()}}
    if peer:
        answers["openvino"] = peer.load(s, x, weight, bias)
    for name, answer in answers.items():
        error = float(np.abs(answer - expected).max() / expected.max())
        if not error <= TOLERANCE:
            raise SystemExit(f"{layer}: {name} is wrong by {error:.1e} of the largest output")
    timed = {name: in_processor_time(call) for name, call in {"ours": kernel, **calls}.items()}
    if peer:
        timed["openvino"] = peer.seconds
    least = dict.fromkeys(timed, float("inf"))
    for _ in range(rounds):
        for name, call in timed.items():
            took = call() * 1e3  # the peer's is already the fastest
            least[name] = took if name == "openvino" else min(least[name], took)
    last = least.pop("torch_last")
    least["torch"] = min(least["torch"], last)
    return least


def in_processor_time(call: Callable[[], Any]) -> Callable[[], float]:
    return lambda: fastest({"call": call}, CALLS)["call"]


def copy_rate() -> float:
    """Bytes per second, read and written, of a long copy."""
    source, to = torch.ones(COPIED // 4), torch.empty(COPIED // 4)
    copy = in_processor_time(lambda: to.copy_(source))
    return 2 * COPIED / min(copy() for _ in range(30))


def floor_ms(shape: ConvShape, peak: float, rate: float) -> float:
    maps = shape.n * (shape.c * shape.h * shape.w + shape.k * shape.oh * shape.ow)
    moved = 4 * (maps + shape.k * shape.c // shape.groups * shape.taps)
    return 1e3 * max(shape.direct_flops / peak, moved / rate)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=NETWORKS, default="resnet50")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--direct", action="store_true", help="no Winograd convolutions")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    use_threads(1)
    torch.set_num_threads(1)
    target, config = parse_target("native"), CompileConfig(winograd_for_dense=not arguments.direct)
    peak, rate = fma_peak(target), copy_rate()
    print(f"{target.text}: {peak / 1e9:.1f} GFLOP/s, copies at {rate / 1e9:.1f} GB/s, seed {SEED}")
    rows = []
    with ExitStack() as stack:
        peer = openvino()
        if peer:
            stack.callback(peer.close)
        for layer in layers(arguments.network):
            weight = np.ones((layer.shape.k, layer.shape.c // layer.shape.groups, *taps(layer)))
            plan = plan_spatial("layer", layer.shape, weight.astype(np.float32), target, config)
            times = measure(layer, plan, target, peer, arguments.rounds)
            rows.append(row(layer, plan, times, peak, rate, target))
            print(line(rows[-1]), flush=True)
    print(line(total(rows)))
    if arguments.out:
        facts = {
            "machine": machine(target),
            "versions": versions(),
            "peak": peak,
            "copy_rate": rate,
        }
        record = {**facts, "network": arguments.network, "rounds": arguments.rounds, "layers": rows}
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")


def taps(layer: Layer) -> tuple[int, int]:
    return layer.shape.r, layer.shape.s


def row(
    layer: Layer,
    plan: LayerPlan,
    times: dict[str, float],
    peak: float,
    rate: float,
    target: CpuTarget,
) -> dict[str, Any]:
    """A layer's figures; shares are of one call's time."""
    cycles = peak / (2 * target.vectors_per_cycle * target.lanes)
    return {
        "layer": str(layer),
        "count": layer.count,
        "algorithm": f"{plan.algorithm}{f' F({plan.m})' if plan.m else ''}",
        "blocking": [plan.panel_vectors, plan.k_block, plan.channel_block, plan.rows_at_once],
        "ms": times,
        "share_of_peak": layer.shape.direct_flops / peak / times["ours"] * 1e3,
        "share_of_floor": floor_ms(layer.shape, peak, rate) / times["ours"],
        "predicted_ms": plan.cost_cycles / cycles * 1e3,
    }


def total(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The sums over the network, every layer as often as it is there."""

    def weighed(value: Callable[[dict[str, Any]], float]) -> float:
        return sum(r["count"] * value(r) for r in rows)

    ms = {name: weighed(lambda r, n=name: r["ms"][n]) for name in rows[0]["ms"]}
    shares = {
        name: weighed(lambda r, n=name: r[n] * r["ms"]["ours"]) / ms["ours"]
        for name in ("share_of_peak", "share_of_floor")
    }
    predicted = weighed(lambda r: r["predicted_ms"])
    count = sum(r["count"] for r in rows)
    return {"layer": "all", "count": count, "algorithm": "", "ms": ms, **shares} | {
        "predicted_ms": predicted
    }


def line(row: dict[str, Any]) -> str:
    ms = row["ms"]
    beside = [
        f"{name} {ms[name]:8.3f} ({ms[name] / ms['ours']:.2f}x)" for name in ms if name != "ours"
    ]
    shares = f"peak {row['share_of_peak']:.2f} floor {row['share_of_floor']:.2f}"
    name = f"{row['layer']:<28} x{row['count']:<3}{row['algorithm']:<20}"
    predicted = f"predicted {row['predicted_ms']:8.3f}"
    return f"{name} {ms['ours']:8.3f} ms, {shares}, {predicted}; {', '.join(beside)}"


if __name__ == "__main__":
    main()
