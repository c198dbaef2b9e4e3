"""What the kernels and the cost model need to know about the CPU that code is made for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._compat import cpu_features, host_cpu, is_known_cpu, make_target
from ..errors import TargetError

EXPECTED = 'expected "native", "llvm" or "llvm -mcpu=NAME"'

# Lanes of float32 and number of vector registers, widest first, by the LLVM feature that brings
# them. fma stands for AVX2 here: a CPU with AVX but no fused multiply-add is not worth 8 lanes.
_VECTORS = (
    ("avx512f", 16, 32),
    ("fma", 8, 16),
    ("neon", 4, 32),
)
_NARROWEST = (4, 16)
# CPUs that begin one operation on registers of 16 lanes in a cycle, not two: they do its halves one
# after the other, and get as much done with 8 lanes (AMD, Software Optimization Guide for Zen 4).
_IN_HALVES = ("znver4",)

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_L1_BYTES = 32 * 1024
_L2_BYTES = 512 * 1024
_L2_BYTES_AVX512 = 1024 * 1024


@dataclass(frozen=True)
class CpuTarget:
    """One CPU target.

    Attributes:
        text: the target as LLVM options, "llvm -mcpu=..." or "llvm".
        mcpu: LLVM's name of the CPU; "" for the architecture's baseline.
        lanes: float32 lanes of a vector register, 4, 8 or 16.
        vector_registers: number of vector registers, 16 or 32.
        vectors_per_cycle: vector loads, and multiply-adds, of so many lanes begun in a cycle.
        l1_bytes, l2_bytes: data caches of one core; measured on the host, else typical values.
    """

    text: str
    mcpu: str
    lanes: int
    vector_registers: int
    vectors_per_cycle: float
    l1_bytes: int
    l2_bytes: int

    def tvm_target(self) -> Any:
        """The same as TVM's Target."""
        return _tvm_target(self.mcpu)

    def features(self) -> frozenset[str]:
        """LLVM's names of the CPU features that the code may use."""
        return cpu_features(self.tvm_target())


def parse_target(text: str) -> CpuTarget:
    """Read ``"native"``, ``"llvm"`` or ``"llvm -mcpu=NAME"``.

    Raises:
        TargetError: another kind of target, another option, or a CPU that LLVM does not know.
    """
    if not isinstance(text, str):
        raise TargetError(f"target {text!r}: {EXPECTED}")
    if text.strip() == "native":
        return _describe(host_cpu())
    kind, *options = text.split() or [""]
    if kind != "llvm":
        raise TargetError(f"target {text!r}: {EXPECTED}")
    mcpu = ""
    for option in options:
        key, _, value = option.partition("=")
        if key not in ("-mcpu", "--mcpu") or not value:
            raise TargetError(f"target {text!r}: option {option!r}; {EXPECTED}")
        mcpu = value
    if mcpu and not is_known_cpu(mcpu):
        raise TargetError(f"target {text!r}: LLVM knows no CPU named {mcpu!r}")
    return _describe(mcpu)


def from_tvm_target(target: Any) -> CpuTarget:
    """Describe a TVM Target of kind llvm.

    Raises:
        TargetError: a target of another kind.
    """
    if target.kind.name != "llvm":
        raise TargetError(f"target of kind {target.kind.name!r}: {EXPECTED}")
    return _describe(str(target.attrs.get("mcpu", "")))


def _tvm_target(mcpu: str) -> Any:
    return make_target({"kind": "llvm", "mcpu": mcpu} if mcpu else {"kind": "llvm"})


def _describe(mcpu: str) -> CpuTarget:
    features = cpu_features(_tvm_target(mcpu))
    matches = ((lanes, registers) for name, lanes, registers in _VECTORS if name in features)
    lanes, registers = next(matches, _NARROWEST)
    l2 = _L2_BYTES_AVX512 if lanes == 16 else _L2_BYTES
    on_host = mcpu == host_cpu()
    return CpuTarget(
        text=f"llvm -mcpu={mcpu}" if mcpu else "llvm",
        mcpu=mcpu,
        lanes=lanes,
        vector_registers=registers,
        vectors_per_cycle=1.0 if lanes == 16 and mcpu in _IN_HALVES else 2.0,
        l1_bytes=(on_host and _host_cache_bytes(1)) or _L1_BYTES,
        l2_bytes=(on_host and _host_cache_bytes(2)) or l2,
    )


def _host_cache_bytes(level: int) -> int:
    """Size of the host's data cache of this level, 0 where the system does not tell."""
    for entry in sorted(_CACHES.glob("index*")):
        try:
            kind = (entry / "type").read_text().strip()
            if kind != "Instruction" and int((entry / "level").read_text()) == level:
                return int((entry / "size").read_text().strip().removesuffix("K")) * 1024
        except (OSError, ValueError):
            continue
    return 0
