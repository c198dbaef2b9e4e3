"""Dense direct kernels against the float64 oracle.

Tolerance: every output is a sum of ``taps`` products; rounding each operation once gives an error
of at most about ``taps * 2^-24`` times the same convolution of absolute values, element by element.
"""

import dataclasses
import threading
from functools import cache

import numpy as np
import pytest

from tvm_sparsewino import _compat, reference
from tvm_sparsewino.config import ConvShape, Epilogue, LayerPlan
from tvm_sparsewino.errors import ShapeError
from tvm_sparsewino.geometry_direct import direct_layout, output_size
from tvm_sparsewino.packing import pack
from tvm_sparsewino.schedules.build import build_conv, kernel_name
from tvm_sparsewino.schedules.direct_conv import emit_direct_conv
from tvm_sparsewino.schedules.epilogue import EpilogueOperands
from tvm_sparsewino.schedules.target import parse_target
from tvm_sparsewino.thread_pool import use_threads

HOST = parse_target("native")
SAME = (1, 1, 1, 1)
NONE = (0, 0, 0, 0)
PLAIN = Epilogue()


@dataclasses.dataclass(frozen=True)
class Case:
    """One kernel and what it is run with; the sizes of the plan are small by default."""

    shape: ConvShape
    panel_vectors: int = 4
    k_block: int = 0
    channel_block: int = 2
    rows_at_once: int = 4
    lanes: int = 4
    epilogue: Epilogue = PLAIN
    registers: int = 16

    @property
    def plan(self):
        sizes = (self.panel_vectors, self.k_block, self.channel_block, self.rows_at_once)
        return LayerPlan("layer", self.shape, 1.0, "dense_direct", 0, *sizes)

    def __str__(self):
        s = self.shape
        padding = "".join(map(str, s.padding))
        blocking = f"pv{self.panel_vectors}kb{self.k_block}cb{self.channel_block}"
        return (
            f"{s.r}x{s.r}-n{s.n}c{s.c}h{s.h}w{s.w}k{s.k}g{s.groups}p{padding}"
            f"-{blocking}R{self.rows_at_once}-l{self.lanes}"
        )


