"""Kernels in files, compiled for skylake-avx512 and run by the emulated CPU of ``avx512/``."""

import importlib.util
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from avx512_cases import CPU, LANES, REGISTERS, name_of
from kernel_cases import arguments, expected, operands

from tvm_sparsewino import _compat
from tvm_sparsewino.schedules.build import build_conv

TOOLS = Path(__file__).parent / "avx512"


def skip_without_emulator():
    """For test modules: skip them where the emulated CPU cannot run."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        pytest.skip("the emulator shares memory with Linux x86-64 only", allow_module_level=True)
    for tool in ("gcc", "as"):
        if not shutil.which(tool):
            pytest.skip(f"the emulated kernels need {tool}", allow_module_level=True)
    if not importlib.util.find_spec("bochscpu"):
        pytest.skip("bochscpu-python is not installed", allow_module_level=True)


def write_arguments(folder, name, arrays):
    np.savez(folder / f"{name}.npz", **{f"arg_{i}": array for i, array in enumerate(arrays)})


def compile_kernel(folder, case):
    """Library, assembly and arguments of a case, in files of its name; returns the arguments.

    The library is made from the assembly, so that code is generated once. Debug information is left
    out: LLVM writes some of it in its own way.
    """
    name = name_of(case)
    packed, arrays = arguments(case, *operands(case))
    func = build_conv(case.plan, case.epilogue, packed.specs, LANES, REGISTERS)
    module = _compat.build_module(func.with_attr("global_symbol", "kernel"), CPU.tvm_target())
    source = re.sub(r"^\s*\.(file|loc)\s.*$", "", _compat.inspect_asm(module), flags=re.MULTILINE)
    (folder / f"{name}.s").write_text(source)
    link = ["gcc", "-shared", "-o", folder / f"{name}.so", folder / f"{name}.s"]
    subprocess.run(link, check=True)
    write_arguments(folder, name, arrays)
    return arrays


def compile_c(folder, name, source):
    """A shared library from C source text."""
    flags = ("-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-x", "c", "-")
    subprocess.run(
        ["gcc", *flags, "-o", folder / f"{name}.so"], input=source, text=True, check=True
    )


def compile_stand_ins(folder):
    compile_c(folder, "stand_ins", (TOOLS / "stand_ins.c").read_text())


def start(folder, *names):
    """Run kernels in the emulator, one process for all of them; gives it when it has finished."""
    command = [sys.executable, TOOLS / "run_kernels.py", folder, *names]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def share_of_bound(case, output):
    """The largest error as a share of what rounding can do; an output not written is NaN."""
    y, bound = expected(case, *operands(case))
    error = abs(output - y)
    return (error / np.where(error == 0, 1, bound)).max()
