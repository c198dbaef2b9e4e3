"""The file format: pinned bytes, and files that are missing, short, altered or something else."""

import hashlib
import json
import struct
from dataclasses import replace

import pytest

from tvm_sparsewino.artefact import (
    MAGIC,
    Description,
    TensorInfo,
    read_description,
    write_artefact,
)
from tvm_sparsewino.config import ConvShape, LayerPlan
from tvm_sparsewino.errors import ArtefactError

LIBRARY = bytes(range(256)) * 5
DESCRIPTION = Description(
    constants={"main": (0, 1)},
    inputs=(TensorInfo("image", (1, 3, 4, 4), "float32"),),
    outputs=(TensorInfo("output_0", (1, 2), "int64"),),
    returns_tuple=True,
    target="llvm -mcpu=znver3",
    features=("avx2", "fma"),
    plan=(
        LayerPlan(
            name="a",
            conv=ConvShape(1, 3, 4, 4, 2, 3, (1, 0, 1, 0)),
            density=0.25,
            algorithm="sparse_winograd",
            m=4,
            reason="because",
        ),
        LayerPlan(name="b", conv=None, density=1.0, algorithm="left", reason="left as it is"),
    ),
    weights="5e" * 32,
    versions={"tvm-sparsewino": "0.1.0"},
)
FOOTER = 72


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "net.so"
    write(path)
    return path


def write(path, description=DESCRIPTION):
    def export(name):
        with open(name, "wb") as file:
            file.write(LIBRARY)

    write_artefact(path, export, description)


def test_round_trip(path):
    assert read_description(path) == DESCRIPTION


def test_the_bytes_are_those_of_the_format(path):
    data = path.read_bytes()
    assert data.startswith(LIBRARY)
    library, text, digest, magic = struct.unpack("<QQ32s24s", data[-FOOTER:])
    assert magic == MAGIC == b"tvm-sparsewino artefact\n"
    assert library == len(LIBRARY)
    assert len(data) == library + text + FOOTER
    assert digest == hashlib.sha256(data[:-FOOTER] + data[-FOOTER : -FOOTER + 16]).digest()
    described = json.loads(data[library : library + text])
    assert (described["format"], described["version"]) == ("tvm-sparsewino artefact", 4)
    assert set(described) == {
        *("format", "version", "inputs", "outputs", "returns_tuple"),
        *("target", "features", "plan", "weights", "constants", "versions", "batches"),
        *("threads", "choice"),
    }


@pytest.mark.parametrize("keep", [0, 1, FOOTER - 1, FOOTER, 1000, -1, -FOOTER])
def test_cut_off_files_are_refused(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ArtefactError, match=r"net\.so: not a compiled network of this package"):
        read_description(path)


@pytest.mark.parametrize("where", [0, 700, len(LIBRARY), len(LIBRARY) + 50, -FOOTER, -60, -40])
def test_altered_files_are_refused(path, where):
    data = bytearray(path.read_bytes())
    data[where] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtefactError, match="checksum does not match"):
        read_description(path)


def test_lengths_that_lie_are_refused(path):
    """Also those that wrap around, or would have gigabytes read."""
    data = path.read_bytes()
    for library, text in ((2**63, 2**63), (2**64 - 1, 0), (0, 2**40), (len(LIBRARY) - 8, 8)):
        path.write_bytes(data[:-FOOTER] + struct.pack("<QQ", library, text) + data[16 - FOOTER :])
        with pytest.raises(ArtefactError, match="checksum does not match"):
            read_description(path)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(ArtefactError, match=r"no\.so: cannot be read: No such file"):
        read_description(tmp_path / "no.so")
    with pytest.raises(ArtefactError, match="cannot be read: Is a directory"):
        read_description(tmp_path)


def signed(path, text):
    """Write ``text`` as the description, with a checksum that fits."""
    lengths = struct.pack("<QQ", len(LIBRARY), len(text))
    digest = hashlib.sha256(LIBRARY + text + lengths).digest()
    path.write_bytes(LIBRARY + text + lengths + digest + MAGIC)


def test_more_than_the_format_has_is_refused(path):
    """The checksum fits, but something lies between the description and the footer."""
    data = path.read_bytes()
    path.write_bytes(data[:-FOOTER] + b"more" + data[-FOOTER:])
    with pytest.raises(ArtefactError, match="checksum does not match"):
        read_description(path)


OPEN = [{"name": "x", "shape": ["n", 3], "dtype": "float32"}]


def test_an_open_batch_is_a_symbol_in_the_shape(path):
    change = {"inputs": OPEN, "batches": [1, 4]}
    signed(path, json.dumps(DESCRIPTION.to_json() | change).encode())
    description = read_description(path)
    assert description.batches == (1, 4)
    (info,) = description.inputs
    assert info.shape == ("n", 3) and info.any_batch and str(info) == "float32 [n, 3]"
    assert info.of_batch(5).shape == (5, 3)
    assert [info.fits(shape) for shape in ((5, 3), (1, 3), (3,), (5, 4), ())] == [
        *(True, True),
        *(False, False, False),
    ]


