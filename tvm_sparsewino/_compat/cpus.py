"""What LLVM knows about CPUs."""

from __future__ import annotations

import tvm

from .installed import IS_RELAX_LINE


def host_cpu() -> str:
    """LLVM's name of the CPU this runs on."""
    return tvm.target.codegen.llvm_get_system_cpu()


def is_known_cpu(mcpu: str) -> bool:
    """Whether LLVM has a CPU of this name for the host's architecture."""
    codegen = tvm.target.codegen
    if IS_RELAX_LINE:
        return codegen.llvm_is_valid_cpu(mcpu, codegen.llvm_get_system_triple())
    return mcpu in {str(cpu) for cpu in codegen.llvm_get_cpu_archlist(tvm.target.Target("llvm"))}


def cpu_features(target: tvm.target.Target) -> frozenset[str]:
    """LLVM's names of the features that code for ``target`` may use."""
    return frozenset(str(f) for f in tvm.target.codegen.llvm_get_cpu_features(target))
