"""ConcatInPlace: which concatenations go away, which stay, and that numbers stay the same."""

import numpy as np
import pytest
import tvm
from relax_networks import const, conv, evaluate, module
from tvm import relax

from tvm_sparsewino import reference
from tvm_sparsewino._compat import make_target
from tvm_sparsewino.relay_passes import sparsewino_pipeline

C = 4
SHAPE = (1, C, 7, 9)  # maps of 63 numbers: parts begin where no vector does
RELU = relax.op.nn.relu


@pytest.fixture
def filters(rng):
    """Two filters, 4 > 4 and 4 > 3 channels; zeros, so that one runs sparse."""
    values = rng.standard_normal((2, C, C, 3, 3)).astype("float32")
    values[0][rng.random(values[0].shape) < 0.9] = 0
    return values[0], values[1, :3]


def concat(b, *parts, axis=1):
    return b.emit(relax.op.concat(parts, axis=axis))


def called(mod):
    """The functions that the compiled network calls, in order."""
    target = make_target({"kind": "llvm"})
    with target:
        done = sparsewino_pipeline()(mod)
    calls = [b.value for block in done["main"].body.blocks for b in block.bindings]
    ops = [call.op for call in calls if isinstance(call, relax.Call)]
    names = [op.name_hint for op in ops if isinstance(op, tvm.ir.GlobalVar)]
    return [name for name in names if "reshape" not in name]


def joins(mod):
    return sum("concatenate" in name for name in called(mod))


def activated(b, x, weight):
    return b.emit(RELU(conv(b, x, weight)))


def exact(x, weight):
    return np.maximum(reference.conv2d(x, weight, padding=(1, 1, 1, 1)), 0)


def close(got, want):
    """Four products of 3x3 filters, Winograd's rounding: 1e-5 of the largest."""
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


def test_branches_write_into_the_result(rng, filters):
    def build(b, x):
        return concat(b, *(activated(b, x, weight) for weight in filters))

    mod = module(build, SHAPE)
    names = called(mod)
    assert len(names) == 2 and all("_in_" in name for name in names)
    x = rng.standard_normal(SHAPE).astype("float32")
    want = np.concatenate([exact(x, weight) for weight in filters], 1)
    close(evaluate(mod, x, pipeline=sparsewino_pipeline()), want)


