"""Writing modules as shared libraries."""

from __future__ import annotations

from typing import Any

from .scope_notes import without_scope_notes


def export_library(built: Any, path: str) -> None:
    """Write what ``tvm.compile`` returned as a shared library."""
    with without_scope_notes():
        built.export_library(path)
