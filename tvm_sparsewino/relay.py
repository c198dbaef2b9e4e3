"""Networks in Relay, for TVM up to 0.19: import, load weights, plan and rewrite.

What comes out is an ordinary Relay module for ``relay.build``, ``relay.vm.compile`` and tvmc.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ._compat import require_relay
from .config import CompileConfig, LayerPlan
from .errors import in_context
from .extras import require
from .records import Records
from .weights import load_weights


def import_onnx(
    model: str | os.PathLike[str] | Any, shapes: Mapping[str, Sequence[int]] | None = None
) -> Any:
    """Import an ONNX model as a module in Relay, with its weights as constants.

    Winograd layers that ``export_onnx`` wrote, in either form, are recognised; a warning names
    those that another tool has changed.

    Args:
        model: a file, or an ``onnx.ModelProto``, which is not changed.
        shapes: input name -> shape, for inputs whose shapes the model leaves open.

    Raises:
        ImportFailed: the file is missing, damaged or of a version that cannot be read, or has
            operators that cannot be imported (all are named).
        ShapeError: shapes are missing or do not fit the model.
        MissingExtra: TVM has no Relay, or onnx is not installed.
    """
    require_relay()
    require("onnx", "onnx")
    loading = require("tvm_sparsewino.onnx_io.loading", "onnx")
    from .relay_passes.relay.import_onnx import import_onnx_graph

    with in_context(str(model) if isinstance(model, str | os.PathLike) else "the ONNX model"):
        return import_onnx_graph(loading.load_graph(model, shapes))


def sparsify(
    mod: Any,
    params: Mapping[str, Any] | None = None,
    target: Any = "native",
    config: CompileConfig | None = None,
    *,
    weights: str | os.PathLike[str] | None = None,
    plan: Sequence[LayerPlan] | None = None,
    threads: int = 1,
    records: Records | None = None,
    min_sparsity: float = 0.0,
) -> tuple[Any, tuple[LayerPlan, ...]]:
    """Rewrite a module of any Relay frontend so that its convolutions run on sparse kernels.

    Args:
        mod: a module in Relay, NCHW or NHWC; it is not changed.
        params: its parameters by name; they become constants.
        target: "llvm -mcpu=...", "native" or TVM's Target of kind llvm: what the module will be
            built for.
        config: options of the planner; the defaults if None.
        weights: a file of weights (docs/weights-format.md) that replace those of the layers with
            the same names.
        plan: one plan per convolution; planned here if None.
        threads: cores that will work together.
        records: measurements, which the planner follows where they hold for a layer.
        min_sparsity: convolutions whose weights have a smaller share of zeros are left to TVM.

    Returns:
        the rewritten module, which has no parameters left, and the plan, one entry per convolution.

    Raises:
        MissingExtra: TVM has no Relay; the message names the versions.
        WeightsError: a weights file that cannot be read or does not fit the module.
        ConfigError: an option out of range, or a plan that does not fit the module.
        ShapeError: a convolution with a symbolic shape; names the layer.
        TargetError: an unknown target.
    """
    require_relay()
    from .relay_passes.relay.fold_batch_norm import FoldBatchNorm
    from .relay_passes.relay.preparing import named
    from .relay_passes.relay.rewrite import SparsifyConvs
    from .relay_passes.relay.rewrite import plan as plan_module
    from .relay_passes.relay.weights import with_weights

    mod = named(mod, params)
    if weights is not None:
        with in_context(str(weights)):
            mod = with_weights(mod, load_weights(weights))
    mod = FoldBatchNorm()(mod)
    if plan is None:
        plan = plan_module(mod, target, config, threads, records, min_sparsity)
    return SparsifyConvs(plan, target)(mod), tuple(plan)
