"""The whole demo, step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ..errors import SparseWinoError
from ..thread_pool import available_cores
from .images import PHOTOS, SIGMAS
from .networks import PRUNED_WEIGHTS, Network, build, dense_model, pruned_model, sparsity
from .pictures import save_bars, save_comparison
from .processes import can_measure_memory, memory_of, time_networks
from .quality import Denoised, denoise_all
from .report import Memory, Report, Timing
from .worker import DENSE, PRUNED, SIGMA

REPORT = "report.json"
COMPARISON = "comparison.png"
BARS = "timing.png"

Step = Callable[[str], None]


def run_demo(
    out: Path,
    weights: Path = PRUNED_WEIGHTS,
    target: str = "native",
    console: Console | None = None,
) -> Report:
    """Compare the pruned FFDNet with the dense one, and write everything to ``out``.

    ``out`` gets ``report.json``, the pictures ``comparison.png`` and ``timing.png`` and both
    compiled networks.

    Args:
        out: folder for the results; made if it is missing.
        weights: weights file of the pruned network.
        target: for what to compile; it must run on this machine.
        console: where progress is shown; standard output by default.

    Raises:
        MissingExtra: a package of the extra "demo", or the one with FFDNet's weights, is missing.
        WeightsError: ``weights`` is missing or does not fit.
        TargetError: an unknown target.
        SparseWinoError: TVM's outputs differ from PyTorch's, measuring failed, or ``out`` cannot be
            written to.
    """
    zeros = sparsity(weights)
    threads = sorted({1, available_cores()})
    steps = 2 + len(PHOTOS) * len(SIGMAS) + len(threads) + 2 * can_measure_memory() + 1
    with _progress(console or Console(), steps) as step:
        step("compiling the dense network")
        dense = build(dense_model(), target)
        step("compiling the pruned network")
        pruned = build(pruned_model(weights), target)
        images = _denoise(dense, pruned, step)
        with _writing(out):
            out.mkdir(parents=True, exist_ok=True)
        dense.compiled.save(out / DENSE)
        pruned.compiled.save(out / PRUNED)
        timing = _time(out, threads, step)
        memory = _memory(out, max(threads), step)
        step("drawing")
        report = Report(
            sparsity=zeros,
            max_rel_error=max(image.rel_error for image in images),
            psnr=tuple(image.quality for image in images),
            timing=timing,
            compile_s=pruned.compile_s,
            memory=memory,
        )
        with _writing(out):
            _draw(out, images, timing)
            report.save(out / REPORT)
    return report


def _denoise(dense: Network, pruned: Network, step: Step) -> list[Denoised]:
    images = []
    step("denoising")
    for image in denoise_all(dense, pruned):
        images.append(image)
        if len(images) < len(PHOTOS) * len(SIGMAS):
            step(f"denoising, {image.quality.photo} at sigma {image.quality.sigma} done")
    return images


def _time(out: Path, threads: list[int], step: Step) -> tuple[Timing, ...]:
    timing = []
    for count in threads:
        step(f"timing with {count} thread{'s' * (count > 1)}")
        timing.append(time_networks(out, count))
    return tuple(timing)


def _memory(out: Path, threads: int, step: Step) -> dict[str, Memory]:
    memory = {}
    for network in ("torch", "compiled") if can_measure_memory() else ():
        step(f"measuring memory, {network}")
        memory[network] = memory_of(network, out, threads)
    return memory


def _draw(out: Path, images: list[Denoised], timing: tuple[Timing, ...]) -> None:
    shown = [image for image in images if image.quality.sigma == SIGMA]
    save_comparison(out / COMPARISON, [(i.quality, i.noisy, i.dense, i.pruned) for i in shown])
    save_bars(out / BARS, timing)


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    """Name the folder when the system refuses to write to it."""
    try:
        yield
    except OSError as error:
        raise SparseWinoError(f"{out}: cannot be written: {error.strerror or error}") from error


@contextmanager
def _progress(console: Console, steps: int) -> Iterator[Step]:
    """A bar; each call of the step tells what begins now."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("starting", total=steps, completed=-1)

        def step(text: str) -> None:
            bar.update(task, advance=1, description=text)

        yield step
        bar.update(task, completed=steps, description="done")
