"""PyTorch's indexing with several tensors beside whole dimensions, for the importer of networks.

``x[:, rows, columns]`` picks one place for each pair of a row and a column. TVM's importer picks
every row with every column where the tensors have one dimension, or two of which one is 1: another
answer, of the right shape where there are as many rows as columns.
"""

from __future__ import annotations

from typing import Any

from tvm import relax


def convert_index(node: Any, importer: Any) -> relax.Expr:
    """What ``aten.index.Tensor`` means: indices broadcast together (PyTorch, Tensor.index).

    What they pick takes the place of the dimensions that they index where these follow each other,
    and comes first where they do not.
    """
    data, indices = importer.retrieve_args(node)
    indexed = [axis for axis, index in enumerate(indices) if index is not None]
    if len(indexed) in (1, len(indices)):
        return importer.create_convert_map()["index.Tensor"](node)
    builder, ndim = importer.block_builder, data.ty.ndim
    kept = [axis for axis in range(ndim) if axis not in indexed]
    front = builder.emit(relax.op.permute_dims(data, [*indexed, *kept]))
    tensors = [indices[axis] for axis in indexed]
    picked = builder.emit(relax.op.index_tensor(front, tensors))
    first, last = indexed[0], indexed[-1]
    if last - first >= len(indexed):
        return picked
    new = max(tensor.ty.ndim for tensor in tensors)
    before, after = range(new, new + first), range(new + first, new + len(kept))
    return builder.emit(relax.op.permute_dims(picked, [*before, *range(new), *after]))
