"""From a planned network to code and constants."""

from __future__ import annotations

from typing import Any

import tvm
from tvm.ir import IRModule

from .constants import Constants
from .errors import CompileFailed, SparseWinoError
from .memory import release_freed
from .relay_passes.lift_constants import lift_constants

_LONGEST = 400  # characters of TVM's message: enough for the call that it could not compile


def build(
    network: IRModule, target: tvm.target.Target, pipeline: tvm.transform.Pass
) -> tuple[Any, Constants]:
    """Compile a network.

    Args:
        network: its functions.
        target: of kind llvm.
        pipeline: what ``sparsewino_pipeline`` makes.

    Returns:
        TVM's executable, and the constants that its functions take beside their inputs.

    Raises:
        CompileFailed: an operator that TVM cannot compile.
    """
    try:
        with target:
            lowered = pipeline(network)
        code, constants = lift_constants(lowered)
        del lowered
        built = tvm.compile(code, target, relax_pipeline=None)
    except SparseWinoError:
        raise
    except RuntimeError as error:  # what TVM's own errors are
        reason = " ".join(str(error).split())[:_LONGEST]
        raise CompileFailed(f"TVM cannot compile the network: {reason}") from error
    release_freed()
    return built, constants
