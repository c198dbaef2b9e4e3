"""Experiments with classifiers: what comes out, that seeds decide, and what is kept in files."""

import dataclasses
import json
from contextlib import nullcontext

import pytest
import torch
from experiment_cases import experiment, grey
from torch import nn

from tvm_sparsewino.errors import ConfigError, PruneError, WeightsError
from tvm_sparsewino.nn import WinogradConv2d
from tvm_sparsewino.nn.data import ArraySource
from tvm_sparsewino.nn.distributed import Ranks, fingerprint
from tvm_sparsewino.nn.experiments import (
    curves,
    run,
    run_experiment,
)
from tvm_sparsewino.nn.experiments.methods import METHODS, converted, prune_config, starting_point
from tvm_sparsewino.nn.experiments.networks import make_network
from tvm_sparsewino.nn.experiments.phases import Setting, train
from tvm_sparsewino.nn.experiments.run import load_network
from tvm_sparsewino.nn.experiments.settings import Phase, Pruning
from tvm_sparsewino.nn.experiments.stability import stable_rates


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run and its folder."""
    folder = tmp_path_factory.mktemp("run")
    return run_experiment(experiment(cost=True), folder, progress=False), folder


def test_a_run_prunes_and_learns(finished):
    record, folder = finished
    # Chance is 10 %; three epochs of a small network.
    assert record["dense"]["accuracy"] > 60
    assert record["accuracy"] > 40
    assert set(record["zeros"]) == {"conv1", "conv2", "all"}
    for share in record["zeros"].values():
        assert share == pytest.approx(0.7, abs=2e-3)
    layers = 36 * (6 + 6 * 8) * 0.3 + (6 + 8) + 33 * 32 + 10 * 33
    assert record["parameters"]["pruned"] == pytest.approx(layers, rel=0.01)
    assert record["dense"]["step"] == 63 and record["tune"]["step"] == 21
    assert record["curves"]["tune"][-1]["accuracy"] == record["accuracy"]
    assert json.loads((folder / "record.json").read_text()) == record
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    cost = record["cost"]
    assert cost["time_ratio"] > 0.5 and cost["batch"] == 64
    assert cost["memory_ratio"] is None or 0.2 < cost["memory_ratio"] < 20


def test_trained_weights_load_again(finished):
    record, folder = finished
    e = experiment(cost=True)
    model = load_network(e, folder / "weights.pt")
    assert isinstance(model.conv2, WinogradConv2d)
    assert fingerprint(model) == record["fingerprint"]
    dense = load_network(dataclasses.replace(e, prune=Pruning("continued")), dense_weights(folder))
    assert type(dense.conv2) is nn.Conv2d


def dense_weights(folder):
    path = folder / "dense.pt"
    state = torch.load(folder / "dense" / "checkpoint.pt", weights_only=True)
    torch.save(state["model"], path)
    return path


def test_weights_that_do_not_load(finished, tmp_path):
    folder, e, path = finished[1], experiment(cost=True), tmp_path / "weights.pt"
    with pytest.raises(WeightsError, match=r"weights\.pt: there is no such file"):
        load_network(e, path)
    whole = (folder / "weights.pt").read_bytes()
    for cut in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(WeightsError, match=r"weights\.pt: not a PyTorch state dict"):
            load_network(e, path)
    for foreign in ([1], {"conv1.weight": 3}, {1: torch.zeros(1)}):
        torch.save(foreign, path)
        with pytest.raises(WeightsError, match="expected a dict of tensors by name"):
            load_network(e, path)
    for foreign in ({}, {"conv1.weight": torch.zeros(1)}):
        torch.save(foreign, path)
        with pytest.raises(WeightsError, match=r"weights\.pt: "):
            load_network(e, path)


def test_a_seed_gives_the_same_run_and_another_one_another(finished, tmp_path):
    record, folder = finished
    again = run_experiment(experiment(), tmp_path / "a", progress=False)
    assert again["fingerprint"] == record["fingerprint"]
    # A dense network that is there is not trained again.
    shared = run_experiment(experiment(), tmp_path / "b", folder / "dense", progress=False)
    assert shared["fingerprint"] == record["fingerprint"]
    other = run_experiment(
        experiment(seed=2, dense__epochs=0.5, tune__epochs=0.1), tmp_path / "c", progress=False
    )
    assert other["dense"]["step"] == 10 and other["tune"]["step"] == 2
    with pytest.raises(ConfigError, match="holds another run"):
        run_experiment(experiment(seed=3), tmp_path / "c", progress=False)


@pytest.mark.parametrize("text", ["", "[]", "{}", '"x"', "3", b"\xff"])
def test_a_folder_that_does_not_say_what_it_is_of(text, tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=r"config\.json does not say which run"):
        run_experiment(experiment(), tmp_path, progress=False)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"prune__method": "best"}, "prune.method must be one of"),
        ({"prune__options": {"colour": 1}}, "unknown"),
        ({"prune__options": {"start_step": 100}}, "steps must satisfy"),
        ({"prune__method": "white", "prune__options": {"structure": "x"}}, "structure must be"),
        ({"prune__method": "one-shot", "prune__options": {"budget": "x"}}, "options.budget must"),
        ({"prune__method": "coarse", "prune__options": {"candidates": 0}}, "options.candidates"),
        (
            {"prune__method": "one-shot", "prune__ramp": 0.7},
            "prune.ramp is for methods .* 0.7",
        ),
        (
            {"prune__method": "coarse", "prune__start": 0.2},
            "prune.start is for methods .* 0.2",
        ),
        (
            {"prune__method": "one-shot", "prune__every": 3},
            "prune.every is for methods .* 3",
        ),
        (
            {"prune__method": "authors", "prune__every": 3},
            "prune.every: 'authors' brings its own .* 3",
        ),
        ({"prune__keep": ["conv9"]}, "'conv9' is no convolution"),
        ({"prune__tile": 3}, "tile"),
        ({"tune__epochs": 0}, "tune.epochs is 0"),
        ({"batch": 5000}, "batch must be 1 to 1347"),
        ({"network_options": {"hidden": "x"}}, "does not take"),
    ],
)
def test_what_does_not_fit_is_found_before_anything_is_done(changes, match, tmp_path):
    with pytest.raises(ConfigError, match=match):
        run_experiment(experiment(**changes), tmp_path / "new", progress=False)
    assert not (tmp_path / "new").exists()


def test_weights_are_kept_before_they_are_measured(finished, tmp_path, monkeypatch):
    def broken(*args):
        raise Killed

    monkeypatch.setattr(run, "make_record", broken)
    with pytest.raises(Killed):
        e = experiment(prune__method="dense")
        run_experiment(e, tmp_path, finished[1] / "dense", progress=False)
    load_network(experiment(prune__method="dense"), tmp_path / "weights.pt")


@pytest.mark.parametrize("method", sorted({*METHODS, "dense", "continued"} - {"winograd-relu"}))
def test_every_method_runs(method, finished, tmp_path):
    _, folder = finished
    e = experiment(prune__method=method, tune__epochs=0.3)
    record = run_experiment(e, tmp_path, folder / "dense", progress=False)
    if method in ("dense", "continued"):
        assert record["zeros"] == {}
        assert record["tune"] == {} or method == "continued"
    else:
        # Structures meet the share to half a unit; "balanced" keeps one coefficient in each row,
        # here all of the first layer, which is 1/9 of the coefficients.
        least = 0.7 * 8 / 9 - 0.05 if method == "balanced" else 0.65
        assert least < record["zeros"]["all"] < 0.75


def test_winograd_relu_trains_prunes_and_loads(tmp_path):
    e = experiment(
        network="small-vgg",
        network_options={"widths": [4, 6]},
        dense__epochs=0.2,
        tune__epochs=0.5,
        prune={"method": "winograd-relu", "tile": 2, "start": 0.4, "ramp": 0.8, "images": 32},
    )
    record = run_experiment(e, tmp_path, progress=False)
    assert record["zeros"]["all"] == pytest.approx(0.9, abs=2e-3)
    model = load_network(e, tmp_path / "weights.pt")
    assert model.get_submodule("features.3").winograd_relu
    assert fingerprint(model) == record["fingerprint"]
    config = prune_config(e.prune, 10)
    assert (config.start_step, config.end_step) == (4, 8)
    with pytest.raises(PruneError, match="has a ReLU to take over"):
        image = torch.zeros(1, 1, 16, 16)
        starting_point(make_network("lenet5", {}, grey()), e.prune, image, None)


def test_filters_go_before_coefficients(tmp_path):
    e = experiment(
        network="small-resnet",
        network_options={"widths": [8, 12]},
        dense__epochs=0.3,
        tune__epochs=0.2,
        prune={"method": "white", "tile": 2, "sparsity": 0.5, "filters": 0.5},
    )
    record = run_experiment(e, tmp_path, progress=False)
    assert record["zeros"]["all"] == pytest.approx(0.5, abs=0.01)
    model = load_network(e, tmp_path / "weights.pt")
    assert fingerprint(model) == record["fingerprint"]
    # Maps inside a block, and those that the shortcuts tie together, are both half as many.
    assert model.blocks[0].conv1.out_channels == 4 and model.blocks[1].conv2.out_channels == 6
    assert model.classes.in_features == 6
    sizes = record["parameters"]
    # Half of the filters leave about a quarter of the weights.
    assert sizes["pruned"] < 0.6 * sizes["dense"]


def test_distillation_augmentation_adam_and_double_precision(tmp_path):
    e = experiment(
        network="small-resnet",
        network_options={"widths": [4, 8], "pool": True},
        precision="float64",
        shift=1,
        flip=True,
        dense__epochs=0.2,
        tune={"epochs": 0.2, "optimizer": "adam", "lr": 1e-3, "distil": 0.5, "average": 0.5},
        prune__keep=["stem"],
    )
    record = run_experiment(e, tmp_path, progress=True)
    assert "stem" not in record["zeros"] and "blocks.1.conv2" in record["zeros"]
    model = load_network(e, tmp_path / "weights.pt")
    assert type(model.stem) is nn.Conv2d


class Killed(Exception):
    pass


class Stopping:
    """Images that end a run when their ``stop``-th batch is asked for."""

    def __init__(self, source, stop):
        self.source, self.images = source, source.images
        self.labels, self.channels, self.size = source.labels, source.channels, source.size
        self.left = stop

    def load(self, indices, crops=None):
        if self.left is not None and len(indices) == 16:
            self.left -= 1
            if self.left == 0:
                raise Killed
        return self.source.load(indices, crops)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_trains_and_resumes(precision, tmp_path):
    # What a GPU is asked for, on a CPU: autocast works there too, if slowly.
    e = experiment(precision=precision, save_every=3, batch=16, network="small-vgg")
    images = torch.randint(0, 256, (64, 1, 16, 16), dtype=torch.uint8)
    data = ArraySource(images, torch.arange(64) % 10, 10)
    setting = Setting(e, (data, data), Ranks(), torch.device("cpu"), False)
    states = []
    for folder, stop in (("whole", None), ("killed", 5), ("killed", None)):
        torch.manual_seed(3)
        model = converted(make_network("small-vgg", {"widths": [4, 4]}, data), e.prune)
        with pytest.raises(Killed) if stop else nullcontext():
            train(
                dataclasses.replace(setting, data=(Stopping(data, stop), data)),
                model,
                Phase(2),
                0,
                tmp_path / folder,
                True,
                "",
            )
        states.append(model.state_dict())
    assert all(p.dtype == torch.float32 for p in model.parameters())
    for have, want in zip(states[2].values(), states[0].values(), strict=True):
        assert torch.equal(have, want)
    assert bool(torch.isfinite(states[0]["classes.weight"]).all())


def test_half_precision_takes_a_gpu(tmp_path):
    with pytest.raises(ConfigError, match="'bfloat16' takes a GPU"):
        run_experiment(experiment(precision="bfloat16", device="cpu"), tmp_path)


def test_curves_keep_zeros():
    rows = [{"step": 0, "sparsity": 0.0}, {"step": 4}, {"step": 8, "sparsity": 0.5}]
    assert curves._points(rows, 10, "sparsity") == [(10, 0.0), (18, 0.5)]
    assert curves._points(rows, 0, "loss") == []


@pytest.mark.parametrize("warn_only", [True, False])
def test_determinism_is_put_back(warn_only, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=warn_only)
    try:
        with run._deterministic(torch.device("cuda")):
            assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled() == warn_only
    finally:
        torch.use_deterministic_algorithms(False)


def test_largest_stable_rates_of_methods(finished):
    _, folder = finished
    e = experiment(tune__momentum=0.0, prune__method="white")
    rows = stable_rates(e, ("activation", "one-shot"), folder / "dense", 0.01, 1e6, steps=10)
    assert [row["method"] for row in rows] == ["activation", "one-shot"]
    for row in rows:
        assert row["bounded"] and row["rate"] < 1e6
        assert row["experiment"]["prune"]["method"] == row["method"]
    again = stable_rates(e, ("activation",), folder / "dense", 0.01, 1e6, steps=10)
    assert again == rows[:1]
