"""One convolution kernel and what it is run with, for all kernels and every machine that runs them.

Tolerance: a bound, not a guess. Every output is a sum of products whose absolute values sum to
``B``: the same convolution with absolute data, coefficients and transforms. Rounding each operation
once gives an error of at most about ``depth * 2^-24 * B``, where ``depth`` counts the operations
in a row that a value goes through. It holds per element, and where ``B`` is 0 it demands 0.
"""

import dataclasses
import threading
from functools import cache

import numpy as np

from tvm_sparsewino import _compat, reference
from tvm_sparsewino.config import ConvShape, Epilogue, LayerPlan
from tvm_sparsewino.cook_toom import cook_toom
from tvm_sparsewino.packing import pack
from tvm_sparsewino.schedules.build import build_conv
from tvm_sparsewino.schedules.target import parse_target
from tvm_sparsewino.structure import shared_rows
from tvm_sparsewino.thread_pool import use_threads

HOST = parse_target("native")
SAME = (1, 1, 1, 1)
PLAIN = Epilogue()
SPARSE, DENSE, DIRECT = "sparse_winograd", "dense_winograd", "dense_direct"
SPARSE_DIRECT = "sparse_direct"
SPATIAL = (DIRECT, SPARSE_DIRECT)
SHORT = {SPARSE: "sparse", DENSE: "dense", DIRECT: "direct", SPARSE_DIRECT: "sparse_direct"}

EPILOGUES = [
    Epilogue(bias=True),
    Epilogue(residual=True),
    Epilogue(activation="relu"),
    Epilogue(True, True, "relu"),
    Epilogue(True, False, "relu6"),
    Epilogue(True, True, "leaky_relu", 0.125),
    Epilogue(False, True, "prelu"),
    Epilogue(True, False, "prelu"),
]


def conv(h, w, c=3, k=4, r=3, padding=SAME, n=1, groups=1, **steps):
    return ConvShape(n, c, h, w, k, r, padding, groups, **steps)


@dataclasses.dataclass(frozen=True)
class Case:
    """A kernel; sizes of the plan that a case does not name are small.

    ``has_it`` tells whether the weights keep to the structure that the kernel is made for.
    """

    shape: ConvShape
    m: int = 2
    density: float = 0.4
    algorithm: str = SPARSE
    panel_vectors: int = 2
    k_block: int = 0
    channel_block: int = 8
    rows_at_once: int = 1
    lanes: int = 4
    epilogue: Epilogue = PLAIN
    registers: int = 16
    structure: str = "unstructured"
    has_it: bool = True
    split_k: bool = False
    sharers: int = 0
    winograd_relu: bool = False
    copied: bool = False

    @property
    def plan(self):
        return LayerPlan(
            "layer",
            self.shape,
            self.density,
            self.algorithm,
            self.m,
            self.panel_vectors,
            self.k_block,
            self.channel_block,
            self.rows_at_once,
            structure=self.structure,
            split_k=self.split_k,
            sharers=self.sharers,
            winograd_relu=self.winograd_relu,
            copied=self.copied,
            pool=self.epilogue.pool,
            window=self.epilogue.window,
        )

    def __str__(self):
        s = self.shape
        blocking = f"pv{self.panel_vectors}kb{self.k_block}cb{self.channel_block}"
        padding = "".join(map(str, s.padding))
        tile = f"f{self.m}x{s.r}" if self.m else f"{s.r}x{s.s}"
        if (s.stride, s.dilation) != ((1, 1), (1, 1)):
            tile += "s{}{}d{}{}".format(*s.stride, *s.dilation)
        name = (
            f"{SHORT[self.algorithm]}-{tile}-n{s.n}c{s.c}h{s.h}w{s.w}k{s.k}g{s.groups}"
            f"p{padding}-d{self.density}-{blocking}R{self.rows_at_once}-l{self.lanes}"
        )
        if self.structure != "unstructured":
            name += f"-{self.structure}{'' if self.has_it else '-not'}"
        name += "-split" * self.split_k + f"-{self.sharers}sharers" * (self.sharers > 0)
        return name + "-wrelu" * self.winograd_relu + "-copied" * self.copied


