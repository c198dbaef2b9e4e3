"""What a process can learn about its machine: the processor, the packages, its own memory."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")
_SYSTEM = Path("/proc/meminfo")
_BEGIN_ANEW = "5"

HELD, PEAK = "VmRSS", "VmHWM"


def processor() -> str:
    """The processor's name, or its architecture where the system does not tell."""
    lines = _CPUINFO.read_text().splitlines() if _CPUINFO.exists() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of Python and of installed packages."""
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def resident_bytes(what: str) -> int | None:
    """Memory of this process: ``HELD`` now, or at its ``PEAK`` since it began or was reset.

    Unlike getrusage, it knows nothing of the parent. None where the system does not tell.
    """
    return _kilobytes(_STATUS, what)


def available_bytes() -> int | None:
    """Memory that the system can give to processes without swapping; None where it does not tell.

    Limits that a container sets do not count.
    """
    return _kilobytes(_SYSTEM, "MemAvailable")


def can_reset_peak() -> bool:
    """Whether the system tells the peak of a part of a process's life."""
    return _RESET.exists() and resident_bytes(PEAK) is not None


def reset_peak() -> None:
    """Let the peak of this process's memory begin at what it holds."""
    _RESET.write_text(_BEGIN_ANEW)


def _kilobytes(file: Path, what: str) -> int | None:
    """A line such as "VmRSS:  12 kB" in bytes; None where there is none."""
    lines = file.read_text().splitlines() if file.exists() else []
    values = (line.split()[1] for line in lines if line.startswith(what + ":"))
    return next((1024 * int(value) for value in values), None)
