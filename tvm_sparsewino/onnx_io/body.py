"""Our operator expressed in standard operators, for runtimes that do not know it.

Input transform: a Conv of stride m over each channel with the alpha^2 filters B^T (x) B^T, then a
Relu if the layer has one. Product: a batched MatMul with the coefficients. Output transform: a
ConvTranspose of stride m with A (x) A, then a crop. Padding by m - 1 more at the end makes the Conv
give exactly ceil(OH / m) rows of tiles. Nothing depends on N, C, K, H or W: the same body serves
maps of any size.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..cook_toom import CookToom
from .operator import DOMAIN, OP_TYPE, WinogradSpec, attributes

# The operators below have kept their meaning from this opset on.
MIN_OPSET = 15


def function(spec: WinogradSpec, opset: int) -> onnx.FunctionProto:
    """The model-local function of ``spec``, in operators of ``opset``."""
    names = attributes(spec.m, spec.r, spec.padding, spec.groups, relu=spec.relu)
    return helper.make_function(
        DOMAIN,
        OP_TYPE,
        list(_inputs(spec)),
        ["output"],
        list(body(spec)),
        [helper.make_opsetid("", opset)],
        attributes=sorted(names),
        overload=spec.overload,
    )


@lru_cache(maxsize=64)
def body(spec: WinogradSpec) -> tuple[onnx.NodeProto, ...]:
    """The nodes that compute "output" from "data", "weight" and perhaps "bias"."""
    build = _Builder()
    algorithm, (m, r, groups) = spec.algorithm, (spec.m, spec.r, spec.groups)
    alpha = algorithm.alpha
    top, left, bottom, right = spec.padding
    batch, size = build.shape("batch", "data", 0, 1), build.shape("size", "data", 2, 4)

    # Every channel a map of its own: [N * C, 1, H, W] -> [N * C, alpha^2, TY, TX].
    maps = build.reshape("maps", "data", [build.ints("one_map", [-1, 1]), size])
    filters = build.floats("input_filters", input_filters(algorithm))
    pads = [top, left, bottom + m - 1, right + m - 1]
    tiles = build.add(
        "Conv", "tiles", [maps, filters], kernel_shape=[alpha] * 2, strides=[m] * 2, pads=pads
    )
    if spec.relu:
        tiles = build.add("Relu", "positive_tiles", [tiles])

    # [alpha^2, N, G, C/G, T] = V and [alpha^2, 1, G, K/G, C/G] = U.
    per_group = build.shape("group_channels", "weight", 2, 3)
    count = build.ints("groups", [groups])
    coordinates = build.ints("coordinates", [alpha**2])
    rest = build.ints("rest", [-1])
    v = build.reshape("v_by_channel", tiles, [batch, count, per_group, coordinates, rest])
    v = build.add("Transpose", "v", [v], perm=[3, 0, 1, 2, 4])
    by_group = build.ints("by_group", [alpha**2, 1, groups, -1])
    u = build.reshape("u", "weight", [by_group, per_group])
    product = build.add("MatMul", "product", [u, v])

    # [N * K, alpha^2, TY, TX] -> [N * K, 1, TY * m, TX * m].
    product = build.add("Transpose", "by_channel", [product], perm=[1, 2, 3, 0, 4])
    grid = build.shape("grid", tiles, 2, 4)
    heads = build.ints("heads", [-1, alpha**2])
    product = build.reshape("products", product, [heads, grid])
    filters = build.floats("output_filters", output_filters(algorithm))
    maps = build.add(
        "ConvTranspose", "outputs", [product, filters], kernel_shape=[m] * 2, strides=[m] * 2
    )

    channels = build.shape("channels", "weight", 1, 2)
    covered = build.shape("covered", maps, 2, 4)
    whole = build.reshape("whole", maps, [batch, channels, covered])
    growth = build.ints("growth", [top + bottom - r + 1, left + right - r + 1])
    ends = build.add("Add", "ends", [size, growth])
    crop = [whole, build.ints("starts", [0, 0]), ends, build.ints("axes", [2, 3])]
    if not spec.bias:
        build.add("Slice", "output", crop)
        return tuple(build.nodes)
    cropped = build.add("Slice", "cropped", crop)
    per_channel = build.ints("per_channel", [1, -1, 1, 1])
    bias = build.add("Reshape", "bias_map", ["bias", per_channel])
    build.add("Add", "output", [cropped, bias])
    return tuple(build.nodes)


def input_filters(algorithm: CookToom) -> np.ndarray:
    """B^T (x) B^T as float32 [alpha^2, 1, alpha, alpha]."""
    bt = algorithm.arrays()[0]
    filters = np.einsum("ip,jq->ijpq", bt, bt).astype(np.float32)
    return filters.reshape(algorithm.coordinates, 1, algorithm.alpha, algorithm.alpha)


def output_filters(algorithm: CookToom) -> np.ndarray:
    """A (x) A as float32 [alpha^2, 1, m, m]."""
    at = algorithm.arrays()[2]
    filters = np.einsum("pi,qj->ijpq", at, at).astype(np.float32)
    return filters.reshape(algorithm.coordinates, 1, algorithm.m, algorithm.m)


def _inputs(spec: WinogradSpec) -> tuple[str, ...]:
    return ("data", "weight", "bias") if spec.bias else ("data", "weight")


class _Builder:
    """A list of nodes; every method adds one value and returns its name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []

    def add(self, op_type: str, name: str, inputs: list[str], **attributes: Any) -> str:
        node = helper.make_node(op_type, inputs, [name], name=name, **attributes)
        # Sorted, so that equal bodies have equal bytes.
        node.attribute.sort(key=lambda attribute: attribute.name)
        self.nodes.append(node)
        return name

    def shape(self, name: str, of: str, start: int, end: int) -> str:
        return self.add("Shape", name, [of], start=start, end=end)

    def ints(self, name: str, values: list[int]) -> str:
        return self.add("Constant", name, [], value=_tensor(name, np.array(values, np.int64)))

    def floats(self, name: str, values: np.ndarray) -> str:
        return self.add("Constant", name, [], value=_tensor(name, values))

    def reshape(self, name: str, data: str, parts: list[str]) -> str:
        shape = self.add("Concat", f"{name}_shape", parts, axis=0)
        return self.add("Reshape", name, [data, shape])


def _tensor(name: str, array: np.ndarray) -> onnx.TensorProto:
    return numpy_helper.from_array(np.ascontiguousarray(array), name)
