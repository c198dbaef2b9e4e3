"""Virtual machines of one compiled network: as many as calls at the same time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ._compat import virtual_machine
from .artefact import Description
from .errors import ArtefactError
from .exchange import copied_tensor
from .schedules.cpu_features import missing_on_host

ENTRY = "main"


class Machines:
    """Runs a compiled network; safe to call from several threads.

    TVM's virtual machine is not safe to share, so every call has one to itself: one that no other
    call uses at the time, or a new one. Code and weights are shared by all.

    Args:
        built: what TVM compiled or loaded.
        description: what it is.
    """

    def __init__(self, built: Any, description: Description) -> None:
        self._built = built
        self._description = description
        self._idle: list[_Machine] = []  # append and pop are atomic

    def __call__(self, tensors: Sequence[Any], function: str = ENTRY) -> list[Any]:
        """Outputs for TVM's tensors; no later call changes them.

        Args:
            tensors: the inputs.
            function: which of the network's functions runs; there is one per batch size.

        Raises:
            ArtefactError: this CPU cannot run the code.
        """
        try:
            machine = self._idle.pop()
        except IndexError:
            machine = self._new()
        # A machine that has raised is not used again.
        outputs = machine(tensors, function)
        self._idle.append(machine)
        return outputs

    def _new(self) -> _Machine:
        missing = missing_on_host(self._description.features)
        if missing:
            raise ArtefactError(
                f"compiled for {self._description.target!r}; this CPU lacks {', '.join(missing)}"
            )
        outputs = len(self._description.outputs) if self._description.returns_tuple else None
        return _Machine(virtual_machine(self._built), outputs)


class _Machine:
    """One virtual machine with one caller at a time."""

    def __init__(self, machine: Any, outputs: int | None) -> None:
        self._machine = machine
        self._outputs = outputs
        self._functions: dict[str, _Function] = {}

    def __call__(self, tensors: Sequence[Any], function: str) -> list[Any]:
        if function not in self._functions:
            self._functions[function] = _Function(self._machine[function], self._outputs)
        return self._functions[function](tensors)


class _Function:
    """One function of a virtual machine, whose outputs are the caller's.

    Most outputs are in memory that the call allocated; they leave as they are. An output may also
    be an input, or a constant of the network: such memory is not to be given away, and is copied.
    Constants show at the second call: their memory is that of the first call's output, which is
    still in use.
    """

    def __init__(self, function: Any, outputs: int | None) -> None:
        self._function = function
        self._outputs = outputs
        self._first: list[Any] | None = None
        self._constant: frozenset[int] | None = None

    def __call__(self, tensors: Sequence[Any]) -> list[Any]:
        result = self._function(*tensors)
        outputs = [result] if self._outputs is None else [result[i] for i in range(self._outputs)]
        taken = {tensor.data_ptr() for tensor in tensors}
        owned = []
        for number, output in enumerate(outputs):
            pointer = output.data_ptr()
            keep = pointer not in taken and not self._may_be_constant(number, pointer)
            owned.append(output if keep else copied_tensor(output))
            taken.add(pointer)
        self._note_constants(outputs)
        return owned

    def _may_be_constant(self, number: int, pointer: int) -> bool:
        if self._constant is not None:
            return number in self._constant
        return self._first is None or self._first[number].data_ptr() == pointer

    def _note_constants(self, outputs: list[Any]) -> None:
        if self._constant is not None:
            return
        if self._first is None:
            self._first = outputs
            return
        pairs = enumerate(zip(self._first, outputs, strict=True))
        self._constant = frozenset(i for i, (a, b) in pairs if a.data_ptr() == b.data_ptr())
        self._first = None
