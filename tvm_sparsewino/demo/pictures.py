"""The two pictures: images side by side, and bars for the times."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..extras import require
from ..files import replacing
from .report import Quality, Timing

_BARS = (("PyTorch dense", "ms_torch"), ("compiled dense", "ms_dense"), ("pruned", "ms_sparse"))
_COLOURS = ("#9aa0a6", "#7baaf7", "#1a73e8")


def save_comparison(
    path: Path, rows: Sequence[tuple[Quality, np.ndarray, np.ndarray, np.ndarray]]
) -> None:
    """Noisy, dense and pruned side by side, one row per photo, each with its PSNR.

    Args:
        path: the picture to write.
        rows: quality and the three images, float32 [1, 3, H, W].

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    height, width = rows[0][1].shape[2:]
    figure = _figure((12, 4 * len(rows) * height / width + 0.4 * len(rows)))
    axes = figure.subplots(len(rows), 3, squeeze=False)
    for line, (quality, *images) in zip(axes, rows, strict=True):
        values = (quality.noisy, quality.dense, quality.pruned)
        for axis, image, name, value in zip(
            line, images, ("noisy", "dense", "pruned"), values, strict=True
        ):
            axis.imshow(np.clip(image[0].transpose(1, 2, 0), 0, 1))
            axis.set_title(f"{name}, {value:.2f} dB", fontsize=10)
            axis.set_axis_off()
    _save(figure, path)


def save_bars(path: Path, timing: Sequence[Timing]) -> None:
    """Milliseconds per image of the three ways, grouped by the number of threads.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    figure = _figure((1.5 + 2.5 * len(timing), 4))
    axis = figure.subplots()
    places = np.arange(len(timing))
    for shift, (label, field), colour in zip((-1, 0, 1), _BARS, _COLOURS, strict=True):
        heights = [getattr(t, field) for t in timing]
        bars = axis.bar(places + 0.27 * shift, heights, 0.25, label=label, color=colour)
        fastest = field == "ms_sparse"
        texts = [
            f"{h:.0f}" + (f"\n{t.speedup:.1f}x" if fastest else "")
            for h, t in zip(heights, timing, strict=True)
        ]
        axis.bar_label(bars, texts, fontsize=9)
    axis.set_xticks(places, [f"{t.threads} thread{'s' * (t.threads > 1)}" for t in timing])
    axis.set_ylabel("ms per 640x424 image")
    axis.margins(y=0.15)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    _save(figure, path)


def _figure(size: tuple[float, float]) -> Any:
    return require("matplotlib.figure", "demo").Figure(figsize=size, layout="constrained")


def _save(figure: Any, path: Path) -> None:
    with replacing(path) as beside:
        figure.savefig(beside, dpi=110)
