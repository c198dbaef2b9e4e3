"""Running compiled networks without Python: a small C++ program and the libraries it needs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from ._compat import runtime_files
from .errors import ArtefactError, in_context

PROGRAM = "run_model"
SOURCES = Path(__file__).with_name("cpp")


def build_command(program: str | os.PathLike[str]) -> list[str]:
    """The command that builds the program: it finds its libraries in its own folder."""
    headers, libraries = runtime_files()
    return [
        os.environ.get("CXX", "g++"),
        *("-std=c++17", "-O2", "-isystem", headers, str(SOURCES / f"{PROGRAM}.cpp")),
        *("-o", str(program), "-Wl,--no-as-needed", *libraries, "-Wl,-rpath,$ORIGIN"),
    ]


def build(folder: str | os.PathLike[str]) -> Path:
    """Put the program and the libraries it needs into ``folder``, made if missing.

    Returns:
        the program.

    Raises:
        ArtefactError: there is no C++ compiler, it fails, or the folder cannot be written to.
    """
    folder = Path(folder)
    with in_context(str(folder)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for library in runtime_files()[1]:
                shutil.copy(library, folder)
        except OSError as error:
            raise ArtefactError(f"cannot be written: {error.strerror or error}") from error
        command = build_command(folder / PROGRAM)
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise ArtefactError(f"no C++ compiler {command[0]!r}; set CXX to yours") from error
        if done.returncode != 0:
            raise ArtefactError(f"{command[0]} fails: {done.stderr.strip()}")
    return folder / PROGRAM
