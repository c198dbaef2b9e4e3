import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from tvm_sparsewino.demo import processes, quality, run, worker
from tvm_sparsewino.demo.images import PHOTOS, photo, psnr, with_noise
from tvm_sparsewino.demo.networks import Network, dense_model, level, pruned_model, sparsity
from tvm_sparsewino.demo.pictures import save_bars, save_comparison
from tvm_sparsewino.demo.report import Memory, Quality, Report, Timing, tables
from tvm_sparsewino.errors import SparseWinoError, WeightsError
from tvm_sparsewino.nn import convert
from tvm_sparsewino.nn.inference import as_tensors, numpy_function, set_num_threads
from tvm_sparsewino.nn.weights_io import save_model

QUALITY = Quality("china.jpg", 25, 20.0, 28.88, 28.7)
REPORT = Report(
    sparsity=0.9,
    max_rel_error=2e-6,
    psnr=(QUALITY,),
    timing=(Timing(1, 1000.0, 500.0, 200.0), Timing(2, 600.0, 300.0, 100.0)),
    compile_s=9.5,
    memory={"torch": Memory(200.0, 500.0), "compiled": Memory(210.0, 410.0)},
)


# ---- images ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PHOTOS)
def test_photos_are_cropped_images(name):
    image = photo(name)
    assert image.shape == (1, 3, 424, 640)
    assert image.dtype == np.float32
    assert image.flags.c_contiguous
    assert 0 <= image.min() < 0.1
    assert 0.9 < image.max() <= 1


def test_noise_is_the_same_every_time_and_not_clipped():
    image = photo(PHOTOS[0])
    noisy = with_noise(image, 25)
    assert noisy.dtype == np.float32
    np.testing.assert_array_equal(noisy, with_noise(image, 25))
    assert noisy.min() < 0
    assert noisy.max() > 1
    # 814,080 samples: the standard deviation of this estimate is 0.02.
    assert (noisy - image).std() * 255 == pytest.approx(25, abs=0.1)
    np.testing.assert_allclose(with_noise(image, 50) - image, 2 * (noisy - image), atol=1e-6)


def test_psnr_of_known_errors():
    clean = np.full((1, 3, 4, 4), 0.5, np.float32)
    assert psnr(clean + np.float32(0.1), clean) == pytest.approx(20, abs=1e-5)
    # Clipped first: 3 becomes 1, an error of 0.5.
    assert psnr(np.full_like(clean, 3), clean) == pytest.approx(-20 * math.log10(0.5))


# ---- networks ----------------------------------------------------------------------------------


def test_pruned_network_is_read_from_its_file(tmp_path):
    path = tmp_path / "w.safetensors"
    model = convert(dense_model(), tile=2)
    inner = model.model[2]
    inner.set_mask(inner.weight.abs() > inner.weight.abs().median())
    save_model(model, path)
    coefficients = [m.weight.numel() for m in model.model if hasattr(m, "winograd_weight")]
    half = inner.weight.numel() / 2 / sum(coefficients)
    assert sparsity(path) == pytest.approx(half, rel=1e-3)
    inputs = with_noise(photo(PHOTOS[0]), 25)[:, :, :32, :32].copy(), level(25)
    expected = numpy_function(model)(*inputs)
    # Twelve layers with one rounding more per coefficient.
    np.testing.assert_allclose(numpy_function(pruned_model(path))(*inputs), expected, atol=1e-5)


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(WeightsError, match="none"):
        pruned_model(tmp_path / "none")
    with pytest.raises(WeightsError, match="none"):
        sparsity(tmp_path / "none")


def test_tensors_share_the_arrays_memory():
    array = np.zeros(3, np.float32)
    (tensor,) = as_tensors(array)
    array[0] = 1
    assert tensor[0] == 1


def test_threads_are_set():
    before = torch.get_num_threads()
    set_num_threads(before + 1)
    assert torch.get_num_threads() == before + 1
    set_num_threads(before)


# ---- quality -----------------------------------------------------------------------------------


def test_relative_error_is_relative_to_the_maximum():
    expected = np.array([2.0, -4.0])
    assert quality.relative_error(np.array([2.0, -3.0]), expected) == 0.25


def small_photo(name):
    return photo(name)[:, :, :8, :8]


