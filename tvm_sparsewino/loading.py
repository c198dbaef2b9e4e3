"""Loading compiled networks: needs only TVM's runtime, nothing that compiles, imports or trains."""

from __future__ import annotations

import os
from typing import Any

from ._compat import library_function, load_module
from .artefact import Description, read_description
from .constants import CONSTANT, Constants
from .errors import ArtefactError, in_context
from .executable import Executable
from .machines import check_cpu
from .thread_pool import settled_threads


def load(path: str | os.PathLike[str], num_threads: int | None = None) -> Executable:
    """Load a network that :meth:`Executable.save` wrote.

    The file is code: load only what you trust.

    Args:
        path: the file.
        num_threads: as for :func:`compile`.

    Raises:
        ArtefactError: the file is missing, damaged, no compiled network of this package, or needs
            CPU features that this machine lacks.
        ConfigError: a bad number of threads.
    """
    description = read_description(path)
    with in_context(str(path)):
        check_cpu(description)
        try:
            module = load_module(os.path.abspath(path))
        except Exception as error:  # from dlopen, through TVM
            raise ArtefactError(f"cannot be loaded: {error}") from error
    constants = _constants(module, description)
    return Executable(module, description, constants, settled_threads(num_threads), path)


def _constants(module: Any, description: Description) -> Constants:
    """The constants where they are in the file's memory."""
    numbers = {number for used in description.constants.values() for number in used}
    if not numbers:
        return Constants()
    constant = library_function(module, CONSTANT)
    return Constants([constant(n) for n in range(max(numbers) + 1)], description.constants)
