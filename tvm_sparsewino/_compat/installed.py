"""Which line of TVM is installed, found without importing TVM."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from ..errors import MissingExtra


def tvm_folder() -> Path:
    """The folder of the package ``tvm``.

    Raises:
        ModuleNotFoundError: TVM is not installed.
    """
    spec = importlib.util.find_spec("tvm")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'tvm'", name="tvm")
    return Path(spec.submodule_search_locations[0])


# TVM renamed tir to tirx a good while after Relay had left.
IS_RELAX_LINE = (tvm_folder() / "tirx").is_dir()


def require_relay() -> None:
    """Refuse to go on where TVM has no Relay.

    Raises:
        MissingExtra: it has none; the message names both versions.
    """
    if not (tvm_folder() / "relay").is_dir():
        raise MissingExtra(
            f"the installed TVM {_version()} has no Relay: it ended with TVM 0.19. "
            "docs/relay.md tells how to install this package beside TVM 0.16 to 0.19"
        )


def require_relax() -> None:
    """Refuse to go on where TVM is of the line before Relax.

    Raises:
        MissingExtra: it is; the message names both versions.
    """
    if not IS_RELAX_LINE:
        raise MissingExtra(
            f"the installed TVM {_version()} is of the Relay line; this needs apache-tvm 0.26 or "
            "0.27. For Relay there are tvm_sparsewino.relay and sparsewino-tvmc (docs/relay.md)"
        )


def _version() -> str:
    import tvm  # here, not above: only a message needs it

    return str(tvm.__version__)
