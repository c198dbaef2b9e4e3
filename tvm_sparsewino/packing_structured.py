"""Packing and unpacking functions of sparse Winograd weights, by the structure of their zeros."""

from __future__ import annotations

from .packing_shared import pack_shared, unpack_shared
from .packing_uniform import pack_balanced, pack_kernel, unpack_balanced, unpack_kernel

# By structure: pack(weight, plan, layout) -> arrays, unpack(weight, packed, layout) fills weight.
STRUCTURED_FORMATS = {
    "balanced": (pack_balanced, unpack_balanced),
    "rows2": (pack_shared, unpack_shared),
    "rows4": (pack_shared, unpack_shared),
    "kernel": (pack_kernel, unpack_kernel),
}
