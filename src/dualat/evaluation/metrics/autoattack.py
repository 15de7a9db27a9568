"""Robust accuracy under AutoAttack: the share of images that no attack of an ensemble turns into another class.

    acc_eps = 1/N sum_i [ argmax f(x_i) = y_i and argmax f(a(x_i)) = y_i for every attack a ]
    with ||a(x_i) - x_i||_p <= eps and a(x_i) in [0, 1]^D

An attack runs on the images that those before it left standing. APGD on the cross-entropy, its first attack, alone is a
metric too (apgd.py): where both are measured, it runs once for both.

Source: Croce and Hein, 2020 (arXiv 2003.01690); the attacks themselves are the package pyautoattack.
"""

import difflib
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dualat.core.classifier import device_of
from dualat.core.geometry import ThreatModel, image_norm
from dualat.core.loop import frozen
from dualat.data.images import ImageData, Shape
from dualat.evaluation.attack_kit import FiniteLogits, perturber
from dualat.evaluation.context import EvaluationContext
from dualat.evaluation.registry import ENSEMBLE
from dualat.evaluation.reuse import Tensors, add_tensors, kept_tensors
from dualat.results.record import Record, share_correct, timed

STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")
ATTACKS = (*STANDARD, "apgd-dlr", "fab")
APGD = (("apgd-ce",), ("apgd-ce", "apgd-t"))
RELATIVE, ABSOLUTE = 1e-5, 1e-6  # in the ball: up to eps * (1 + RELATIVE) + ABSOLUTE, as float32 rounds
Progress = Callable[[str, int, int], None]
Known = dict[tuple[str, ...], tuple[Tensor, int]]
"""By the stages of a run up to some stage: positions of the images that fell in it, and how many it projected."""


def measure(context: EvaluationContext) -> list[Record]:
    return ensemble_records(context, "autoattack", STANDARD)


def ensemble_records(context: EvaluationContext, name: str, attacks: tuple[str, ...]) -> list[Record]:
    """A record for each radius of the settings, of the metric `name`."""
    settings = context.settings
    data = context.held_out(settings.autoattack_images or settings.robust_images)
    records = []
    for eps in settings.autoattack_eps or (settings.validation_eps,):

        def attacked(eps: float = eps) -> Record:
            return autoattack(
                context.required_model,
                data,
                ThreatModel(settings.norm, eps),
                attacks=attacks,
                seed=context.seed,
                state=context.partial(name, ENSEMBLE),
                progress=lambda attack, done, total: context.progress(f"{name} {attack}", done, total),
                known=context.once(("autoattack", len(data), eps), dict),
            )

        records.append(timed(attacked))
    return records


def autoattack(
    model: nn.Module,
    data: ImageData,
    threat: ThreatModel,
    *,
    attacks: Sequence[str] = STANDARD,
    batch_size: int = 250,
    seed: int = 0,
    state: Path | None = None,
    progress: Progress | None = None,
    known: Known | None = None,
) -> Record:
    """Record `robust_accuracy` over all images of `data`: image by image what pyautoattack alone finds.

    Each attack has its settings of AutoAttack's standard version, but for at most K - 1 targets. The batch size
    matters a little, as in every AutoAttack: random starts are drawn for a batch at once.

    Args:
        model: from images (N, C, H, W) to logits (N, K), K >= 2, with float32 weights. It is left as found.
        data: images and labels.
        threat: ball with a finite eps above 0.
        attacks: names of ATTACKS, in the order in which they run. The record says which are left out, and why.
        batch_size: images per chunk.
        seed: each chunk of each attack begins with it.
        state: folder that keeps what each chunk gave: a call that was killed goes on there. Other weights, images, settings
            and seeds have subfolders of their own; only the caller removes it.
        progress: called as progress(attack, chunks done, chunks in all) after each chunk; the first is "clean".
        known: outcomes of ensembles on the same images in the same ball, with the same seed: taken, where one begins with
            the same attacks, and added to.

    Raises:
        ValueError: settings that cannot be, or logits that are not finite.
    """
    _check(model, data, threat, batch_size)
    device = device_of(model)
    with frozen(model), torch.no_grad():
        logits = FiniteLogits(model)
        classes = _classes(logits(data.float(slice(0, 1)).to(device)), data)
        plan, left_out = choose_attacks(attacks, classes, threat.norm, data.shape)
        perturb, targets = perturber(logits, threat, device, seed, classes)
        asked = tuple(attacks)
        settings = {
            "attack": "autoattack" if asked == STANDARD else "apgd" if asked in APGD else "custom",
            "attacks": list(plan),
            "targets": targets if {"apgd-t", "fab-t"} & set(plan) else 0,
            "norm": threat.norm,
            "eps": threat.eps,
            "precision": "fp32",
            "batch_size": batch_size,
            "left_out": left_out,
            "pyautoattack": version("pyautoattack"),
        }
        stages = ("clean", *plan)
        folder = None if state is None else Path(state) / fingerprint(model, data, settings, seed)[:16]

        def attack(name: str, which: Tensor) -> Tensors:
            x, labels = data.float(which).to(device), data.labels[which].to(device)
            return _judge(logits, perturb(name, x, labels), x, labels, threat)

        fell, projected = _run(stages, len(data), attack, batch_size, folder, progress, known)
    after = {name: int((fell > i).sum()) / len(data) for i, name in enumerate(stages)}
    kept = (fell == len(stages)).numpy()
    details = {"after": after, "projected": projected}
    return share_correct("robust_accuracy", kept, details, settings=settings, seed=seed)


