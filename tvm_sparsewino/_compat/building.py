"""Targets, and modules as TVM builds and writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tvm

from .line import IS_RELAX_LINE, tir


def make_target(options: Mapping[str, Any]) -> tvm.target.Target:
    """A Target from its options, "kind" among them."""
    return tvm.target.Target(dict(options))


def build_module(func: tir.PrimFunc, target: tvm.target.Target) -> Any:
    """Compile one PrimFunc; the result is indexed by its ``global_symbol``."""
    name = func.attrs["global_symbol"]
    if IS_RELAX_LINE:
        return tvm.compile(tvm.IRModule({name: func}), target=target)
    # Keep off the passes for functions made of blocks, as operators in TE do.
    return tvm.build(
        tvm.IRModule({name: func.with_attr("from_legacy_te_schedule", True)}), target=target
    )


def inspect_asm(built: Any) -> str:
    """The assembly text of what :func:`build_module` made."""
    return built.mod.inspect_source("asm") if IS_RELAX_LINE else built.get_source("asm")


def runtime_tensor(array: np.ndarray) -> Any:
    """A copy of ``array`` as TVM's tensor on the CPU."""
    if not IS_RELAX_LINE:
        return tvm.nd.array(array)
    # tvm.runtime.tensor leaves a cycle of Python objects that holds ``array`` until the next
    # garbage collection.
    tensor = tvm.runtime.empty(array.shape, str(array.dtype))
    np.from_dlpack(tensor)[...] = array
    return tensor
