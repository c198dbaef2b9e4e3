"""The kernels that an emulated CPU runs: every variant of them, compiled for skylake-avx512.

Nearly all of the time goes into compiling, which grows with the tile: small tiles carry what does
not depend on the tile. ``test_avx512_cases`` fails when a variant has no case.
"""

import functools

from kernel_cases import DENSE, DIRECT, EPILOGUES, SPARSE_DIRECT, Case, conv

from tvm_sparsewino.config import Epilogue
from tvm_sparsewino.schedules.target import parse_target

CPU = parse_target("llvm -mcpu=skylake-avx512")
LANES, REGISTERS = CPU.lanes, CPU.vector_registers

NARROW = LANES // 2  # what plans may choose where whole registers do not pay

sparse = functools.partial(Case, lanes=LANES, registers=REGISTERS)
narrow = functools.partial(Case, lanes=NARROW, registers=REGISTERS)
dense = functools.partial(sparse, algorithm=DENSE, density=1.0)
direct = functools.partial(dense, algorithm=DIRECT, m=0)
sparse_direct = functools.partial(sparse, algorithm=SPARSE_DIRECT, m=0)

NONE, TWO, THREE = (0, 0, 0, 0), (2, 2, 2, 2), (3, 3, 3, 3)
PRELU = Epilogue(True, False, "prelu")

# How the product walks its rows: structure of zeros, and rows at once.
PRODUCTS = [("unstructured", rows) for rows in (1, 2, 3, 4)]
PRODUCTS += [("balanced", 2), ("kernel", 2), ("rows2", 2), ("rows4", 4)]

