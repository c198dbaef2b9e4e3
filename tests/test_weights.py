import hashlib
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file

from tvm_sparsewino import tensor_file
from tvm_sparsewino.errors import WeightsError
from tvm_sparsewino.weights import LayerWeights, load_weights, save_weights


def small_layers():
    u = np.zeros((16, 2, 1), np.float32)
    u[0, 0, 0], u[1, 1, 0], u[15, 1, 0] = 1.5, -2, 0.25
    weight = np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)
    return [
        LayerWeights.winograd("body.0", 2, 3, u, bias=np.array([1, 2], np.float32)),
        LayerWeights.dense("head", weight),
    ]


def saved(tmp_path, layers=None):
    path = tmp_path / "w.safetensors"
    save_weights(path, small_layers() if layers is None else layers)
    return path


def split(path):
    data = path.read_bytes()
    end = 8 + struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8:end]), data[end:]


def join(path, header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def with_entry(tmp_path, index, **changes):
    """The small file with fields of one layer's description replaced (or removed by None)."""
    path = saved(tmp_path)
    header, data = split(path)
    entries = json.loads(header["__metadata__"]["layers"])
    entries[index].update(changes)
    entries[index] = {k: v for k, v in entries[index].items() if v is not None}
    header["__metadata__"]["layers"] = json.dumps(entries)
    return join(path, header, data)


def with_tensor(tmp_path, name, array):
    """The small file with one tensor replaced, or removed by None."""
    path = saved(tmp_path)
    header, _ = split(path)
    tensors = {k: v for k, v in load_file(path).items() if k != name}
    if array is not None:
        tensors[name] = array
    tensor_file.write(path, tensors, header["__metadata__"])
    return path


def same(a, b):
    arrays = [(getattr(a, n), getattr(b, n)) for n in ("u", "weight", "bias")]
    described = [(getattr(a, n), getattr(b, n)) for n in ("name", "kind", "m", "r", "points")]
    return all(x == y for x, y in described) and all(
        (x is None) == (y is None) and (x is None or np.array_equal(x, y)) for x, y in arrays
    )


def test_round_trip(tmp_path):
    layers = small_layers()
    read = load_weights(saved(tmp_path, layers))
    assert len(read) == 2
    assert all(map(same, layers, read))
    assert read[0].points == ("0", "1", "-1", "inf")
    assert read[0].sparsity == 1 - 3 / 32
    assert read[1].sparsity == 1 / 4


def test_bytes_are_pinned(tmp_path):
    data = saved(tmp_path).read_bytes()
    header, body = split(tmp_path / "w.safetensors")
    floats = struct.pack("<9f", 1.5, -2, 0.25, 1, 2, 0, 1, 2, 3)
    assert body == floats + bytes([0b1001, 0, 0, 0b10000000])
    assert header["__metadata__"]["format"] == "tvm-sparsewino"
    assert header["__metadata__"]["version"] == "1"
    assert json.loads(header["__metadata__"]["layers"]) == [
        {
            "name": "body.0",
            "kind": "winograd",
            "stored": ["bias", "mask", "values"],
            "m": 2,
            "r": 3,
            "points": ["0", "1", "-1", "inf"],
            "shape": [16, 2, 1],
        },
        {"name": "head", "kind": "dense", "stored": ["weight"]},
    ]
    assert len(data) == PINNED_LENGTH
    assert hashlib.sha256(data).hexdigest() == PINNED_SHA256


PINNED_LENGTH = 616
PINNED_SHA256 = "db693390448f33b95deb97192f9f679e98979819161586d7dc02b1d240d0ceb7"


def test_other_readers_see_plain_safetensors(tmp_path):
    tensors = load_file(saved(tmp_path))
    assert tensors["body.0.values"].tolist() == [1.5, -2, 0.25]
    assert tensors["body.0.mask"].dtype == np.uint8


def test_no_layers(tmp_path):
    assert load_weights(saved(tmp_path, [])) == []


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@st.composite
def winograd_layers(draw):
    m, r = draw(st.sampled_from([(1, 1), (2, 3), (4, 3), (3, 2)]))
    k, c = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    values = finite.map(lambda x: x + 0.0)  # a negative zero is not kept
    u = draw(hnp.arrays(np.float32, ((m + r - 1) ** 2, k, c), elements=values, fill=st.just(0)))
    bias = draw(st.none() | hnp.arrays(np.float32, (k,), elements=finite))
    name = draw(st.text("ab.0é", min_size=1, max_size=8))
    return LayerWeights.winograd(name, m, r, u, bias)


@given(st.lists(winograd_layers(), max_size=3, unique_by=lambda layer: layer.name))
def test_any_layers_round_trip(tmp_path_factory, layers):
    folder = tmp_path_factory.mktemp("weights")
    first, second = folder / "a", folder / "b"
    save_weights(first, layers)
    read = load_weights(first)
    assert len(read) == len(layers)
    assert all(map(same, layers, read))
    save_weights(second, read)
    assert first.read_bytes() == second.read_bytes()


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_changed_byte_never_crashes_the_loader(tmp_path_factory, position, value):
    path = saved(tmp_path_factory.mktemp("weights"))
    data = bytearray(path.read_bytes())
    data[position % len(data)] = value
    path.write_bytes(data)
    try:
        layers = load_weights(path)
    except WeightsError as error:
        assert str(path) in str(error)
    else:
        assert all(np.isfinite(x.u if x.u is not None else x.weight).all() for x in layers)


def test_every_shortened_file_is_refused(tmp_path):
    path = saved(tmp_path)
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(WeightsError, match=r"safetensors|JSON"):
            load_weights(path)


def test_a_longer_file_is_refused(tmp_path):
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(WeightsError, match="no valid safetensors file"):
        load_weights(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"none\.safetensors: cannot be read: No such file"):
        load_weights(tmp_path / "none.safetensors")


def test_folder_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="cannot be read"):
        load_weights(tmp_path)