def network(factor, error=0.0):
    return Network(lambda x, _: x * factor, lambda x, _: x * factor + np.float32(error), 0.0)


def test_every_photo_and_noise_level_is_measured(monkeypatch):
    monkeypatch.setattr(quality, "photo", small_photo)
    found = list(quality.denoise_all(network(np.float32(1)), network(np.float32(0.5))))
    assert [(f.quality.photo, f.quality.sigma) for f in found] == [
        (name, sigma) for name in PHOTOS for sigma in (15, 25, 50)
    ]
    first = found[0]
    clean = small_photo(PHOTOS[0])
    assert first.quality.noisy == psnr(with_noise(clean, 15), clean)
    assert first.quality.dense == first.quality.noisy
    assert first.quality.pruned == psnr(with_noise(clean, 15) * np.float32(0.5), clean)
    assert first.rel_error == 0


@pytest.mark.parametrize("error", [1e-3, np.nan])
@pytest.mark.parametrize("wrong", ["dense", "pruned"])
def test_a_compiled_network_that_differs_is_refused(monkeypatch, error, wrong):
    monkeypatch.setattr(quality, "photo", small_photo)
    networks = [network(np.float32(1), error * (name == wrong)) for name in ("dense", "pruned")]
    if np.isnan(error):
        networks = [network(np.float32(1), error if n == wrong else 0) for n in ("dense", "pruned")]
    with pytest.raises(SparseWinoError, match=f"china.jpg, sigma 15: the compiled {wrong} network"):
        list(quality.denoise_all(*networks))


# ---- measuring processes -----------------------------------------------------------------------


def test_memory_sees_what_a_network_takes():
    held = []

    def build():
        held.append(np.ones(100 << 20, np.uint8))
        return lambda: None

    memory = Memory(**worker.measure_memory(build, ()))
    # 100 MiB were written; a freed pool may have served a part of them.
    assert 80 < memory.growth < 400


def test_memory_of_an_unknown_field_is_refused():
    with pytest.raises(LookupError, match="does not tell VmNone"):
        worker._mebibytes("VmNone")


@pytest.fixture
def subprocess_result(monkeypatch):
    """Let the measuring process print what a test wants; gives the arguments it was called with."""
    seen = SimpleNamespace(returncode=0, stdout="", stderr="", command=None, env=None)

    def run(command, env, **_):
        seen.command, seen.env = command, env
        return seen

    monkeypatch.setattr(processes.subprocess, "run", run)
    return seen


def test_a_process_gets_its_threads_and_gives_its_times(subprocess_result, tmp_path):
    values = {"ms_torch": 8.0, "ms_dense": 4.0, "ms_sparse": 2.0}
    subprocess_result.stdout = "some library says hello\n" + json.dumps(values) + "\n"
    assert processes.time_networks(tmp_path, 3) == Timing(3, 8.0, 4.0, 2.0)
    assert subprocess_result.command[-3:] == ["time", str(tmp_path), "3"]
    assert subprocess_result.env["TVM_NUM_THREADS"] == "3"
    assert subprocess_result.env["OMP_NUM_THREADS"] == "3"


def test_a_process_gives_its_memory(subprocess_result, tmp_path):
    subprocess_result.stdout = '{"start": 1.0, "peak": 3.5}'
    assert processes.memory_of("torch", tmp_path, 1).growth == 2.5


def test_a_failing_process_is_an_error(subprocess_result, tmp_path):
    subprocess_result.returncode, subprocess_result.stderr = 1, "Traceback\nValueError: no luck\n"
    with pytest.raises(SparseWinoError, match="'time' with 2 threads failed: ValueError: no luck"):
        processes.time_networks(tmp_path, 2)


@pytest.fixture
def small_worker(monkeypatch):
    """A measuring process on 8 x 8 pixels whose compiled networks copy; gives what was loaded."""
    loaded = []

    def load(path, threads):
        loaded.append((path.name, threads))
        return lambda image, _: image.copy()

    monkeypatch.setattr(worker, "photo", small_photo)
    monkeypatch.setattr(worker.driver, "load", load)
    return loaded


def test_worker_times_the_three_networks(small_worker, tmp_path, capsys):
    worker.main(["time", str(tmp_path), "1"])
    timing = Timing(1, **json.loads(capsys.readouterr().out))
    assert timing.ms_torch > timing.ms_sparse > 0
    assert small_worker == [("ffdnet_dense.so", 1), ("ffdnet_pruned.so", 1)]


