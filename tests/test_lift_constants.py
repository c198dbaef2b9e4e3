"""Constants become parameters; whoever calls the old name gets them from the packed function."""

import gc
import weakref

import numpy as np
import pytest
import tvm
from relax_networks import const, module
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from tvm_sparsewino import building, driver
from tvm_sparsewino._compat import (
    from_dlpack,
    make_target,
    runtime_tensor,
    virtual_machine,
    with_constants_replaced,
)
from tvm_sparsewino.constants import CONSTANT, Constants, forward_name
from tvm_sparsewino.errors import ArtefactError
from tvm_sparsewino.relay_passes.lift_constants import lift_constants
from tvm_sparsewino.relay_passes.pipeline import sparsewino_pipeline

TARGET = make_target({"kind": "llvm"})
A = np.arange(6, dtype=np.float32).reshape(2, 3)
B = A + 1


def function(builder, name, build):
    x = relax.Var("x", relax.TensorType((2, 3), "float32"))
    with builder.function(name, [x]):
        builder.emit_func_output(builder.emit(build(builder, x)))


@pytest.fixture(scope="module")
def several():
    """Functions that share constants, and one that has none."""
    builder = relax.BlockBuilder()
    function(
        builder,
        "both",
        lambda b, x: relax.op.multiply(b.emit(relax.op.add(x, const(A))), const(B)),
    )
    function(builder, "first", lambda b, x: relax.op.add(x, const(A.copy())))
    function(builder, "second", lambda b, x: relax.op.multiply(x, const(B)))
    function(builder, "none", lambda b, x: relax.op.exp(x))
    return builder.get()


WANTED = {"both": lambda x: (x + A) * B, "first": lambda x: x + A, "second": lambda x: x * B}


def test_functions_share_equal_constants(several):
    built, constants = building.build(several, TARGET, sparsewino_pipeline())
    assert len(constants.tensors) == 2
    assert set(constants.used) == set(WANTED)
    assert [len(constants.used[name]) for name in WANTED] == [2, 1, 1]
    x, machine = np.full((2, 3), 0.5, np.float32), virtual_machine(built)
    for name, want in WANTED.items():
        result = machine[forward_name(name)](runtime_tensor(x), *constants.of(name)).numpy()
        np.testing.assert_array_equal(result, want(x))
    np.testing.assert_allclose(machine["none"](runtime_tensor(x)).numpy(), np.exp(x), rtol=1e-6)
    assert constants.of("none") == []


def test_nothing_is_left_of_a_replacement(several):
    """What it knows of, all constants of a network, must not outlive the network."""

    def unchanged(constant):
        return constant

    seen = weakref.ref(unchanged)
    with_constants_replaced(several["both"].body, unchanged)
    del unchanged
    gc.collect()
    assert seen() is None


def test_code_holds_no_tensor(several):
    def tensors(built):
        pool = built.stats().splitlines()[1]
        return pool.replace("shapetuple[2, 3]", "").count("[2, 3]")

    assert tensors(tvm.compile(several, TARGET, relax_pipeline=sparsewino_pipeline())) == 2
    assert tensors(building.build(several, TARGET, sparsewino_pipeline())[0]) == 0


def test_the_old_name_asks_for_every_constant(several):
    with TARGET:
        lifted, constants = lift_constants(sparsewino_pipeline()(several))
    assert relax.analysis.well_formed(lifted, check_ty=False) is not False  # or it raises
    calls = [b.value for block in lifted["both"].body.blocks for b in block.bindings]
    asked = [int(call.args[0].value) for call in calls[:-1]]
    assert [call.op.global_symbol for call in calls[:-1]] == [CONSTANT] * 2
    assert tuple(asked) == constants.used["both"]
    assert calls[-1].op.name_hint == forward_name("both")


def test_equal_bytes_of_another_kind_are_other_constants():
    zeros = [np.zeros((2, 3), np.float32), np.zeros((3, 2), np.float32), np.zeros((2, 3), np.int32)]

    def build(b, x):
        return b.emit(relax.Tuple([b.emit(relax.op.exp(x)), *map(relax.const, zeros)]))

    exe = driver.compile(module(build, (2, 3)), "llvm")
    results = exe(A)[1:]
    assert len(exe._constants.tensors) == 3
    for got, want in zip(results, zeros, strict=True):
        assert (got.dtype, got.shape) == (want.dtype, want.shape)


def test_memory_that_kernels_cannot_read_is_copied():
    memory = np.zeros(64, np.float32)
    start = next(i for i in range(1, 32) if memory[i:].ctypes.data % 64)
    array = memory[start : start + 6].reshape(2, 3)
    array[...] = A
    shared = relax.Constant if hasattr(relax, "Constant") else tvm.ir.GenericConst
    constant = shared(from_dlpack(array), relax.TensorType((2, 3), "float32"))
    exe = driver.compile(module(lambda b, x: b.emit(relax.op.add(x, constant)), (2, 3)), "llvm")
    assert [tensor.data_ptr() % 64 for tensor in exe._constants.tensors] == [0]
    np.testing.assert_array_equal(exe(B), A + B)


@pytest.fixture(scope="module")
def calling():
    """(x + A + A) * B by a function that adds A."""
    builder = relax.BlockBuilder()
    function(builder, "inner", lambda b, x: relax.op.add(x, const(A)))
    (inner,) = builder.get().get_global_vars()

    def twice(b, x):
        y = b.emit(relax.Call(inner, [b.emit(relax.Call(inner, [x]))]))
        return relax.op.multiply(y, const(B))

    function(builder, "main", twice)
    return builder.get()


def test_callers_hand_over_what_functions_need(calling):
    with TARGET:
        lifted, constants = lift_constants(sparsewino_pipeline()(calling))
    assert {name: len(numbers) for name, numbers in constants.used.items()} == {
        "inner": 1,
        "main": 2,
    }
    called = [
        b.value.op
        for block in lifted[forward_name("main")].body.blocks
        for b in block.bindings
        if isinstance(b.value.op, tvm.ir.GlobalVar)
    ]
    assert [var.name_hint for var in called].count(forward_name("inner")) == 2
    np.testing.assert_array_equal(driver.compile(calling, "llvm")(B), (B + A + A) * B)


def test_functions_that_call_each_other_in_a_circle_stay():
    @I.ir_module
    class Circle:
        @R.function
        def ping(x: R.Tensor((2, 3), "float32")) -> R.Tensor((2, 3), "float32"):
            y: R.Tensor((2, 3), "float32") = Circle.pong(x)
            return R.add(y, R.const(1.0))

        @R.function
        def pong(x: R.Tensor((2, 3), "float32")) -> R.Tensor((2, 3), "float32"):
            y: R.Tensor((2, 3), "float32") = Circle.ping(x)
            return R.add(y, R.const(1.0))

    lifted, constants = lift_constants(Circle)
    assert lifted is Circle
    assert constants == Constants()


def test_a_module_in_memory_says_where_its_constants_are(several):
    built, _ = building.build(several, TARGET, sparsewino_pipeline())
    with pytest.raises(ArtefactError, match=r"constant \d is not in this module: run the network"):
        virtual_machine(built)["first"](runtime_tensor(A))
