"""Settings of an experiment that would change nothing are refused."""

import pytest

from tvm_sparsewino.errors import ConfigError
from tvm_sparsewino.nn.experiments import reading


@pytest.mark.parametrize(
    ("data", "match"),
    [
        ({"dense": {"winograd_lr": 2}}, "no Winograd coefficients yet"),
        ({"crop": True}, "data must be 'folders', got 'digits'"),
        ({"crop": True, "data": "mnist"}, "data must be 'folders', got 'mnist'"),
        ({"prune": {"method": "continued"}, "tune": {"epochs": 0}}, "epochs must be above 0"),
    ],
)
def test_settings_without_effect(data, match):
    with pytest.raises(ConfigError, match=match):
        reading.build(data)


def test_the_same_where_they_have_one():
    assert reading.build({"crop": True, "data": "folders"}).crop
    assert reading.build({"tune": {"winograd_lr": 2}}).tune.winograd_lr == 2
    assert reading.build({"prune": {"method": "one-shot"}, "tune": {"epochs": 0}}).tune.epochs == 0
    assert reading.build({"prune": {"method": "continued"}}).tune.epochs > 0
