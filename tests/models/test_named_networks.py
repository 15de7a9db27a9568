"""Named networks: published sizes, the names of published weights, and stems against a reference written apart."""

import inspect

import pytest
import timm
import torch
import torchvision
from foreign_networks import Stem, settled

from dualat.models.conv_stem import STEMS, ConvStem, conv_stem_network
from dualat.models.registry import NETWORKS, build_network
from dualat.models.residual import residual_network
from dualat.models.settings import NetworkSettings


def parameters(name: str) -> int:
    with torch.device("meta"):  # no memory, no initial values
        network = build_network(NetworkSettings(name=name), (3, 256, 256), 1000)
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("timm/resnet50", 26),
        ("wide_resnet50_4", 223),
        ("convnext_large_cvst", 198),
        ("convnext_base_cvst", 89),
        ("convnext_small_cvst", 50),
        ("vit_base_cvst", 87),
        ("vit_small_cvst", 23),
    ],
)
def test_published_sizes_in_millions(name, published):
    assert round(parameters(name) / 1e6) == published


def test_convnext_large_gains_exactly_the_stem():
    patchify = 3 * 4 * 4 * 192 + 192 + 2 * 192
    stem = 9 * (3 * 96 + 96 * 144 + 144 * 192) + 3 * (96 + 144 + 192)
    assert parameters("convnext_large_cvst") == parameters("timm/convnext_large") - patchify + stem


def shapes(network: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def test_wide_resnet50_4_is_torchvisions_with_twice_the_width():
    with torch.device("meta"):
        ours = residual_network("wide_resnet50_4", 1000, 3, 224)
        bottleneck = torchvision.models.resnet.Bottleneck
        theirs = torchvision.models.ResNet(bottleneck, [3, 4, 6, 3], width_per_group=256)
    assert shapes(ours) == shapes(theirs)


def test_cifar_resnet_is_torchvisions_with_another_stem():
    ours = residual_network("resnet18_cifar", 10, 3, 32)
    theirs = torchvision.models.resnet18(num_classes=10)
    theirs.conv1 = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    theirs.maxpool = torch.nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    ours.load_state_dict(settled(theirs).state_dict())
    x = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(ours.eval()(x), theirs(x))


@pytest.mark.parametrize("name", STEMS)
def test_stems_are_named_as_published_and_fit_the_body(name):
    with torch.device("meta"):
        network = conv_stem_network(name, 10, 3, 224)
    base, widths, _, embedding = STEMS[name]
    key = "stem.stem" if embedding is None else "patch_embed.proj.stem"
    own = shapes(network)
    assert own[f"{key}.0.weight"] == (widths[0], 3, 3, 3) and own[f"{key}.1.weight"] == (widths[0],)
    last = f"{key}.{3 * len(widths)}.weight"
    assert (last in own) == (embedding is not None)
    with torch.device("meta"):
        body = shapes(timm.create_model(base, num_classes=10))
    mine = {k for k in own if not k.startswith(key)}
    assert mine == {k for k in body if not k.startswith(("stem.", "patch_embed.proj."))}
    if embedding is None:  # what the first stage takes in
        assert widths[-1] == body["stem.0.weight"][0]
    else:
        assert own[last][0] == body["patch_embed.proj.weight"][0]


@pytest.mark.parametrize(
    ("widths", "strides", "last"),
    [((6, 8), (2, 2), None), ((6, 9, 12), (2, 2, 1), None), ((4, 8), (2, 2), 5)],
)
def test_stem_agrees_with_the_reference(widths, strides, last):
    ours, theirs = ConvStem(3, widths, strides, last), Stem(list(widths), list(strides), last)
    ours.load_state_dict(settled(theirs).state_dict())
    x = torch.rand(2, 3, 16, 16)
    assert theirs(x).shape == (2, last or widths[-1], 4, 4)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


def test_conv_stem_networks_run(monkeypatch):
    monkeypatch.setitem(STEMS, "convnext_tiny_cvst", ("test_convnext", (12, 24), (2, 2), None))
    monkeypatch.setitem(STEMS, "vit_small_cvst", ("test_vit", (8, 16, 32, 64), (2, 2, 2, 2), 64))
    for name in ("convnext_tiny_cvst", "vit_small_cvst"):
        network = build_network(NetworkSettings(name=name), (1, 48, 48), 7, [0.5], [0.2]).eval()
        assert network(torch.rand(2, 1, 48, 48)).shape == (2, 7)


def test_a_vit_takes_multiples_of_its_patch_alone():
    with pytest.raises(ValueError, match="multiple of 16 pixels, not 250"):
        build_network(NetworkSettings(name="vit_base_cvst"), (3, 250, 250), 10)


def test_drop_path_reaches_named_networks():
    with torch.device("meta"):
        network = build_network(NetworkSettings(name="convnext_tiny_cvst", drop_path=0.3), (3, 64, 64), 10)
    rates = [m.drop_prob for m in network.modules() if hasattr(m, "drop_prob")]
    assert max(rates) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "convnext_large_cvst", "activation": "silu"}, "activation"),
        ({"name": "wide_resnet50_4", "norm": "none"}, "norm"),
        ({"name": "timm/resnet50", "layout": "jem"}, "layout"),
        ({"name": "wide_resnet50_4", "pretrained": True}, "pretrained"),
        ({"norm": "layer"}, "norm"),
    ],
    ids=str,
)
def test_settings_of_wide_resnets_are_refused_elsewhere(settings, message):
    with pytest.raises(ValueError, match=message):
        NetworkSettings(**settings)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("wide_resnet50_5", "wide_resnet50_4"),
        ("convnext_large", "timm/convnext_large"),
        ("wrn28-10", "wrn-28-10"),
        ("vit_smal_cvst", "vit_small_cvst"),
    ],
)
def test_names_that_are_nearly_right_bring_the_right_one(name, near):
    with pytest.raises(ValueError, match=rf"unknown\. Did you mean .*{near}.*convnext_large_cvst"):
        build_network(NetworkSettings(name=name), (3, 32, 32), 10)


def test_the_settings_name_every_network():
    text = inspect.getsource(NetworkSettings)
    assert all(f"`{name}`" in text for name in NETWORKS)
