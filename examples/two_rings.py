"""The theory of DAT, tried where the truth is known (rings.py). At DAT's optimum, on the data's support,
softmax f(x) = p(y|x) and E(x) = 0; off the support E(x) is high."""

import argparse

import torch
from rings import density, draw, picture, posterior
from torch import nn

from dualat.core.energy import JointEnergyModel
from dualat.methods.base import Batch
from dualat.methods.curriculum import auroc
from dualat.methods.dat import DAT
from dualat.methods.registry import DATSettings
from dualat.methods.settings import AttackSettings, ContrastiveSettings
from dualat.models.normalize import Normalized
from dualat.training.ema import EMA

# The theorem is about cross-entropy without an attack, which blurs p(y|x) over its ball: keep eps well below NOISE.
ATTACK = AttackSettings(eps=0.005, steps=1, step_size=0.005)
CONTRASTIVE = ContrastiveSettings(t_max=15, auc_threshold=0.55, window=2560, step_size=0.04)


def train(seed: int = 0, steps: int = 1500, size: int = 256) -> tuple[JointEnergyModel, dict[str, float]]:
    """A model trained by the library's DAT from uniform noise, and its figures on fresh points."""
    torch.manual_seed(seed)
    g = torch.Generator().manual_seed(seed)
    hidden = [layer for _ in range(2) for layer in (nn.Linear(64, 64), nn.SiLU())]
    network = nn.Sequential(nn.Flatten(), nn.Linear(2, 64), nn.SiLU(), *hidden, nn.Linear(64, 2))
    model = JointEnergyModel(Normalized(network, mean=[0.5, 0.5], std=[0.1, 0.1]))
    method, average = DAT(DATSettings(attack=ATTACK, contrastive=CONTRASTIVE), size), EMA(model, 0.995)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        starts = torch.rand(size, 2, 1, 1, generator=g)
        loss, _ = method.loss(model, Batch(*draw(size, g), *draw(size, g), starts))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step()  # T grows when contrastive samples have become too easy to tell
        schedule.step()
        average.update(model)
    model.load_state_dict(average.average)
    with torch.no_grad():
        on, uniform = draw(5000, g)[0], torch.rand(20_000, 2, 1, 1, generator=g)
        off = uniform[density(uniform).mean(dim=1) < 1e-3]  # p(x) at its peak is about 3
        error = (model.predict_proba(on) - posterior(on)).abs().mean().item()
        near, far = model.energy(on).abs(), model.energy(off).abs()
        right = auroc(far, near).item()  # pairs of points with |E| smaller on the support than off it
    found = {"posterior MAE": error, "|E| on": near.mean(), "|E| off": far.mean(), "right": right}
    return model.eval(), {name: float(value) for name, value in found.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", default="docs/two_rings.png", help="the picture")
    arguments = parser.parse_args()
    model, figures = train()
    print("\n".join(f"{name:16}{value:8.3f}" for name, value in figures.items()))
    picture(model, arguments.output)
