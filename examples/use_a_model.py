"""What a trained model can do: classify, resist an attack, score, sample, and explain by counterfactuals.
Give a run folder of `dualat train`; the images come from the test split that its config.yaml names."""

import sys
from pathlib import Path

import torch

import dualat
from dualat.config import load_recipe
from dualat.core.geometry import ThreatModel
from dualat.core.objectives import raise_cross_entropy
from dualat.data.grids import grid, save_picture
from dualat.data.in_distribution import load_splits

if len(sys.argv) != 2 or not Path(sys.argv[1], "config.yaml").is_file():
    sys.exit("give the run folder of a trained model, as in: python examples/use_a_model.py runs/digits")
run = Path(sys.argv[1])
model = dualat.load(run)
test = load_splits(load_recipe(str(run / "config.yaml")).data).test
test = test.take(torch.arange(8) * len(test) // 8)
x, y = test.float(), test.labels
target = (y + 1) % len(model.class_names)

attacked = dualat.pgd(model, x, raise_cross_entropy(y), ThreatModel("L2", 0.5), steps=20, step_size=0.06)
samples = dualat.sample(model, y, generator=torch.Generator().manual_seed(0))
# What would have to change for the model to see the next class?
changed = dualat.counterfactual(model, x, target, ThreatModel("L2", 2.0))

with torch.no_grad():
    print("true classes    ", y.tolist())
    print("predicted       ", model.predict_proba(x).argmax(dim=1).tolist())
    print("under attack    ", model.predict_proba(attacked).argmax(dim=1).tolist())
    print("counterfactuals ", model.predict_proba(changed).argmax(dim=1).tolist(), "wanted", target.tolist())
    for name, images in {"images": x, "samples": samples, "noise": torch.rand_like(x)}.items():
        print(f"mean energy of {name}: {model.energy(images).mean():.2f}")
picture = run / "samples" / "use_a_model.png"
save_picture(grid(torch.cat([x, attacked, samples, changed]), columns=8), picture)
print(f"images, attacked images, samples, counterfactuals, a row each: {picture}")
