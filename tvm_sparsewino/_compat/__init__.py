"""Every difference between TVM versions, and nothing else.

Two lines of TVM are known: apache-tvm 0.26 and 0.27, which have Relax, and TVM up to 0.19, which
has Relay. Kernels, the planner and what they need run on both.
"""

from __future__ import annotations

from .aliasing import check_aliasing
from .attrs import dict_attrs
from .cpus import cpu_features, host_cpu, is_known_cpu
from .kernels import (
    arg,
    bind,
    broadcast,
    flat_view,
    local_buffer,
    multiply_add,
    opaque,
    prefetch,
    prim_func,
    ramp,
    scratch,
    shuffle,
)
from .line import (
    IS_RELAX_LINE,
    IS_SCHEDULED,
    NOALIAS,
    VERSION,
    ScheduleError,
    T,
    require_relax,
    require_relay,
    tir,
)
from .relax import constant_array, module_text, onnx_converters, tensor_dtype
from .runtime import (
    build_module,
    configure_thread_pool,
    copied_tensor,
    export_library,
    from_dlpack,
    inspect_asm,
    load_module,
    make_target,
    runtime_files,
    runtime_tensor,
    virtual_machine,
)
from .scheduling import block_loops, child_blocks, divisors_of, flat_loops, loop_extent, schedule

__all__ = [
    "IS_RELAX_LINE",
    "IS_SCHEDULED",
    "NOALIAS",
    "VERSION",
    "ScheduleError",
    "T",
    "arg",
    "bind",
    "block_loops",
    "broadcast",
    "build_module",
    "check_aliasing",
    "child_blocks",
    "configure_thread_pool",
    "constant_array",
    "copied_tensor",
    "cpu_features",
    "dict_attrs",
    "divisors_of",
    "export_library",
    "flat_loops",
    "flat_view",
    "from_dlpack",
    "host_cpu",
    "inspect_asm",
    "is_known_cpu",
    "load_module",
    "local_buffer",
    "loop_extent",
    "make_target",
    "module_text",
    "multiply_add",
    "onnx_converters",
    "opaque",
    "prefetch",
    "prim_func",
    "ramp",
    "require_relax",
    "require_relay",
    "runtime_files",
    "runtime_tensor",
    "schedule",
    "scratch",
    "shuffle",
    "tensor_dtype",
    "tir",
    "virtual_machine",
]
