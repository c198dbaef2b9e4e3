"""The search for the largest stable learning rate."""

import math

import pytest
import torch

from tvm_sparsewino.errors import ConfigError
from tvm_sparsewino.nn.stable_rate import largest_stable_rate


def descent(curvature):
    """Gradient descent on a parabola: stable exactly below a rate of 2 / curvature."""

    def losses(rate):
        x = torch.tensor(1.0, dtype=torch.float64)
        for _ in range(1000):
            yield 0.5 * curvature * float(x) ** 2
            x -= rate * curvature * x

    return losses


@pytest.mark.parametrize("curvature", [1.0, 37.0, 5e4])
def test_the_bound_of_a_parabola_is_found(curvature):
    found = largest_stable_rate(descent(curvature), start=1e-6, steps=300)
    assert found.bounded and found.rate < 2 / curvature <= 2 * found.rate
    assert [rate for rate, *_ in found.trials][-1] == 2 * found.rate
    (still_rate, _, still), *tried = found.trials
    assert still_rate == 0 and all(last <= 1.1 * still for *_, last in tried[:-1])


def test_a_rate_that_is_not_finite_at_once_is_reported():
    found = largest_stable_rate(lambda rate: iter([1.0, math.nan if rate else 1.0] * 5), steps=10)
    assert found.rate == 0 and found.bounded
    assert found.trials[1][0] == 1e-6 and found.trials[1][2] == math.inf


def test_a_run_that_is_thrown_off_and_comes_halfway_back_is_not_stable():
    def losses(rate):
        return iter([1.0] * 20 if rate < 0.1 else [3.0] * 10 + [2.0] * 10)

    assert largest_stable_rate(losses, start=0.01, steps=20).rate == 0.08


def test_losses_that_rise_without_training_are_no_divergence():
    # As where pruning goes on meanwhile.
    def losses(rate):
        return iter([1.0] * 10 + [1.5 + (rate > 0.1)] * 10)

    assert largest_stable_rate(losses, start=0.01, steps=20).rate == 0.08


def test_the_search_has_an_end():
    found = largest_stable_rate(descent(1e-3), start=0.5, stop=5, steps=20)
    assert not found.bounded and found.rate == 4.0


def test_bad_requests():
    for start, stop in ((0.0, 1.0), (2.0, 1.0), (1.0, math.inf)):
        with pytest.raises(ConfigError, match="0 < start <= stop"):
            largest_stable_rate(descent(1), start, stop)
    with pytest.raises(ConfigError, match="steps must be >= 10"):
        largest_stable_rate(descent(1), steps=9)
    with pytest.raises(ConfigError, match="not finite at rate 0"):
        largest_stable_rate(lambda rate: iter([math.nan] * 10), steps=10)
    with pytest.raises(ConfigError, match="yielded 3 losses, expected 10"):
        largest_stable_rate(lambda rate: iter([1.0] * 3), steps=10)
