"""Train on a folder of your own images: one subfolder per class. This one makes a tiny folder (scikit-learn's digits
0 to 2) first; with yours, give its path as data.source, and an image_size that suits it."""

import argparse
from pathlib import Path

import torch
from PIL import Image
from sklearn.datasets import load_digits

from dualat import load, sample, train
from dualat.data.grids import grid, save_picture


def make_folder(folder: Path, per_class: int = 60) -> None:
    """folder/0/000.png, folder/0/001.png ... folder/2/059.png: 8x8 and grey."""
    digits = load_digits(n_class=3)
    for label in range(3):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        pixels = (digits.images[digits.target == label] / 16 * 255).round().astype("uint8")
        for i, image in enumerate(pixels[:per_class]):
            Image.fromarray(image).save(folder / str(label) / f"{i:03d}.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="new folder for the images (images/) and the run (run/)")
    parser.add_argument("--steps", type=int, default=200, help="training steps of each stage")
    args = parser.parse_args()

    make_folder(args.folder / "images")
    data = {"data.source": str(args.folder / "images"), "data.image_size": 8, "data.channels": 1}
    steps = {"stage1.steps": args.steps, "stage2.steps": args.steps}
    figures = {"evaluation.samples": 100, "evaluation.validation_samples": 50}  # few: this is a quick example
    run = train("digits", {**data, **steps, **figures, "output": str(args.folder / "run")}, overwrite=True)
    model = load(run)
    samples = sample(model, torch.arange(30) % 3, generator=torch.Generator().manual_seed(0))
    save_picture(grid(samples, columns=3), run / "samples" / "mine.png")
    print(f"30 samples of the classes {', '.join(model.class_names)}: {run / 'samples' / 'mine.png'}")