def test_other_content_is_refused(tmp_path):
    path = tmp_path / "photo.safetensors"
    path.write_bytes(b"\xff\xd8\xff\xe0 this is a JPEG, not a safetensors file")
    with pytest.raises(WeightsError, match=r"photo\.safetensors: no safetensors file"):
        load_weights(path)


def test_huge_header_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", tensor_file.MAX_HEADER_BYTES + 1))
    with pytest.raises(WeightsError, match=f"header of {tensor_file.MAX_HEADER_BYTES + 1} bytes"):
        load_weights(path)


def test_deeply_nested_header_is_refused(tmp_path):
    path = join(tmp_path / "w.safetensors", b"[" * 100_000, b"")
    with pytest.raises(WeightsError, match="not valid JSON"):
        load_weights(path)


@pytest.mark.parametrize("key", ["format", "version"])
@pytest.mark.parametrize("value", ["2", None])
def test_other_format_or_version_is_refused(tmp_path, key, value):
    path = saved(tmp_path)
    header, data = split(path)
    header["__metadata__"][key] = value
    if value is None:
        del header["__metadata__"][key]
    with pytest.raises(WeightsError, match=f"{key}.*{value}"):
        load_weights(join(path, header, data))


def test_plain_safetensors_file_is_refused(tmp_path):
    path = saved(tmp_path)
    header, data = split(path)
    del header["__metadata__"]
    with pytest.raises(WeightsError, match="format must be 'tvm-sparsewino', got None"):
        load_weights(join(path, header, data))


def test_layer_list_must_be_a_list(tmp_path):
    path = saved(tmp_path)
    header, data = split(path)
    header["__metadata__"]["layers"] = "{}"
    with pytest.raises(WeightsError, match="must be a list"):
        load_weights(join(path, header, data))


def test_layer_described_twice_is_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"layers \['body.0'\] appear more than once"):
        load_weights(with_entry(tmp_path, 1, name="body.0"))


def test_tensor_named_twice_is_refused(tmp_path):
    path = saved(tmp_path)
    header, data = split(path)
    again = ',"head.weight":' + json.dumps(header["head.weight"]) + "}"
    text = json.dumps(header)[:-1] + again
    with pytest.raises(WeightsError, match=r"\['head.weight'\] appear more than once"):
        load_weights(join(path, text.encode(), data))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"points": ["0", "1", "-1", "2", "inf"]}, r"layer 'body.0': points of F\(2,3\) must be"),
        ({"points": ["0", "1", "-1"]}, "points of F"),
        ({"points": ["0", "1", "1e999999999", "inf"]}, "points of F"),
        ({"points": 7}, "points of F"),
        ({"m": 4}, "points of F"),
        ({"m": 0}, r"m and r must be positive.*got 0, 3"),
        ({"m": 10**30}, r"m and r must be positive.*got 1000"),
        ({"m": True}, "m and r must be positive"),
        ({"r": "3"}, "m and r must be positive"),
        ({"shape": [36, 2, 1]}, r"shape must be \[alpha\^2, K, C/groups\]"),
        ({"shape": [16, 2]}, "shape must be"),
        ({"shape": [16, 2, 0]}, "shape must be"),
        ({"shape": [16, 2.0, 1]}, "shape must be"),
        ({"shape": "16"}, "shape must be"),
        ({"shape": [16, 2, 2]}, r"tensor 'body.0.mask' must have shape \(8,\), got \(4,\)"),
        ({"shape": [16, 2**40, 2**40]}, "tensor 'body.0.mask' must have shape"),
        ({"shape": [16, 1, 1]}, "tensor 'body.0.mask' must have shape"),
        ({"kind": "sparse"}, "unknown form"),
        ({"kind": ["winograd"]}, "unknown form"),
        ({"extra": 1}, "unknown form"),
        ({"m": None}, "unknown form"),
        ({"name": 3}, "name must be text"),
        ({"name": "nobody"}, "tensor 'nobody.mask' is missing"),
        ({"stored": ["mask"]}, "stored tensors must be"),
        ({"stored": "mask"}, "stored tensors must be"),
        ({"stored": ["mask", "values"]}, r"tensors \['body.0.bias'\] belong to no layer"),
    ],
)
def test_wrong_description_is_refused(tmp_path, changes, message):
    with pytest.raises(WeightsError, match=message):
        load_weights(with_entry(tmp_path, 0, **changes))


