"""Several processes that train one network: who they are, and what they must agree on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.nn.functional import all_reduce

from ..errors import ConfigError, PruneError

_DEVICES = 'device must be "auto", "cpu", "cuda" or "cuda:N"'


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together; one of one where nobody else does.

    Attributes:
        rank: from 0.
        count: how many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes the files and shows the progress."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum of all processes' ``values``."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def from_first(self, value: Any) -> Any:
        """The first process' ``value``, on every process."""
        if self.count == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def wrap(self, model: nn.Module) -> nn.Module:
        """What to call in training: gradients are means over all processes.

        Batch normalisation then uses the statistics of all processes' images, as one process
        would with the whole batch. ``model`` keeps its parameters and their names.
        """
        if self.count == 1:
            return model
        for norm in model.modules():
            if type(norm) is nn.BatchNorm2d:
                norm.__class__ = SharedBatchNorm2d
        # Buffers agree as they are: normalisation is shared, masks follow from equal parameters.
        return nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)

    def check_equal(self, model: nn.Module) -> None:
        """Compare parameters and buffers, masks among them, of all processes bit by bit.

        Raises:
            PruneError: they differ.
        """
        if self.count == 1:
            return
        own = fingerprint(model)
        everyone: list[Any] = [None] * self.count
        dist.all_gather_object(everyone, own)
        if len(set(everyone)) > 1:
            raise PruneError("parameters or masks differ between the processes that train together")


class SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation over the images of all processes, on any device.

    PyTorch's own (SyncBatchNorm) needs a GPU. All processes must have equally many images. A
    ``BatchNorm2d`` becomes one, and one again a ``BatchNorm2d``, by its class alone. Statistics are
    float32 at least, as PyTorch's are, also of maps in half precision.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W], normalised, in the dtype of ``x``."""
        if not self.training:
            return super().forward(x)
        count = dist.get_world_size()
        exact = x.to(torch.promote_types(x.dtype, torch.float32))
        mean = all_reduce(exact.mean((0, 2, 3))) / count
        variance = all_reduce((exact - mean[:, None, None]).square().mean((0, 2, 3))) / count
        with torch.no_grad():
            number = count * x.numel() / x.shape[1]
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (number / (number - 1)), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        return (exact * scale[:, None, None] + shift[:, None, None]).to(x.dtype)


def fingerprint(model: nn.Module) -> str:
    """A hash of every parameter and buffer."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """Join the processes that ``torchrun`` started, or be the only one where it did not.

    A process that is in a group already stays in it.
    """
    if dist.is_initialized():
        yield Ranks(dist.get_rank(), dist.get_world_size())
    elif int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks()
    else:
        if device.type == "cuda":
            torch.cuda.set_device(device)  # where NCCL puts what it sends
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        try:
            yield Ranks(dist.get_rank(), dist.get_world_size())
        finally:
            dist.destroy_process_group()


def find_device(wanted: str) -> torch.device:
    """The device of this process: "auto" takes a GPU where there is one, each process its own.

    Args:
        wanted: "auto", "cpu", "cuda" or "cuda:1".

    Raises:
        ConfigError: another name, or a GPU that is not there.
    """
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    device = _named_device(wanted)
    if device.type == "cpu":
        return device
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = int(os.environ.get("LOCAL_RANK", "0")) if device.index is None else device.index
    if index >= there:
        raise ConfigError(f"device cuda:{index} is not there: PyTorch sees {there} GPUs")
    return torch.device("cuda", index)


def _named_device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"{_DEVICES}, got {name!r}") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"{_DEVICES}, got {name!r}")
    return device
