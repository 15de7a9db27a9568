"""Make docs/reproduce.md: for each row of the paper's tables what is published, the commands, what they need and cost.

    python scripts/reproduce_page.py

Published figures are those of src/dualat/results/published.yaml, commands those in the recipes' comments, costs those of
`dualat plan`. It takes some minutes, and neither a GPU nor data.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dualat.config import load_recipe
from dualat.planning.plan import plan as plan_of
from dualat.planning.settings import PlanSettings
from dualat.recipes.reading import recipe_text
from dualat.results.compare.sources import protocol, published_rows
from dualat.system.files import write_text

PAGE = Path(__file__).parents[1] / "docs" / "reproduce.md"
PAPER = "2510.13872"
GPU = "h100"
REFERENCE = "data/VIRTUAL_imagenet256_labeled.npz"
FIGURES = ("clean_accuracy", "robust_accuracy", "inception_score", "fid")
TITLES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "imagenet256": "ImageNet, 256x256"}
IMAGES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "imagenet256": "ImageNet-1k"}
STARTS = {"data/tiny_images.bin": "80 Million Tiny Images", "data/openimages": "Open Images"}
SAMPLED = {
    "data/tiny_images.bin": " \\\n    --initial-images data/tiny_images.bin --initial-exclude data/cifar.txt",
    "data/openimages": " \\\n    --initial-images data/openimages --initial-include data/openimages-start.txt",
}
"""What samples start from where training starts from these pictures: on ImageNet others than those trained with."""
GPUS = {"cifar10": 1, "cifar100": 1, "imagenet256": 8}
"""For each row. A batch of CIFAR is too small for more."""
TORCHRUN = "torchrun --standalone --nproc-per-node 8 -m"

ROWS = {
    "cifar10": {
        "DAT T=40": "cifar10",
        "DAT T=50": "cifar10-t50",
        "AT": "cifar10-standard-at",
        "RATIO": "cifar10-ratio",
        "JEM": "cifar10-jem",
        "JEM++": "cifar10-jempp",
        "SADA-JEM": "cifar10-sada-jem",
    },
    "cifar100": {"DAT T=45": "cifar100", "DAT T=50": "cifar100-t50"},
    "imagenet256": {
        "DAT ResNet-50 T=15": "imagenet-resnet50-t15",
        "DAT ResNet-50 T=30": "imagenet-resnet50",
        "DAT WRN-50-4 T=30": "imagenet-wrn50-4-t30",
        "DAT WRN-50-4 T=65": "imagenet-wrn50-4",
        "DAT ConvNeXt-S": "imagenet-convnext-small",
        "DAT ConvNeXt-B": "imagenet-convnext-base",
        "DAT ConvNeXt-L T=110": "imagenet-convnext-large",
        "DAT ViT-S": "imagenet-vit-small",
    },
}
"""Recipe of each row, by data set and system as published.yaml names them. Published rows without one follow these."""

HEAD = """\
# Every row of the paper's tables

Made by `python scripts/reproduce_page.py` from the recipes, `published.yaml` and `dualat plan`: do not edit.

