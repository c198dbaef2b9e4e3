"""The virtual machines of one compiled network: one per call that is under way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ._compat import virtual_machine
from .artefact import Description
from .constants import Constants, forward_name
from .errors import ArtefactError
from .exchange import copied_tensor
from .schedules.cpu_features import missing_on_host

ENTRY = "main"


def check_cpu(description: Description) -> None:
    """Refuse a network that this CPU cannot run.

    Raises:
        ArtefactError: the CPU lacks instruction sets that the code needs; names them.
    """
    missing = missing_on_host(description.features)
    if missing:
        raise ArtefactError(
            f"compiled for {description.target!r}; this CPU lacks {', '.join(missing)}"
        )


class Machines:
    """Runs a compiled network; safe to call from several threads.

    TVM's virtual machine is not safe to share, so every call has one to itself: one that no other
    call uses at the time, or a new one. Code and weights are shared by all.

    Args:
        built: what TVM compiled or loaded.
        description: what it is.
        constants: what its functions take beside their inputs.
    """

    def __init__(self, built: Any, description: Description, constants: Constants) -> None:
        self._built = built
        self._description = description
        self._constants = constants
        self._idle: list[Machine] = []  # append and pop are atomic

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
            machine = self.new()
        # A machine that has raised is not used again.
        outputs = machine(tensors, function)
        self._idle.append(machine)
        return outputs

    def new(self) -> Machine:
        """A virtual machine that no other call uses.

        Raises:
            ArtefactError: this CPU cannot run the code.
        """
        check_cpu(self._description)
        outputs = len(self._description.outputs) if self._description.returns_tuple else None
        return Machine(virtual_machine(self._built), self._constants, outputs)


class Machine:
    """One virtual machine with one caller at a time.

    Args:
        machine: TVM's.
        constants: what the network's functions take beside their inputs.
        outputs: how many outputs the network's tuple has; None if it returns a tensor.
    """

    def __init__(self, machine: Any, constants: Constants, outputs: int | None) -> None:
        self._machine = machine
        self._constants = constants
        self._outputs = outputs
        self._functions: dict[str, _Function] = {}

    def __call__(self, tensors: Sequence[Any], function: str) -> list[Any]:
        """Outputs of a function for TVM's tensors; no later call changes them."""
        if function not in self._functions:
            self._functions[function] = _Function(self.bound(function), self._outputs)
        return self._functions[function](tensors)

    def bound(self, function: str) -> Any:
        """A function of the network as TVM's function of its inputs."""
        constants = self._constants.of(function)
        if not constants:
            return self._machine[function]
        name = f"{function}_bound"
        self._machine["save_function"](forward_name(function), name, True, *constants)
        return self._machine[name]

    def watch(self, instrument: Any) -> None:
        """Call ``instrument`` before and after every function, as TVM's machines do."""
        self._machine["set_instrument"](instrument)


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
