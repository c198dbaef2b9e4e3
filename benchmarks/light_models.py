"""The networks that the onnx package carries, compiled and compared with ONNX Runtime.

    python benchmarks/light_models.py [--out FILE.json] [NAME ...]

Their files hold no weights but make constant ones; random ones are put in their place, scaled so
that numbers neither vanish nor explode. What a last softmax reads is compared, too: its own output
may be a single 1 whatever was computed. Prints seconds and errors as it goes.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
NAMES = tuple(sorted(path.stem.removeprefix("light_") for path in LIGHT.glob("light_*.onnx")))
TOLERANCE = 1e-3  # of the output's maximum: float32 through 121 layers, Winograd's rounding


def path_of(name: str) -> Path:
    """The file of a network."""
    return LIGHT / f"light_{name}.onnx"


def with_random_weights(path: Path, seed: int = 0) -> onnx.ModelProto:
    """A light model with random weights in place of the constant ones it makes.

    Its own outputs are all alike, since its weights are; these show what is computed.
    """
    made, rng = onnx.load(path), np.random.default_rng(seed)
    shapes = {t.name: numpy_helper.to_array(t) for t in made.graph.initializer}
    norms = {i: k for n in made.graph.node for k, i in enumerate(n.input) if _is_norm(n)}
    for node in list(made.graph.node):
        if node.op_type == "ConstantOfShape":
            shape = tuple(int(n) for n in shapes[node.input[0]])
            spread = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.1
            array = spread * rng.standard_normal(shape)
            name = node.output[0]
            if norms.get(name) in (1, 4):  # scales and variances
                array = 1 + np.abs(array)
            made.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
            made.graph.input.append(helper.make_tensor_value_info(name, 1, shape))
            made.graph.node.remove(node)
    last = made.graph.node[-1]
    if last.op_type == "Softmax":
        made.graph.output.append(helper.make_tensor_value_info(last.input[0], 1, None))
    return made


def _is_norm(node: onnx.NodeProto) -> bool:
    return node.op_type == "BatchNormalization"


def input_shape(made: onnx.ModelProto) -> tuple[int, ...]:
    """Shape of the one input that is no weight."""
    weights = {tensor.name for tensor in made.graph.initializer}
    (given,) = [i for i in made.graph.input if i.name not in weights]
    return tuple(d.dim_value for d in given.type.tensor_type.shape.dim)


def compare(name: str) -> dict[str, float | int | str]:
    """Compile one network and compare its answer."""
    import onnxruntime

    import tvm_sparsewino as sw

    made = with_random_weights(path_of(name))
    x = np.random.default_rng(1).standard_normal(input_shape(made)).astype(np.float32)
    start = time.perf_counter()
    exe = sw.compile(sw.import_onnx(made))
    seconds = time.perf_counter() - start
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(made.SerializeToString(), options)
    weights = {tensor.name for tensor in made.graph.initializer}
    (source,) = [i.name for i in session.get_inputs() if i.name not in weights]
    got, wanted = exe(x), session.run(None, {source: x})
    got = [got] if isinstance(got, np.ndarray) else list(got)
    pairs = zip(got, wanted, strict=True)
    error = max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)
    return {
        "network": name,
        "seconds": round(seconds, 1),
        "layers": len(exe.plan),
        "left": sum(plan.algorithm == "left" for plan in exe.plan),
        "error": error,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default all: {', '.join(NAMES)}")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(NAMES):
        parser.error(f"no network {', '.join(sorted(unknown))}")
    results = []
    for name in arguments.names or NAMES:
        results.append(compare(name))
        print(json.dumps(results[-1]), flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    wrong = [r["network"] for r in results if not r["error"] < TOLERANCE]
    if wrong:
        raise SystemExit(f"wrong answers: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
