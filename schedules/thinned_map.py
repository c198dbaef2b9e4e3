"""The pixels that a strided filter of one tap reads, copied into a map of their own.

Where rows are read one panel and block of channels at a time, panels end with rows, so that
vectors are lost, and channels lie as far apart as rows do. The thinned map is read as any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .. import _compat as tvm_ir
from .._compat import T
from ..geometry_panels import CopiedRow
from ..geometry_sparse import SparseLayout
from .copied_rows import emit_copy


@contextmanager
def thinned_map(data: Any, layout: SparseLayout) -> Iterator[Any]:
    """What the tasks of ``layout`` read: ``data``, or the thinned map that is emitted here.

    Args:
        data: buffer [N, C, H, W].
        layout: memory layout.
    """
    if not layout.is_thinned:
        yield data
        return
    shape = layout.shape
    size = shape.n * shape.c * shape.h * shape.w
    with tvm_ir.scratch((size,)) as flat:
        _emit_copies(data, flat, layout)
        with tvm_ir.view(flat, (shape.n, shape.c, shape.h, shape.w)) as thin:
            yield thin


def _emit_copies(data: Any, flat: Any, layout: SparseLayout) -> None:
    shape, (down, across) = layout.shape, layout.step
    row = CopiedRow(0, across, shape.w, data.shape[3])
    with T.parallel(0, shape.n * shape.c) as channel:
        image, c = tvm_ir.bind(channel // shape.c), tvm_ir.bind(channel % shape.c)
        with T.serial(0, shape.h) as y:
            base = tvm_ir.bind((channel * shape.h + y) * shape.w)
            emit_copy(data, [image, c, y * down], flat, base, row, layout.lanes)
