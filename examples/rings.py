"""Data whose truth is known: two noisy rings overlap in the unit square, one class each, equally often. A point is an
"image" of shape (2, 1, 1). And a picture of a model of them. Used by two_rings.py."""

import torch
from matplotlib import pyplot as plt
from torch import Tensor, nn

CENTRES, RADIUS, NOISE = torch.tensor([[0.4, 0.5], [0.6, 0.5]]), 0.22, 0.04
COLOURS = ["#b40426", "#3b4cc0"]  # the ends of the colour map "coolwarm_r"


def draw(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Points and labels: a place on the label's ring, uniform in angle, plus Gaussian noise."""
    labels = torch.randint(2, (count,), generator=generator)
    angle = 2 * torch.pi * torch.rand(count, generator=generator)
    ring = CENTRES[labels] + RADIUS * torch.stack([angle.cos(), angle.sin()], dim=1)
    points = ring + NOISE * torch.randn(count, 2, generator=generator)
    return points.clamp(0, 1)[:, :, None, None], labels


def density(x: Tensor) -> Tensor:
    """p(x|y), (N, 2): exp(-(r - R)^2 / 2v) e^(-rR/v) I_0(rR/v) / 2 pi v; r: distance to the centre, v = NOISE^2."""
    r, v = (x.flatten(1)[:, None] - CENTRES).norm(dim=2), NOISE**2
    return (-((r - RADIUS) ** 2) / (2 * v)).exp() * torch.special.i0e(r * RADIUS / v) / (2 * torch.pi * v)


def posterior(x: Tensor) -> Tensor:
    """The true p(y|x), (N, 2), by Bayes' rule. Defined where p(x) does not underflow."""
    return density(x) / density(x).sum(dim=1, keepdim=True)


@torch.no_grad()
def picture(model: nn.Module, path: str, side: int = 300) -> None:
    """Energy landscape with data on top, true posterior, learned posterior (both faded out where no data is)."""
    line = (torch.arange(side) + 0.5) / side
    x = torch.cartesian_prod(line, line).flip(1)[:, :, None, None]  # a row of the picture runs along axis 0
    points, labels = draw(500, torch.Generator().manual_seed(1))
    seen = density(x).mean(dim=1).clamp(0, 1).view(side, side)
    figure, axes = plt.subplots(1, 3, figsize=(13.5, 4), layout="constrained", sharey=True)
    square = {"origin": "lower", "extent": (0, 1, 0, 1)}

    energy = model.energy(x).view(side, side)
    heat = axes[0].imshow(energy, cmap="bone_r", vmin=-1, vmax=8, **square)
    lines = axes[0].contour(line, line, energy, [0.5, 2, 4, 6], colors="#777777", linewidths=0.8)
    axes[0].clabel(lines, fontsize=7)
    for label, colour in enumerate(COLOURS):
        across, up = points[labels == label].flatten(1).T
        axes[0].scatter(across, up, s=5, color=colour, label=f"class {label}")
    axes[0].legend(loc="upper right", fontsize=8)
    axes[0].set_title("Learned energy, and data")
    figure.colorbar(heat, ax=axes[0], extend="both", label="E(x); in theory 0 on the data")
    posteriors = {"True posterior": posterior(x), "Learned posterior": model.predict_proba(x)}
    for axis, (title, p) in zip(axes[1:], posteriors.items(), strict=True):
        image = p[:, 1].view(side, side)
        shown = axis.imshow(image, cmap="coolwarm_r", vmin=0, vmax=1, alpha=seen, **square)
        axis.set_title(title)
    figure.colorbar(shown, ax=axes[1:], label="p(class 1 | x), faded where data is rare")
    figure.savefig(path, dpi=90)
