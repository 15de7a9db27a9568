"""What a trained model can do: classify, resist an attack, score, sample, and explain by counterfactuals.
Give a run folder of `dualat train`; the images come from the test split that its config.yaml names."""

import sys
from pathlib import Path

import torch

import dualat
from dualat.config import load_recipe
from dualat.data.in_distribution import load_splits
from dualat.objectives import raise_cross_entropy
from dualat.pictures import grid, save_picture

run = Path(sys.argv[1])
model = dualat.load(run)
test = load_splits(load_recipe(str(run / "config.yaml")).data).test
test = test.take(torch.arange(8) * len(test) // 8)
x, y = test.float(), test.labels

# Classify: p(y|x), and the energy, which is low where an image looks like the training data.
with torch.no_grad():
    print("true classes  ", [model.class_names[i] for i in y])
    print("predicted     ", [model.class_names[i] for i in model.predict_proba(x).argmax(1)])
    print(
        "mean energy   ",
        f"{model.energy(x).mean():.2f}, of noise {model.energy(torch.rand_like(x)).mean():.2f}",
    )

# Attack: raise the cross-entropy inside an L2 ball.
attacked = dualat.pgd(
    model, x, raise_cross_entropy(y), dualat.ThreatModel("L2", 0.5), steps=20, step_size=0.06
)
with torch.no_grad():
    print("under attack  ", [model.class_names[i] for i in model.predict_proba(attacked).argmax(1)])

# Sample one image of each class asked for.
samples = dualat.sample(model, y, generator=torch.Generator().manual_seed(0))

# Explain: what would have to change for the model to see the next class?
target = (y + 1) % len(model.class_names)
changed = dualat.counterfactual(model, x, target, dualat.ThreatModel("L2", 2.0))
with torch.no_grad():
    print(
        "p(next class) ",
        f"{model.predict_proba(x).gather(1, target[:, None]).mean():.3f}, counterfactuals "
        f"{model.predict_proba(changed).gather(1, target[:, None]).mean():.3f}",
    )

save_picture(grid(torch.cat([x, attacked, samples, changed]), 8), run / "samples" / "use_a_model.png")
