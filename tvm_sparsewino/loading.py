"""Loading compiled networks: needs TVM's runtime and nothing that compiles, imports or trains."""

from __future__ import annotations

import os

from ._compat import load_module
from .artefact import read_description
from .errors import ArtefactError, in_context
from .executable import Executable
from .schedules.cpu_features import missing_on_host
from .thread_pool import settled_threads


def load(path: str | os.PathLike[str], num_threads: int | None = None) -> Executable:
    """Load what :meth:`Executable.save` wrote. The file is code: load only what you trust.

    Args:
        path: the file.
        num_threads: as for :func:`compile`.

    Raises:
        ArtefactError: missing, damaged, not ours, or made for a CPU with features this one lacks.
        ConfigError: a bad number of threads.
    """
    description = read_description(path)
    with in_context(str(path)):
        missing = missing_on_host(description.features)
        if missing:
            raise ArtefactError(
                f"compiled for {description.target!r}; this CPU lacks {', '.join(missing)}"
            )
        try:
            module = load_module(os.path.abspath(path))
        except Exception as error:  # from dlopen, through TVM
            raise ArtefactError(f"cannot be loaded: {error}") from error
    return Executable(module, description, settled_threads(num_threads), path)
