"""Compiled networks on disk: a shared library with a description of itself.

A file is an ELF shared library, as TVM exports it, followed by::

    description   JSON, UTF-8
    footer        72 bytes: length of the library and of the description (8 bytes each, little
                  endian), SHA-256 of everything before the footer and of the two lengths
                  (32 bytes), MAGIC (24 bytes)

Loaders of shared libraries ignore what follows the last section, so the file is also an ordinary
TVM library. Reading the description needs no loading: a truncated library would kill the process
inside ``dlopen``, and code for another CPU would do so later. The checksum finds damage, not
intent: a compiled file is code, so load it only from people you would run a program from.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from .config_linear import AnyPlan, plan_from_json
from .errors import ArtefactError, ConfigError, in_context
from .files import replacing

MAGIC = b"tvm-sparsewino artefact\n"
FORMAT = "tvm-sparsewino artefact"
# 1 had no checksum of the weights, 2 kept constants inside of TVM's executable, 3 ran batches of
# a known size at once only.
VERSION = 4
SUFFIX = ".so"
_FOOTER = struct.Struct("<QQ32s24s")
_CHUNK = 1 << 20


@dataclass(frozen=True)
class TensorInfo:
    """Name, shape and NumPy dtype of an input or output.

    The first dimension is a symbol, such as "n", where it is a batch of any size.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.dtype} [{', '.join(map(str, self.shape))}]"

    @property
    def any_batch(self) -> bool:
        """Whether the first dimension is a batch of any size."""
        return bool(self.shape) and isinstance(self.shape[0], str)

    def of_batch(self, rows: int) -> TensorInfo:
        """The same with a number for the symbol."""
        return replace(self, shape=(rows, *self.shape[1:])) if self.any_batch else self

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether a tensor of ``shape`` is one of these."""
        return shape == (self.of_batch(shape[0]).shape if shape else self.shape)


@dataclass(frozen=True)
class Description:
    """What a compiled network is; everything but its code.

    Attributes:
        inputs, outputs: in the order of the network's function.
        returns_tuple: whether the network gives its outputs as a tuple.
        target: the target as text, "llvm -mcpu=...".
        features: instruction sets that the code needs, by LLVM's names.
        plan: one entry per convolution.
        weights: SHA-256 of the network's constants as they were before compiling, in hexadecimal:
            the same for every target and plan.
        constants: function -> the numbers of the constants that it uses, in its order.
        versions: of what made it, for people.
        batches: sizes that there is a function for, where the batch is open or is run in pieces;
            see :func:`batch_entry`. Without any there is one function, "main"; where the batch is
            known "main" runs it, too.
        threads: that the plan was made for.
        choice: why a batch of a known size is run at once or in pieces; "" where there is none.
    """

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    returns_tuple: bool
    target: str
    features: tuple[str, ...]
    plan: tuple[AnyPlan, ...]
    weights: str
    constants: dict[str, tuple[int, ...]]
    versions: dict[str, str]
    batches: tuple[int, ...] = ()
    threads: int = 1
    choice: str = ""

    @property
    def rows(self) -> int | None:
        """Rows of a batch of a known size that is run in pieces; None for others."""
        return None if not self.batches or self._is_open() else int(self.inputs[0].shape[0])

    def opened(self) -> Description:
        """The same with a symbol for the batch of a known size that is run in pieces."""
        if self.rows is None:
            return self

        def with_symbol(info: TensorInfo) -> TensorInfo:
            batched = info.shape[:1] == (self.rows,)
            return replace(info, shape=("n", *info.shape[1:])) if batched else info

        inputs, outputs = (tuple(map(with_symbol, x)) for x in (self.inputs, self.outputs))
        return replace(self, inputs=inputs, outputs=outputs)

    def _is_open(self) -> bool:
        return any(info.any_batch for info in self.inputs)

    def plan_of(self, batch: int) -> tuple[AnyPlan, ...]:
        """The plan of one batch size, with the layers' own names."""
        end = f"@{batch_entry(batch)}"
        mine = (plan for plan in self.plan if plan.name.endswith(end))
        return tuple(replace(plan, name=plan.name.removesuffix(end)) for plan in mine)

    def plans(self) -> dict[int | None, tuple[AnyPlan, ...]]:
        """Batch size -> its plan; None for the only one of a network of static shapes."""
        return {size: self.plan_of(size) for size in self.batches} or {None: self.plan}

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, with format and version."""
        return {
            "format": FORMAT,
            "version": VERSION,
            **asdict(self),
            "plan": [plan.to_json() for plan in self.plan],
        }

    @classmethod
    def from_json(cls, data: Any) -> Description:
        """Read what :meth:`to_json` made.

        Raises:
            ArtefactError: another format or version, or fields that do not fit.
        """
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ArtefactError("its description is not one of a compiled network")
        if data.get("version") != VERSION:
            raise ArtefactError(f"version {data.get('version')!r}, this build reads {VERSION}")
        try:
            read = cls(
                inputs=tuple(map(_tensor_info, data["inputs"])),
                outputs=tuple(map(_tensor_info, data["outputs"])),
                returns_tuple=bool(data["returns_tuple"]),
                target=str(data["target"]),
                features=tuple(map(str, data["features"])),
                plan=tuple(map(plan_from_json, data["plan"])),
                weights=str(data["weights"]),
                constants={str(k): tuple(map(int, v)) for k, v in data["constants"].items()},
                versions={str(k): str(v) for k, v in data["versions"].items()},
                batches=tuple(map(int, data["batches"])),
                threads=int(data["threads"]),
                choice=str(data["choice"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError, ConfigError) as error:
            raise ArtefactError(f"its description does not fit: {error!r}") from error
        if not read._has_batches_that_fit():
            raise ArtefactError(
                f"its description does not fit: batch sizes {list(read.batches)} for "
                f"{[str(info) for info in read.inputs]}"
            )
        return read

    def _has_batches_that_fit(self) -> bool:
        if not self.batches or self._is_open():
            return bool(self.batches) == self._is_open() and min(self.batches, default=1) >= 1
        first = self.inputs[0].shape[:1] if self.inputs else ()
        rows, (size, *others) = sum(map(int, first)), self.batches
        whole = 1 <= size < rows and rows % size == 0 and not others
        return whole and all(info.shape[:1] == first for info in self.outputs)


def batch_entry(size: int) -> str:
    """The function that a network whose batch is open has for one batch size."""
    return f"batch_{size}"


def write_artefact(path: str | os.PathLike[str], export: Any, description: Description) -> None:
    """Write a compiled network to ``path``, or leave what was there as it was.

    Args:
        path: ends with ``.so``.
        export: called with the name of a file to write the shared library to.
        description: what the library is.

    Raises:
        ArtefactError: another suffix, or a file that cannot be written.
    """
    with in_context(str(path)):
        if Path(path).suffix != SUFFIX:
            raise ArtefactError(f"the name of a compiled network must end with {SUFFIX}")
        try:
            with replacing(path) as beside:
                export(str(beside))
                _append_description(beside, description)
        except OSError as error:
            raise ArtefactError(f"cannot be written: {error.strerror or error}") from error
        except RuntimeError as error:  # what TVM raises when it finds no linker or the linker fails
            raise ArtefactError(f"TVM cannot link it (it needs a C++ compiler): {error}") from error


def read_description(path: str | os.PathLike[str]) -> Description:
    """Check the file at ``path`` and say what it is, without loading it.

    Raises:
        ArtefactError: missing, truncated, altered, of another version, or not ours.
    """
    with in_context(str(path)):
        try:
            with Path(path).open("rb") as file:
                text = _checked_text(file)
        except ArtefactError:  # an OSError too
            raise
        except OSError as error:
            raise ArtefactError(f"cannot be read: {error.strerror or error}") from error
        try:
            data = json.loads(text)
        except ValueError as error:
            raise ArtefactError("its description is not JSON") from error
        return Description.from_json(data)


def _append_description(path: Path, description: Description) -> None:
    text = json.dumps(description.to_json(), separators=(",", ":")).encode()
    with path.open("r+b") as file:
        library = file.seek(0, os.SEEK_END)
        file.write(text)
        digest = _digest(file, library, len(text))
        file.seek(0, os.SEEK_END)
        file.write(_FOOTER.pack(library, len(text), digest, MAGIC))


def _checked_text(file: BinaryIO) -> bytes:
    size = file.seek(0, os.SEEK_END)
    if size < _FOOTER.size:
        raise ArtefactError("not a compiled network of this package: too short")
    file.seek(size - _FOOTER.size)
    library, text, digest, magic = _FOOTER.unpack(file.read(_FOOTER.size))
    if magic != MAGIC:
        raise ArtefactError("not a compiled network of this package, or cut off")
    if library + text + _FOOTER.size != size or digest != _digest(file, library, text):
        raise ArtefactError("the file is damaged: its checksum does not match")
    file.seek(library)
    return file.read(text)


def _digest(file: BinaryIO, library: int, text: int) -> bytes:
    """SHA-256 of the first ``library + text`` bytes and of the two lengths."""
    digest, left = hashlib.sha256(), library + text
    file.seek(0)
    while left > 0 and (chunk := file.read(min(left, _CHUNK))):
        digest.update(chunk)
        left -= len(chunk)
    digest.update(struct.pack("<QQ", library, text))
    return digest.digest()


def _tensor_info(data: dict[str, Any]) -> TensorInfo:
    batch, *sizes = data["shape"] or [None]
    first = [] if batch is None else [batch if isinstance(batch, str) else int(batch)]
    return TensorInfo(str(data["name"]), (*first, *map(int, sizes)), str(data["dtype"]))
