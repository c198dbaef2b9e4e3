"""Windows of a pooling in options and plans."""

import pytest

from tvm_sparsewino.config import Epilogue, LayerPlan
from tvm_sparsewino.errors import ConfigError
from tvm_sparsewino.pool_window import HALVING, Window, window_between


def test_windows_however_sizes_were_rounded():
    """Padding below and to the right is what windows read of it."""
    below = window_between((3, 3), (2, 2), (1, 1), (112, 113), (56, 57))
    assert below == Window(3, 3, 2, 2, 1, 1, 0, 1)
    rounded_up = window_between((3, 3), (2, 2), (0, 0), (112, 111), (56, 55))
    assert rounded_up == Window(3, 3, 2, 2, 0, 0, 1, 0)
    assert rounded_up.pooled(112, 111) == (56, 55)
    assert window_between((2, 2), (2, 2), (0, 0), (7, 9), (3, 4)) == HALVING


def test_text():
    assert (Window(3, 2, 1, 1).text, Window(3, 3, 2, 1).text) == ("3x2/1", "3x3/2x1")
    assert Window(3, 3, 2, 2, 1, 2, 3, 4).padding == (1, 2, 3, 4)


@pytest.mark.parametrize("window", [HALVING, Window(3, 3, 2, 2, 1, 1, 0, 1)])
def test_json_keeps_the_window(window):
    epilogue = Epilogue(pool="max", window=window)
    assert Epilogue.from_json(epilogue.to_json()) == epilogue
    plan = LayerPlan("layer", None, 0.1, "sparse_direct", pool="max", window=tuple(window))
    assert isinstance(plan.window, Window)
    read = LayerPlan.from_json(plan.to_json())
    assert read == plan and isinstance(read.window, Window)


@pytest.mark.parametrize(
    ("window", "message"),
    [
        ((3, 3, 2, 2), "window must be 8 whole numbers, got"),
        ("33221111", "window must be 8 whole numbers, got"),
        ((3, 3, 2, 2, 1, 1, 1, -1), "window must be 8 whole numbers, got"),
        ((3, 3, 2.0, 2, 1, 1, 1, 1), "window must be 8 whole numbers, got"),
        ((3, 3, 0, 2, 1, 1, 1, 1), "sizes and strides of a window are above 0"),
        ((3, 3, 2, 2, 3, 1, 1, 1), "sizes and strides of a window are above 0"),
        ((3, 2, 2, 2, 1, 2, 1, 1), "sizes and strides of a window are above 0"),
    ],
)
def test_what_is_no_window_is_refused(window, message):
    with pytest.raises(ConfigError, match=message):
        Epilogue(window=window)
    with pytest.raises(ConfigError, match=message):
        LayerPlan("layer", None, 1.0, "left", window=window)
