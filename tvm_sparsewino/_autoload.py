"""Target of the ``tvm.backends`` entry point: what every ``import tvm`` registers for us.

TVM calls :func:`autoload` at the end of its own import, for every user of the environment, also
while a module of this package is half imported. So this file imports nothing of the package but
leaves and nothing heavy: what it registers loads its implementation when it is first used.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from . import errors
from .constants import CONSTANT

PIPELINE = "sparsewino"

# Operator, its documentation, and the functions that infer its type and lower it.
_OPERATORS = (
    (
        "sparsewino.winograd_conv2d",
        "Convolution whose weights are Winograd coefficients; dense meaning.",
        ("ops", "infer_winograd_conv2d"),
        ("legalize", "legalize_winograd_conv2d"),
    ),
    (
        "sparsewino.sparse_winograd_conv2d",
        "Winograd convolution with packed weights and a fused epilogue.",
        ("ops", "infer_packed_conv2d"),
        ("legalize", "legalize_packed_conv2d"),
    ),
    (
        "sparsewino.sparse_conv2d",
        "Convolution with the nonzeros of spatial weights and a fused epilogue.",
        ("ops", "infer_packed_conv2d"),
        ("legalize", "legalize_packed_conv2d"),
    ),
    (
        "sparsewino.direct_conv2d",
        "Convolution with packed spatial weights and a fused epilogue.",
        ("ops", "infer_packed_conv2d"),
        ("legalize", "legalize_packed_conv2d"),
    ),
    (
        "sparsewino.linear",
        "Linear layer with packed weights and a fused epilogue.",
        ("linear_ops", "infer_linear"),
        ("linear_ops", "legalize_linear"),
    ),
)


def autoload() -> None:
    """Register operators, pipeline and error kinds with TVM; a second call changes nothing.

    The error kinds are registered so that one raised inside a TVM pass arrives as what it is.
    """
    import tvm_ffi  # here, not above: importing this module must not import TVM
    from tvm.ir import Op
    from tvm.relax import pipeline

    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.SparseWinoError):
            tvm_ffi.register_error(f"sparsewino.{kind.__name__}", kind)
    tvm_ffi.register_global_func(CONSTANT, _no_constant, override=True)
    known = set(Op.list_op_names())
    for name, doc, infer, legalize in _OPERATORS:
        if name not in known:
            tvm_ffi.get_global_func("ir.RegisterOp")(name, doc)
            operator = Op.get(name)
            operator.set_attr("FInferType", _later(*infer))
            operator.set_attr("FLegalize", _later(*legalize))
            operator.set_attr("FPurity", True)
    if PIPELINE not in pipeline.PIPELINE_MAP:
        pipeline.register_pipeline(PIPELINE)(_later("pipeline", "sparsewino_pipeline"))


def _no_constant(number: int) -> None:
    """Stands in for the function that lends constants, which a saved file has."""
    raise errors.ArtefactError(
        f"constant {number} is not in this module: run the network as the Executable that compile "
        "returned, or save it and load the file"
    )


def _later(module: str, name: str) -> Callable[..., Any]:
    """A stand-in for ``relay_passes.<module>.<name>`` that imports it when called."""

    def call(*args: Any, **kwargs: Any) -> Any:
        implementation = importlib.import_module(f"tvm_sparsewino.relay_passes.{module}")
        return getattr(implementation, name)(*args, **kwargs)

    return call
