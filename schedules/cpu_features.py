"""Which instruction sets code needs, and which of them the host has."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from .. import _compat as tvm_ir  # loads TVM when its compiler is asked

# Instruction sets that LLVM uses in compiled code by itself: LLVM's name -> Linux's name for it.
# Features left out are tuning hints or need intrinsics that TVM does not emit.
_INSTRUCTION_SETS = {
    "sse3": "pni",
    "ssse3": "ssse3",
    "sse4.1": "sse4_1",
    "sse4.2": "sse4_2",
    "popcnt": "popcnt",
    "avx": "avx",
    "f16c": "f16c",
    "fma": "fma",
    "avx2": "avx2",
    "bmi": "bmi1",
    "bmi2": "bmi2",
    "lzcnt": "abm",
    "movbe": "movbe",
    "adx": "adx",
    "xop": "xop",
    "fma4": "fma4",
    "avx512f": "avx512f",
    "avx512cd": "avx512cd",
    "avx512bw": "avx512bw",
    "avx512dq": "avx512dq",
    "avx512vl": "avx512vl",
    "avx512ifma": "avx512ifma",
    "avx512vbmi": "avx512vbmi",
    "avx512vbmi2": "avx512_vbmi2",
    "avx512vnni": "avx512_vnni",
    "avx512bitalg": "avx512_bitalg",
    "avx512vpopcntdq": "avx512_vpopcntdq",
    "avx512bf16": "avx512_bf16",
    "avx512fp16": "avx512_fp16",
    "avxvnni": "avx_vnni",
}
_CPUINFO = Path("/proc/cpuinfo")


def instruction_sets(features: Iterable[str]) -> tuple[str, ...]:
    """Those of LLVM's ``features`` that compiled code depends on, sorted."""
    return tuple(sorted(set(features) & set(_INSTRUCTION_SETS)))


@cache
def host_instruction_sets() -> frozenset[str]:
    """The instruction sets of the host, by LLVM's names.

    From what Linux reports, which also holds inside a virtual machine that hides some of the
    CPU's; elsewhere from LLVM's description of the host's CPU.
    """
    flags = _linux_flags()
    if flags:
        return frozenset(name for name, flag in _INSTRUCTION_SETS.items() if flag in flags)
    host = tvm_ir.make_target({"kind": "llvm", "mcpu": tvm_ir.host_cpu()})
    return frozenset(instruction_sets(tvm_ir.cpu_features(host)))


def missing_on_host(required: Iterable[str]) -> list[str]:
    """Those of the ``required`` instruction sets that the host lacks, sorted."""
    return sorted(set(required) - host_instruction_sets())


def _linux_flags() -> frozenset[str]:
    if platform.machine() not in ("x86_64", "AMD64"):
        return frozenset()
    try:
        text = _CPUINFO.read_text()
    except OSError:
        return frozenset()
    lines = (line.partition(":") for line in text.splitlines())
    flags = next((value for key, _, value in lines if key.strip() == "flags"), "")
    return frozenset(flags.split())