The paper is [arXiv 2510.13872](https://arxiv.org/abs/2510.13872). For each row: what is published, what it needs, the
commands, and what training will cost. Figures are the published ones; we have run none of these rows. An empty cell: the
figure is not published, or we do not have it. T in the name of a row is the paper's; for CIFAR the authors' configurations let T
grow further, to T_max = 50 or 100, which the recipes say and costs are calculated with.

Costs are estimates of `dualat plan`: from T at half of T_max all along to T at T_max. Data, evaluations, reading and augmenting
images come on top. How fast an H100 really is has not been measured: times may be wrong by a factor of two. Hours are
wall-clock time, GB are 10^9 bytes. For other machines, and for the price: `dualat plan RECIPE --gpus 8 --gpu a100
--price-per-hour 2.50`, for ImageNet with `--train-images 1281167`.

Run all commands in one folder, with `data/` and `runs/` in it. CIFAR rows are planned on one H100 each, so eight of them can
run side by side (`CUDA_VISIBLE_DEVICES=3 dualat train ...`). ImageNet rows are planned on eight; with another number, change
`--nproc-per-node`. What was stopped goes on when it is given again, `dualat train` with `--resume`
([distributed.md](distributed.md)). Two rows that start from the same weights need one import.

## What is needed

| what | where recipes look for it | size | how to get it |
|---|---|---|---|
| CIFAR-10, CIFAR-100 | `data/cifar-10-batches-py`, `data/cifar-100-python` | 0.4 GB each | [data.md](data.md), or `--data.download` |
| 80 Million Tiny Images, and the list of CIFAR's pictures in it | `data/tiny_images.bin`, `data/cifar.txt` | 244 GB | [data.md](data.md); withdrawn by its authors |
| ImageNet-1k | `data/imagenet/train`, `data/imagenet/val` | 150 GB | [data.md](data.md); for shards, `--data.source` |
| RobustBench's 5,000 test images | `data/imagenet_test_image_ids.txt` | small | github.com/RobustBench/robustbench |
| Open Images, the list of 300,000 to train with, and of 50,000 others to sample from | `data/openimages`, `data/openimages-train.txt`, `data/openimages-start.txt` | about 105 GB | [data.md](data.md) |
| `resnet50_l2_eps3.ckpt`, `wide_resnet50_4_l2_eps3.ckpt` | anywhere; the command names the file | up to 3 GB | github.com/microsoft/robust-models-transfer |
| `convnext_l_cvst.pt` and others of Singh et al. | the same | up to 1 GB | github.com/nmndeep/revisiting-at |
| Inception's weights, for FID and IS | torch hub's cache, or `--inception-weights FILE` | 0.1 GB | github.com/toshas/torch-fidelity, release v0.2.0 |
| the statistics that ImageNet's FID is measured against | `REFERENCE` | 2 GB | github.com/openai/guided-diffusion, evaluations |

Every row needs Inception's weights. ImageNet's rows also need these statistics and RobustBench's list.

In place of Tiny Images: `--initial.source data/300K_random_images.npy` without `--initial.exclude` ([data.md](data.md)). Without
any pictures, leave all `--initial` options out: samples then start from a Gaussian fitted to the training images. Either is
another experiment than the published one.

ImageNet also takes CPU cores. Each image of a step costs three decoded pictures, two of ImageNet and one of Open Images: for
ResNet-50 on eight H100s 3,000 to 5,000 a second, which is 20 cores or more. Larger networks need fewer.
""".replace("REFERENCE", REFERENCE)

AFTER = {
    "cifar10": """\
Stage 1 of DAT is the row AT, with the same settings. `--stages 2 --weights runs/cifar10-standard-at` starts from that run and
saves its hours. JEM diverges often: `--stability.on-divergence restart` goes on from the last checkpoint.
"""
}
"""What else is to be said below a table."""

TAIL = """\
## Cost of evaluation

`dualat plan` does not cover it. By hand, for one GPU: AutoAttack takes up to 1,900 gradient steps and 5,000 forward passes for
an image that it does not fool, so about 10^18 FLOP for `cifar10` and 2 * 10^18 for ConvNeXt-L. That is 3 to 12 hours at 50 to
100 TFLOP/s, in fp32. 50,000 samples take under an hour for `cifar10`, 1 to 2 for ConvNeXt-L. AutoAttack is not faster with
several processes. 50,000 samples of 256x256 pixels are 10 GB of host memory, for each process.

A clean accuracy on all 50,000 validation images of ImageNet, as it is published:
`dualat evaluate TARGET --metrics clean_accuracy --test-list all`.

## What is not as published

- 2 % of CIFAR's training images (0.2 % of ImageNet's) are held out, and checkpoints are chosen on them. The authors train on
  all, and choose the weights of the best FID while training. `dualat evaluate --weights best-generation` takes the nearest that
  we have: the best Frechet distance, in a small classifier's features, to held-out images.
