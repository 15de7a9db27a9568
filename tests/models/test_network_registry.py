"""Networks by name, and normalisation inside them."""

import pytest
import torch
from torch import nn

from dualat.models.normalize import Normalized
from dualat.models.registry import build_network
from dualat.models.settings import NetworkSettings
from dualat.models.timm_models import timm_model
from dualat.models.wide_resnet import WideResNet


def test_the_momentum_of_batchnorm_is_a_setting():
    for momentum, found in ((None, 0.1), (0.9, 0.9)):
        network = build_network(NetworkSettings(name="wrn-10-1", batchnorm_momentum=momentum), (1, 8, 8), 3)
        assert {layer.momentum for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)} == {found}
    for wrong in (0.0, 1.5):
        with pytest.raises(ValueError, match="batchnorm_momentum is .* above 0"):
            NetworkSettings(batchnorm_momentum=wrong)


def test_the_momentum_of_no_batchnorm_is_refused():
    with pytest.raises(ValueError, match="batchnorm_momentum does nothing with norm none"):
        NetworkSettings(norm="none", batchnorm_momentum=0.9)


def test_wide_resnets_by_name():
    network = build_network(NetworkSettings(name="wrn-16-2", activation="silu"), (1, 8, 8), 5)
    assert isinstance(network, WideResNet)
    assert len(network.block1.layer) == 2 and network.block3.layer[0].conv1.out_channels == 128
    assert network.conv1.in_channels == 1 and network.fc.out_features == 5
    assert network.activation is torch.nn.functional.silu


@pytest.mark.parametrize("name", ["timm/test_resnet", "timm/test_vit", "timm/test_convnext"])
def test_timm_networks_by_name_take_size_channels_and_classes(name):
    network = build_network(NetworkSettings(name=name), (1, 32, 32), 5, [0.5], [0.25]).eval()
    x = torch.rand(2, 1, 32, 32)
    assert network(x).shape == (2, 5)
    # timm's own network, without what we add, gives the same logits of normalised images.
    torch.testing.assert_close(network(x), network.network((x - 0.5) / 0.25))


def test_timm_names_that_are_nearly_right_bring_the_right_one():
    with pytest.raises(ValueError, match=r"'resnet5O'.*resnet50"):
        build_network(NetworkSettings(name="timm/resnet5O"), (3, 8, 8), 5)
    with pytest.raises(ValueError, match=r"no network 'qqqqqqqq'[.]$"):
        timm_model("qqqqqqqq", 5, 3, 8)


def test_drop_path_reaches_the_network_or_is_refused():
    def rates(drop_path: float) -> list[float]:
        network = timm_model("test_convnext", 5, 3, 32, drop_path=drop_path)
        return [m.drop_prob for m in network.modules() if hasattr(m, "drop_prob")]

    assert not any(rates(0.0)) and max(rates(0.3)) == pytest.approx(0.3)
    with pytest.raises(ValueError, match="drop_path"):
        build_network(NetworkSettings(name="timm/dla46x_c", drop_path=0.3), (3, 32, 32), 5)


@pytest.mark.parametrize("name", ["wrn-28", "wrn28-10", "resnet50", "wrn-28-10x", "", "wrn-a-b"])
def test_unknown_names_are_refused_with_what_is_allowed(name):
    with pytest.raises(ValueError, match=r"wrn-DEPTH-WIDTH.*timm/NAME"):
        build_network(NetworkSettings(name=name), (3, 8, 8), 5)


def test_one_class_is_no_classifier():
    with pytest.raises(ValueError, match="at least 2 classes"):
        build_network(NetworkSettings(name="wrn-10-1"), (3, 8, 8), 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "wrn-10-1", "pretrained": True}, "pretrained"),
        ({"name": "wrn-10-1", "drop_path": 0.1}, "drop_path"),
        ({"name": "timm/test_vit", "drop_path": 1.0}, "drop_path"),
        ({"name": "timm/test_vit", "activation": "silu"}, "activation"),
        ({"activation": "gelu"}, "activation"),
        ({"nmae": "wrn-10-1"}, "nmae"),
    ],
    ids=str,
)
def test_settings_that_do_nothing_or_do_not_exist_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        NetworkSettings(**settings)


def test_normalisation_is_part_of_the_network_channel_by_channel():
    inner = torch.nn.Flatten()
    network = Normalized(inner, [0.1, 0.5], [0.5, 0.25])
    x = torch.tensor([0.6, 1.0]).view(1, 2, 1, 1)
    assert network(x).flatten().tolist() == pytest.approx([1.0, 2.0])
    assert {"mean", "std"} <= set(network.state_dict())  # so that saved weights carry it
    assert not list(network.parameters())  # and training does not move it


def test_normalisation_is_built_where_statistics_are_given():
    settings, shape = NetworkSettings(name="wrn-10-1"), (1, 8, 8)
    assert isinstance(build_network(settings, shape, 3, [0.5], [0.2]), Normalized)
    assert isinstance(build_network(settings, shape, 3), WideResNet)


@pytest.mark.parametrize(("mean", "std"), [([0.5], [0.0]), ([0.5], [-1.0]), ([0.5, 0.5], [0.2])], ids=str)
def test_impossible_normalisation_is_refused(mean, std):
    with pytest.raises(ValueError, match="normalisation"):
        Normalized(torch.nn.Identity(), mean, std)
