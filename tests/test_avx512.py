"""The 16-lane kernels, compiled for skylake-avx512, run on any x86-64 machine by an emulated CPU.

One process runs them all (see ``avx512/run_kernels.py``); every output is held against the float64
oracle with the error bound of ``test_kernels``. The emulated CPU knows more instructions than the
target does, so the assembler is asked about those.
"""

import functools
import importlib.util
import json
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_kernels import DENSE, EPILOGUES, Case, conv, expected, operands
from test_structured_gemm import WIDEST as STRUCTURED

from tvm_sparsewino import _compat
from tvm_sparsewino.config import Epilogue
from tvm_sparsewino.geometry import kernel_layout
from tvm_sparsewino.packing import pack
from tvm_sparsewino.schedules.build import build_conv
from tvm_sparsewino.schedules.target import parse_target

if sys.platform != "linux" or platform.machine() != "x86_64":
    pytest.skip("the emulator shares memory with Linux x86-64 only", allow_module_level=True)
for tool in ("gcc", "as"):
    if not shutil.which(tool):
        pytest.skip(f"the emulated kernels need {tool}", allow_module_level=True)
if not importlib.util.find_spec("bochscpu"):
    pytest.skip("bochscpu-python is not installed", allow_module_level=True)

TOOLS = Path(__file__).parent / "avx512"
CPU = parse_target("llvm -mcpu=skylake-avx512")
LANES, REGISTERS = CPU.lanes, CPU.vector_registers
# What skylake-avx512 has beyond a CPU of 2008, in the assembler's words.
FEATURES = "popcnt lzcnt prfchw bmi bmi2 fma avx512f avx512cd avx512bw avx512dq avx512vl"
MARCH = "+".join(["corei7", *FEATURES.split()])

wide = functools.partial(Case, lanes=LANES, registers=REGISTERS)
RELU6, PRELU = Epilogue(True, True, "relu6"), Epilogue(True, False, "prelu")
LEAKY = Epilogue(False, True, "leaky_relu", 0.125)
FIVES = {"r": 5, "padding": (2, 2, 2, 2)}
CASES = [
    # Maps of one pixel; maps whose rows are cut into panels; odd maps, in a batch.
    wide(conv(1, 1, c=1, k=1), density=1.0),
    wide(conv(1, 1), 4, 1.0, DENSE, rows_at_once=8),
    wide(conv(13, 71, c=5, k=7, n=2), 4, panel_vectors=1, k_block=3, channel_block=4),
    wide(conv(5, 67, c=4, k=5), 2, 1.0, DENSE, 1, rows_at_once=2),
    wide(conv(9, 11, c=5, k=7, n=2), 2, rows_at_once=2, k_block=3),
    # Padding on fewer sides; groups.
    wide(conv(20, 37, c=6, k=20, padding=(0, 1, 2, 0), groups=2), 4, 1.0, DENSE, 3, 7, 8, 8),
    wide(conv(14, 30, c=6, k=9, groups=3), 6, 0.2, rows_at_once=3, k_block=2, epilogue=LEAKY),
    # Every tile and filter.
    wide(conv(14, 31, c=5, k=4, padding=(2, 0, 1, 2)), 6, 1.0, DENSE, 2, rows_at_once=2),
    wide(conv(11, 40, c=4, k=6, **FIVES), 4, 0.5, rows_at_once=3, epilogue=RELU6),
    wide(conv(7, 21, c=4, k=6, **FIVES), 4, 1.0, DENSE, 1, rows_at_once=3, epilogue=PRELU),
    # Nothing but zeros, and no zeros; many rows together.
    wide(conv(7, 7, c=4, k=9), 4, 0.0, k_block=4, rows_at_once=2, epilogue=PRELU),
    wide(conv(7, 19, c=4, k=17), 2, 1.0, rows_at_once=8, epilogue=RELU6),
    *STRUCTURED,
    # Every epilogue, on whole vectors and a tail.
    *(wide(conv(4, 35, c=12, k=3), density=0.9, epilogue=epilogue) for epilogue in EPILOGUES),
]


def name_of(case):
    e = case.epilogue
    return "-".join([str(case), *["bias"] * e.bias, *["add"] * e.residual, e.activation])


def arguments(case, packed):
    """What the kernel takes; the output is full of NaN, so what is not written shows."""
    x, _, bias, slope, residual = operands(case)
    arrays = [x, *packed, *[bias] * case.epilogue.bias]
    arrays += [slope] * (case.epilogue.activation == "prelu")
    arrays += [residual] * case.epilogue.residual
    return [*arrays, np.full_like(residual, np.nan)]


def write_arguments(folder, name, arrays):
    np.savez(folder / f"{name}.npz", **{f"arg_{i}": array for i, array in enumerate(arrays)})


