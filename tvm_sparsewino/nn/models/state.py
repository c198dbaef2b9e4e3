"""State dicts from files, checked before a network takes them."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import Tensor

from ...errors import WeightsError


def read_state(path: Path) -> dict[str, Tensor]:
    """The state dict that ``torch.save`` wrote; nothing in the file is executed.

    Raises:
        WeightsError: missing, or not such a file.
    """
    if not path.is_file():
        raise WeightsError("there is no such file")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, ValueError) as error:
        raise WeightsError("not a PyTorch state dict that can be read safely") from error


def check_state(state: object, expected: dict[str, Tensor]) -> None:
    """Refuse what is not exactly the tensors of ``expected``, finite.

    Raises:
        WeightsError: not a dict of tensors, other names, shapes or dtypes, NaN or infinity.
    """
    if not isinstance(state, dict) or not all(isinstance(x, Tensor) for x in state.values()):
        raise WeightsError("expected a dict of tensors")
    missing, extra = sorted(set(expected) - set(state)), sorted(set(state) - set(expected))
    if missing or extra:
        raise WeightsError(f"missing tensors {missing}, unexpected tensors {extra}")
    for name, want in expected.items():
        have = state[name]
        if have.shape != want.shape or have.dtype != want.dtype:
            raise WeightsError(
                f"{name}: expected {want.dtype} {list(want.shape)}, got {have.dtype} "
                f"{list(have.shape)}"
            )
        if not bool(torch.isfinite(have).all()):
            raise WeightsError(f"{name}: has NaN or infinity")