def weights(structure, rng, shape=(16, 16, 20), density=0.2, groups=1):
    """Random values on a random pattern of the structure."""
    coordinates, k, channels = shape
    if structure == "kernel":
        alive = np.broadcast_to(rng.random(shape[1:]) < density, shape)
    elif structure == "balanced":
        order = rng.random(shape).argsort(axis=2)
        alive = order < round(density * channels)
    else:
        width, kg = shared_rows(structure), k // groups
        units = rng.random((coordinates, groups, -(-kg // width), channels)) < density
        alive = units.repeat(width, axis=2)[:, :, :kg].reshape(shape)
    return np.where(alive, rng.uniform(1, 2, shape), 0).astype(np.float32)


def operands(case, seed=0):
    """x, weights, bias, slope, residual.

    Weights are spatial or U as the algorithm takes them; without a structure, one row of U and one
    coordinate are empty as well.
    """
    rng = np.random.default_rng(seed)
    s = case.shape
    if case.algorithm in SPATIAL:
        u = rng.standard_normal((s.k, s.c // s.groups, s.r, s.s))
        if case.density < 1:
            u[rng.random(u.shape) >= case.density] = 0
            u[s.k // 2] = 0
    else:
        u = rng.standard_normal(((case.m + s.r - 1) ** 2, s.k, s.c // s.groups))
        u[rng.random(u.shape) >= case.density] = 0
        if case.density < 1:
            u[:, s.k // 2], u[1 % len(u)] = 0, 0
    x = rng.standard_normal((s.n, s.c, s.h, s.w))
    bias, slope = rng.standard_normal((2, s.k))
    residual = rng.standard_normal((s.n, s.k, s.oh, s.ow))
    if case.structure != "unstructured" and case.has_it:
        rng = np.random.default_rng(seed + 1)
        u = weights(case.structure, rng, u.shape, case.density, s.groups)
    return [a.astype(np.float32) for a in (x, u, bias, slope, residual)]


def arguments(case, x, u, bias, slope, residual):
    """The packed weights, and all that the kernel takes.

    The output is full of NaN, so what is not written shows.
    """
    packed, epilogue = pack(u, case.plan, case.lanes), case.epilogue
    arrays = [x, *packed.arrays, *[bias] * epilogue.bias]
    arrays += [slope] * (epilogue.activation == "prelu") + [residual] * epilogue.residual
    return packed, [*arrays, np.full_like(residual, np.nan)]


def expected(case, x, u, bias, slope, residual):
    """The output in float64, and the bound on the error of each of its elements."""
    s, epilogue = case.shape, case.epilogue
    y, bound, depth = _direct(s, x, u) if case.algorithm in SPATIAL else _winograd(case, x, u)
    for used, value in ((epilogue.bias, bias[:, None, None]), (epilogue.residual, residual)):
        if used:
            y, bound = y + value, bound + abs(value)
    steepest = max(1, abs(slope).max()) if epilogue.activation == "prelu" else 1
    return activate(epilogue, y, slope), depth * 2.0**-24 * steepest * bound


def _direct(s, x, weight):
    sizes = (None, s.padding, s.stride, s.dilation, s.groups)
    y = reference.conv2d(x, weight, *sizes)
    bound = reference.conv2d(abs(x), abs(weight), *sizes)
    return y, bound, s.c // s.groups * s.taps + 4


def _winograd(case, x, u):
    s, algorithm = case.shape, cook_toom(case.m, case.shape.r)
    absolute = {
        name: tuple(tuple(map(abs, row)) for row in getattr(algorithm, name))
        for name in ("bt", "g", "at")
    }
    relu = case.winograd_relu
    y = reference.winograd_conv2d(x, u, algorithm, None, s.padding, s.groups, relu)
    bound = reference.winograd_conv2d(
        abs(x), abs(u), dataclasses.replace(algorithm, **absolute), None, s.padding, s.groups
    )
    return y, bound, 4 * algorithm.alpha + s.c // s.groups + 4


def activate(epilogue, y, slope):
    slope = {"prelu": slope[:, None, None], "leaky_relu": epilogue.slope}.get(epilogue.activation)
    if slope is not None:
        return np.where(y > 0, y, y * slope)
    if epilogue.activation == "none":
        return y
    return np.clip(y, 0, 6 if epilogue.activation == "relu6" else None)


@cache
def compiled(plan, epilogue, specs, lanes, registers):
    """A kernel for this machine, of any number of lanes that it has."""
    func = build_conv(plan, epilogue, specs, lanes, registers)
    module = _compat.build_module(func, HOST.tvm_target())
    return module[func.attrs["global_symbol"]]


def run(case, *values):
    packed, arrays = arguments(case, *values)
    kernel = compiled(case.plan, case.epilogue, packed.specs, case.lanes, case.registers)
    tensors = [_compat.runtime_tensor(a) for a in arrays]
    kernel(*tensors)
    return tensors[-1].numpy()


def check(case):
    values = operands(case)
    y, bound = expected(case, *values)
    out = run(case, *values)
    error = abs(out - y)
    assert np.isfinite(out).all(), "outputs not written"
    assert (error <= bound).all(), f"error {error.max()} where at most {bound.max()} can be"


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
