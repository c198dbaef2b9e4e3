"""A checksum of a network's weights."""

from __future__ import annotations

import hashlib
import json

import numpy as np
from tvm import relax
from tvm.ir import IRModule

from ._compat import constant_array


def weights_digest(mod: IRModule) -> str:
    """SHA-256 of the constants of a module's functions, in hexadecimal.

    Functions count in the order of their names, constants in the order of use; each with its dtype
    and shape. Names do not count.
    """
    digest = hashlib.sha256()

    def add(expr: relax.Expr) -> None:
        array = constant_array(expr)
        if array is not None:
            digest.update(json.dumps([array.dtype.str, array.shape]).encode())
            digest.update(np.ascontiguousarray(array).data)

    functions = {name.name_hint: func for name, func in mod.functions.items()}
    for name in sorted(functions):
        if isinstance(functions[name], relax.Function):
            relax.analysis.post_order_visit(functions[name], add)
    return digest.hexdigest()
