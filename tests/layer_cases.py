"""How far two tensors are apart."""

from __future__ import annotations


def error(have, want):
    return ((have - want).abs().max() / want.abs().max()).item()