- FID on CIFAR is measured against the 49,000 images that are trained on, published FID against all 50,000.
- The length of stage 2 is not published: 100 epochs on CIFAR and 20 on ImageNet are ours, and cost grows with them. Watch T and
  AUROC in `metrics.jsonl`.
- The number of sampling steps is chosen by a sweep in the paper. Recipes have what was found there. AT ConvNeXt-L is sampled
  as DAT is here; how the paper does is not given. `--metrics step_sweep` sweeps on validation images.
- CIFAR's samples start from the pictures that training starts from; `dualat evaluate` without `--initial-images` takes the
  1,000 of them that a saved model holds.
- ImageNet's random crops are cut out of images that are 256 pixels wide already ([data.md](data.md)).
- What else was not given, and what was chosen, stands in each recipe's comment.
"""

Plan = dict[str, Any]
"""What `dualat plan --json` says."""


def main() -> None:
    write_text(PAGE, page(planned))


def planned(data: str, recipe: str) -> Plan:
    """What `dualat plan` says of a recipe."""
    print(f"planning {recipe}", flush=True)
    images = 1_281_167 if data == "imagenet256" else None
    return plan_of(load_recipe(recipe), PlanSettings(gpu=GPU, gpus=GPUS[data], train_images=images))


def page(plan: Callable[[str, str], Plan | None]) -> str:
    """The page. plan: what the recipe of a data set costs; None leaves the cells empty."""
    parts = [HEAD]
    for data, title in TITLES.items():
        parts += [
            f"## {title}\n",
            sentence(protocol(data)),
            table(data, plan),
            *([AFTER[data]] if data in AFTER else []),
        ]
        parts += [section(system, *commands(data, recipe)) for system, recipe in ROWS[data].items()]
        parts += foreign() if data == "imagenet256" else []
    return "\n".join([*parts, TAIL])


def sentence(text: str) -> str:
    """As a paragraph of its own."""
    return f"{text[0].upper()}{text[1:].strip().rstrip('.')}.\n"


def table(data: str, plan: Callable[[str, str], Plan | None]) -> str:
    """Published figures, recipe and cost, one row each; notes below it."""
    lines = [
        "| | accuracy, % | AutoAttack, % | IS | FID | recipe | memory of each GPU, GB | hours | GPU hours | disk, GB |",
        "|---|--:|--:|--:|--:|---|--:|--:|--:|--:|",
    ]
    known = published(data)
    notes: list[str] = []
    for system in [*ROWS[data], *(name for name in known if name not in ROWS[data])]:
        figures, note = known.get(system, ({}, ""))
        recipe = ROWS[data].get(system)
        mark = ""
        if note:
            notes += [note] if note not in notes else []
            mark = f" [{notes.index(note) + 1}]"
        cost = costs(plan(data, recipe) if recipe else None)
        cells = [
            system + mark,
            *(figure(figures, name) for name in FIGURES),
            f"`{recipe}`" if recipe else "none",
        ]
        lines.append(f"| {' | '.join([*cells, *cost])} |")
    lines += [f"\n[{i}] {sentence(note).strip()}" for i, note in enumerate(notes, 1)]
    return "\n".join(lines) + "\n"


def published(data: str) -> dict[str, tuple[dict[str, float], str]]:
    """Figures of each system in the paper's tables, and the note to them."""
    found = {}
    for row, records in published_rows(data):
        source, _, note = row.source.partition("; ")
        if PAPER in source:
            found[row.system] = {record.metric: record.value for record in records}, note
    return found


def figure(figures: dict[str, float], name: str) -> str:
    """A cell: shares in percent, nothing where nothing is known."""
    if name not in figures:
        return ""
    value = figures[name]
    return f"{100 * value:.2f}" if name.endswith("accuracy") else f"{value:g}"


