"""A small network, pruned and not, and what it is trained on."""

import copy
from pathlib import Path

import torch
from torch import nn

from tvm_sparsewino.nn import NativePruner, convert
from tvm_sparsewino.nn.second_order import prune_network
from tvm_sparsewino.nn.training import Trainer


def smooth(*shape):
    return nn.functional.avg_pool2d(torch.randn(*shape), 3, 1, 1) + 0.1 * torch.randn(*shape)


def dense_net(tile=4):
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1))
    return convert(net, tile).eval()


def pruned_net(sparsity=0.7):
    dense = dense_net()
    batches = [smooth(4, 3, 16, 16) for _ in range(4)]
    return dense, prune_network(copy.deepcopy(dense), batches, sparsity, 20), batches


def train(model, optimizer, batch, loss, config, folder, prune=None, resume=True, evaluate=None):
    """Train to the end, without a progress bar; ``prune``: the gradual pruning, if any."""
    pruner = None if prune is None else NativePruner(model, prune)
    args = (model, optimizer, batch, loss, config, Path(folder))
    return Trainer(*args, evaluate=evaluate, pruner=pruner).run(resume, progress=False)


class Stop(Exception):
    """Ends a run as a kill would."""
