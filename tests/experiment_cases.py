"""Experiments and images that are small."""

import json

import torch

from tvm_sparsewino.nn.data import ArraySource
from tvm_sparsewino.nn.experiments import reading

SMALL = {
    "network": "lenet5",
    "network_options": {"widths": [6, 8], "hidden": 32},
    "batch": 64,
    "dense": {"epochs": 3, "lr": 0.03},
    "tune": {"epochs": 1, "lr": 0.02},
    "prune": {"tile": 2, "sparsity": 0.7, "every": 2, "images": 64},
    "cost": False,
}


# Methods that have no interval between updates of masks, or bring their own.
WITHOUT_INTERVAL = ("one-shot", "coarse", "authors")


def experiment(base=SMALL, **changes):
    data = json.loads(json.dumps(base))
    if changes.get("prune__method") in WITHOUT_INTERVAL:
        data["prune"].pop("every", None)
    for key, value in changes.items():
        reading.put(data, key.replace("__", "."), value)
    return reading.build(data)


def grey(size=16, channels=1):
    images = torch.zeros(8, channels, size, size, dtype=torch.uint8)
    return ArraySource(images, torch.arange(8), 10)
