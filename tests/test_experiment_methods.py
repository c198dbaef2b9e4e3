"""Networks and pruning methods of experiments: what is made of settings, and what is refused."""

import pytest
import torch
from experiment_cases import grey
from torch import nn

from tvm_sparsewino.errors import ConfigError, PruneError
from tvm_sparsewino.nn.calibration import is_calibrated
from tvm_sparsewino.nn.experiments import (
    networks,
    reading,
)
from tvm_sparsewino.nn.experiments.methods import converted, prune_config, starting_point
from tvm_sparsewino.nn.experiments.networks import make_network
from tvm_sparsewino.nn.experiments.optimizers import make_optimizer
from tvm_sparsewino.nn.experiments.record import identity
from tvm_sparsewino.nn.experiments.settings import Experiment, Phase, Pruning

# Parts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_every_network_fits_its_images(name):
    small = name in ("lenet5", "small-vgg", "small-resnet")
    if not small:
        # Their size on real images is the models' own test; here one colour image passes.
        options = {"multiplier": 0.25} if name == "mobilenet-v2" else {"width": 8}
        options |= {"hidden": 16} if name in ("vgg16", "alexnet") else {}
        model = make_network(name, options, grey(64, 3)).eval()
        assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 10)
        with pytest.raises(ConfigError, match="takes colour images"):
            make_network(name, {}, grey())
        return
    for size, channels in ((28, 1), (32, 3), (16, 1)):
        model = make_network(name, {}, grey(size, channels))
        assert model(torch.zeros(2, channels, size, size)).shape == (2, 10)


def test_networks_that_cannot_be_made():
    with pytest.raises(ConfigError, match="network must be one of"):
        make_network("lenet", {}, grey())
    with pytest.raises(ConfigError, match="does not take"):
        make_network("lenet5", {"depth": 3}, grey())
    for options in ({"widths": 3}, {"widths": [1, 2, 3]}, {"hidden": -1}, {"kernel": "5"}):
        with pytest.raises(ConfigError, match="network 'lenet5' does not take"):
            make_network("lenet5", options, grey())
    with pytest.raises(ConfigError, match=r"'small-vgg' does not take .* images \[1, 3, 3\]"):
        make_network("small-vgg", {}, grey(3))
    with pytest.raises(ConfigError, match="'small-resnet' does not take"):
        make_network("small-resnet", {"widths": []}, grey())
    with pytest.raises(ConfigError, match="at least 12x12"):
        make_network("lenet5", {}, grey(10))
    with pytest.raises(ConfigError, match="at least 16x16"):
        make_network("lenet5", {"kernel": 7}, grey(14))
    with pytest.raises(ConfigError, match="kernel must be odd"):
        make_network("lenet5", {"kernel": 4}, grey())


def test_small_resnet_has_whole_stages():
    model = make_network("small-resnet", {"blocks": 2, "widths": [4, 8, 12]}, grey(28))
    kinds = [(x.stride, x.out_channels) for x in model.modules() if isinstance(x, nn.Conv2d)]
    assert len(kinds) == 1 + 2 * 6 + 2
    assert sum(stride == (2, 2) for stride, _ in kinds) == 4
    pooled = make_network("small-resnet", {"pool": True}, grey(28))
    assert pooled.pool(torch.zeros(1, 1, 28, 28)).shape[2:] == (14, 14)


def test_methods_that_cannot_be_prepared():
    model, images = make_network("lenet5", {}, grey()), [torch.randn(2, 1, 16, 16)]
    for pruning, match in (
        (Pruning("best"), "prune.method must be one of"),
        (Pruning(keep=("conv9",)), "'conv9' is no convolution"),
        (Pruning(options={"colour": 1}), r"prune.options: unknown \['colour'\]"),
        (Pruning(options={"sparsity": 0.5}), r"prune.options: unknown \['sparsity'\]"),
        (Pruning("one-shot", options={"l1": 1}), r"unknown \['l1'\]"),
        (Pruning("one-shot", options={"iterations": 2.5}), r"options\.iterations must be a whole"),
        (Pruning("coarse", options={"structure": "x"}), r"options\.structure must be one of"),
    ):
        with pytest.raises(ConfigError, match=match):
            starting_point(model, pruning, images[0], images)
    with pytest.raises(ConfigError, match=r"tune\.epochs is 0"):
        prune_config(Pruning(), 0)
    with pytest.raises(PruneError, match="no Winograd layer"):
        starting_point(model, Pruning(keep=("conv1", "conv2")), images[0], images)


def test_tiles_by_kernel_size_or_by_cost():
    model, image = make_network("lenet5", {}, grey()), torch.zeros(1, 1, 16, 16)
    by_size = starting_point(model, Pruning(tile={"5": 4}), image, None)
    assert (by_size.conv1.m, by_size.conv2.m) == (4, 4)
    large = make_network("lenet5", {"kernel": 7}, grey())
    by_size = starting_point(large, Pruning(tile={"7": 2}), image, None)
    assert (by_size.conv1.r, by_size.conv2.m) == (7, 2) and by_size(image).shape == (1, 10)
    chosen = starting_point(model, Pruning(tile="auto"), image, None)
    assert {chosen.conv1.m, chosen.conv2.m} <= {2, 4}
    with pytest.raises(PruneError, match="no Winograd layer"):
        starting_point(model, Pruning(tile={"3": 4}), image, None)
    e = reading.build({"prune": {"tile": {"5": 2}}})
    assert e.prune.tile == {"5": 2} and identity(e) != identity(Experiment())


def test_options_go_over_the_methods_own():
    config = prune_config(Pruning("authors", 4, 0.9, ramp=0.5, options={"l1": 0.25}), 40)
    assert (config.l1, config.every, config.end_step) == (0.25, 1, 20)
    assert config.parameters == "plain"


def test_the_schedule_fits_whatever_its_length():
    late = Pruning(start=1.0, ramp=1.0)
    for steps in (1, 2, 40):
        config = prune_config(late, steps)
        assert (config.start_step, config.end_step) == (steps - 1, steps)
    # An option that fits the real schedule alone.
    own = Pruning("white", 2, options={"start_step": 100, "end_step": 200})
    model, images = make_network("lenet5", {}, grey()), [torch.randn(2, 1, 16, 16)]
    starting_point(model, own, images[0], images)
    assert prune_config(own, 400).start_step == 100
    measured = Pruning("white", 2, options={"criterion": "activation", "parameters": "kept"})
    start = starting_point(model, measured, images[0], images)
    assert is_calibrated(start.conv2)
    assert not is_calibrated(starting_point(model, own, images[0], images).conv2)


def test_decay_spares_normalisation_and_winograd_has_its_own_rate():
    model = converted(make_network("small-vgg", {}, grey()), Pruning())
    phase = Phase(lr=0.1, winograd_lr=3.0, weight_decay=0.01)
    groups = make_optimizer(model, phase, list).param_groups
    names = {p: n for n, p in model.named_parameters()}
    rates = [({names[p] for p in g["params"]}, g["lr"], g["weight_decay"]) for g in groups]
    assert rates[0][1:] == (pytest.approx(0.3), 0.01) and "features.0.weight" in rates[0][0]
    assert rates[1] == ({"classes.weight"}, 0.1, 0.01)
    assert rates[2][1:] == (0.1, 0.0)
    assert {"classes.bias", "features.1.weight", "features.1.bias"} <= rates[2][0]
