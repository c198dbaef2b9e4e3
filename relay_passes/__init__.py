"""Relax passes (the name is historic: the Relay line is a subfolder of its own)."""
