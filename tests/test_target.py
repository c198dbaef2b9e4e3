import pytest
import tvm

from tvm_sparsewino._compat import host_cpu
from tvm_sparsewino.errors import TargetError
from tvm_sparsewino.schedules import cpu_features, target
from tvm_sparsewino.schedules.target import from_tvm_target, parse_target


@pytest.mark.parametrize(
    ("text", "lanes", "registers"),
    [
        ("llvm -mcpu=skylake-avx512", 16, 32),
        ("llvm -mcpu=icelake-server", 16, 32),
        ("llvm -mcpu=znver4", 16, 32),
        ("llvm -mcpu=znver3", 8, 16),
        ("llvm --mcpu=haswell", 8, 16),
        ("llvm -mcpu=nehalem", 4, 16),
        ("llvm -mcpu=sandybridge", 4, 16),  # AVX, but no fused multiply-add
        ("llvm", 4, 16),
    ],
)
def test_vector_unit_follows_from_what_llvm_knows(text, lanes, registers):
    cpu = parse_target(text)
    assert (cpu.lanes, cpu.vector_registers) == (lanes, registers)
    assert cpu.text == text.replace("--", "-")
    assert 16 * 1024 <= cpu.l1_bytes < cpu.l2_bytes


@pytest.mark.parametrize(
    ("mcpu", "per_cycle"), [("skylake-avx512", 2), ("znver4", 1), ("znver3", 2), ("znver5", 2)]
)
def test_cpus_that_do_wide_vectors_in_halves(mcpu, per_cycle):
    assert parse_target(f"llvm -mcpu={mcpu}").vectors_per_cycle == per_cycle


def test_native_is_the_host():
    cpu = parse_target("native")
    assert cpu == parse_target(f"llvm -mcpu={host_cpu()}")
    assert str(cpu.tvm_target().attrs["mcpu"]) == cpu.mcpu == host_cpu()


def test_tvm_targets_are_read_back():
    cpu = parse_target("llvm -mcpu=skylake-avx512")
    assert from_tvm_target(cpu.tvm_target()) == cpu
    assert from_tvm_target(parse_target("llvm").tvm_target()) == parse_target("llvm")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("cuda", "cuda"),
        ("", "''"),
        ("llvm -mcpu=pentium-9", "pentium-9"),
        ("llvm -mattr=+avx2", "-mattr=+avx2"),
        ("llvm -mcpu", "-mcpu"),
        ("llvm znver3", "znver3"),
        ("llvm -mcpu='znver3", "znver3"),
        (None, "None"),
    ],
)
def test_other_targets_are_refused_by_name(text, word):
    with pytest.raises(TargetError, match=r"(expected|knows no)") as error:
        parse_target(text)
    assert word in str(error.value)


def test_other_kinds_of_tvm_target_are_refused():
    with pytest.raises(TargetError, match="kind 'c'"):
        from_tvm_target(tvm.target.Target({"kind": "c"}))


def test_caches_fall_back_where_the_system_does_not_tell(monkeypatch, tmp_path):
    monkeypatch.setattr(target, "_CACHES", tmp_path)
    assert parse_target("native").l1_bytes == 32 * 1024
    (tmp_path / "index0").mkdir()
    for name, text in (("type", "Data"), ("level", "1"), ("size", "48K")):
        (tmp_path / "index0" / name).write_text(text + "\n")
    assert parse_target("native").l1_bytes == 48 * 1024
    (tmp_path / "index0" / "size").write_text("large\n")
    assert parse_target("native").l1_bytes == 32 * 1024


# ---- instruction sets --------------------------------------------------------------------------


def test_required_instruction_sets_of_avx512():
    required = cpu_features.instruction_sets(parse_target("llvm -mcpu=skylake-avx512").features())
    assert {"avx512f", "avx512vl", "fma", "avx2"} <= set(required)
    assert "fast-gather" not in required  # a tuning hint
    assert cpu_features.instruction_sets(parse_target("llvm").features()) == ()


@pytest.fixture
def cpuinfo(monkeypatch, tmp_path):
    """Pretend to be a machine that reports the given flags."""
    path = tmp_path / "cpuinfo"
    monkeypatch.setattr(cpu_features, "_CPUINFO", path)
    monkeypatch.setattr(cpu_features.platform, "machine", lambda: "x86_64")
    cpu_features.host_instruction_sets.cache_clear()
    yield path.write_text
    cpu_features.host_instruction_sets.cache_clear()


def test_what_the_host_lacks_is_named(cpuinfo):
    cpuinfo("processor\t: 0\nflags\t\t: fpu sse4_2 avx avx2 fma bmi1 abm\n")
    assert cpu_features.missing_on_host(["avx512f", "avx2", "lzcnt", "bmi", "avx512bw"]) == [
        "avx512bw",
        "avx512f",
    ]


def test_without_linux_flags_llvm_is_asked(cpuinfo, monkeypatch):
    monkeypatch.setattr(cpu_features.platform, "machine", lambda: "sparc")
    native = cpu_features.instruction_sets(parse_target("native").features())
    assert cpu_features.host_instruction_sets() == set(native)
    assert cpu_features.missing_on_host(native) == []


def test_an_unreadable_cpuinfo_is_no_error(cpuinfo):
    native = cpu_features.instruction_sets(parse_target("native").features())
    assert cpu_features.missing_on_host(native) == []
