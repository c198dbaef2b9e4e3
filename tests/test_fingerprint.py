"""The checksum of the weights: the same for the same weights, another for others."""

import numpy as np
from relax_networks import conv, module

from tvm_sparsewino import driver
from tvm_sparsewino.fingerprint import weights_digest

WEIGHT = np.arange(2 * 2 * 9, dtype=np.float32).reshape(2, 2, 3, 3)


def network(weight=WEIGHT, size=8):
    return module(lambda b, x: conv(b, x, weight), (1, 2, size, size))


def test_equal_weights_equal_digest():
    digest = weights_digest(network())
    assert len(digest) == 64
    assert digest == weights_digest(network(WEIGHT.copy(), size=9))


def test_one_bit_or_another_shape_differ():
    other = WEIGHT.copy()
    other.view(np.uint32).flat[5] ^= 1
    turned = WEIGHT.reshape(1, 4, 3, 3)
    digests = {
        weights_digest(network()),
        weights_digest(network(other)),
        weights_digest(module(lambda b, x: conv(b, x, turned), (1, 4, 8, 8))),
    }
    assert len(digests) == 3


def test_no_weights_at_all():
    assert len(weights_digest(module(lambda b, x: x, (1,)))) == 64


def test_compiled_networks_carry_it():
    digest = weights_digest(network())
    for target in ("llvm", "llvm -mcpu=skylake-avx512"):
        assert driver.compile(network(), target).description.weights == digest
