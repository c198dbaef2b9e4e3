"""The 16-lane kernels, compiled for skylake-avx512, run on any x86-64 machine by an emulated CPU.

One process runs them all (see ``avx512/run_kernels.py``); every output is held against the float64
oracle with the error bound of ``kernel_cases``. The emulated CPU knows more instructions than the
target does, so the assembler is asked about those.
"""

import json
import re
import subprocess

import numpy as np
import pytest
from avx512_cases import CASES, name_of
from avx512_runs import (
    compile_kernel,
    compile_stand_ins,
    share_of_bound,
    skip_without_emulator,
    start,
)

skip_without_emulator()

# What skylake-avx512 has beyond a CPU of 2008, in the assembler's words.
FEATURES = "popcnt lzcnt prfchw bmi bmi2 fma avx512f avx512cd avx512bw avx512dq avx512vl"
MARCH = "+".join(["corei7", *FEATURES.split()])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Everything compiled; the outputs are there after ``reports``."""
    folder = tmp_path_factory.mktemp("kernels")
    compile_stand_ins(folder)
    for case in CASES:
        compile_kernel(folder, case)
    return folder


@pytest.fixture(scope="module")
def reports(folder):
    """Error by name of everything that was run, None where there was none."""
    result = start(folder, *map(name_of, CASES))
    assert result.returncode == 0, result.stdout + result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    return {line["name"]: line["error"] for line in lines}


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_kernel_is_the_oracle(folder, reports, case):
    name = name_of(case)
    assert reports[name] is None
    assert share_of_bound(case, np.load(folder / f"{name}.npy")) <= 1


def assemble(source):
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
