"""Optional packages: imported when first needed; the error names the extra if one is missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from .errors import MissingExtra


def require(module: str, extra: str) -> ModuleType:
    """Import ``module``, which the extra ``extra`` of this package brings.

    Raises:
        MissingExtra: it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"{error.name} is not installed: pip install 'tvm-sparsewino[{extra}]'"
        ) from error
