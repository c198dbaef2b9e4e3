"""Runs know which images they have seen, whatever folder those were in."""

import gzip
import json
import struct

import numpy as np
import pytest
import torch

from tvm_sparsewino.errors import ConfigError
from tvm_sparsewino.nn.data import ArraySource
from tvm_sparsewino.nn.data.fingerprint import images_id
from tvm_sparsewino.nn.experiments import reading, run_experiment, run_matrix
from tvm_sparsewino.nn.experiments.matrix import read_records

SMALL = {
    "network": "lenet5",
    "network_options": {"widths": [2, 3], "hidden": 4},
    "data": "mnist",
    "batch": 8,
    "dense": {"epochs": 0.3},
    "prune": {"method": "dense"},
}


def source(number=40, classes=10, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (number, 1, 4, 4), dtype=torch.uint8, generator=generator)
    return ArraySource(images, torch.arange(number) % 10, classes)


def test_same_images_same_digits():
    assert images_id([source(), source(8)]) == images_id([source(), source(8)])
    assert len(images_id([source()])) == 8


def test_what_differs():
    data = source()
    later = data.images.clone()
    later[0, 0, 0, 0] ^= 1
    labels = data.labels.clone()
    labels[-1] = 0
    others = [
        [data, data],
        [source(39)],
        [source(classes=11)],
        [ArraySource(later, data.labels, 10)],
        [ArraySource(data.images, labels, 10)],
        [source(seed=1)],
    ]
    assert len({images_id(parts) for parts in [[data], *others]}) == 1 + len(others)


def folder(path, seed):
    """Files as MNIST's, of noise."""
    path.mkdir()
    rng = np.random.default_rng(seed)
    for part, number in (("train", 32), ("t10k", 16)):
        images = rng.integers(0, 256, (number, 28, 28), dtype=np.uint8)
        labels = (np.arange(number) % 10).astype(np.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            with gzip.open(path / f"{part}-{kind}-ubyte.gz", "wb") as file:
                file.write(head + array.tobytes())
    return str(path)


def test_a_folder_of_a_run_takes_no_other_images(tmp_path):
    first, second = folder(tmp_path / "a", 0), folder(tmp_path / "b", 1)
    moved = folder(tmp_path / "c", 0)
    out = tmp_path / "out"
    record = run_experiment(reading.build({**SMALL, "data_folder": first}), out, progress=False)
    same = run_experiment(reading.build({**SMALL, "data_folder": moved}), out, progress=False)
    assert same["images"] == record["images"] and same["fingerprint"] == record["fingerprint"]
    with pytest.raises(ConfigError, match="holds a run on other images"):
        run_experiment(reading.build({**SMALL, "data_folder": second}), out, progress=False)
    # A folder that does not tell, as those before this entry, is taken as it is.
    for path in (out / "config.json", out / "dense" / "config.json"):
        config = json.loads(path.read_text())
        del config["images"]
        path.write_text(json.dumps(config))
    run_experiment(reading.build({**SMALL, "data_folder": second}), out, progress=False)


def test_a_matrix_keeps_one_set_of_images_in_its_records(tmp_path):
    first, second = folder(tmp_path / "a", 0), folder(tmp_path / "b", 1)
    path, records = tmp_path / "m.json", tmp_path / "r.jsonl"
    path.write_text(json.dumps({"base": SMALL, "runs": [{"seed": [1]}]}))
    args = (path, tmp_path / "out", records)
    run_matrix(*args, settings=(f"data_folder={first}",), progress=False)
    path.write_text(json.dumps({"base": SMALL, "runs": [{"seed": [1, 2]}]}))
    with pytest.raises(ConfigError, match=r"r\.jsonl: lenet5-mnist-dense-seed1-.* other images"):
        run_matrix(*args, settings=(f"data_folder={second}",), progress=False)
    assert len(read_records(records)) == 1
    assert len(run_matrix(*args, settings=(f"data_folder={first}",), progress=False)) == 2
    # Nothing to be done: nothing is compared.
    assert len(run_matrix(*args, settings=(f"data_folder={second}",), progress=False)) == 2
