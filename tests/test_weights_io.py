import numpy as np
import pytest
import torch
from torch import nn

from tvm_sparsewino.errors import WeightsError
from tvm_sparsewino.nn import WinogradConv2d, convert
from tvm_sparsewino.nn.weights_io import load_into, save_model
from tvm_sparsewino.weights import LayerWeights, load_weights, save_weights


def network(bias=True):
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=bias),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=bias),
        nn.Conv2d(4, 1, 1, bias=bias),
    )


def pruned(bias=True):
    """The network with two Winograd layers, half of their coefficients masked."""
    model = convert(network(bias), tile=2)
    for index in (0, 2):
        model[index].set_mask(torch.rand(model[index].weight.shape) < 0.5)
    return model.eval()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("into", [network, pruned])
def test_round_trip(tmp_path, bias, into):
    path, model = tmp_path / "w.safetensors", pruned(bias)
    save_model(model, path)
    other = into(bias)
    assert load_into(other, path) is other
    assert isinstance(other[0], WinogradConv2d)
    assert torch.equal(other[0].mask, model[0].mask)
    x = torch.randn(1, 2, 7, 6)
    # U is divided by the scale again after it was multiplied: one rounding each.
    torch.testing.assert_close(other(x), model(x), rtol=1e-5, atol=1e-5)


def test_file_holds_the_coefficients_themselves(tmp_path):
    path, model = tmp_path / "w.safetensors", pruned()
    save_model(model, path)
    first, second, third = load_weights(path)
    assert [x.name for x in (first, second, third)] == ["0", "2", "3"]
    assert [x.kind for x in (first, second, third)] == ["winograd", "winograd", "dense"]
    np.testing.assert_array_equal(first.u, model[0].winograd_weight.detach().numpy())
    assert first.sparsity == pytest.approx(0.5, abs=0.1)
    np.testing.assert_array_equal(second.bias, model[2].bias.detach().numpy())


def test_training_flag_is_kept(tmp_path):
    save_model(pruned(), tmp_path / "w")
    assert load_into(network().train(), tmp_path / "w")[0].training
    assert not load_into(network().eval(), tmp_path / "w")[0].training


def test_a_layer_with_other_state_is_refused(tmp_path):
    model = nn.Sequential(nn.BatchNorm2d(2))
    with pytest.raises(WeightsError, match=r"layer '0': a BatchNorm2d with .*running_mean"):
        save_model(model, tmp_path / "w")
    assert not list(tmp_path.iterdir())


def test_float64_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="layer '0': coefficients must be a float32 array"):
        save_model(convert(network().double(), tile=2), tmp_path / "w")


def dense(name, *shape, bias=None):
    return LayerWeights.dense(name, np.ones(shape, np.float32), bias)


def winograd(name, m, r, *shape):
    u = np.ones(((m + r - 1) ** 2, *shape), np.float32)
    return LayerWeights.winograd(name, m, r, u, np.ones(shape[0], np.float32))


def layers(**changes):
    made = {
        "0": winograd("0", 2, 3, 4, 2),
        "2": winograd("2", 2, 3, 4, 2),
        "3": dense("3", 1, 4, 1, 1, bias=np.ones(1, np.float32)),
    }
    made.update({key[1:]: value for key, value in changes.items()})
    return [value for value in made.values() if value is not None]


def test_the_layers_of_the_refusals_below_fit_unchanged(tmp_path):
    save_weights(tmp_path / "w", layers())
    assert load_into(network(), tmp_path / "w")[0].m == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_0": None}, r"has no layers \['0'\]"),
        ({"_4": dense("4", 1)}, r"layers \['4'\] are not the model's"),
        ({"_3": dense("3", 1, 4, 1, 1)}, r"layer '3': the model's bias has shape \(1,\).*None"),
        ({"_2": winograd("2", 2, 3, 4, 4)}, r"layer '2': the model's weight has shape"),
        ({"_2": winograd("2", 2, 5, 4, 2)}, r"layer '2': expected F\(2,3\), got F\(2,5\)"),
        ({"_3": winograd("3", 2, 3, 1, 4)}, r"layer '3': expected F\(2,1\), got F\(2,3\)"),
    ],
)
def test_a_file_that_does_not_fit_changes_nothing(tmp_path, changes, message):
    save_weights(tmp_path / "w", layers(**changes))
    model = network()
    before = [x.clone() for x in model.state_dict().values()]
    with pytest.raises(WeightsError, match=message):
        load_into(model, tmp_path / "w")
    after = model.state_dict().values()
    assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))


def test_a_plain_weight_for_a_winograd_layer_is_refused(tmp_path):
    bias = np.ones(4, np.float32)
    save_weights(tmp_path / "w", layers(_0=dense("0", 4, 2, 3, 3, bias=bias)))
    with pytest.raises(WeightsError, match=r"layer '0': expected coefficients of F\(2,3\)"):
        load_into(pruned(), tmp_path / "w")


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            nn.Conv2d(4, 4, 3, stride=2, groups=2),
            r"'2': Winograd coefficients do not fit: .*stride",
        ),
        (nn.Linear(4, 4), "layer '2': Winograd coefficients do not fit a Linear"),
    ],
)
def test_coefficients_for_a_layer_that_cannot_use_them_are_refused(tmp_path, module, message):
    save_weights(tmp_path / "w", layers())
    model = network()
    model[2] = module
    with pytest.raises(WeightsError, match=message):
        load_into(model, tmp_path / "w")
