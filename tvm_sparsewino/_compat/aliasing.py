"""A check of the code generator: does it describe vector accesses to LLVM correctly?

TVM tells LLVM by TBAA metadata which parts of a buffer an access may touch. A build is known that
reports only the constant part of a vector's index, so that LLVM moves loads over stores to the same
address: kernels then give wrong results.
"""

from __future__ import annotations

import re
from functools import cache

import tvm

from ..errors import TargetError
from .building import build_module
from .kernels import arg, bind, broadcast, prim_func, ramp
from .line import VERSION, T

_LANES = 4
_ACCESS = re.compile(r"^\s*(?:%\S+ = load|store) .*\bfloat\b.*!tbaa (!\d+)", re.MULTILINE)
_TAG = re.compile(r"^(!\d+) = !\{(!\d+), !\d+, i64 0\}$", re.MULTILINE)
_NODE = re.compile(r'^(!\d+) = !\{!"([^"]*)", (!\d+), i64 0\}$', re.MULTILINE)


@cache
def check_aliasing(target: tvm.target.Target) -> None:
    """Refuse a TVM whose code for ``target`` cannot be trusted.

    Raises:
        TargetError: two accesses to one address are described as apart.
    """
    with prim_func("probe") as builder:
        data = arg("data", (64,), "float32")
        where = arg("where", (1,), "int64")
        T.buffer_store(data, broadcast(1.5, 1), [5])
        at = ramp(bind(where[0]), 1, _LANES)
        T.buffer_store(data, data[at] + broadcast(1.0, _LANES), [at])
    built = build_module(builder.get(), target)
    if not accesses_may_meet(built.get_source("ll")):
        raise TargetError(
            f"the code generator of this TVM {VERSION} describes vector accesses to LLVM wrongly, "
            "which gives wrong results: use another build of TVM"
        )


def accesses_may_meet(text: str) -> bool:
    """Whether no two accesses to floats of one buffer are described as apart in LLVM's ``text``."""
    node_of, parents, names = dict(_TAG.findall(text)), {}, {}
    for node, name, parent in _NODE.findall(text):
        parents[node], names[node] = parent, name
    lines = {node_of[tag] for tag in _ACCESS.findall(text) if tag in node_of}
    chains = [_up(node, parents) for node in lines]
    return all(
        a[0] in b or b[0] in a or _buffer(a, names) != _buffer(b, names)
        for a in chains
        for b in chains
    )


def _up(node: str, parents: dict[str, str]) -> list[str]:
    """``node`` and all above it."""
    chain = [node]
    while chain[-1] in parents:
        chain.append(parents[chain[-1]])
    return chain


def _buffer(chain: list[str], names: dict[str, str]) -> str:
    """The buffer of an access: what the names of its nodes begin with."""
    return names.get(chain[0], "").partition(".")[0]
