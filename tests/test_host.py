"""What a process learns of its machine, and that it says so where the machine does not tell."""

import numpy as np
import pytest

from tvm_sparsewino import host


@pytest.fixture
def nothing(monkeypatch, tmp_path):
    """A system without /proc."""
    for name in ("_CPUINFO", "_STATUS", "_RESET"):
        monkeypatch.setattr(host, name, tmp_path / "nothing")


def test_the_processor_is_the_first_one_named(monkeypatch, tmp_path):
    path = tmp_path / "cpuinfo"
    monkeypatch.setattr(host, "_CPUINFO", path)
    path.write_text("processor\t: 0\nmodel name\t: Fast: 3 GHz\nmodel name\t: Slow\n")
    assert host.processor() == "Fast: 3 GHz"


def test_without_names_the_architecture_is_told(monkeypatch, nothing):
    monkeypatch.setattr(host.platform, "processor", lambda: "")
    monkeypatch.setattr(host.platform, "machine", lambda: "x86_64")
    assert host.processor() == "x86_64"


def test_versions_of_packages():
    assert host.versions(["numpy"]) == {
        "python": host.platform.python_version(),
        "numpy": np.__version__,
    }


def test_memory_in_bytes(monkeypatch, tmp_path):
    path = tmp_path / "status"
    monkeypatch.setattr(host, "_STATUS", path)
    path.write_text("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n")
    assert host.resident_bytes(host.HELD) == 1 << 20
    assert host.resident_bytes(host.PEAK) == 2 << 20
    assert host.resident_bytes("VmNone") is None


def test_memory_that_is_free(monkeypatch, tmp_path):
    path = tmp_path / "meminfo"
    monkeypatch.setattr(host, "_SYSTEM", path)
    assert host.available_bytes() is None
    path.write_text("MemTotal:  4096 kB\nMemFree:   1024 kB\nMemAvailable:    2048 kB\n")
    assert host.available_bytes() == 2 << 20


def test_memory_that_the_system_does_not_tell(nothing):
    assert host.resident_bytes(host.PEAK) is None
    assert not host.can_reset_peak()


@pytest.mark.skipif(not host.can_reset_peak(), reason="the system does not tell")
def test_a_peak_is_seen_and_forgotten():
    held = np.ones(100 << 20, np.uint8)
    peak = host.resident_bytes(host.PEAK)
    assert peak >= host.resident_bytes(host.HELD)
    del held
    host.reset_peak()
    after = host.resident_bytes(host.PEAK)
    assert peak - after > 50 << 20
