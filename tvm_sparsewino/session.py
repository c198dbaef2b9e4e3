"""One loaded network for many callers at the same time, without copies of its inputs."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from .artefact import Description, TensorInfo
from .errors import ConfigError, ShapeError
from .exchange import aligned_empty, shared_tensor
from .machines import Machines
from .thread_pool import use_threads


class Session:
    """A network for several threads that call it at the same time; made by ``Executable.session``.

    The session divides the network's threads among its callers, so that cores are never
    oversubscribed: further callers wait for their turn. All callers share code and weights.

    Args:
        machines: run the network.
        description: what the network is.
        num_threads: threads that all calls together use, the calling ones included.
        callers: calls at the same time, at most ``num_threads``; that many if None.

    Attributes:
        callers: calls at the same time.
        threads_per_call: threads that one call uses, the calling one included.

    Raises:
        ConfigError: ``callers`` is not between 1 and ``num_threads``.
    """

    def __init__(
        self,
        machines: Machines,
        description: Description,
        num_threads: int,
        callers: int | None = None,
    ) -> None:
        callers = num_threads if callers is None else callers
        if not isinstance(callers, int) or not 1 <= callers <= num_threads:
            raise ConfigError(f"callers must be 1 to {num_threads}, the threads, got {callers!r}")
        self._machines = machines
        self._description = description
        self._turn = threading.BoundedSemaphore(callers)
        self.callers = callers
        self.threads_per_call = num_threads // callers

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """Name, shape and dtype of every input, in the order of arguments."""
        return self._description.inputs

    def __call__(self, *arrays: Any) -> Any:
        """Run the network on the memory of ``arrays``, in the order of :attr:`inputs`.

        Args:
            arrays: anything with ``__dlpack__`` in CPU memory, such as arrays of NumPy or JAX and
                tensors of PyTorch; C-contiguous and starting at a multiple of 64 bytes, as
                PyTorch's tensors do (for NumPy see :meth:`empty_inputs`). They must not change
                during the call.

        Returns:
            one tensor, or a tuple of them if the network returns a tuple, for any library's
            ``from_dlpack``. They belong to the caller; no later call changes them.

        Raises:
            ShapeError: another number of arrays, another shape or dtype, or memory that cannot be
                used without a copy; names the input.
            ArtefactError: this CPU cannot run the code.
        """
        tensors = [
            shared_tensor(info, array)
            for info, array in zip(self.inputs, self._counted(arrays), strict=True)
        ]
        with self._turn:
            use_threads(self.threads_per_call)
            outputs = self._machines(tensors)
        return tuple(outputs) if self._description.returns_tuple else outputs[0]

    def empty_inputs(self, batch: int = 1) -> tuple[np.ndarray, ...]:
        """New NumPy arrays, one per input, with arbitrary values, that calls take without a copy.

        Args:
            batch: rows of inputs whose batch is open.
        """
        return tuple(aligned_empty(info.of_batch(batch)) for info in self.inputs)

    def _counted(self, arrays: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(arrays) != len(self.inputs):
            names = [info.name for info in self.inputs]
            raise ShapeError(f"expected {len(names)} inputs {names}, got {len(arrays)}")
        return arrays
