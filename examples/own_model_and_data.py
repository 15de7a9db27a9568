"""Your own network and your own images, without a recipe's: trained in both stages, evaluated, sampled, explained, saved
and loaded. Here they are a small CNN and scikit-learn's digits; any nn.Module from images in [0, 1] to logits will do."""

import argparse
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import dualat
from dualat.evaluation.settings import EvaluationSettings


class SmallCNN(nn.Module):
    """Logits (N, 10) of grey images (N, 1, 8, 8) in [0, 1]; normalisation is part of the network."""

    def __init__(self, width: int = 16):
        super().__init__()
        self.first = nn.Conv2d(1, width, 3, padding=1)
        self.second = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.third = nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1)
        self.last = nn.Linear(8 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = (x - 0.3) / 0.37
        for layer in (self.first, self.second, self.third):
            x = nn.functional.silu(layer(x))
        return self.last(x.view(len(x), -1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/own"), help="run folder")
    parser.add_argument("--steps", type=int, default=200, help="training steps of each stage")
    args = parser.parse_args()

    digits = load_digits()
    images = torch.tensor(digits.images / 16, dtype=torch.float32)[:, None]
    data = TensorDataset(images, torch.tensor(digits.target))
    torch.manual_seed(0)
    steps = {"stage1.steps": args.steps, "stage2.steps": args.steps}
    settings = {**steps, "evaluation.samples": 200, "output": str(args.output)}
    run = dualat.train("digits", settings, model=SmallCNN(), data=data, overwrite=True)  # or resume=True

    model = dualat.load(run, network=SmallCNN())
    few = EvaluationSettings(eps=(0.5,), samples=200)
    for record in dualat.evaluate(model, data, ("clean_accuracy", "robust_accuracy", "generation"), few):
        print(f"{record.metric} {record.value:.3f} (n = {record.n})")
    samples = dualat.sample(model, torch.arange(10), generator=torch.Generator().manual_seed(0))
    changed = dualat.counterfactual(model, images[:1], target=8, threat=dualat.ThreatModel("L2", 2.0))
    changed_to = model.predict_proba(changed)[0, 8]
    print(f"{len(samples)} samples; p(8) of a 0: {changed_to:.2f} after a small change")

    # A bare module works too; what it lacks is passed.
    path = dualat.save(model.network, args.output / "mine.safetensors", shape=(1, 8, 8))
    module = dualat.load(path, network=SmallCNN()).network
    again = dualat.sample(module, [3, 3], initial=torch.rand(2, 1, 8, 8), steps=60, step_size=0.2)
    print(f"saved, loaded and sampled again: {tuple(again.shape)}")