@pytest.mark.parametrize(
    ("what", "loads"), [("torch", []), ("compiled", [("ffdnet_pruned.so", 1)])]
)
def test_worker_measures_memory(small_worker, tmp_path, capsys, what, loads):
    worker.main([what, str(tmp_path), "1"])
    memory = Memory(**json.loads(capsys.readouterr().out))
    assert memory.peak >= memory.start > 10
    assert small_worker == loads


# ---- report and pictures -----------------------------------------------------------------------


def test_report_has_the_promised_form(tmp_path):
    path = tmp_path / "report.json"
    REPORT.save(path)
    values = json.loads(path.read_text())
    assert list(values) == [
        *("sparsity", "max_rel_error", "psnr", "timing", "compile_s", "memory"),
        *("machine", "versions"),
    ]
    assert values["psnr"] == [
        {"photo": "china.jpg", "sigma": 25, "noisy": 20.0, "dense": 28.88, "pruned": 28.7}
    ]
    assert values["timing"][0] == {
        "threads": 1,
        "ms_torch": 1000.0,
        "ms_dense": 500.0,
        "ms_sparse": 200.0,
        "speedup": 5.0,
    }
    assert values["memory"]["torch"] == {"start": 200.0, "peak": 500.0}
    assert values["machine"]["cores"] >= 1
    assert values["versions"]["tvm-sparsewino"]


def test_tables_say_what_was_measured():
    quality_table, timing_table, memory_table = tables(REPORT)
    assert list(quality_table.columns[-1].cells) == ["-0.18"]
    assert list(timing_table.columns[-1].cells) == ["5.00", "6.00"]
    assert list(memory_table.columns[-1].cells) == ["300", "200"]


def test_memory_that_is_not_known_has_no_table():
    report = Report(0.9, 0.0, (QUALITY,), REPORT.timing, 1.0, {})
    assert len(list(tables(report))) == 2


def test_pictures_are_drawn(tmp_path):
    image = photo(PHOTOS[0])
    save_comparison(tmp_path / "a.png", [(QUALITY, image, image, image)])
    save_bars(tmp_path / "b.png", REPORT.timing)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "b.png"]
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width > 2 * picture.height
    with Image.open(tmp_path / "b.png") as picture:
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 10


# ---- the whole -----------------------------------------------------------------------------------


class Compiled:
    """Stands for a compiled network that denoises by halving."""

    def __call__(self, image, _):
        return image * np.float32(0.5)

    def save(self, path):
        path.write_bytes(b"code")


@pytest.fixture
def small_demo(monkeypatch):
    """The demo with small photos, networks that need no time, and measurements that are given."""
    compiled = Compiled()
    monkeypatch.setattr(quality, "photo", small_photo)
    monkeypatch.setattr(run, "sparsity", lambda _: 0.75)
    monkeypatch.setattr(run, "dense_model", lambda: None)
    monkeypatch.setattr(run, "pruned_model", lambda _: None)
    monkeypatch.setattr(run, "build", lambda *_: Network(compiled, compiled, 1.5))
    monkeypatch.setattr(run, "time_networks", lambda _, threads: Timing(threads, 8.0, 4.0, 2.0))
    monkeypatch.setattr(run, "memory_of", lambda *_: Memory(1.0, 2.0))
    return Console(quiet=True)


def test_demo_writes_everything(small_demo, tmp_path):
    out = tmp_path / "out" / "demo"
    report = run.run_demo(out, console=small_demo)
    assert sorted(path.name for path in out.iterdir()) == [
        *("comparison.png", "ffdnet_dense.so", "ffdnet_pruned.so", "report.json", "timing.png"),
    ]
    assert (report.sparsity, report.compile_s, report.max_rel_error) == (0.75, 1.5, 0.0)
    assert len(report.psnr) == 6
    assert report.timing[0].threads == 1
    assert set(report.memory) <= {"torch", "compiled"}


def test_a_folder_that_cannot_be_made_is_named(small_demo, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"")
    with pytest.raises(SparseWinoError, match="file: cannot be written: File exists"):
        run.run_demo(file, console=small_demo)
