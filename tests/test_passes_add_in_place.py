"""AddInPlace: which additions go into the memory of what is added, and that numbers stay."""

import numpy as np
import pytest
import tvm
from relax_networks import const, conv, evaluate, module
from tvm import relax

from tvm_sparsewino import reference
from tvm_sparsewino._compat import make_target
from tvm_sparsewino.relay_passes import sparsewino_pipeline

C = 16
SHAPE = (1, C, 7, 7)  # the kernel's last vector is moved back


@pytest.fixture
def filters(rng):
    values = rng.standard_normal((2, C, C, 1, 1)).astype("float32")
    values[rng.random(values.shape) < 0.9] = 0
    return values


def add(b, x, y, weight):
    """conv(x) + y, then ReLU: one kernel."""
    total = b.emit(relax.op.add(conv(b, x, weight, padding=0), y))
    return b.emit(relax.op.nn.relu(total))


def pooled(b, x):
    return b.emit(relax.op.nn.adaptive_avg_pool2d(x, (1, 1)))


def called(mod):
    """The functions that the compiled network calls, in order."""
    with make_target({"kind": "llvm"}):
        done = sparsewino_pipeline()(mod)
    calls = [b.value for block in done["main"].body.blocks for b in block.bindings]
    ops = [call.op for call in calls if isinstance(call, relax.Call)]
    names = {f.name_hint for f in done.get_global_vars()}
    used = [op.name_hint for op in ops if isinstance(op, tvm.ir.GlobalVar)]
    assert {*used} <= names and sum("sparse" in n for n in names) == len(
        {n for n in used if "sparse" in n}
    )
    return used


def in_place(mod):
    return sum("_in_place" in name for name in called(mod))


def exact(x, weight, added):
    return np.maximum(reference.conv2d(x, weight) + added, 0)


def close(got, want):
    """At most 16 products a layer: 1e-5 of the largest."""
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


def test_a_residual_network_has_one_map_of_its_sums(rng, filters):
    def build(b, x):
        y = conv(b, x, filters[0], padding=0)
        for _ in range(3):
            y = add(b, conv(b, y, filters[1], padding=0), y, filters[0])
        return pooled(b, y)

    mod = module(build, SHAPE)
    assert in_place(mod) == 3
    x = rng.standard_normal(SHAPE).astype("float32")
    y = reference.conv2d(x, filters[0])
    for _ in range(3):
        y = exact(reference.conv2d(y, filters[1]), filters[0], y)
    close(evaluate(mod, x, pipeline=sparsewino_pipeline()), y.mean((2, 3), keepdims=True))


def test_a_sum_that_is_a_part_of_a_concatenation(rng, filters):
    def build(b, x):
        y = conv(b, x, filters[0], padding=0)
        total = add(b, conv(b, y, filters[1], padding=0), y, filters[0])
        joined = b.emit(relax.op.concat([total, conv(b, x, filters[1], padding=0)], axis=1))
        return pooled(b, joined)

    mod = module(build, SHAPE)
    names = called(mod)
    assert sum("_in_place_in_" in name for name in names) == 1
    x = rng.standard_normal(SHAPE).astype("float32")
    y = reference.conv2d(x, filters[0])
    total = exact(reference.conv2d(y, filters[1]), filters[0], y)
    want = np.concatenate([total, reference.conv2d(x, filters[1])], 1).mean((2, 3), keepdims=True)
    close(evaluate(mod, x, pipeline=sparsewino_pipeline()), want)


def read_later(b, x, y, weight):
    total = add(b, x, y, weight)
    return pooled(b, add(b, total, y, weight))


def read_as_input(b, x, y, weight):
    return pooled(b, add(b, y, y, weight))


def returned(b, x, y, weight):
    return b.emit(relax.Tuple([pooled(b, add(b, x, y, weight)), y]))


def reshaped(b, x, y, weight):
    flat = b.emit(relax.op.reshape(y, (1, C, 49)))
    total = pooled(b, add(b, x, y, weight))
    return b.emit(relax.Tuple([total, b.emit(relax.op.sum(flat))]))


def a_parameter(b, x, y, weight):
    return pooled(b, add(b, y, x, weight))


def a_constant(b, x, y, weight):
    return pooled(b, add(b, y, const(np.ones(SHAPE)), weight))


@pytest.mark.parametrize(
    ("follow", "count"),
    [
        (read_later, 1),  # the second addition is the last that reads y
        (read_as_input, 0),
        (returned, 0),
        (reshaped, 0),
        (a_parameter, 0),
        (a_constant, 0),
    ],
)
def test_what_is_needed_later_is_not_overwritten(rng, filters, follow, count):
    def build(b, x):
        return follow(b, x, conv(b, x, filters[0], padding=0), filters[1])

    mod = module(build, SHAPE)
    assert in_place(mod) == count
    x = rng.standard_normal(SHAPE).astype("float32")
    answers = []
    for pipeline in (sparsewino_pipeline(), "default"):
        built = tvm.compile(mod, make_target({"kind": "llvm"}), relax_pipeline=pipeline)
        machine = relax.VirtualMachine(built, tvm.cpu())
        tensor = tvm.runtime.tensor(x)
        answer = machine["main"](tensor)
        np.testing.assert_array_equal(tensor.numpy(), x)
        answers.append([answer] if hasattr(answer, "numpy") else list(answer))
    for got, want in zip(*answers, strict=True):
        close(got.numpy(), want.numpy())
