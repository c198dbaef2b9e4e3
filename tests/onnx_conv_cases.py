"""Every convolution among ONNX's own backend node tests: what this project makes of it.

``python tests/onnx_conv_cases.py`` writes ``docs/onnx-conv-cases.md``.
"""

import warnings
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from tvm_sparsewino import driver
from tvm_sparsewino.errors import ImportFailed

OPERATORS = ("Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "DeformConv")
TABLE = Path(__file__).resolve().parent.parent / "docs" / "onnx-conv-cases.md"
# The stored cases say opset 6, which is not read; convolutions have the same form in this one.
OPSET = 11
TOLERANCE = 1e-5  # of the output's maximum: float32, another order of sums
HEADER = """# Convolutions of ONNX's backend tests
Every case with a convolution among the backend tests of the `onnx` package that consist of one
operator (the generated node tests, and those converted from PyTorch, read as opset 11), imported
and run by `tests/onnx_conv_cases.py`, which writes this table; `tests/test_onnx_conv.py` compares.
"right" means equal to the expected output within 1e-5 of its maximum.

| case | operator | result |
|---|---|---|
"""


def cases():
    """Name -> model and pairs of inputs and expected outputs."""
    return {**_generated(), **_stored()}


def _generated():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cases of other operators divide by zero on purpose
        from onnx.backend.test.case.node import collect_testcases

        found = collect_testcases(None)
    return {
        case.name: (case.model, case.data_sets)
        for case in found
        if operator(case.model) in OPERATORS
    }


def _stored():
    result = {}
    root = Path(onnx.__file__).parent / "backend" / "test" / "data"
    for kind in ("pytorch-converted", "pytorch-operator"):
        for file in sorted((root / kind).glob("*/model.onnx")):
            model = onnx.load(file)
            model.opset_import[0].version = OPSET
            if operator(model) in OPERATORS:
                sets = [[_tensors(d, "input"), _tensors(d, "output")] for d in _data(file)]
                result[file.parent.name] = (model, sets)
    return result


def _data(file):
    return sorted(file.parent.glob("test_data_set_*"))


def _tensors(folder, kind):
    files = sorted(folder.glob(f"{kind}_*.pb"))
    return [numpy_helper.to_array(onnx.load_tensor(file)) for file in files]


def operator(model):
    """The operator that ``model`` is about, "" for more than one."""
    nodes = [node for node in model.graph.node if node.op_type != "Constant"]
    return nodes[0].op_type if len(nodes) == 1 else ""


def outcome(model, data_sets):
    """ "right", "wrong ...", or "refused: ..." for one case."""
    try:
        mod = driver.import_onnx(model)
    except ImportFailed as error:
        return f"refused: {str(error).removeprefix('the ONNX model: ')}"
    exe = driver.compile(mod, "llvm", num_threads=1)
    worst = 0.0
    for inputs, outputs in data_sets:
        got, want = exe(*map(np.asarray, inputs)), np.asarray(outputs[0])
        if got.shape != want.shape:
            return f"wrong: shape {got.shape} instead of {want.shape}"
        worst = max(worst, float(np.abs(got - want).max() / np.abs(want).max()))
    return "right" if worst <= TOLERANCE else f"wrong by {worst:.1e}"


def row(name, model, data_sets):
    """One line of the table."""
    return f"| {name} | {operator(model)} | {outcome(model, data_sets)} |\n"


if __name__ == "__main__":
    TABLE.write_text(HEADER + "".join(row(name, *case) for name, case in sorted(cases().items())))