def costs(plan: Plan | None) -> list[str]:
    """Memory, hours, GPU hours and disk as cells."""
    if plan is None:
        return [""] * 4
    memory = f"{max(stage['memory']['total'] for stage in plan['stages']) / 1e9:.0f}"
    if not all(stage["fits"] for stage in plan["stages"]):
        memory += ", too much"
    low, high = plan["total"]["guess"], plan["total"]["most"]
    spans = [span(low[key], high[key]) for key in ("hours", "gpu_hours")]
    return [memory, *spans, f"{plan['disk']['total'] / 1e9:.0f}"]


def span(low: float, high: float) -> str:
    """Both in two digits, or one where they are the same."""
    first, last = (f"{value:.0f}" if value >= 9.5 else f"{value:.1f}" for value in (low, high))
    return first if first == last else f"{first} to {last}"


def section(title: str, needs: list[str], lines: list[str]) -> str:
    """Commands under their title."""
    return f"### {title}\n\nNeeds {', '.join(needs)}.\n\n```sh\n" + "\n".join(lines) + "\n```\n"


def commands(data: str, recipe: str) -> tuple[list[str], list[str]]:
    """What the commands of a recipe need, and these: those of its comment (or a bare `dualat train`), the evaluation."""
    lines = [command for command in in_comment(recipe) if "300K_random_images" not in command]
    if not any(command.startswith("dualat train") for command in lines):
        lines.append(f"dualat train {recipe}")
    needs = [IMAGES[data], *(name for place, name in STARTS.items() if f" {place} " in "\n".join(lines))]
    needs += [f"`{line.split()[2]}`" for line in lines if line.startswith("dualat import-weights")]
    if GPUS[data] > 1:
        start = f"dualat train {recipe}"
        lines = [line.replace(start, f"{TORCHRUN} {start} --resume \\\n   ") for line in lines]
    starts = next((options for place, options in SAMPLED.items() if f" {place} " in "\n".join(lines)), "")
    return needs, [*lines, *evaluation(data, f"runs/{recipe}", starts)]


def in_comment(recipe: str) -> list[str]:
    """The indented dualat commands of the comment that a recipe begins with, continued lines as they are."""
    found: list[str] = []
    for line in recipe_text(recipe).splitlines():
        if not line.startswith("#"):
            break
        text = line[1:]
        if text.startswith("   dualat "):
            found.append(text[3:])
        elif found and found[-1].endswith("\\"):
            found[-1] += f"\n{text[3:]}"
    return found


def evaluation(data: str, target: str, starts: str, attack: str = "") -> list[str]:
    """The published protocol. The CIFAR recipes have 50,000 samples and the training images as reference."""
    if data != "imagenet256":
        return [f"dualat evaluate {target} --metrics clean_accuracy autoattack inception{starts}"]
    return [
        f"dualat evaluate {target} --metrics clean_accuracy autoattack{attack}",
        f"dualat evaluate {target} --metrics inception --samples 50000 \\\n    --reference {REFERENCE}{starts}",
    ]


def foreign() -> list[str]:
    """ImageNet's systems that others have trained: from their weights, or from the samples that they publish."""
    weights = "runs/weights/at-convnext-large.safetensors"
    at = [
        "dualat import-weights convnext_l_cvst.pt --recipe imagenet-convnext-large --normalize none \\",
        "    --initial.kind images --initial.source data/openimages --initial.include data/openimages-train.txt \\",
        f"    --initial.augment.kind imagenet --output {weights}",
        *evaluation("imagenet256", weights, SAMPLED["data/openimages"], " --autoattack-eps 3.0"),
    ]
    samples = f"dualat evaluate samples.npz --source data/imagenet --metrics inception \\\n    --reference {REFERENCE}"
    return [
        section("AT ConvNeXt-L", ["ImageNet-1k", "Open Images", "`convnext_l_cvst.pt`"], at),
        section(
            "EGC, ADM-G, LDM-4-G, VAR-d16, DiT-XL/2-G",
            ["ImageNet-1k", "50,000 samples as their authors publish or draw them (`arr_0`, uint8, NHWC)"],
            [samples],
        ),
    ]


if __name__ == "__main__":
    main()