def _run(
    stages: tuple[str, ...],
    count: int,
    attack: Callable[[str, Tensor], Tensors],
    batch_size: int,
    folder: Path | None,
    progress: Progress | None,
    known: Known | None,
) -> tuple[Tensor, int]:
    """The stage in which each image fell, (N,), len(stages) where it stands, and how many images were projected.

    attack: from a stage and positions of images to what `_judge` gives.
    """
    fell, projected, known = torch.full((count,), len(stages)), 0, {} if known is None else known
    for stage, name in enumerate(stages):
        standing, so_far = (fell == len(stages)).nonzero().flatten(), stages[: stage + 1]
        if so_far not in known:
            chunks = standing.split(batch_size) if len(standing) else ()
            fallen, outside = [standing[:0]], 0
            for i, which in enumerate(chunks):
                path = None if folder is None else folder / f"{stage}-{name}-{i:05d}.safetensors"
                anew = path is None or not path.exists()
                found = kept_tensors(path, partial(_fits, len(which)), partial(attack, name, which))
                fallen.append(which[found["fooled"]])
                outside += int(found["projected"])
                if anew and progress is not None:
                    progress(name, i + 1, len(chunks))
            known[so_far] = torch.cat(fallen), outside
        fell[known[so_far][0]] = stage
        projected += known[so_far][1]
    return fell, projected


def _fits(count: int, found: Tensors) -> bool:
    fooled = found["fooled"]
    return fooled.shape == (count,) and fooled.dtype == torch.bool and found["projected"].numel() == 1


def choose_attacks(
    names: Sequence[str], classes: int, norm: str, shape: Shape
) -> tuple[tuple[str, ...], dict[str, str]]:
    """The attacks that are defined here, in order, and why each of the others is left out.

    DLR = -(z_y - max_{j != y} z_j) / (z_(1) - z_(3)) needs 3 logits, its targeted form
    -(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2) needs 4. With 3 classes the first stands in for the second.
    """
    for name in names:
        if name not in ATTACKS:
            near = difflib.get_close_matches(name, ATTACKS, n=1, cutoff=0.3)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"attacks has {name!r}, but knows only {', '.join(ATTACKS)}.{hint}")
    if not names or len(set(names)) != len(names):
        raise ValueError(f"attacks is {list(names)}, but must name at least one attack, each once.")
    plan, left_out = [], {}
    for name in names:
        if name == "apgd-t" and classes == 3:
            left_out[name] = "the targeted DLR loss needs 4 classes, the model has 3: apgd-dlr in its place"
            plan += [] if "apgd-dlr" in names else ["apgd-dlr"]
        elif name in ("apgd-t", "apgd-dlr") and classes < 3:
            left_out[name] = f"the DLR loss needs 3 classes, its targeted form 4, the model has {classes}"
        elif name == "square" and norm == "L2" and not square_fits(shape):
            left_out[name] = f"pyautoattack's L2 Square cannot tile images of {shape[1]} x {shape[2]} pixels"
        else:
            plan.append(name)
    if not plan:
        raise ValueError(f"none of the attacks {list(names)} can run here: {'; '.join(left_out.values())}.")
    return tuple(plan), left_out


def square_fits(shape: Shape) -> bool:
    """Whether pyautoattack 0.2 can begin its L2 Square: tiles of side H // 5 from (H mod 5) // 2 on must end inside
    the image (tiles of one pixel need not)."""
    _, height, width = shape
    tile, start = height // 5, height % 5 // 2
    return tile == 1 or (tile > 1 and all(start + side // tile * tile <= side for side in (height, width)))


def fingerprint(model: nn.Module, data: ImageData, settings: Mapping[str, Any], seed: int) -> str:
    """Hex digest of all that the evaluation's result depends on."""
    digest = hashlib.sha256(json.dumps([settings, seed, data.shape], sort_keys=True).encode())
    add_tensors(digest, {"images": data.images, "labels": data.labels}.items())
    add_tensors(digest, model.state_dict().items())
    return digest.hexdigest()


def _check(model: nn.Module, data: ImageData, threat: ThreatModel, batch_size: int) -> None:
    if not 0 < threat.eps < math.inf:
        raise ValueError(f"eps is {threat.eps}, but AutoAttack needs a finite one above 0.")
    if batch_size < 1 or len(data) < 1:
        raise ValueError(f"AutoAttack needs a batch_size and images, but has {batch_size} and {len(data)}.")
    if any(p.is_floating_point() and p.dtype != torch.float32 for p in model.parameters()):
        raise ValueError("the model's weights are not float32: call model.float() before AutoAttack.")


def _classes(logits: Tensor, data: ImageData) -> int:
    least = max(2, int(data.labels.max()) + 1)
    if logits.ndim != 2 or logits.shape[1] < least:
        shape = tuple(logits.shape)
        raise ValueError(f"logits of one image must have shape (1, {least} or more) here, not {shape}.")
    return logits.shape[1]


def _judge(logits: nn.Module, adversarial: Tensor, x: Tensor, labels: Tensor, threat: ThreatModel) -> Tensors:
    """fooled: which images fool the model, (N,), on the CPU; projected: how many had to be put back into ball and box."""
    fooled = logits(adversarial).max(dim=1).indices != labels
    flat = adversarial.flatten(1)
    inside = image_norm(adversarial - x, threat.norm) <= threat.eps * (1 + RELATIVE) + ABSOLUTE
    outside = fooled & ~(inside & (flat.amin(1) >= 0) & (flat.amax(1) <= 1))  # NaN is outside
    count = int(outside.sum())
    if count:
        back = threat.project(adversarial.where(adversarial.isfinite(), x)[outside], x[outside])
        fooled[outside] = logits(back).max(dim=1).indices != labels[outside]
    return {"fooled": fooled.cpu(), "projected": torch.tensor(count)}