def test_results_inside_results(rng, filters):
    """DenseNet's way: each result is part of the next, read in between, pooled at the end."""
    wide = rng.standard_normal((3, C + 3, 3, 3)).astype("float32")

    def build(b, x):
        first = activated(b, x, filters[0])
        second = concat(b, first, activated(b, first, filters[1]))
        third = concat(b, second, activated(b, second, wide))
        pooled = b.emit(relax.op.nn.max_pool2d(third, (3, 3), padding=(1, 1)))
        return concat(b, third, pooled)

    mod = module(build, SHAPE)
    assert joins(mod) == 0
    x = rng.standard_normal(SHAPE).astype("float32")
    first = exact(x, filters[0])
    second = np.concatenate([first, exact(first, filters[1])], 1)
    third = np.concatenate([second, exact(second, wide)], 1)
    padded = np.pad(third, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    rows = [padded[:, :, i : i + 7, j : j + 9] for i in range(3) for j in range(3)]
    want = np.concatenate([third, np.max(rows, 0)], 1)
    close(evaluate(mod, x, pipeline=sparsewino_pipeline()), want)


def test_a_skip_stays_until_it_is_joined(rng, filters):
    """U-Net's way: other tensors come and go while a half-written result waits."""

    def build(b, x):
        skip = activated(b, x, filters[0])
        deep = skip
        for _ in range(4):
            deep = activated(b, deep, filters[0])
        return activated(b, concat(b, skip, deep), np.concatenate([filters[0]] * 2, 1))

    mod = module(build, SHAPE)
    assert joins(mod) == 0
    x = rng.standard_normal(SHAPE).astype("float32")
    skip = deep = exact(x, filters[0])
    for _ in range(4):
        deep = exact(deep, filters[0])
    want = exact(np.concatenate([skip, deep], 1), np.concatenate([filters[0]] * 2, 1))
    close(evaluate(mod, x, pipeline=sparsewino_pipeline()), want)


def test_one_function_serves_all_places(filters):
    def build(b, x):
        return concat(b, *(activated(b, x, filters[0]) for _ in range(3)))

    names = called(module(build, SHAPE))
    assert names == [names[0]] * 3


def returned_as_well(b, x, y, z):
    return b.emit(relax.Tuple([concat(b, y, z), y]))


def part_of_two(b, x, y, z):
    """The later one takes its parts; the earlier one is copied, and a part of the later."""
    return concat(b, concat(b, y, z), z)


def reshaped(b, x, y, z):
    flat = b.emit(relax.op.reshape(y, (1, C, 63)))
    shorter = b.emit(relax.op.reshape(flat, (1, 7, 36)))
    joined = b.emit(relax.op.nn.relu(concat(b, y, z)))
    return b.emit(relax.Tuple([joined, b.emit(relax.op.sum(shorter))]))


@pytest.mark.parametrize(
    "follow",
    [
        lambda b, x, y, z: concat(b, x, y),  # a parameter
        lambda b, x, y, z: concat(b, y, const(np.ones(SHAPE))),
        lambda b, x, y, z: concat(b, y, y),
        lambda b, x, y, z: concat(b, y, z, axis=2),
        lambda b, x, y, z: concat(b, y, z, axis=-1),
        returned_as_well,
        part_of_two,
        reshaped,
    ],
)
def test_what_cannot_be_written_in_place_is_copied(rng, filters, follow):
    def build(b, x):
        return follow(b, x, activated(b, x, filters[0]), b.emit(relax.op.sin(x)))

    mod = module(build, SHAPE)
    assert joins(mod) == 1
    x = rng.standard_normal(SHAPE).astype("float32")
    target = make_target({"kind": "llvm"})
    answers = []
    for pipeline in (sparsewino_pipeline(), "default"):
        built = tvm.compile(mod, target, relax_pipeline=pipeline)
        machine = relax.VirtualMachine(built, tvm.cpu())
        answers.append(machine["main"](tvm.runtime.tensor(x)))
    for got, want in zip(*map(arrays, answers), strict=True):
        close(got, want)


def arrays(answer):
    return [answer.numpy()] if hasattr(answer, "numpy") else [a.numpy() for a in answer]


def test_a_batch_is_copied(rng, filters):
    def build(b, x):
        return concat(b, *(activated(b, x, weight) for weight in filters))

    mod = module(build, (2, *SHAPE[1:]))
    assert joins(mod) == 1
    x = rng.standard_normal((2, *SHAPE[1:])).astype("float32")
    want = np.concatenate([exact(x, weight) for weight in filters], 1)
    close(evaluate(mod, x, pipeline=sparsewino_pipeline()), want)


def test_a_concatenation_along_the_first_axis_is_in_place(rng, filters):
    def build(b, x):
        return concat(b, activated(b, x, filters[0]), b.emit(relax.op.cos(x)), axis=0)

    mod = module(build, (2, *SHAPE[1:]))
    assert joins(mod) == 0
    x = rng.standard_normal((2, *SHAPE[1:])).astype("float32")
    want = np.concatenate([exact(x, filters[0]), np.cos(x)])
    close(evaluate(mod, x, pipeline=sparsewino_pipeline()), want)


def test_what_can_be_fused_stays_one_function():
    def build(b, x):
        return b.emit(RELU(concat(b, b.emit(relax.op.sin(x)), b.emit(relax.op.cos(x)))))

    (name,) = called(module(build, SHAPE))
    assert "concatenate" in name and "relu" in name
