"""Rows of Winograd kernels that add a map: outputs over it, in its memory, are the same bits."""

import functools

import pytest
from kernel_cases import DENSE, Case, conv
from kernel_checks import check_in_place

from tvm_sparsewino.config import Epilogue

winograd = functools.partial(Case, lanes=8, epilogue=Epilogue(True, True, "relu"))


@pytest.mark.parametrize(
    "case",
    [
        winograd(conv(7, 7, n=3)),  # rows of 4 + 2 + 1, and the last tile cut
        winograd(conv(14, 14, k=5), m=4, rows_at_once=2),  # of 8 + 4 + 2
        winograd(conv(16, 16), m=4),
        winograd(conv(5, 1), algorithm=DENSE, density=1.0),
        winograd(conv(9, 45), m=4, panel_vectors=1),  # several segments a row
        winograd(conv(13, 27, k=9), m=4, k_block=4, split_k=True),
        winograd(conv(13, 27, k=9), m=4, k_block=4, split_k=True, sharers=2),
        winograd(conv(28, 28, n=2), m=4, panel_vectors=5, algorithm=DENSE, density=1.0),
    ],
    ids=str,
)
def test_an_output_over_what_is_added(case):
    check_in_place(case)
