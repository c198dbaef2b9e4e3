"""A compiled network: NumPy arrays in, NumPy arrays out, safe to share between threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from ._compat import export_library, runtime_tensor, virtual_machine
from .artefact import Description, TensorInfo, write_artefact
from .config import LayerPlan
from .errors import ArtefactError, ShapeError
from .schedules.cpu_features import missing_on_host
from .thread_pool import use_threads

ENTRY = "main"


class Executable:
    """A compiled network. Make it with ``compile`` or ``load``.

    Calls from several threads are safe: TVM's virtual machine is not, so every calling thread has
    one of its own; code and weights are shared.

    Args:
        built: what TVM compiled or loaded.
        description: what it is.
        num_threads: threads that a call uses, the calling one included.
        source: the file it was loaded from, None when it was compiled here.
    """

    def __init__(
        self,
        built: Any,
        description: Description,
        num_threads: int,
        source: str | os.PathLike[str] | None = None,
    ) -> None:
        self._built = built
        self._description = description
        self._source = source
        self._local = threading.local()
        self.num_threads = num_threads

    @property
    def plan(self) -> tuple[LayerPlan, ...]:
        """What was decided for every convolution, and why."""
        return self._description.plan

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

    def __call__(self, *arrays: np.ndarray) -> np.ndarray | tuple[np.ndarray, ...]:
        """Run the network on arrays in the order of :attr:`inputs`.

        Returns:
            one array, or a tuple of them when the network returns a tuple. They are the caller's.

        Raises:
            ShapeError: another number of arrays, or one of another shape or dtype; names the input.
            ArtefactError: this CPU cannot run code for :attr:`target`.
        """
        if len(arrays) != len(self.inputs):
            names = [info.name for info in self.inputs]
            raise ShapeError(f"expected {len(names)} inputs {names}, got {len(arrays)}")
        tensors = [_tensor(info, array) for info, array in zip(self.inputs, arrays, strict=True)]
        use_threads(self.num_threads)
        result = self._function()(*tensors)
        if not self._description.returns_tuple:
            return _array(result)
        return tuple(_array(result[i]) for i in range(len(self.outputs)))

    def run(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray | tuple[np.ndarray, ...]:
        """Run the network on arrays by name; as calling it otherwise.

        Raises:
            ShapeError: missing or unknown names, too.
        """
        names = [info.name for info in self.inputs]
        if set(inputs) != set(names):
            raise ShapeError(f"expected the inputs {names}, got {sorted(inputs)}")
        return self(*(inputs[name] for name in names))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write code, weights, plan and description to one file; needs a C++ compiler.

        Raises:
            ArtefactError: the name does not end with .so, the file cannot be written, or the
                network was itself loaded from a file.
        """
        if self._source is not None:
            raise ArtefactError(f"{path}: loaded from {self._source}; copy that file instead")
        write_artefact(path, lambda file: export_library(self._built, file), self._description)

    def _function(self) -> Any:
        """The network's function in the calling thread's virtual machine."""
        function = getattr(self._local, "function", None)
        if function is None:
            missing = missing_on_host(self._description.features)
            if missing:
                raise ArtefactError(
                    f"compiled for {self.target!r}; this CPU lacks {', '.join(missing)}"
                )
            self._local.machine = virtual_machine(self._built)
            function = self._local.function = self._local.machine[ENTRY]
        return function


def _tensor(info: TensorInfo, array: Any) -> Any:
    """A checked copy of ``array`` in TVM's memory; layout and byte order may be any."""
    array = np.asarray(array)
    native = array.dtype.newbyteorder("=")
    if native != np.dtype(info.dtype) or array.shape != info.shape:
        raise ShapeError(
            f"input {info.name!r}: expected {info}, got {array.dtype} {list(array.shape)}"
        )
    return runtime_tensor(np.asarray(array, native, order="C"))


def _array(tensor: Any) -> np.ndarray:
    """A copy that does not live in the virtual machine's memory, which later calls reuse."""
    return tensor.numpy()
