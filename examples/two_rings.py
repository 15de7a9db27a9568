"""DAT on a toy whose truth is known. Two noisy rings, one per class, overlap in the unit square; a point is an
"image" of shape (2, 1, 1). At DAT's optimum, on the support of the data, softmax f(x) = p(y|x) and E(x) = 0."""

import argparse
from pathlib import Path

import torch
from matplotlib import pyplot as plt
from torch import nn

from dualat.energy import JointEnergyModel
from dualat.methods.base import Batch
from dualat.methods.curriculum import auroc
from dualat.methods.dat import DAT
from dualat.methods.settings import AttackSettings, ContrastiveSettings, LossSettings
from dualat.training.ema import EMA

CENTRES, RADIUS, NOISE = torch.tensor([[0.4, 0.5], [0.6, 0.5]]), 0.22, 0.04
# The theorem is about plain cross-entropy: an attack of radius eps blurs the posterior by about eps. Keep it tiny.
ATTACK = AttackSettings(eps=0.005, steps=1, step_size=0.005)
CONTRASTIVE = ContrastiveSettings(t_max=15, auc_threshold=0.6, window=2560, step_size=0.03, energy="marginal")


def draw(count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Points (N, 2, 1, 1) of p(x) and their labels: a uniform place on the label's ring, plus Gaussian noise."""
    labels, angle = torch.randint(2, (count,), generator=generator), torch.rand(count, generator=generator) * 2 * torch.pi
    ring = CENTRES[labels] + RADIUS * torch.stack([angle.cos(), angle.sin()], 1)
    return (ring + NOISE * torch.randn(count, 2, generator=generator))[..., None, None].clamp(0, 1), labels


def density(x: torch.Tensor) -> torch.Tensor:
    """p(x|y): (N, 2), in closed form: exp(-(r - R)^2 / 2 v) I0e(r R / v) / (2 pi v), v = NOISE^2, r from the centre."""
    r, v = (x.flatten(1)[:, None] - CENTRES).norm(dim=2), NOISE**2
    return torch.exp(-((r - RADIUS) ** 2) / (2 * v)) * torch.special.i0e(r * RADIUS / v) / (2 * torch.pi * v)


def train(seed: int = 0, steps: int = 1500, batch: int = 256) -> tuple[JointEnergyModel, dict[str, float]]:
    torch.manual_seed(seed)
    g = torch.Generator().manual_seed(seed)
    layers = [nn.Flatten(), nn.BatchNorm1d(2, affine=False), nn.Linear(2, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU(),
              nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, 2)]
    model = JointEnergyModel(nn.Sequential(*layers))
    model.train(); model(draw(5000, g)[0]); model.eval()
    method, ema = DAT(ATTACK, CONTRASTIVE, LossSettings(), batch), EMA(model, 0.995)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for i in range(steps):
        points = Batch(*draw(batch, g), *draw(batch, g), starts=torch.rand(batch, 2, 1, 1, generator=g))
        loss, fig = method.loss(model, points)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        ema.update(model)
        if i % 200 == 199 or i == steps-1: print(i, {k: round(float(v), 3) for k, v in fig.items()})
    model.load_state_dict(ema.average)
    return model.eval(), measure(model, g)


@torch.no_grad()
def measure(model, g):
    on, off = draw(5000, g)[0], torch.rand(20_000, 2, 1, 1, generator=g)
    off = off[density(off).mean(1) < 1e-3]
    truth = density(on) / density(on).sum(1, keepdim=True)
    e_on, e_off = model.energy(on).abs(), model.energy(off).abs()
    return {
        "posterior MAE": (model.predict_proba(on) - truth).abs().mean().item(),
        "posterior MAE of 1/2": (0.5 - truth).abs().mean().item(),
        "mean |E| on the support": e_on.mean().item(), "mean |E| off": e_off.mean().item(),
        "ordered": auroc(-e_on[:2000], -e_off[:2000]).item(), "frac_off": len(off)/20000,
    }

if __name__ == "__main__":
    import sys, time
    for s in (0, 1, 2):
        t = time.time(); m, f = train(s, int(sys.argv[1])); print(s, f, time.time() - t)
