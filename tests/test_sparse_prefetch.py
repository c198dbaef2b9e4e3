"""Requests of the sparse direct kernel: for which maps, and for how many lines."""

import functools
import re

import pytest
from kernel_cases import SPARSE_DIRECT, Case, conv, operands

from tvm_sparsewino.config import Epilogue
from tvm_sparsewino.geometry import CACHE_LINE
from tvm_sparsewino.geometry_sparse import register_tile, sparse_layout
from tvm_sparsewino.packing import pack
from tvm_sparsewino.schedules.build import build_conv
from tvm_sparsewino.schedules.sparse_prefetch import line_count

sparse = functools.partial(Case, m=0, algorithm=SPARSE_DIRECT, panel_vectors=4, lanes=8)
pointwise = functools.partial(conv, r=1, padding=(0, 0, 0, 0))
CASES = [
    sparse(pointwise(16, 16, c=8, k=12)),
    sparse(pointwise(16, 17, c=8, k=12), panel_vectors=3),
    sparse(pointwise(8, 26, c=8, k=12), panel_vectors=16, rows_at_once=4),
    sparse(pointwise(14, 14, c=8, k=12), panel_vectors=0, rows_at_once=2),
    sparse(conv(7, 7, k=12), panel_vectors=0),
    sparse(conv(9, 21, k=12), rows_at_once=2),
    sparse(conv(6, 16, k=12), panel_vectors=16, rows_at_once=2),
]


def written(case):
    """Flat ranges of the output that the tiles of an image write in each channel."""
    layout = sparse_layout(case.plan, case.lanes)
    tile, shape = register_tile(layout, case.registers), case.shape
    length = tile.vectors * layout.lanes
    run = tile.lines * layout.line if tile.lines else length
    for panel in range(layout.panels):
        start = min(panel * layout.rows, layout.total_rows - layout.rows)
        for number in range(tile.count):
            y, x = min(number * tile.lines, layout.lines - tile.lines), 0
            if not tile.lines:
                y, part = divmod(number, tile.count // layout.lines)
                x = min(part * length, layout.line - length)
            row = start + x if layout.is_flat else (start + y) * shape.ow + x
            yield row, run


@pytest.mark.parametrize("case", CASES, ids=str)
def test_as_many_lines_as_a_tile_may_touch(case):
    """Channels begin anywhere where maps are not of whole lines; vectors of a line share it."""
    layout, pixels = sparse_layout(case.plan, case.lanes), case.shape.oh * case.shape.ow
    tile = register_tile(layout, case.registers)
    touched = set()
    for k in range(case.shape.k):
        for row, run in written(case):
            first = k * pixels + row
            touched.add((first + run - 1) // CACHE_LINE - first // CACHE_LINE + 1)
            assert first + run <= (k + 1) * pixels
    assert line_count(run, layout, tile) == max(touched)


def requests(case):
    """Of every buffer how often it is asked for in the kernel's text."""
    packed = pack(operands(case)[1], case.plan, case.lanes)
    func = build_conv(case.plan, case.epilogue, packed.specs, case.lanes, case.registers)
    names = re.findall(r"prefetch\(T\.address_of\((\w+)\[", func.script())
    return {name: names.count(name) for name in names}


def test_outputs_and_what_is_added_are_asked_for_and_inputs_that_are_read_in_place():
    added = Epilogue(residual=True)
    lines = {"output": 2 * 3, "residual": 2 * 3}
    in_place = sparse(pointwise(16, 16, c=8, k=12), rows_at_once=2, epilogue=added)
    copied = sparse(pointwise(14, 14, c=8, k=12), rows_at_once=2, epilogue=added)
    plain = sparse(pointwise(14, 14, c=8, k=12), rows_at_once=2, epilogue=Epilogue())
    assert requests(in_place) == {"output": 4, "residual": 4, "data": 1}
    assert requests(copied) == lines
    assert requests(plain) == {"output": 6}


def test_few_slices_have_nothing_to_ask_for():
    assert requests(sparse(pointwise(14, 14, c=8, k=2))) == {}
