"""The demo: a pruned colour denoiser against the dense one, in quality, speed and memory.

Needs the extra "demo".
"""