def test_description_that_is_no_object_is_refused(tmp_path):
    path = saved(tmp_path)
    header, data = split(path)
    header["__metadata__"]["layers"] = "[1]"
    with pytest.raises(WeightsError, match="unknown form: 1"):
        load_weights(join(path, header, data))


def f32(*values):
    return np.array(values, np.float32)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("body.0.values", f32(1, np.nan, 2), "'body.0.values' holds NaN or infinity"),
        ("body.0.values", f32(1, np.inf, 2), "'body.0.values' holds NaN or infinity"),
        ("body.0.values", f32(1, 0, 2), "'body.0.values' holds a zero"),
        ("body.0.values", f32(1, 2), r"'body.0.values' must have shape \(3,\), got \(2,\)"),
        ("body.0.values", f32(1, 2, 3, 4), r"must have shape \(3,\), got \(4,\)"),
        ("body.0.values", np.zeros(3, np.uint8), "'body.0.values' must be F32, got U8"),
        ("body.0.mask", np.array([9, 0, 0, 255], np.uint8), r"must have shape \(10,\), got \(3,\)"),
        ("body.0.mask", f32(0, 0, 0, 0), "'body.0.mask' must be U8, got F32"),
        ("body.0.bias", f32(1), r"'body.0.bias' must have shape \(2,\)"),
        ("body.0.bias", f32(1, np.nan), "tensor 'bias' holds NaN"),
        ("head.weight", f32(1, -np.inf), "layer 'head': tensor 'weight' holds NaN or infinity"),
        ("head.weight", np.float32(1).reshape(()), "weight must have shape"),
        ("stranger", f32(1), r"tensors \['stranger'\] belong to no layer"),
        ("body.0.mask", None, "tensor 'body.0.mask' is missing"),
        ("body.0.values", None, "tensor 'body.0.values' is missing"),
        ("body.0.bias", None, "tensor 'body.0.bias' is missing"),
        ("head.weight", None, "tensor 'head.weight' is missing"),
    ],
)
def test_wrong_tensor_is_refused(tmp_path, name, array, message):
    with pytest.raises(WeightsError, match=message):
        load_weights(with_tensor(tmp_path, name, array))


def test_bits_behind_the_last_coefficient_are_refused(tmp_path):
    layer = LayerWeights.winograd("a", 1, 1, np.ones((1, 1, 1), np.float32))
    path = saved(tmp_path, [layer])
    data = path.read_bytes()
    assert data[-1] == 1
    path.write_bytes(data[:-1] + b"\x03")
    with pytest.raises(WeightsError, match=r"'a\.mask' has bits behind its last coefficient"):
        load_weights(path)


U = np.ones((16, 2, 1), np.float32)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LayerWeights.winograd("a", 4, 3, U), r"F\(4,3\) must have shape.*\(16, 2, 1\)"),
        (lambda: LayerWeights.winograd("a", 2, 3, U[0]), "must have shape"),
        (lambda: LayerWeights.winograd("a", 2, 3, U[:, :0]), "must have shape"),
        (lambda: LayerWeights.winograd("a", 2, 3, U.astype(float)), "float32 array, got float64"),
        (lambda: LayerWeights.winograd("a", 2, 3, U.tolist()), "float32 array, got list"),
        (lambda: LayerWeights.winograd("a", 2, 3, U * np.nan), "'coefficients' holds NaN"),
        (lambda: LayerWeights.winograd("a", 2, 3, U, U[0, :1, 0]), r"bias must have shape \(2,\)"),
        (lambda: LayerWeights.winograd("a", 0, 3, U), "layer 'a': m and r must be positive"),
        (lambda: LayerWeights("a", "winograd", 2, 3, ("0", "1", "2", "inf"), u=U), "not canonical"),
        (lambda: LayerWeights("a", "other"), "kind must be 'winograd' or 'dense', got 'other'"),
        (lambda: LayerWeights.dense("", U), "name must be printable text, got ''"),
        (lambda: LayerWeights.dense("a\n", U), "name must be printable text"),
        (lambda: LayerWeights.dense("a", np.float64(1)), "float32 array, got float64"),
    ],
)
def test_layer_that_does_not_fit_is_refused(make, message):
    with pytest.raises(WeightsError, match=message):
        make()


def test_saving_two_layers_of_one_name_leaves_the_old_file(tmp_path):
    path = saved(tmp_path)
    before = path.read_bytes()
    with pytest.raises(WeightsError, match=r"layers \['head'\] appear more than once"):
        save_weights(path, [small_layers()[1]] * 2)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_failing_write_leaves_nothing(tmp_path, monkeypatch):
    path = saved(tmp_path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(WeightsError, match="cannot be written: No space left on device"):
        save_weights(path, [])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_saving_into_a_missing_folder_names_the_file(tmp_path):
    path = tmp_path / "missing" / "w.safetensors"
    with pytest.raises(WeightsError, match=r"missing/w\.safetensors: cannot be written"):
        save_weights(path, [])
    assert not Path(path).parent.exists()
