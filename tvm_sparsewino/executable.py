"""A compiled network: arrays in, NumPy arrays out, safe to share between threads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from .artefact import Description, TensorInfo, write_artefact
from .batches import AnyBatch
from .config_linear import AnyPlan
from .constants import Constants
from .errors import ArtefactError, ShapeError
from .exchange import any_tensor, array_of
from .linking import link
from .machines import Machines
from .session import Session
from .thread_pool import use_threads


class Executable:
    """A compiled network. Make it with ``compile`` or ``load``.

    Calls from several threads are safe. Each uses ``num_threads`` threads; :meth:`session` divides
    them among the callers instead.

    Args:
        built: what TVM compiled or loaded.
        description: what it is.
        constants: what its functions take beside their inputs.
        num_threads: threads that a call uses, the calling one included.
        source: the file it was loaded from, None when it was compiled here.

    Attributes:
        machines: run each of its functions.
        num_threads: threads that a call uses, the calling one included.
    """

    def __init__(
        self,
        built: Any,
        description: Description,
        constants: Constants,
        num_threads: int,
        source: str | os.PathLike[str] | None = None,
    ) -> None:
        self._built = built
        self._description = description
        self._source = source
        self._constants = constants
        machines = self.machines = Machines(built, description, constants)
        self._machines = AnyBatch(machines, description) if description.batches else machines
        self.num_threads = num_threads

    @property
    def plan(self) -> tuple[AnyPlan, ...]:
        """What was decided for every convolution and every linear layer, and why."""
        return self._description.plan

    @property
    def built(self) -> Any:
        """What TVM compiled or loaded; :attr:`machines` run it with its constants."""
        return self._built

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """Name, shape and dtype of every input, in the order of positional arguments."""
        return self._description.inputs

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """Shape and dtype of every output."""
        return self._description.outputs

    @property
    def target(self) -> str:
        """What the code was made for, "llvm -mcpu=..."."""
        return self._description.target

    @property
    def description(self) -> Description:
        """Everything that a saved file says about itself."""
        return self._description

    def __call__(self, *arrays: Any) -> np.ndarray | tuple[np.ndarray, ...]:
        """Run the network on arrays in the order of :attr:`inputs`.

        Args:
            arrays: NumPy arrays of any layout, or anything with ``__dlpack__`` in CPU memory. What
                is C-contiguous and starts at a multiple of 64 bytes is not copied.

        Returns:
            one array, or a tuple of them when the network returns a tuple. They are the caller's.

        Raises:
            ShapeError: another number of arrays, or one of another shape or dtype; names the input.
            ArtefactError: this CPU cannot run code for :attr:`target`.
        """
        tensors = self.tensors(*arrays)
        use_threads(self.num_threads)
        outputs = tuple(map(array_of, self._machines(tensors)))
        return outputs if self._description.returns_tuple else outputs[0]

    def tensors(self, *arrays: Any) -> list[Any]:
        """TVM's tensors of the inputs, in the order of :attr:`inputs`; raises as a call does."""
        if len(arrays) != len(self.inputs):
            names = [info.name for info in self.inputs]
            raise ShapeError(f"expected {len(names)} inputs {names}, got {len(arrays)}")
        return [any_tensor(info, array) for info, array in zip(self.inputs, arrays, strict=True)]

    def run(self, inputs: Mapping[str, Any]) -> np.ndarray | tuple[np.ndarray, ...]:
        """Run the network on arrays by name; as calling it otherwise.

        Raises:
            ShapeError: missing or unknown names, too.
        """
        names = [info.name for info in self.inputs]
        if set(inputs) != set(names):
            raise ShapeError(f"expected the inputs {names}, got {sorted(inputs)}")
        return self(*(inputs[name] for name in names))

    def session(self, callers: int | None = None) -> Session:
        """This network for several threads that call it at the same time, without copies.

        Args:
            callers: calls at the same time, 1 to :attr:`num_threads`, which they share; one thread
                for each call if None.

        Raises:
            ConfigError: another number.
        """
        return Session(self._machines, self._description, self.num_threads, callers)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write code, weights, plan and description to one file; needs a C++ compiler.

        Raises:
            ArtefactError: the name does not end with .so, the file cannot be written, or the
                network was itself loaded from a file.
        """
        if self._source is not None:
            raise ArtefactError(f"{path}: loaded from {self._source}; copy that file instead")
        tensors = self._constants.tensors
        write_artefact(path, lambda file: link(self._built, tensors, file), self._description)
