"""Two processes train what one would train."""

import json
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from tvm_sparsewino.errors import ConfigError
from tvm_sparsewino.nn import distributed
from tvm_sparsewino.nn.distributed import Ranks, find_device, fingerprint
from tvm_sparsewino.nn.experiments import reading, run_experiment

EXPERIMENT = {
    "network": "small-resnet",
    "network_options": {"widths": [4, 6], "pool": True},
    "batch": 32,
    "shift": 1,
    "precision": "float64",
    "save_every": 4,
    "dense": {"epochs": 0.3},
    "tune": {"epochs": 0.4, "distil": 0.3},
    "prune": {"tile": 2, "sparsity": 0.6, "every": 2, "images": 32},
    "cost": False,
}

# Runs on both processes; what they see goes to one file each.
PROGRAM = """
import json, os, sys
import torch
from torch import nn
from tvm_sparsewino.errors import PruneError
from tvm_sparsewino.nn.distributed import fingerprint, joined
from tvm_sparsewino.nn.experiments import reading, run, run_experiment

out = sys.argv[1]
experiment = reading.build(json.loads(sys.argv[2]))
seen = {}

def note(setting, folder, dense_dir, dense, model):
    seen["model"] = fingerprint(model)
    seen["dense"] = fingerprint(dense)
    return finished(setting, folder, dense_dir, dense, model)

finished, run._finished = run._finished, note
with joined(torch.device("cpu")) as ranks:
    run_experiment(experiment, out, progress=False)
    seen["count"] = ranks.count
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.fill_(ranks.rank)
    try:
        ranks.check_equal(model)
    except PruneError as error:
        seen["refused"] = str(error)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    ranks.check_equal(model)
    with open(f"{out}/seen{ranks.rank}.json", "w") as file:
        json.dump(seen, file)
"""


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The record of one process, of two, and what each of the two saw."""
    folder = tmp_path_factory.mktemp("ranks")
    alone = run_experiment(reading.build(EXPERIMENT), folder / "one", progress=False)
    script = folder / "program.py"
    script.write_text(PROGRAM)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [str(script), str(folder / "two"), json.dumps(EXPERIMENT)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        command, env=environment, check=False, capture_output=True, text=True, timeout=240
    )
    assert result.returncode == 0, result.stderr
    seen = [json.loads((folder / "two" / f"seen{i}.json").read_text()) for i in range(2)]
    return folder, alone, seen


def test_two_processes_end_where_one_does(both):
    folder, alone, seen = both
    assert [x["count"] for x in seen] == [2, 2]
    states = [
        torch.load(folder / name / "weights.pt", weights_only=True) for name in ("one", "two")
    ]
    assert states[0].keys() == states[1].keys()
    for name, want in states[0].items():
        have = states[1][name]
        if want.dtype == torch.bool:
            assert torch.equal(have, want), name
        elif want.is_floating_point():
            # Sums in another order, in double precision, over 30 steps.
            assert torch.allclose(have, want, rtol=1e-8, atol=1e-10), name
    record = json.loads((folder / "two" / "record.json").read_text())
    assert record["machine"]["processes"] == 2
    assert record["accuracy"] == alone["accuracy"]
    assert record["zeros"] == alone["zeros"]
    sparsities = [[x.get("sparsity") for x in r["curves"]["tune"]] for r in (record, alone)]
    assert sparsities[0] == sparsities[1]


def test_both_processes_have_the_same_network_bit_by_bit(both):
    _, _, (first, second) = both
    assert (first["model"], first["dense"]) == (second["model"], second["dense"])


def test_processes_that_differ_are_noticed(both):
    for seen in both[2]:
        assert seen["refused"].startswith("parameters or masks differ")


def test_one_of_one_is_alone():
    ranks = Ranks()
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    assert ranks.wrap(model) is model and type(model[1]) is nn.BatchNorm2d
    assert ranks.from_first(3) == 3 and ranks.first
    assert ranks.sum(torch.ones(2)).tolist() == [1, 1]
    ranks.check_equal(model)


def test_fingerprints_see_every_value():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    before = fingerprint(model)
    assert fingerprint(model) == before
    model[1].running_mean[1] += 1e-7
    assert fingerprint(model) != before


def with_gpus(monkeypatch, number):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: number > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: number)


def test_devices(monkeypatch):
    with_gpus(monkeypatch, 3)
    assert find_device("cpu") == torch.device("cpu")
    assert find_device("cuda:1") == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert find_device("cuda") == find_device("auto") == torch.device("cuda", 2)
    with_gpus(monkeypatch, 0)
    assert find_device("auto") == torch.device("cpu")


def test_devices_that_are_not_there(monkeypatch):
    for name in ("gpu", "cuda:x", "", "meta"):
        with pytest.raises(ConfigError, match=f'device must be "auto".* got {name!r}'):
            find_device(name)
    with_gpus(monkeypatch, 0)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(ConfigError, match="cuda:0 is not there: PyTorch sees 0 GPUs"):
        find_device("cuda")
    with_gpus(monkeypatch, 2)
    for name in ("cuda:2", "cuda", "auto"):
        monkeypatch.setenv("LOCAL_RANK", "2")
        with pytest.raises(ConfigError, match="cuda:2 is not there: PyTorch sees 2 GPUs"):
            find_device(name)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_shared_statistics_are_exact_in_half_precision(dtype, monkeypatch):
    monkeypatch.setattr(distributed.dist, "get_world_size", lambda: 1)
    monkeypatch.setattr(distributed, "all_reduce", lambda x: x)
    kept = torch.promote_types(dtype, torch.float32)
    # A mean far from zero: in half precision the variance would be noise.
    x = (torch.randn(16, 3, 8, 8) + 30).to(dtype)
    shared = nn.BatchNorm2d(3, dtype=kept)
    shared.__class__ = distributed.SharedBatchNorm2d
    want = nn.BatchNorm2d(3, dtype=torch.float64)
    y, expected = shared(x), want(x.double())
    assert y.dtype == dtype and shared.running_var.dtype == kept
    # Rounding of float32 sums of numbers of 30, and of y itself.
    assert torch.allclose(shared.running_mean.double(), want.running_mean, rtol=1e-5)
    assert torch.allclose(shared.running_var.double(), want.running_var, rtol=1e-5)
    error = (y.double() - expected).abs()
    assert bool((error <= torch.finfo(dtype).eps * expected.abs() + 1e-4).all())
