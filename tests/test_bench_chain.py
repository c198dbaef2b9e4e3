"""What is timed: chains of filters and of coefficients, their files and answers."""

import numpy as np
import pytest

from tvm_sparsewino import reference
from tvm_sparsewino.bench import chain as chains
from tvm_sparsewino.bench.coefficients import nonzeros, winograd_chain
from tvm_sparsewino.config import STRUCTURES, ConvShape
from tvm_sparsewino.structure import detect_structure

SAME = (1, 1, 1, 1)


def shape(n=1, c=8, h=6, w=5, k=8):
    return ConvShape(n, c, h, w, k, 3, SAME)


def test_length():
    assert chains.chain_length(shape()) == 4
    assert chains.chain_length(shape(k=9)) == 1
    assert chains.chain_length(shape(16, 64, 224, 224, 64)) == 2


def test_spatial_chain_and_its_answer():
    chain = chains.spatial_chain(shape(n=3), 0.25, seed=1)
    assert [w.shape for w in chain.weights] == [(8, 8, 3, 3)] * 4
    assert 0.2 < np.mean([w != 0 for w in chain.weights]) < 0.3
    value = chain.x[[0, 2]]
    for weight, bias in zip(chain.weights, chain.biases, strict=True):
        value = np.maximum(reference.conv2d(value, weight, bias, SAME), 0)
    got = chains.spatial_answer(chain, chains.checked_images(3))
    assert chains.relative_error(got, value) < 1e-12  # float64 in another order


def test_file_holds_what_a_worker_needs(tmp_path):
    chain = chains.spatial_chain(shape(), 1.0, seed=1)
    chain.save(tmp_path / "chain.npz")
    with np.load(tmp_path / "chain.npz") as file:
        assert sorted(file.files) == sorted(["x", *(f"{a}{i}" for a in "wb" for i in range(4))])
        assert np.array_equal(file["w2"], chain.weights[2])
        assert {file[name].dtype for name in file.files} == {np.dtype(np.float32)}


def test_a_seed_gives_one_input_whoever_asks():
    one, other = chains.spatial_chain(shape(), 1.0, 1), winograd_chain(shape(), 2, 0.5, 1)
    assert np.array_equal(one.x, other.x)
    assert not np.array_equal(one.x, chains.make_input(shape(), 2))


@pytest.mark.parametrize("m", [2, 6])
def test_coefficients_have_the_density_and_differ_in_the_order_of_inputs_only(m):
    chain = winograd_chain(shape(c=32, k=32), m, 0.1, seed=3)
    first = chain.weights[0]
    assert first.shape == ((m + 2) ** 2, 32, 32)
    assert first.dtype == np.float32
    assert np.count_nonzero(first) / first.size == pytest.approx(0.1, abs=0.01)
    for other in chain.weights[1:]:
        assert not np.array_equal(other, first)
        assert np.array_equal(np.sort(other, axis=2), np.sort(first, axis=2))


def test_without_zeros_they_are_those_of_filters():
    u = winograd_chain(shape(), 4, 1.0, seed=3).weights[0].astype(np.float64)
    g = reference.winograd_weight(np.eye(9).reshape(9, 1, 3, 3), _f43())[:, :, 0]
    left = u.reshape(36, -1) - g @ np.linalg.lstsq(g, u.reshape(36, -1), rcond=None)[0]
    assert np.abs(left).max() < 1e-6 * np.abs(u).max()  # the coefficients are float32


def _f43():
    from tvm_sparsewino.cook_toom import cook_toom

    return cook_toom(4, 3)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_structures_are_what_packing_detects(rng, structure):
    kept = nonzeros(shape(c=40, k=12), 2, 0.2, structure, rng)
    assert kept.shape == (16, 12, 40)
    assert kept.mean() == pytest.approx(0.2, abs=0.05)
    assert detect_structure(kept.astype(np.float32)) == structure
