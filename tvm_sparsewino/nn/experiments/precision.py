"""Mixed precision where an experiment asks for it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

MIXED = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def mixed(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """In which a network runs on ``device`` in one of the experiments' precisions."""
    kind = MIXED.get(precision)
    return nullcontext() if kind is None else torch.autocast(device.type, kind)
