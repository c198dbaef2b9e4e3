"""The constants of a compiled network: kept once, beside the code that reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# Bytes. Compiled code loads and stores whole vectors from the first byte of a tensor on.
ALIGNMENT = 64

# The packed function that gives a constant by its number, which files bring along.
CONSTANT = "sparsewino_constant"


def forward_name(function: str) -> str:
    """The function behind ``function`` that takes its constants as parameters after the inputs."""
    return f"{function}_with_constants"


@dataclass(frozen=True)
class Constants:
    """The constants of all functions of a network; functions share those that are equal.

    Attributes:
        tensors: TVM's, each starting at a multiple of 64 bytes. They are not to be written to.
        used: function -> the numbers of its constants, in the order of its parameters. Functions
            without any are missing here.
    """

    tensors: Sequence[Any] = ()
    used: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def of(self, function: str) -> list[Any]:
        """The tensors that a function uses, in the order of its parameters."""
        return [self.tensors[number] for number in self.used.get(function, ())]
