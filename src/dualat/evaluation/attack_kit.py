"""The attacks of the package pyautoattack, each by itself, without what else it does to its surroundings."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from pyautoattack import AutoAttack
from torch import Tensor, nn

from dualat.core.classifier import check_logits, logits_of
from dualat.core.geometry import ThreatModel
from dualat.system.precision import float32_by_default


class FiniteLogits(nn.Module):
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


def perturber(
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