def operands(case, seed=0):
    """x, weight, bias, slope, residual."""
    rng, s = np.random.default_rng(seed), case.shape
    x = rng.standard_normal((s.n, s.c, s.h, s.w))
    weight = rng.standard_normal((s.k, s.c // s.groups, s.r, s.r))
    bias, slope = rng.standard_normal((2, s.k))
    residual = rng.standard_normal((s.n, s.k, s.oh, s.ow))
    return [a.astype(np.float32) for a in (x, weight, bias, slope, residual)]


@cache
def compiled(plan, epilogue, specs, lanes, registers):
    func = build_conv(plan, epilogue, specs, lanes, registers)
    module = _compat.build_module(func, HOST.tvm_target())
    return module[func.attrs["global_symbol"]]


def arguments(case, x, weight, bias, slope, residual):
    """What the kernel takes; the output is full of NaN, so what is not written shows."""
    packed, epilogue = pack(weight, case.plan, case.lanes), case.epilogue
    arrays = [x, *packed.arrays, *[bias] * epilogue.bias]
    arrays += [slope] * (epilogue.activation == "prelu") + [residual] * epilogue.residual
    return packed, [*arrays, np.full_like(residual, np.nan)]


def run(case, *values):
    packed, arrays = arguments(case, *values)
    kernel = compiled(case.plan, case.epilogue, packed.specs, case.lanes, case.registers)
    tensors = [_compat.runtime_tensor(a) for a in arrays]
    kernel(*tensors)
    return tensors[-1].numpy()


def activate(epilogue, y, slope):
    slope = {"prelu": slope[:, None, None], "leaky_relu": epilogue.slope}.get(epilogue.activation)
    if slope is not None:
        return np.where(y > 0, y, y * slope)
    if epilogue.activation == "none":
        return y
    return np.clip(y, 0, 6 if epilogue.activation == "relu6" else None)


def expected(case, x, weight, bias, slope, residual):
    """The output in float64, and the bound on the error of each of its elements."""
    s, epilogue = case.shape, case.epilogue
    y = reference.conv2d(x, weight, None, s.padding, groups=s.groups)
    bound = reference.conv2d(abs(x), abs(weight), None, s.padding, groups=s.groups)
    for used, value in ((epilogue.bias, bias[:, None, None]), (epilogue.residual, residual)):
        if used:
            y, bound = y + value, bound + abs(value)
    steepest = max(1, abs(slope).max()) if epilogue.activation == "prelu" else 1
    depth = s.c // s.groups * s.r**2 + 4
    return activate(epilogue, y, slope), depth * 2.0**-24 * steepest * bound


def check(case):
    values = operands(case)
    y, bound = expected(case, *values)
    out = run(case, *values)
    assert np.isfinite(out).all(), "outputs not written"
    assert (abs(out - y) <= bound).all(), abs(out - y).max()


def conv(h, w, c=3, k=4, r=3, padding=SAME, n=1, groups=1):
    return ConvShape(n, c, h, w, k, r, padding, groups)


# Rows of whole vectors (plain) and of others (shifted), maps of one pixel, one row, one column.
MAPS = [
    Case(conv(1, 1)),
    Case(conv(1, 13), panel_vectors=1),
    Case(conv(13, 1)),
    Case(conv(7, 7, n=3), panel_vectors=0),
    Case(conv(5, 8), panel_vectors=0),
    Case(conv(6, 16), lanes=8, panel_vectors=3),
    Case(conv(4, 47), lanes=4),
    Case(conv(4, 97), lanes=4, panel_vectors=30),
    Case(conv(14, 14, c=5, k=9), lanes=8, panel_vectors=8),
    Case(conv(11, 23, n=2), lanes=8, panel_vectors=9),
]
PADDING = [
    Case(conv(5, 7, padding=(top, left, bottom, right)), lanes=lanes)
    for top, left, bottom, right, lanes in [
        (0, 0, 0, 0, 4),
        (2, 0, 1, 2, 4),
        (0, 2, 2, 0, 8),
        (1, 2, 0, 1, 8),
        (2, 2, 2, 2, 4),
    ]
] + [Case(conv(5, 8, padding=(1, 0, 2, 2))), Case(conv(3, 30, padding=(2, 2, 0, 2)), lanes=8)]
FILTERS = [
    Case(conv(5, 6, r=1, padding=NONE), lanes=8),
    Case(conv(5, 8, r=1, padding=NONE, c=9), channel_block=4),
    Case(conv(5, 6, r=2, padding=(1, 0, 0, 1))),
    Case(conv(9, 8, r=5, padding=(2, 2, 2, 2)), lanes=8),
    Case(conv(1, 2, r=5, padding=(4, 3, 4, 4))),
    Case(conv(8, 9, r=7, padding=(3, 6, 0, 2)), panel_vectors=6),
    Case(conv(7, 16, r=7, padding=(3, 3, 3, 3)), channel_block=0),
]
CHANNELS = [
    Case(conv(5, 9, c=1, k=1)),
    Case(conv(5, 9, c=9, k=7), k_block=3, channel_block=4),
    Case(conv(5, 9, c=9, k=7), channel_block=9, rows_at_once=2),
    Case(conv(5, 9, c=9, k=7), channel_block=8, rows_at_once=6, lanes=8),
    Case(conv(5, 9, c=9, k=22), channel_block=0, rows_at_once=14, registers=32),
    Case(conv(5, 8, c=6, k=9, groups=3, n=2), k_block=2),
    Case(conv(5, 9, c=4, k=10, groups=2), k_block=4, channel_block=1),
    Case(conv(9, 17, c=6, k=6, groups=6), lanes=8, panel_vectors=0),
    Case(conv(5, 9, c=6, k=12, groups=6), panel_vectors=3),
]


@pytest.mark.parametrize("case", [*MAPS, *PADDING, *FILTERS, *CHANNELS], ids=str)
def test_kernel_is_the_oracle(case):
    check(case)


def test_the_cases_cover_both_ways_of_copying():
    flat = {
        direct_layout(c.plan, c.lanes).is_flat for c in (*MAPS, *PADDING, *FILTERS) if c.shape.r > 1
    }
    assert flat == {True, False}


EPILOGUES = [
    Epilogue(bias=True),
    Epilogue(residual=True),
    Epilogue(True, True, "relu"),
    Epilogue(True, False, "relu6"),
    Epilogue(True, True, "leaky_relu", 0.125),
    Epilogue(False, True, "prelu"),
]


@pytest.mark.parametrize("width", [16, 19])
@pytest.mark.parametrize("epilogue", EPILOGUES, ids=str)
def test_epilogues(epilogue, width):
    """Once after several blocks of channels; outputs on both sides of 0 and of 6."""
    case = Case(conv(4, width, c=6, k=5), epilogue=epilogue)
    plain, _ = expected(dataclasses.replace(case, epilogue=PLAIN), *operands(case))
    assert plain.min() < -6 and plain.max() > 12
    check(case)


@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("width", [16, 21])
def test_stride_and_dilation(stride, dilation, width):
    """The kernel takes them, with plans of stride 1 and dilation 1."""
    if width == 16 and stride > 1:
        width = 16 * stride - 1
    case = Case(conv(9, width, c=3, k=5, padding=(1, 2, 2, 1)), lanes=4)
    x, weight, *_ = operands(case)
    layout = direct_layout(case.plan, case.lanes, stride, dilation)
    shape = (1, 5, *output_size(case.shape, stride, dilation))
    with _compat.prim_func("conv") as builder:
        data = _compat.arg("data", x.shape, "float32")
        values = _compat.arg("values", (layout.weights_size,), "float32")
        output = _compat.arg("output", shape, "float32")
        emit_direct_conv(data, values, output, layout, EpilogueOperands(PLAIN), 16)
    kernel = _compat.build_module(builder.get(), HOST.tvm_target())["conv"]
    packed = pack(weight, case.plan, case.lanes).arrays
    tensors = [_compat.runtime_tensor(a) for a in (x, *packed, np.full(shape, np.nan, np.float32))]
    kernel(*tensors)
    sizes = {"padding": case.shape.padding, "stride": (stride,) * 2, "dilation": (dilation,) * 2}
    y = reference.conv2d(x, weight, **sizes)
    bound = 31 * 2.0**-24 * reference.conv2d(abs(x), abs(weight), **sizes)
    assert (abs(tensors[-1].numpy() - y) <= bound).all()


# Several panels, blocks of both kinds of channels, a batch, a last panel that is not full.
MANY = Case(conv(9, 11, n=3, c=9, k=7), panel_vectors=6, k_block=4, channel_block=4)


def in_new_thread(threads, work):
    """``work()`` where TVM's pool has ``threads`` workers: TVM keeps a pool per calling thread."""
    result = []

    def target():
        use_threads(threads)
        result.append(work())

    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
    return result[0]


def test_same_bits_with_any_number_of_threads():
    values = operands(MANY)
    assert direct_layout(MANY.plan, MANY.lanes).tasks == 3 * 2 * 5
    first = run(MANY, *values)
    for threads in (1, 2, 3):
        out = in_new_thread(threads, lambda: run(MANY, *values))
        np.testing.assert_array_equal(out, first)


def test_nothing_is_left_in_the_scratch():
    x, *rest = operands(MANY)
    clean = run(MANY, x, *rest)
    assert np.isnan(run(MANY, np.full_like(x, np.nan), *rest)).all()
    np.testing.assert_array_equal(run(MANY, x, *rest), clean)


def test_a_bad_pixel_stays_where_it_is_read():
    x, *rest = operands(MANY)
    clean = run(MANY, x, *rest)
    x[1, 2, 4, 10] = np.nan
    out = run(MANY, x, *rest)
    reads = np.zeros(out.shape, bool)
    reads[1, :, 3:6, 9:11] = True
    assert np.isnan(out[reads]).all()
    np.testing.assert_array_equal(out[~reads], clean[~reads])


def test_a_bad_pixel_stays_in_its_group():
    case = Case(conv(5, 9, c=6, k=6, groups=3))
    x, *rest = operands(case)
    clean = run(case, x, *rest)
    x[0, 0] = np.nan
    out = run(case, x, *rest)
    np.testing.assert_array_equal(out[:, 2:], clean[:, 2:])
    assert np.isnan(out[:, :2]).all()


def test_an_activation_keeps_nan():
    case = Case(conv(5, 9), epilogue=Epilogue(bias=True, activation="relu6"))
    x, *rest = operands(case)
    assert np.isnan(run(case, np.full_like(x, np.nan), *rest)).all()


def test_a_shape_without_a_kernel_is_refused():
    case = Case(conv(5, 5, padding=(3, 1, 1, 1)))
    with pytest.raises(ShapeError, match=r"must be four numbers in 0\.\.2"):
        build_conv(case.plan, PLAIN, (((1,), "float32"),), 8, 16)


def test_kernel_names_tell_what_they_compute():
    assert kernel_name(Case(conv(5, 9)).plan, PLAIN) == "dense_direct_3x3_c3k4_n1h5w9"
