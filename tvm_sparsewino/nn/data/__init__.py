"""Labelled images for training: read from local files, batches that depend on the step alone."""

from .batches import Augment, Batches
from .find import DATA_SETS, load_data
from .source import ArraySource, ImageSource

__all__ = ["DATA_SETS", "ArraySource", "Augment", "Batches", "ImageSource", "load_data"]
