"""``sparsewino COMMAND``: finds the command, runs it, turns errors into one line and a code.

Exit codes: 0 fine, 2 bad arguments, 4 an error that the package names, 5 an optional package is
missing.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import traceback
from collections.abc import Sequence

from .._version import __version__
from ..errors import MissingExtra, SparseWinoError
from . import bench

# Exit codes, beside 0 and argparse's own 2 for bad arguments.
FAILED = 4
EXTRA_MISSING = 5

# Each is a module here with HELP, add_arguments(parser) and run(arguments).
COMMANDS = ("demo", "compile", "run", "inspect", "export", "runner", "tune", "train", "bench")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    if given[:1] == ["bench"]:
        given[1:] = bench.normalised(given[1:])
    arguments = _parser().parse_args(given)
    try:
        arguments.command.run(arguments)
    except MissingExtra as error:
        return _report(error, EXTRA_MISSING, arguments.verbose)
    except SparseWinoError as error:
        return _report(error, FAILED, arguments.verbose)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sparsewino",
        description="Sparse Winograd convolutions for TVM: prune, compile, run on CPUs.",
        epilog="Exit codes: 0 fine, 2 bad arguments, 4 failed, 5 an optional package is missing.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in COMMANDS:
        command = importlib.import_module(f".{name}", __package__)
        sub = commands.add_parser(name, help=command.HELP, description=command.HELP)
        command.add_arguments(sub)
        sub.add_argument("-v", "--verbose", action="store_true", help="show where an error arose")
        sub.set_defaults(command=command)
    return parser


def _report(error: Exception, code: int, verbose: bool) -> int:
    if verbose:
        traceback.print_exception(error)
    message = " ".join(str(error).split())
    print(f"sparsewino: error: {message}", file=sys.stderr)
    return code
