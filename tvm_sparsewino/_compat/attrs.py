"""Attributes of operator calls."""

from __future__ import annotations

from typing import Any

import tvm

from .installed import IS_RELAX_LINE

_KIND = "ir.DictAttrs" if IS_RELAX_LINE else "DictAttrs"


def dict_attrs(**values: Any) -> tvm.ir.Attrs:
    """Attributes of a call as a dictionary of numbers, strings and lists of them."""
    return tvm.ir.make_node(_KIND, **values)
