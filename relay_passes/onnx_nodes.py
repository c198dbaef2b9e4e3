"""Reading ONNX nodes, shared by the importers of Relax and of Relay."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..errors import ImportFailed, SparseWinoError
from ..onnx_graph import GraphNode

_WINOGRAD = ("tvm.sparsewino", "WinogradConv2d")


def is_winograd(node: GraphNode) -> bool:
    """Whether a node is this package's own operator."""
    return (node.domain, node.op_type) == _WINOGRAD


def check_supported(nodes: Sequence[GraphNode], known: Callable[[str], bool]) -> None:
    """Refuse all operators that cannot be imported, at once.

    Args:
        nodes: those of the network.
        known: whether an operator of ONNX's own domain has a converter.

    Raises:
        ImportFailed: there are some; names them and their nodes.
    """
    missing: dict[str, list[str]] = {}
    for node in nodes:
        if not is_winograd(node) and (node.domain or not known(node.op_type)):
            operator = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
            missing.setdefault(operator, []).append(node.name)
    if missing:
        listed = "; ".join(f"{operator} ({', '.join(n)})" for operator, n in missing.items())
        raise ImportFailed(f"these operators (and nodes) cannot be imported: {listed}")


@contextmanager
def converting(line: int) -> Iterator[None]:
    """Run a converter, whatever it raises.

    Args:
        line: which line of another library's message says what is wrong.

    Raises:
        ImportFailed: it fails; says why.
    """
    try:
        yield
    except SparseWinoError:
        raise
    except Exception as error:  # TVM's converters raise whatever they meet
        reason = (str(error).strip() or type(error).__name__).splitlines()[line]
        raise ImportFailed(f"cannot be imported: {reason}") from error


def by_name(node: GraphNode, results: Sequence[Any]) -> dict[str, Any]:
    """The results of a node by the names of its outputs.

    Raises:
        ImportFailed: it has more outputs.
    """
    if len(node.outputs) > len(results):
        raise ImportFailed(f"has {len(node.outputs)} outputs, {len(results)} are supported")
    return dict(zip(node.outputs, results, strict=False))


def winograd_options(node: GraphNode) -> dict[str, Any]:
    """The options of ``winograd_conv2d`` that this package's own operator says."""
    given = node.attributes
    return {
        "m": given["m"],
        "r": given["r"],
        "points": [point.decode() for point in given["points"]],
        "padding": given["padding"],
        "groups": given["groups"],
        "relu": bool(given.get("winograd_relu", 0)),
    }


def norm_epsilon(node: GraphNode) -> float:
    """The epsilon of a BatchNormalization.

    Raises:
        ImportFailed: the network is in training mode.
    """
    if node.attributes.get("training_mode", 0) or len([n for n in node.outputs if n]) > 1:
        raise ImportFailed("is in training mode; export the network for inference")
    return node.attributes.get("epsilon", 1e-5)


def clip_bounds(
    node: GraphNode, given: Sequence[Any], value: Callable[[Any], np.ndarray | None]
) -> tuple[float, float] | None:
    """The bounds of a Clip, infinite where there is none; None when they are computed.

    Args:
        node: the Clip.
        given: its operands after the first, None for one that is left out.
        value: what an operand is, None when it is not constant.
    """
    bounds = [node.attributes.get("min", -np.inf), node.attributes.get("max", np.inf)]
    for i, operand in enumerate(given[: len(bounds)]):
        if operand is not None:
            known = value(operand)
            if known is None:
                return None
            bounds[i] = float(known.reshape(()))
    return min(bounds), bounds[1]  # where they cross, the upper one wins
