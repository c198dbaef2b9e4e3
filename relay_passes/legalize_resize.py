"""Lower operators that resize maps: interpolation, and means of uneven windows."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from tvm import relax

from .._compat import constant
from ..errors import ShapeError
from ..schedules.resampling import resample, resample_tables
from ..schedules.resize_axes import (
    COORDINATES,
    ResizeAxis,
    Taps,
    adaptive_mean,
    cubic,
    linear,
    nearest,
)
from ..schedules.resize_rows import build_resize, fits, resize_tables
from .kernel_calls import add_kernel
from .ops import static_shape


def resize(lanes: int, builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr | None:
    """Maps with other rows and columns; None for cut-outs, which are left to TVM."""
    attrs, shape, target = call.attrs, static_shape(call.args[0], "data"), _output(call)
    known = attrs.coordinate_transformation_mode in COORDINATES
    if attrs.layout != "NCHW" or not known or not target or not math.prod(target):
        return None
    axes = [_axis(attrs, *sizes) for sizes in zip(shape[2:], target[2:], strict=True)]
    rows, columns = axes
    table = columns.table()
    if columns.taps > 1 and fits(table, lanes):
        return _by_rows(builder, call, rows.table(), table, lanes)
    tables = [constant(table) for table in resample_tables(rows, columns)]
    return builder.call_te(
        partial(resample, rows=rows, columns=columns),
        call.args[0],
        *tables,
        primfunc_name_hint="resize2d",
    )


def adaptive_pool(lanes: int, builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr | None:
    """Means of windows of two sizes, or that overlap; the data where a window is one number; None
    for others, which TVM's lowering makes loops of that become vectors.
    """
    shape, target = static_shape(call.args[0], "data"), _output(call)
    layouts = call.attrs.layout, call.attrs.out_layout
    if layouts != ("NCHW", "NCHW") or not target or not math.prod(target):
        return None
    if target == shape:
        return call.args[0]
    sizes = list(zip(shape[2:], target[2:], strict=True))
    if all(old % new == 0 for old, new in sizes):
        return None
    rows, columns = (adaptive_mean(old, new) for old, new in sizes)
    return _by_rows(builder, call, rows, columns, lanes) if fits(columns, lanes) else None


def _output(call: relax.Call) -> tuple[int, ...]:
    """The shape of the result; () if it is not known."""
    try:
        return static_shape(call, "output")
    except ShapeError:
        return ()


def _by_rows(
    builder: relax.BlockBuilder, call: relax.Call, rows: Taps, columns: Taps, lanes: int
) -> relax.Expr:
    outer = static_shape(call, "output")[:2]
    function = add_kernel(builder, build_resize(outer, rows, columns, lanes))
    tables = [constant(table) for table in resize_tables(rows, columns, lanes)]
    return relax.call_tir(function, [call.args[0], *tables], call.ty)


def _axis(attrs: Any, size: int, target: int) -> ResizeAxis:
    coordinate, rounding = attrs.coordinate_transformation_mode, attrs.rounding_method
    if attrs.method == "linear":
        return linear(size, target, coordinate)
    if attrs.method == "cubic":
        exclude = bool(attrs.cubic_exclude)
        return cubic(size, target, coordinate, float(attrs.cubic_alpha), exclude)
    # TVM takes no rounding method as one of these.
    default = "round" if coordinate == "align_corners" else "floor"
    return nearest(size, target, coordinate, rounding or default)