def compile_kernel(folder, case):
    """Library, assembly and arguments of a case, in files of its name; returns the arguments."""
    name, (_, u, *_) = name_of(case), operands(case)
    packed = pack(u, case.plan, LANES)
    func = build_conv(case.plan, case.epilogue, packed.specs, LANES, REGISTERS)
    module = _compat.build_module(func.with_attr("global_symbol", "kernel"), CPU.tvm_target())
    _compat.export_library(module, str(folder / f"{name}.so"))
    (folder / f"{name}.s").write_text(_compat.inspect_asm(module))
    arrays = arguments(case, packed.arrays)
    write_arguments(folder, name, arrays)
    return arrays


def compile_c(folder, name, source):
    """A shared library from C source text."""
    flags = ("-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-x", "c", "-")
    subprocess.run(
        ["gcc", *flags, "-o", folder / f"{name}.so"], input=source, text=True, check=True
    )


def start(folder, *names):
    """Run kernels in the emulator; gives the finished process."""
    command = [sys.executable, TOOLS / "run_kernels.py", folder, *names]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


# Runs beside the cases that must not come out right.
VICTIM = CASES[4]
WRONG = ("one-value-off", "one-row-missing", "traps")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Everything compiled; the outputs are there after ``reports``."""
    folder = tmp_path_factory.mktemp("kernels")
    compile_c(folder, "stand_ins", (TOOLS / "stand_ins.c").read_text())
    arrays = {name_of(case): compile_kernel(folder, case) for case in CASES}
    x, *rest, output = arrays[name_of(VICTIM)]
    values = rest[-1].copy()
    values.flat[np.flatnonzero(values)[0]] *= 2
    write_arguments(folder, WRONG[0], [x, *rest[:-1], values, output])
    write_arguments(folder, WRONG[1], [x[:, :, 1:], *rest, output])
    for name in WRONG[:2]:
        shutil.copy(folder / f"{name_of(VICTIM)}.so", folder / f"{name}.so")
    stray = "int *volatile nowhere = (int *)64; return *nowhere;"
    for name, body in ((WRONG[2], "__builtin_trap();"), ("strays", stray)):
        compile_c(folder, name, f"int __tvm_ffi_kernel(void) {{ {body} }}")
        write_arguments(folder, name, [output])
    return folder


@pytest.fixture(scope="module")
def reports(folder):
    """Error by name of everything that was run, None where there was none."""
    result = start(folder, *map(name_of, CASES), *WRONG)
    assert result.returncode == 0, result.stdout + result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    return {line["name"]: line["error"] for line in lines}


def share_of_bound(case, output):
    """The largest error as a share of what rounding can do; an output not written is NaN."""
    y, bound = expected(case, *operands(case))
    error = abs(output - y)
    return (error / np.where(error == 0, 1, bound)).max()


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_kernel_is_the_oracle(folder, reports, case):
    name = name_of(case)
    assert reports[name] is None
    assert share_of_bound(case, np.load(folder / f"{name}.npy")) <= 1


def assemble(source):
    """Debug information is left out: LLVM writes some of it in its own way."""
    source = re.sub(r"^\s*\.(file|loc)\s.*$", "", source, flags=re.MULTILINE)
    command = ["as", f"-march={MARCH}", "-o", "/dev/null", "-"]
    return subprocess.run(command, input=source, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_code_is_of_the_target(folder, case):
    """Multiply-adds on whole registers, and no instruction that skylake-avx512 lacks."""
    source = (folder / f"{name_of(case)}.s").read_text()
    assert re.search(r"vfn?madd\w+ps\s.*%zmm", source)
    result = assemble(source)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "name", ["vpdpbusd", "vpmadd52luq", "vpermb", "vpermi2b", "vpmultishiftqb"]
)
def test_newer_instructions_would_show(name):
    result = assemble(f"{name} %zmm1, %zmm2, %zmm3\n")
    assert result.returncode and name in result.stderr


def test_the_cases_are_what_they_say():
    assert (LANES, REGISTERS) == (16, 32)
    layouts = [kernel_layout(case.plan, LANES) for case in CASES]
    tiles_across = [-(-case.shape.ow // case.m) for case in CASES]
    tiles_per_panel = [layout.panels.vectors * LANES for layout in layouts]
    assert (np.array(tiles_across) > tiles_per_panel).any()
    assert {c.epilogue for c in CASES} >= set(EPILOGUES)
    assert {c.rows_at_once for c in CASES} >= {1, 2, 3, 8}


def test_a_wrong_value_is_out_of_bounds(folder, reports):
    assert reports[WRONG[0]] is None
    assert share_of_bound(VICTIM, np.load(folder / f"{WRONG[0]}.npy")) > 100


def test_a_kernel_refuses_a_wrong_shape(reports):
    assert re.match(r"KernelError: .*data\.shape\[2\]", reports[WRONG[1]])


def test_a_trap_is_reported(reports):
    assert reports[WRONG[2]].startswith("GuestFault: CPU exception 6,")


def test_a_stray_pointer_ends_the_process(folder):
    result = start(folder, "strays")
    assert result.returncode == 99
    assert result.stderr.startswith("access to unmapped memory at rip=0x")
