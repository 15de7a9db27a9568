"""Wide ResNets: published names and sizes, and a reference forward pass written apart."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dualat.models.wide_resnet import LAYOUTS, Block, WideResNet


def parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_published_sizes():
    with torch.device("meta"):  # no memory, no initial values
        assert parameters(WideResNet(34, 10, 10)) == 46_160_474
        assert parameters(WideResNet(28, 10, 10)) == 36_479_194
        assert parameters(WideResNet(34, 10, 100)) == 46_160_474 + 90 * 641


def batchnorm(name: str) -> set[str]:
    return {f"{name}.{k}" for k in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}


@pytest.mark.parametrize(("depth", "width"), [(10, 1), (16, 2)])
def test_names_are_those_of_published_weights(depth, width):
    expected = {"conv1.weight", "fc.weight", "fc.bias", *batchnorm("bn1")}
    for group in (1, 2, 3):
        for layer in range((depth - 4) // 6):
            name = f"block{group}.layer.{layer}"
            expected |= {f"{name}.conv1.weight", f"{name}.conv2.weight"}
            expected |= batchnorm(f"{name}.bn1") | batchnorm(f"{name}.bn2")
            if layer == 0 and (group > 1 or width > 1):  # 16 -> 16 needs no shortcut
                expected.add(f"{name}.convShortcut.weight")
    assert set(WideResNet(depth, width, 3).state_dict()) == expected


def reference(state: dict[str, Tensor], x: Tensor, activation, layers: int) -> Tensor:
    """The network as Zagoruyko's and TRADES's code compute it, from a state dict alone."""

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        scale = state[f"{name}.weight"] / (var + 1e-5).sqrt()
        return (x - mean.view(-1, 1, 1)) * scale.view(-1, 1, 1) + state[f"{name}.bias"].view(-1, 1, 1)

    x = F.conv2d(x, state["conv1.weight"], padding=1)
    for group in (1, 2, 3):
        for layer in range(layers):
            name, stride = f"block{group}.layer.{layer}", 2 if group > 1 and layer == 0 else 1
            h = activation(norm(x, f"{name}.bn1"))
            shortcut = state.get(f"{name}.convShortcut.weight")
            x = x if shortcut is None else F.conv2d(h, shortcut, stride=stride)
            h = F.conv2d(h, state[f"{name}.conv1.weight"], stride=stride, padding=1)
            x = x + F.conv2d(activation(norm(h, f"{name}.bn2")), state[f"{name}.conv2.weight"], padding=1)
    x = activation(norm(x, "bn1"))
    return F.linear(x.mean(dim=(2, 3)), state["fc.weight"], state["fc.bias"])


@pytest.mark.parametrize("activation", ["relu", "silu"])
@pytest.mark.parametrize(("depth", "width"), [(10, 1), (16, 2)])
def test_forward_agrees_with_the_reference(depth, width, activation):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = WideResNet(depth, width, 4, 3, activation).double()
        model(torch.rand(8, 3, 8, 8).double())  # statistics of its own
        for name, parameter in model.named_parameters():
            if "bn" in name:
                torch.nn.init.uniform_(parameter, 0.5, 1.5)
        x = torch.rand(2, 3, 8, 8).double()
    expected = reference(model.state_dict(), x, getattr(F, activation), (depth - 4) // 6)
    torch.testing.assert_close(model.eval()(x), expected)


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 9, 14), (5, 33, 32)], ids=str)
def test_any_size_and_number_of_channels(shape):
    model = WideResNet(10, 1, 7, shape[0]).eval()
    assert model(torch.rand(2, *shape)).shape == (2, 7)


def test_silu_is_smooth_and_relu_is_not_silu():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        relu, silu = WideResNet(10, 1, 3, 1, "relu").eval(), WideResNet(10, 1, 3, 1, "silu").eval()
        silu.load_state_dict(relu.state_dict())
        x = torch.rand(2, 1, 8, 8)
    assert (relu(x) - silu(x)).abs().max() > 1e-3


def test_without_normalisation_convolutions_have_biases_and_nothing_is_normalised():
    state = WideResNet(10, 2, 3, norm="none").state_dict()
    assert not any("bn" in name or "running" in name for name in state)
    assert all(name.replace("weight", "bias") in state for name in state)
    assert not any(
        value.any() for name, value in state.items() if name.startswith("block") and "bias" in name
    )


def test_jems_layout_begins_with_pytorchs_own_weights():
    """The authors' function for others is never called; s(x) is then almost flat: JEM's first chains hardly move."""
    slopes = {}
    for layout in ("standard", "jem"):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = WideResNet(10, 2, 10, activation="leaky_relu", norm="none", layout=layout)
        x = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
        (gradient,) = torch.autograd.grad(network(x).logsumexp(1).sum(), x)
        slopes[layout] = float(gradient.flatten(1).norm(dim=1).mean())
        weight = network.block3.layer[0].conv1.weight
        bound = 1 / (weight.shape[1] * 9) ** 0.5
        assert (weight.abs().max() <= bound) == (layout == "jem")  # uniform in +-1 / sqrt(fan-in), or normal
    assert slopes["jem"] < 0.2 * slopes["standard"]


def test_layouts_share_names_and_shapes_but_not_results():
    x = torch.rand(2, 3, 16, 16)
    outputs = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = WideResNet(10, 2, 3, layout="jem").state_dict()
    for layout in LAYOUTS:
        network = WideResNet(10, 2, 3, layout=layout).eval()
        own = network.state_dict()
        assert set(own) == {k for k in state if layout == "jem" or not ("conv" in k.lower() and "bias" in k)}
        network.load_state_dict({k: state[k] for k in own})
        outputs.append(network(x))
    for a, b in itertools.combinations(outputs, 2):
        assert (a - b).abs().max() > 1e-3


@pytest.mark.parametrize("size", [28, 7])
def test_an_antialiased_network_draws_no_chequer(size):
    """The gradient's energy at the highest frequency, beside its mean energy: means of 2x2 pixels pass none of it on, and what
    is left is of the convolutions at full resolution. Strides leave many times as much."""
    shares = {}
    for layout in ("standard", "antialiased"):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            block = Block(8, 16, 2, "silu", layout=layout).eval()
        x = torch.rand(16, 8, size, size, requires_grad=True)
        (gradient,) = torch.autograd.grad(block(x).square().sum(), x)
        spectrum = torch.fft.fft2(gradient[..., : size // 2 * 2, : size // 2 * 2]).abs().square()
        middle = size // 2
        shares[layout] = float(spectrum[..., middle, middle].mean() / spectrum.mean())
    assert shares["antialiased"] < 0.2 * shares["standard"]


def test_an_antialiased_block_has_the_shape_of_a_strided_one():
    for size in (4, 5, 7, 28):
        x = torch.rand(2, 8, size, size)
        assert Block(8, 16, 2, "relu", layout="antialiased")(x).shape == Block(8, 16, 2, "relu")(x).shape


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((9, 1, 3), "depth 9"),
        ((12, 1, 3), "6n [+] 4"),
        ((4, 1, 3), "depth 4"),
        ((10, 0, 3), "width 0"),
        (
            (9_999_994, 1, 3),
            "wrn-9999994-1 would have about 1.6e[+]11 weights in 9999994 layers",
        ),  # built for ever
        ((10, 9999, 3), "wrn-10-9999 would have about 9.7e[+]12 weights .* choose a smaller one"),  # 39 TB
        ((10, 1, 3, 1, "gelu"), "'gelu'.*relu, silu"),
        ((10, 1, 3, 1, "relu", "layer"), "norm is 'layer'.*batch, none"),
        ((10, 1, 3, 1, "relu", "batch", "tf"), "layout is 'tf'.*standard, jem, deepmind, antialiased"),
    ],
    ids=str,
)
def test_networks_that_do_not_exist_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        WideResNet(*arguments)
