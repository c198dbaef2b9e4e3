"""Settings of experiments: files, types and ranges, and what makes two runs the same."""

import dataclasses
import datetime
import sys

import pytest

from tvm_sparsewino.errors import ConfigError, MissingExtra
from tvm_sparsewino.nn.experiments import (
    read_experiment,
    reading,
)
from tvm_sparsewino.nn.experiments.record import identity
from tvm_sparsewino.nn.experiments.settings import Experiment, Phase, Pruning

# Descriptions -----------------------------------------------------------------------------------


def test_files_and_settings(tmp_path):
    json_file, toml_file = tmp_path / "a.json", tmp_path / "a.toml"
    json_file.write_text('{"network": "small-vgg", "prune": {"sparsity": 0.8, "keep": ["x"]}}')
    toml_file.write_text('network = "small-vgg"\n[prune]\nsparsity = 0.8\nkeep = ["x"]\n')
    e = read_experiment(json_file, ["seed=4", "tune.optimizer=adam", "prune.tile=2", "tune.lr=1"])
    assert (e.network, e.seed, e.prune.keep) == ("small-vgg", 4, ("x",))
    assert e.prune == Pruning(tile=2, sparsity=0.8, keep=("x",))
    # What a table leaves out is as in the default experiment.
    assert e.tune == Phase(epochs=3.0, lr=1.0, optimizer="adam")
    if sys.version_info >= (3, 11):
        assert read_experiment(toml_file).prune == Pruning(sparsity=0.8, keep=("x",))
    assert read_experiment() == Experiment()


def test_toml_without_a_reader(tmp_path, monkeypatch):
    path = tmp_path / "a.toml"
    path.write_text("seed = 1\n")
    for name in ("tomllib", "tomli"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match="tomli"):
        read_experiment(path)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "cannot be read"),
        ("[1]", "must hold a table"),
        ('{"sead": 1}', r"unknown settings \['sead'\]"),
        ('{"prune": {"tail": 1}}', r"unknown settings \['prune.tail'\]"),
        ('{"prune": 1}', "prune must be a table"),
        ('{"seed": "x"}', "seed must be"),
        ('{"seed": true}', "seed must be"),
        ('{"data_folder": 1}', "data_folder must be"),
        ('{"prune": {"tile": 2.5}}', "prune.tile must be"),
        ('{"tune": {"lr": "high"}}', "tune.lr must be"),
        ('{"dense": {"distil": 0.5}}', "nothing to distil from"),
        ('{"dense": {"epochs": 0}}', "dense.epochs must be above 0"),
        ('{"precision": "int8"}', "precision must be one of"),
        ('{"seed": -1}', "seed must be in"),
        ('{"save_every": 0}', "save_every"),
        ('{"batch": 0}', "batch must be at least 1"),
        ('{"image_size": 0}', "image_size must be at least 1"),
        ('{"shift": -1}', "shift must be at least 0"),
        ('{"tune": {"average": 1.0}}', r"average must be in \[0, 1\), got 1"),
        ('{"tune": {"cut": -1}}', "cut must be at least 0"),
        ('{"tune": {"epochs": Infinity}}', "epochs must be at least 0 and finite"),
        ('{"tune": {"epochs": NaN}}', "epochs must be at least 0 and finite"),
        (
            '{"prune": {"method": "continued"}, "tune": {"winograd_lr": 5.0}}',
            "tune.winograd_lr must be 1 for prune.method 'continued', .* got 5.0",
        ),
    ],
)
def test_files_that_do_not_fit(text, match, tmp_path):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=match):
        read_experiment(path)


def test_dates_are_no_settings():
    with pytest.raises(ConfigError, match=r"settings are numbers, texts.*date"):
        reading.overridden({"seed": datetime.date(2020, 1, 2)}, ())


def test_settings_that_do_not_fit(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_experiment(tmp_path / "nothing.json")
    for bad in ("seed", "=1"):
        with pytest.raises(ConfigError, match="a setting is key=value"):
            read_experiment(None, [bad])
    with pytest.raises(ConfigError, match=r"seed\.x: seed is no table"):
        read_experiment(None, ["seed=1", "seed.x=1"])
    for bad in ({"epochs": -1}, {"optimizer": "x"}, {"lr": 0}, {"warmup": 2}, {"weight_decay": -1}):
        with pytest.raises(ConfigError):
            Phase(**bad)
    for bad in (
        {"sparsity": 1.0},
        {"ramp": 2},
        {"start": 0.6},
        {"filters": 1.0},
        {"every": 0},
        {"images": 0},
    ):
        with pytest.raises(ConfigError):
            Pruning(**bad)


def test_identity_is_of_what_changes_the_result():
    e = Experiment()
    same = dataclasses.replace(e, device="cpu", data_folder="x", cost=False, save_every=7)
    assert identity(same) == identity(e)
    assert identity(dataclasses.replace(e, seed=2)) != identity(e)
    pruned = dataclasses.replace(e, prune=Pruning(sparsity=0.5))
    assert identity(pruned) != identity(e)
    assert identity(pruned, dense=True) == identity(e, dense=True)
    wide = dataclasses.replace(e, network_options={"widths": [4, 4]})
    assert len({identity(x) for x in (e, pruned, wide)}) == 3
    # Pinned: records that are kept must stay known, whatever settings are added.
    pinned = reading.build({"network": "small-vgg", "prune": {"sparsity": 0.95}})
    assert (identity(pinned), identity(pinned, dense=True)) == ("36ff3379", "fe840ecb")
