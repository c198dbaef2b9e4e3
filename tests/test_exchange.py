"""Memory shared with other libraries: what is taken as it is, what is copied, what is refused."""

import numpy as np
import pytest
import torch

from tvm_sparsewino._compat import runtime_tensor
from tvm_sparsewino.artefact import TensorInfo
from tvm_sparsewino.errors import ShapeError
from tvm_sparsewino.exchange import ALIGNMENT, aligned_empty, any_tensor, array_of, shared_tensor

INFO = TensorInfo("image", (2, 3, 4), "float32")


def aligned(values=None, info=INFO):
    array = aligned_empty(info)
    array[...] = np.arange(array.size).reshape(array.shape) if values is None else values
    return array


def misaligned():
    memory = aligned(info=TensorInfo("m", (28,), "float32"))
    return memory[4:].reshape(INFO.shape)


def strided():
    return aligned(info=TensorInfo("m", (2, 3, 8), "float32"))[..., ::2]


def address(array):
    return array.__array_interface__["data"][0]


@pytest.mark.parametrize("take", [shared_tensor, any_tensor])
@pytest.mark.parametrize("dtype", ["float32", "int64", "int32", "float64", "uint8"])
def test_numpy_is_shared(take, dtype):
    info = TensorInfo("x", (2, 3), dtype)
    array = aligned(info=info)
    assert take(info, array).data_ptr() == address(array)


@pytest.mark.parametrize("take", [shared_tensor, any_tensor])
def test_torch_is_shared(take):
    tensor = torch.rand(INFO.shape)
    assert take(INFO, tensor).data_ptr() == tensor.data_ptr()


@pytest.mark.parametrize("take", [shared_tensor, any_tensor])
def test_whatever_has_dlpack_is_shared(take):
    class Other:
        def __init__(self, array):
            self.array = array

        def __dlpack__(self, **options):
            return self.array.__dlpack__(**options)

        def __dlpack_device__(self):
            return self.array.__dlpack_device__()

    array = aligned()
    assert take(INFO, Other(array)).data_ptr() == address(array)


def test_results_are_shared_too():
    tensor = runtime_tensor(aligned())
    array = array_of(tensor)
    assert address(array) == tensor.data_ptr() == torch.from_dlpack(tensor).data_ptr()
    del tensor
    np.testing.assert_array_equal(array, aligned())  # the array keeps the memory


def read_only():
    array = aligned()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "make",
    [
        misaligned,
        strided,
        read_only,
        lambda: aligned().astype(">f4"),
        lambda: torch.from_numpy(misaligned()),
        lambda: torch.from_numpy(strided()),
        lambda: torch.rand(4, 3, 2).permute(2, 1, 0),
    ],
)
def test_what_cannot_be_shared_is_copied_or_refused(make):
    array = make()
    got = any_tensor(INFO, array)
    np.testing.assert_array_equal(got.numpy(), np.asarray(array))
    assert got.data_ptr() % ALIGNMENT == 0
    with pytest.raises(ShapeError, match=r"input 'image' cannot be (used without a copy|taken)"):
        shared_tensor(INFO, array)


def test_the_reason_is_given():
    with pytest.raises(ShapeError, match="does not start at a multiple of 64 bytes"):
        shared_tensor(INFO, misaligned())
    with pytest.raises(ShapeError, match="is not C-contiguous"):
        shared_tensor(INFO, strided())
    with pytest.raises(ShapeError, match="cannot be taken through DLPack: "):
        shared_tensor(INFO, [1, 2])


@pytest.mark.parametrize("take", [shared_tensor, any_tensor])
@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.zeros((2, 3, 5), np.float32), r"expected float32 \[2, 3, 4\], got float32 \[2, 3, 5\]"),
        (np.zeros((2, 3, 4), np.float64), r"got float64 \[2, 3, 4\]"),
        (torch.zeros(2, 3), r"got float32 \[2, 3\]"),
        (torch.zeros(2, 3, 4, dtype=torch.float16), r"got float16 \[2, 3, 4\]"),
        (torch.zeros(2, 3, 4, dtype=torch.bfloat16), r"got bfloat16 \[2, 3, 4\]"),
        (torch.zeros(2, 3, 4, device="meta"), "cannot be taken through DLPack"),
    ],
)
def test_what_does_not_fit_is_named(take, array, text):
    with pytest.raises(ShapeError, match="input 'image'.*" + text):
        take(INFO, array)


def test_memory_of_another_device_is_refused(monkeypatch):
    class Elsewhere:
        dtype, shape = "float32", INFO.shape
        device = type("Device", (), {"type": "cuda", "__str__": lambda self: "cuda:0"})()

    monkeypatch.setattr("tvm_sparsewino.exchange.from_dlpack", lambda array: Elsewhere())
    with pytest.raises(ShapeError, match="input 'image' must be in CPU memory, not on cuda:0"):
        shared_tensor(INFO, torch.zeros(INFO.shape))


@pytest.mark.parametrize("shape", [(), (0, 3), (1,), (3, 5, 7)])
def test_empty_arrays_fit(shape):
    info = TensorInfo("x", shape, "int64")
    array = aligned_empty(info)
    assert (array.shape, array.dtype) == (shape, np.int64)
    assert address(array) % ALIGNMENT == 0 or array.size == 0
    assert tuple(shared_tensor(info, array).shape) == shape
