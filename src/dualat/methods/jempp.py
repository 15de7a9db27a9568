"""JEM++: JEM with a proximal sampler that mostly differentiates the first layer alone (Yang and Ji, ICCV 2021).

    outer step:  p = d s(x) / d g1(x),  g1 the first layer
    inner step:  x <- clip_[0,1]( x + eta * clip( grad_x <g1(x), p>, +-LIMIT ) ),  p held

The loss is JEM's; chains start from a Gaussian per class (`initial.kind: class-gaussian`), and no noise is added
(`chain.noise`, where given, after each inner step). As its authors do, chains take BatchNorm's statistics of the batch, in
training and when the model is sampled (`sampling.batch_statistics`).
"""

import torch
from torch import Tensor, nn

from dualat.core.energy import marginal_energy
from dualat.core.loop import ModelOrLoop, frozen, loop_of
from dualat.core.objectives import Labelled
from dualat.methods.jem import JEM
from dualat.methods.registry import JEMPPSettings
from dualat.models.normalize import Normalized


class JEMPP(JEM):
    def __init__(self, settings: JEMPPSettings, batch_size: int):
        super().__init__(settings, batch_size)
        self.inner_steps = settings.chain.inner_steps

    def walk(self, model: ModelOrLoop, x: Tensor) -> Tensor:
        loop, chain = loop_of(model), self.chain
        first = loop.part("first layer", first_layer)
        for _ in range(chain.steps):
            x = first.climb(
                x,
                along(adjoint(loop.model, first.model, x)),
                steps=self.inner_steps,
                step_size=chain.step_size,
                noise=chain.noise,
                rule="clipped",
                checked=False,
            )
        return x


def first_layer(model: nn.Module) -> nn.Module:
    """g1: input normalisation and the first convolution, sharing the model's weights.

    Raises ValueError where the network has none."""
    convolution = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    if convolution is None:
        raise ValueError("JEM++ needs a network whose first layer is a convolution: choose another.")
    normalised = next((m for m in model.modules() if isinstance(m, Normalized)), None)
    if normalised is None:
        return convolution
    return Normalized(convolution, normalised.mean.flatten().tolist(), normalised.std.flatten().tolist()).to(
        convolution.weight.device
    )


def adjoint(model: nn.Module, first: nn.Module, x: Tensor) -> Tensor:
    """p = d s(x) / d g1(x) at images (B, C, H, W), in the shape of the first layer's output."""
    convolution = next(m for m in first.modules() if isinstance(m, nn.Conv2d))
    outputs: list[Tensor] = []

    def tap(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        outputs.append(output.detach().requires_grad_(True))
        return outputs[-1]

    handle = convolution.register_forward_hook(tap)
    try:
        with frozen(model), torch.enable_grad():
            score = -marginal_energy(model(x)).sum()
            (p,) = torch.autograd.grad(score, outputs[0])
    finally:
        handle.remove()
    return p


def along(p: Tensor) -> Labelled:
    """The objective <g1(x), p> of each image: first layer's outputs -> (B,)."""
    return Labelled(_product, p)


def _product(outputs: Tensor, p: Tensor) -> Tensor:
    return (outputs.float() * p).flatten(1).sum(dim=1)
