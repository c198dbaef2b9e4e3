"""Kernels as TIR, their geometry and their choice."""