CASES = [
    # Every product with an epilogue; whole vectors of outputs and a tail; rows of other lengths.
    *(
        sparse(
            conv(4, 35, c=12, k=5),
            density=0.8,
            rows_at_once=rows,
            epilogue=epilogue,
            structure=structure,
        )
        for (structure, rows), epilogue in zip(PRODUCTS, EPILOGUES, strict=True)
    ),
    # Every structure with another tile; odd maps and batches; blocks that cut slices; groups.
    sparse(conv(9, 11, c=5, k=7, n=2), 2, rows_at_once=2, k_block=3, channel_block=4),
    sparse(conv(13, 71, c=5, k=7, n=2), 4, panel_vectors=1, k_block=3, has_it=False),
    sparse(conv(14, 30, c=6, k=9, groups=3), 6, 0.3, rows_at_once=3, k_block=2),
    sparse(conv(9, 11, c=5, k=7, n=2), 4, rows_at_once=1, structure="balanced", k_block=4),
    sparse(conv(5, 35, c=4, k=6), 6, rows_at_once=1, structure="kernel"),
    sparse(conv(9, 40, c=5, k=7), 4, rows_at_once=2, k_block=3, structure="rows2", has_it=False),
    sparse(conv(9, 35, c=6, k=9, groups=3), rows_at_once=4, structure="rows4", has_it=False),
    # Panels that begin and end inside of rows.
    sparse(conv(14, 35, c=4, k=6, n=2), 4, rows_at_once=2, panel_vectors=1),
    # More vectors of tiles than registers can hold the sums of.
    sparse(conv(28, 67, c=4, k=8), 4, panel_vectors=8, rows_at_once=4, structure="rows4"),
    # Other filters.
    sparse(conv(9, 33, c=4, k=6, r=5, padding=TWO), 2, rows_at_once=2, structure="rows2"),
    sparse(conv(11, 40, c=4, k=6, r=5, padding=TWO), 4, 0.5, rows_at_once=3),
    sparse(conv(8, 37, c=3, k=5, r=7, padding=(3, 6, 0, 2)), 2, 0.5, rows_at_once=4),
    # A map of one pixel; nothing but zeros; no zeros; padding on fewer sides.
    sparse(conv(1, 1, c=1, k=1), density=1.0),
    sparse(conv(7, 7, c=4, k=9), density=0.0, k_block=4, rows_at_once=2, epilogue=PRELU),
    sparse(conv(6, 19, c=4, k=17, padding=(0, 1, 2, 0)), density=1.0, rows_at_once=8),
    # Half of a register's lanes, and all registers. Of other such cases, which CPUs run right (they
    # are in test_kernels), the emulator makes NaN where LLVM puts conditions into masks.
    narrow(conv(14, 30, c=5, k=9, n=2), 6, panel_vectors=7, rows_at_once=4),
    # A ReLU of the transformed inputs.
    sparse(conv(9, 35, c=5, k=7), rows_at_once=2, winograd_relu=True),
    # Blocks of output channels in parallel.
    sparse(conv(9, 11, c=13, k=21), rows_at_once=2, k_block=8, split_k=True),
    dense(conv(9, 11, c=5, k=7, n=3), panel_vectors=1, k_block=3, rows_at_once=4, split_k=True),
    # Whole panels, and blocks of one that is left over.
    sparse(
        conv(20, 35, c=5, k=7),
        4,
        rows_at_once=2,
        panel_vectors=1,
        k_block=4,
        split_k=True,
        sharers=2,
    ),
    # Dense coefficients: every tile; rows that fill the registers, and few; a cut panel.
    dense(conv(1, 1), 4, rows_at_once=8),
    dense(conv(5, 67, c=4, k=5), 2, panel_vectors=1, rows_at_once=2),
    dense(
        conv(20, 37, c=6, k=20, padding=(0, 1, 2, 0), groups=2),
        4,
        panel_vectors=3,
        k_block=7,
        rows_at_once=8,
    ),
    dense(conv(7, 31, c=5, k=4, padding=(2, 0, 1, 2)), 6, rows_at_once=2),
    dense(conv(6, 33, c=3, k=5, r=5, padding=TWO), 2, rows_at_once=4, epilogue=EPILOGUES[3]),
    dense(conv(7, 21, c=4, k=6, r=5, padding=TWO), 4, panel_vectors=1, rows_at_once=3),
    dense(conv(5, 18, c=3, k=8, r=7, padding=THREE), 2, panel_vectors=1, rows_at_once=8),
    # Direct: every epilogue, on rows of whole vectors and of others, after blocks of channels.
    *(
        direct(
            conv(4, 31 + 3 * (i % 2), c=6, k=5, r=2, padding=(1, 0, 0, 1)),
            panel_vectors=4,
            channel_block=4,
            rows_at_once=2,
            epilogue=epilogue,
        )
        for i, epilogue in enumerate(EPILOGUES)
    ),
    # As the planner has it for whole registers, and for the others.
    direct(conv(4, 31, c=6, k=9), panel_vectors=6, channel_block=4, rows_at_once=8),
    # Batch, groups, blocks of output channels, one row at once, other filters and paddings.
    direct(conv(1, 1), rows_at_once=4),
    direct(conv(14, 14, c=5, k=9, n=2), panel_vectors=8, k_block=4, rows_at_once=4),
    direct(conv(9, 17, c=6, k=6, groups=6), panel_vectors=0, rows_at_once=4),
    direct(conv(5, 16, c=6, k=9, groups=3, padding=(2, 0, 1, 2)), rows_at_once=2),
    direct(conv(7, 32, c=9, k=5, r=1, padding=(0, 0, 0, 0)), channel_block=4, rows_at_once=8),
    direct(conv(6, 33, c=3, k=8, r=5, padding=TWO), panel_vectors=4, rows_at_once=8),
    direct(conv(8, 20, c=3, k=4, r=7, padding=(3, 6, 0, 2)), panel_vectors=6, rows_at_once=4),
    # More input rows than L1 keeps: tile by tile instead of channel by channel.
    direct(conv(14, 14, c=14, k=9), panel_vectors=13, channel_block=12, rows_at_once=8),
    # Filters of one tap: from the map with a tail, after blocks of channels; from copied rows.
    direct(conv(7, 7, c=20, k=9, r=1, padding=NONE, n=2), channel_block=8, rows_at_once=8),
    direct(conv(13, 40, c=5, k=8, r=1, padding=NONE, stride=2), rows_at_once=8),
    direct(conv(11, 67, c=5, r=3, columns=5, padding=TWO, stride=(1, 2)), rows_at_once=4),
    # Panels of which the last is smaller, with another tail.
    direct(conv(7, 19, c=5, k=9), panel_vectors=6, rows_at_once=8, epilogue=PRELU),
    # Depthwise: both strides, several outputs a channel, a filter that is looped over.
    direct(conv(9, 39, c=5, k=5, groups=5, n=2), channel_block=2, epilogue=PRELU),
    direct(conv(12, 67, c=4, k=8, groups=4, stride=2), panel_vectors=6, k_block=4),
    direct(conv(9, 21, c=2, k=2, groups=2, r=7, padding=THREE), channel_block=1),
    # Nonzeros of filters: every epilogue, on lines of whole vectors, of others and of fewer pixels.
    *(
        sparse_direct(
            conv(5, (32, 37, 7)[i % 3], c=6, k=5),
            density=0.8,
            panel_vectors=6,
            rows_at_once=(1, 2, 4)[i % 3],
            epilogue=epilogue,
        )
        for i, epilogue in enumerate(EPILOGUES)
    ),
    # Lines in parts, several at a time, one pixel; blocks, groups, a batch; all and no weights.
    sparse_direct(conv(1, 1), density=1.0),
    sparse_direct(conv(6, 473, padding=(2, 0, 1, 2)), panel_vectors=90, rows_at_once=2),
    sparse_direct(conv(9, 19, c=6, k=9, groups=3, n=2), panel_vectors=8, k_block=2, rows_at_once=2),
    sparse_direct(conv(14, 14, c=9, k=22), panel_vectors=0, k_block=16, rows_at_once=8),
    sparse_direct(conv(7, 7, c=5), density=0.0, rows_at_once=2),
    sparse_direct(conv(14, 30, c=20, k=5), panel_vectors=0, channel_block=0, rows_at_once=2),
    # Steps and other filters; a map that is read in place.
    sparse_direct(conv(11, 67, stride=2, n=2), panel_vectors=6, rows_at_once=4),
    sparse_direct(conv(20, 75, r=7, padding=THREE, stride=2), panel_vectors=12, rows_at_once=2),
    sparse_direct(conv(9, 53, r=5, columns=3, padding=TWO, stride=(1, 3), dilation=(2, 1))),
    sparse_direct(conv(12, 70, r=1, padding=(0, 0, 0, 0), stride=2), rows_at_once=4),
    sparse_direct(conv(9, 23, c=9, k=7, r=1, padding=(0, 0, 0, 0), n=2), rows_at_once=4),
    sparse_direct(conv(8, 24, c=9, k=7, r=1, padding=(0, 0, 0, 0), n=2), rows_at_once=3),
]


def name_of(case):
    """A case's name, of files as well."""
    e = case.epilogue
    return "-".join([str(case), *["bias"] * e.bias, *["add"] * e.residual, e.activation])
