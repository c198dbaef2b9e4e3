"""Writing modules as shared libraries."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from .installed import IS_RELAX_LINE
from .scope_notes import without_scope_notes

if IS_RELAX_LINE:
    from tvm_ffi import libinfo


def export_library(
    built: Any, path: str, sources: Sequence[str] = (), folder: str | None = None
) -> None:
    """Write what ``tvm.compile`` returned as a shared library.

    Args:
        built: the module.
        path: the library.
        sources: C++ files to compile and link with it.
        folder: where the compiler runs; here if None.

    Raises:
        RuntimeError: there is no C++ compiler, or it fails.
    """
    options = {}
    if sources:
        includes = (".", libinfo.find_include_path(), libinfo.find_dlpack_include_path())
        options = {"cwd": folder, "options": [f"-I{include}" for include in includes]}
    with without_scope_notes():
        built.export_library(os.path.abspath(path), addons=list(sources), **options)
