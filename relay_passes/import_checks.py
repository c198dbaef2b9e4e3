"""What TVM's importer of PyTorch networks makes of each node, compared with what PyTorch makes.

TVM's importer takes no notice of some arguments, and makes of some nodes something else than they
mean, without a word. Arguments that are known to be overlooked are taken into account here or
refused; of every node, the shape, and whether numbers are whole, have to be those that PyTorch
noted.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tvm import relax
from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

from ..errors import ImportFailed
from .import_arithmetic import arithmetic_converters
from .import_indexing import convert_index

# ``convert(node, importer)``: what the importer makes of a node of PyTorch's graph.
Converter = Callable[[Any, Any], Any]


def checked_converters(program: Any, own: dict[str, Converter]) -> dict[str, Converter]:
    """Name of a node -> what converts and checks it, for every kind of node of ``program``.

    Args:
        program: a ``torch.export.ExportedProgram``.
        own: converters to use in place of TVM's. What neither has is left to TVM, which names it.
    """
    own = arithmetic_converters() | {"index.Tensor": convert_index} | own
    known = set(ExportedProgramImporter().convert_map) | set(own)
    nodes = (node for node in program.graph.nodes if node.op == "call_function")
    names = {getattr(node.target, "__name__", "") for node in nodes} & known
    return {name: partial(_checked, name, own.get(name)) for name in names}


def _checked(name: str, own: Converter | None, node: Any, importer: Any) -> Any:
    _refuse_overlooked(name, node)
    made = own(node, importer) if own else importer.create_convert_map()[name](node)
    fault = _fault(node.meta.get("val"), made) if node.users else ""
    if fault:
        raise ImportFailed(f"{node.name!r} ({name}) cannot be imported: TVM makes {fault}")
    return made


def _refuse_overlooked(name: str, node: Any) -> None:
    if name.startswith("avg_pool") and _argument(node, 6, "divisor_override") is not None:
        raise ImportFailed(f"{node.name!r} has a divisor_override, which TVM does not compute")
    if name in ("clamp.default", "hardtanh.default"):
        least, most = _argument(node, 1, "min"), _argument(node, 2, "max")
        if all(isinstance(x, int | float) for x in (least, most)) and least > most:
            raise ImportFailed(
                f"{node.name!r} has a minimum of {least} above its maximum of {most}, "
                "which TVM does not compute as PyTorch does"
            )


def _argument(node: Any, position: int, name: str) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name)


def _fault(expected: Any, made: Any) -> str:
    """How what was made differs from what PyTorch noted, "" where it does not."""
    tensor = getattr(made, "ty", None)
    if not isinstance(tensor, relax.TensorType) or not hasattr(expected, "dtype"):
        return ""
    got, want = str(tensor.dtype), str(expected.dtype).removeprefix("torch.")
    if ("float" in got) != ("float" in want):
        return f"{got} of it, PyTorch {want}"
    sizes = getattr(tensor.shape, "values", None)
    if sizes is None:
        return ""
    sizes = [int(size) if hasattr(size, "value") else str(size) for size in sizes]
    shape = list(expected.shape)
    pairs = zip(sizes, shape, strict=False)
    if len(sizes) != len(shape) or any(
        a != b for a, b in pairs if isinstance(a, int) and isinstance(b, int)
    ):
        return f"the shape {sizes} of it, PyTorch {[*map(str, shape)]}".replace("'", "")
    return ""
