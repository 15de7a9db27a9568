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
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pyautoattack import AutoAttack
from torch import Tensor, nn

from dualat.core.classifier import check_logits, device_of, logits_of
from dualat.core.geometry import ThreatModel, image_norm
from dualat.core.loop import frozen
from dualat.data.images import ImageData, Shape
from dualat.evaluation.attack_run import AttackRun, Known, Progress, WrongState
from dualat.evaluation.context import EvaluationContext
from dualat.evaluation.registry import ENSEMBLE
from dualat.evaluation.reuse import add_tensors
from dualat.results.record import Record, share_correct, timed
from dualat.system.precision import float32_by_default

STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")
ATTACKS = (*STANDARD, "apgd-dlr", "fab")
APGD = (("apgd-ce",), ("apgd-ce", "apgd-t"))
RELATIVE, ABSOLUTE = 1e-5, 1e-6  # in the ball: up to eps * (1 + RELATIVE) + ABSOLUTE, as float32 rounds


def measure(context: EvaluationContext) -> list[Record]:
    return ensemble_records(context, "autoattack", STANDARD)


def ensemble_records(context: EvaluationContext, name: str, attacks: tuple[str, ...]) -> list[Record]:
    """A record for each radius of the settings, of the metric `name`."""
    settings = context.settings
    data = context.held_out(settings.autoattack_images or settings.robust_images)
    records = []
    for eps in settings.autoattack_eps or (settings.validation_eps,):
        folder = context.partial(name, ENSEMBLE)
        state = None if folder is None else folder / f"{eps:g}.json"

        def attacked(eps: float = eps, state: Path | None = state) -> Record:
            return autoattack(
                context.required_model,
                data,
                ThreatModel(settings.norm, eps),
                attacks=attacks,
                seed=context.seed,
                state=state,
                progress=lambda attack, done, total: context.progress(f"{name} {attack}", done, total),
                known=context.once(("autoattack", len(data), eps), dict),
            )

        try:
            records.append(timed(attacked))
        except WrongState:  # it only saves time: begin anew
            assert state is not None
            state.unlink(missing_ok=True)
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
        state: file to go on from, written after every chunk; only the caller removes it. Its "fell" holds, for each
            image, the place in "stages" of what first fooled the model: len(stages) where nothing did.
        progress: called as progress(attack, chunks done, chunks in all) after each chunk; the first is "clean".
        known: outcomes of ensembles on the same images in the same ball, with the same seed: taken, where one begins with
            the same attacks, and added to.

    Raises:
        ValueError: settings that cannot be, logits that are not finite, or the state of another evaluation.
    """
    _check(model, data, threat, batch_size)
    device = device_of(model)
    with frozen(model), torch.no_grad():
        logits = _Logits(model)
        classes = _classes(logits(data.float(slice(0, 1)).to(device)), data)
        plan, left_out = choose_attacks(attacks, classes, threat.norm, data.shape)
        perturb, targets = _perturber(logits, threat, device, seed, classes)
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
        run = AttackRun(stages, torch.full((len(data),), len(stages)), known={} if known is None else known)
        if state is not None:
            run.open(Path(state), fingerprint(model, data, settings, seed))

        def attack_chunk(name: str, which: Tensor) -> tuple[Tensor, int]:
            x, labels = data.float(which).to(device), data.labels[which].to(device)
            return _judge(logits, perturb(name, x, labels), x, labels, threat)

        run.finish(attack_chunk, batch_size, progress)
    after = {name: int((run.fell > i).sum()) / len(data) for i, name in enumerate(stages)}
    details = {"after": after, "projected": run.projected}
    kept = (run.fell == len(stages)).cpu().numpy()
    return share_correct("robust_accuracy", kept, details, settings=settings, seed=seed)


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


class _Logits(nn.Module):
    """The model, which refuses to go on with logits that are not finite: attacks would fail on them in silence."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits = logits_of(self.model, x)
        if not torch.isfinite(logits).all():
            sound = x.flatten(1).isfinite().all(dim=1)  # an attack's own NaN is not the model's fault
            check_logits(logits[sound])
        return logits


@contextmanager
def undisturbed() -> Iterator[None]:
    """Inside, pyautoattack neither logs nor moves the caller's random streams, which it seeds on its way, and finds the
    default type that it counts on."""
    logger = logging.getLogger("auto-attack")
    found, logger.disabled = logger.disabled, True
    try:
        with (
            float32_by_default(),
            torch.random.fork_rng(range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()),
        ):
            yield
    finally:
        logger.disabled = found


def _perturber(
    logits: nn.Module, threat: ThreatModel, device: torch.device, seed: int, classes: int
) -> tuple[Callable[[str, Tensor, Tensor], Tensor], int]:
    """perturb(attack, images, labels) -> images, and the number of targets of the targeted attacks."""
    with undisturbed():  # version "standard"
        kit = AutoAttack(logits, norm=threat.norm, eps=threat.eps, seed=seed, device=device)
    targets = min(kit.apgd_targeted.n_target_classes, classes - 1)
    kit.apgd_targeted.n_target_classes = kit.fab.n_target_classes = targets
    for name in ("lp_norm", "normalize"):  # they fail on no images: where Square leaves only ties
        setattr(kit.square, name, _or_empty(getattr(kit.square, name)))
    engines = {"apgd": kit.apgd, "apgd-t": kit.apgd_targeted, "fab": kit.fab, "square": kit.square}

    def perturb(name: str, x: Tensor, labels: Tensor) -> Tensor:
        if name == "clean":
            return x
        family, _, variant = name.partition("-")
        engine = engines.get(name, engines[family])
        if engine is kit.apgd:
            kit.apgd.loss = variant
        kit.fab.targeted = name == "fab-t"
        engine.seed = seed
        with undisturbed():
            return engine.perturb(x, labels).detach()

    return perturb, targets


def _or_empty(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: function(x) if len(x) else x[:, :1, :1, :1]


def _judge(
    logits: nn.Module, adversarial: Tensor, x: Tensor, labels: Tensor, threat: ThreatModel
) -> tuple[Tensor, int]:
    """Which images fool the model (N,), on the CPU; how many had to be put back into ball and box before that."""
    fooled = logits(adversarial).max(dim=1).indices != labels
    flat = adversarial.flatten(1)
    inside = image_norm(adversarial - x, threat.norm) <= threat.eps * (1 + RELATIVE) + ABSOLUTE
    outside = fooled & ~(inside & (flat.amin(1) >= 0) & (flat.amax(1) <= 1))  # NaN is outside
    count = int(outside.sum())
    if count:
        back = threat.project(adversarial.where(adversarial.isfinite(), x)[outside], x[outside])
        fooled[outside] = logits(back).max(dim=1).indices != labels[outside]
    return fooled.cpu(), count
