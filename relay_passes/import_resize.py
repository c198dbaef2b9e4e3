"""Import PyTorch's resizing operators into Relax.

TVM's importer takes nearest neighbours at other coordinates than PyTorch does, takes no notice
of scale factors that are no quotient of whole sizes, and leaves out the smoothing of
``antialias=True``. Bicubic resizing never comes to it: PyTorch takes it apart into a hundred small
operators first.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tvm import relax

from ..errors import ImportFailed

_HALF = "half_pixel"
# Node -> method, coordinates, rounding; whether an argument says that corners are aligned.
_RESIZES: dict[str, tuple[str, str, str, bool]] = {
    "upsample_nearest2d.vec": ("nearest_neighbor", "asymmetric", "floor", False),
    "_upsample_nearest_exact2d.vec": ("nearest_neighbor", "tf_half_pixel_for_nn", "floor", False),
    "upsample_bilinear2d.vec": ("linear", _HALF, "", True),
    "upsample_bicubic2d.vec": ("cubic", _HALF, "", True),
}
_SMOOTHED = "_upsample_bilinear2d_aa.default"


def keep_resizes(decompositions: Any) -> Any:
    """PyTorch's table of decompositions, without those of what is converted here."""
    kept = [operator for operator in decompositions if _name(operator) in _RESIZES]
    for operator in kept:
        decompositions.pop(operator)
    return decompositions


def _name(operator: Any) -> str:
    return getattr(operator, "__name__", "")


def resize_converters() -> dict[str, Callable[[Any, Any], relax.Var]]:
    """Name of a node -> what the importer makes of it: ``convert(node, importer)``."""
    made = {name: partial(_convert, *options) for name, options in _RESIZES.items()}
    return made | {_SMOOTHED: _convert_smoothed}


def _convert(
    method: str, coordinate: str, rounding: str, corners: bool, node: Any, importer: Any
) -> relax.Var:
    given, target = _sizes(node)
    align = corners and bool(node.args[2])
    factors = node.args[-1] if node.args[1] is None else None
    if factors and not align:
        _check_factors(node.name, given, target, factors)
    coordinate = "align_corners" if align else coordinate
    return _resized(node, importer, target, method, coordinate, rounding)


def _convert_smoothed(node: Any, importer: Any) -> relax.Var:
    """Smoothing changes nothing where maps become larger."""
    given, target = _sizes(node)
    if any(new < old for old, new in zip(given, target, strict=True)):
        raise ImportFailed(
            f"{node.name!r} makes maps smaller with antialias=True, which TVM does not compute"
        )
    coordinate = "align_corners" if node.args[2] else _HALF
    return _resized(node, importer, target, "linear", coordinate, "")


def _sizes(node: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    """Rows and columns of the input and of the output."""
    given, target = (tuple(n.meta["val"].shape[2:]) for n in (node.args[0], node))
    if not all(isinstance(size, int) for size in (*given, *target)):
        raise ImportFailed(f"{node.name!r} resizes maps whose rows or columns are open")
    return given, target


def _resized(
    node: Any, importer: Any, target: tuple[int, int], method: str, coordinate: str, rounding: str
) -> relax.Var:
    x, *_ = importer.retrieve_args(node)
    call = relax.op.image.resize2d(
        x,
        relax.ShapeExpr(target),
        method=method,
        coordinate_transformation_mode=coordinate,
        rounding_method=rounding,
    )
    return importer.block_builder.emit(call)


def _check_factors(
    name: str, given: tuple[int, ...], target: tuple[int, ...], factors: tuple[float, ...]
) -> None:
    for old, new, factor in zip(given, target, factors, strict=True):
        if abs(old * factor - new) > 1e-4:
            raise ImportFailed(
                f"{name!r} resizes {old} numbers by {factor:g}, which makes no whole number; "
                f"give their new size, {new}, instead, or recompute_scale_factor=True"
            )
