"""Every difference between TVM versions, and nothing else.

Two lines of TVM are known: apache-tvm 0.26 and 0.27, which have Relax, and TVM up to 0.19, which
has Relay. Kernels, the planner and what they need run on both.

A name is loaded with its module when it is first used: what only runs compiled networks must not
load the compiler.
"""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = {
    "aliasing": ("check_aliasing",),
    "attrs": ("dict_attrs",),
    "building": ("build_module", "inspect_asm", "make_target", "runtime_tensor"),
    "cpus": ("cpu_features", "host_cpu", "is_known_cpu"),
    "exporting": ("export_library",),
    "installed": ("IS_RELAX_LINE", "require_relax", "require_relay"),
    "kernels": (
        *("arg", "bind", "broadcast", "flat_view", "local_buffer", "multiply_add", "opaque"),
        *("prefetch", "prim_func", "ramp", "scratch", "shuffle", "view"),
    ),
    "line": ("IS_SCHEDULED", "NOALIAS", "VERSION", "ScheduleError", "T", "tir"),
    "relax": (
        *("constant", "constant_array", "constant_in_place", "constant_tensor", "module_text"),
        *("onnx_converters", "tensor_dtype", "with_constants_replaced"),
    ),
    "running": (
        *("configure_thread_pool", "from_dlpack", "library_function", "load_module"),
        *("runtime_files", "virtual_machine"),
    ),
    "sharing": ("in_memory_of",),
    "slices": ("with_slices",),
    "scheduling": (
        *("block_loops", "child_blocks", "compute_inside", "crossing_loop", "divisors_of"),
        *("flat_loops", "loop_extent", "schedule"),
    ),
    "tensors": ("tensor_bytes", "tensor_element"),
}
_PUBLIC = {name: module for module, names in _MODULES.items() for name in names}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
    globals()[name] = value  # kernels ask for these a thousand times
    return value