SIX = [
    {"name": "x", "shape": [6, 3], "dtype": "float32"},
    {"name": "scale", "shape": [3], "dtype": "float32"},
]
SIX_OUT = [{"name": "y", "shape": [6], "dtype": "float32"}]


def test_a_known_batch_in_pieces(path):
    change = {"inputs": SIX, "outputs": SIX_OUT, "batches": [2], "choice": "in pieces: so"}
    signed(path, json.dumps(DESCRIPTION.to_json() | change).encode())
    description = read_description(path)
    assert (description.rows, description.batches, description.threads) == (6, (2,), 1)
    assert description.inputs[0].shape == (6, 3)
    opened = description.opened()
    assert [info.shape for info in opened.inputs] == [("n", 3), (3,)]
    assert opened.outputs[0].of_batch(2).shape == (2,)
    assert opened.opened() is opened and opened.rows is None
    assert DESCRIPTION.rows is None and DESCRIPTION.opened() is DESCRIPTION


def test_plans_are_told_apart_by_batch_size():
    names = ("a@batch_1", "a@batch_4@batch_1", "a@batch_14", "a@batch_4", "b@batch_4")
    plans = tuple(replace(DESCRIPTION.plan[0], name=name) for name in names)
    description = replace(DESCRIPTION, plan=plans, batches=(1, 4, 14))
    assert [plan.name for plan in description.plan_of(1)] == ["a", "a@batch_4"]
    assert [plan.name for plan in description.plan_of(4)] == ["a", "b"]
    assert [plan.name for plan in description.plan_of(14)] == ["a"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"version": 2}, "version 2, this build reads 4"),
        ({"format": "another"}, "is not one of a compiled network"),
        ({"inputs": None}, "does not fit"),
        ({"inputs": [{"name": "x"}]}, "does not fit.*shape"),
        ({"inputs": [{"name": "x", "shape": [3, "a"], "dtype": "float32"}]}, "does not fit"),
        ({"inputs": OPEN}, r"does not fit: batch sizes \[\] for \['float32 \[n, 3\]'\]"),
        ({"batches": [1]}, r"does not fit: batch sizes \[1\] for"),
        ({"inputs": SIX, "outputs": SIX_OUT, "batches": [4]}, r"does not fit: batch sizes \[4\]"),
        ({"inputs": SIX, "outputs": SIX_OUT, "batches": [6]}, r"does not fit: batch sizes \[6\]"),
        ({"inputs": SIX, "outputs": SIX_OUT, "batches": [0]}, r"does not fit: batch sizes \[0\]"),
        ({"inputs": SIX, "outputs": SIX_OUT, "batches": [1, 2]}, "does not fit: batch sizes"),
        ({"inputs": SIX, "batches": [2]}, "does not fit: batch sizes"),  # an output of one row
        ({"inputs": SIX[1:], "outputs": SIX_OUT, "batches": [1]}, "does not fit: batch sizes"),
        ({"inputs": [], "outputs": SIX_OUT, "batches": [1]}, "does not fit: batch sizes"),
        ({"inputs": OPEN, "batches": [0, 1]}, r"does not fit: batch sizes \[0, 1\]"),
        ({"inputs": OPEN, "batches": 1}, "does not fit"),
        ({"plan": [{"version": 1}]}, "does not fit"),
        ({"plan": [{"version": 9}]}, "does not fit.*version 9"),
        ({"versions": []}, "does not fit"),
        ({"features": 3}, "does not fit"),
    ],
)
def test_descriptions_that_do_not_fit_are_refused(path, change, text):
    signed(path, json.dumps(DESCRIPTION.to_json() | change).encode())
    with pytest.raises(ArtefactError, match=text):
        read_description(path)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"[]", b"null", b"3"])
def test_descriptions_that_are_something_else_are_refused(path, text):
    signed(path, text)
    with pytest.raises(ArtefactError, match="its description is not"):
        read_description(path)


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(ArtefactError, match=r"net\.bin: .* must end with \.so"):
        write(tmp_path / "net.bin")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ArtefactError, match=r"net\.so: cannot be written: No such file"):
        write(tmp_path / "no" / "net.so")


def test_a_failed_export_leaves_the_older_file(path):
    before = path.read_bytes()

    def fails(name):
        with open(name, "wb") as file:
            file.write(b"half")
        raise RuntimeError("no linker")

    with pytest.raises(ArtefactError, match=r"TVM cannot link it .*no linker"):
        write_artefact(path, fails, DESCRIPTION)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
