"""Freed memory goes back to the system."""

import subprocess
import sys

import pytest

from tvm_sparsewino import memory

PROGRAM = """
import ctypes
from tvm_sparsewino.memory import release_freed

def held():
    return 4096 * int(open("/proc/self/statm").read().split()[1])

blocks = [bytes(65536) for _ in range(1600)]  # 100 MB below the size that is mapped by itself
keep = bytes(65536)  # behind them, so that the heap cannot shrink from its end
del blocks
before = held()
release_freed()
print(before - held())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_freed_memory_goes_back():
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    assert int(result.stdout) > 50e6


def test_without_glibc_nothing_happens(monkeypatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: object())
    assert memory.release_freed() is None
