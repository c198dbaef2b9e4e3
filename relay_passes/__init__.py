"""Relax passes (the Relay line has none here): find, plan and replace convolutions."""

from __future__ import annotations

from .fold_batch_norm import FoldBatchNorm
from .pipeline import sparsewino_pipeline
from .plan_layers import plan
from .rewrite_conv import SparsifyConvs

__all__ = ["FoldBatchNorm", "SparsifyConvs", "plan", "sparsewino_pipeline"]
