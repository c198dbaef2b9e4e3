"""The emulated CPU tells what goes wrong: wrong values, refused arguments, traps, bad pointers."""

import json
import re

import numpy as np
import pytest
from avx512_cases import name_of, sparse
from avx512_runs import (
    compile_c,
    compile_kernel,
    compile_stand_ins,
    share_of_bound,
    skip_without_emulator,
    start,
    write_arguments,
)
from kernel_cases import conv

skip_without_emulator()

CASE = sparse(conv(5, 35), rows_at_once=2)
RIGHT = name_of(CASE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One kernel, with wrong arguments as well, and two functions that crash."""
    folder = tmp_path_factory.mktemp("emulator")
    compile_stand_ins(folder)
    x, *packed, output = compile_kernel(folder, CASE)
    values = packed[-1].copy()
    values.flat[np.flatnonzero(values)[0]] *= 2
    write_arguments(folder, "one-value-off", [x, *packed[:-1], values, output])
    write_arguments(folder, "one-row-missing", [x[:, :, 1:], *packed, output])
    for name in ("one-value-off", "one-row-missing"):
        (folder / f"{name}.so").hardlink_to(folder / f"{RIGHT}.so")
    stray = "int *volatile nowhere = (int *)64; return *nowhere;"
    for name, body in (("traps", "__builtin_trap();"), ("strays", stray)):
        compile_c(folder, name, f"int __tvm_ffi_kernel(void) {{ {body} }}")
        write_arguments(folder, name, [output])
    return folder


@pytest.fixture(scope="module")
def reports(folder):
    """Error by name of everything that was run, None where there was none."""
    result = start(folder, "one-value-off", "one-row-missing", "traps", RIGHT)
    assert result.returncode == 0, result.stdout + result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    return {line["name"]: line["error"] for line in lines}


def test_a_wrong_value_is_out_of_bounds(folder, reports):
    assert reports["one-value-off"] is None
    assert share_of_bound(CASE, np.load(folder / "one-value-off.npy")) > 100


def test_a_kernel_refuses_a_wrong_shape(reports):
    assert re.match(r"KernelError: .*data\.shape\[2\]", reports["one-row-missing"])


def test_a_trap_is_reported(reports):
    assert reports["traps"].startswith("GuestFault: CPU exception 6,")


def test_a_kernel_runs_after_a_trap(folder, reports):
    assert reports[RIGHT] is None
    assert share_of_bound(CASE, np.load(folder / f"{RIGHT}.npy")) <= 1


def test_a_stray_pointer_ends_the_process(folder):
    result = start(folder, "strays")
    assert result.returncode == 99
    assert result.stderr.startswith("access to unmapped memory at rip=0x")
