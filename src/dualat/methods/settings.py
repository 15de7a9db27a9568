"""Settings that methods share. Imports nothing heavy: the command line reads this file."""

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

from dualat.settings import strict


@strict
class AttackSettings:
    """The attack of adversarial training: PGD on the cross-entropy, inside a ball."""

    norm: Literal["L2", "Linf"] = "L2"
    """Norm of the ball."""
    eps: float = 0.5
    """Radius of the ball, in pixel units of [0, 1]."""
    steps: int = 10
    """Gradient steps."""
    step_size: float = 0.1
    """Length of a step, in pixel units of [0, 1]."""
    random_start: bool = False
    """Start at a random point of the ball instead of at the image."""

    def __post_init__(self) -> None:
        if not 0 <= self.eps < math.inf:
            raise ValueError(f"attack.eps is {self.eps}, but must be 0 or more, and finite.")
        if self.steps < 0 or not 0 < self.step_size < math.inf:
            raise ValueError(
                f"attack.steps must be 0 or more and attack.step_size above 0, "
                f"not {self.steps} and {self.step_size}."
            )
        if self.steps and self.steps * self.step_size < self.eps * (1 - 1e-6):
            raise ValueError(
                f"the attack cannot reach the edge of its ball: attack.steps * attack.step_size is "
                f"{self.steps * self.step_size:g}, below attack.eps = {self.eps:g}."
            )


@strict
class ContrastiveSettings:
    """Contrastive samples of stage 2, and the curriculum on their number of steps T."""

    t_max: int = 50
    """T_max: the largest number of gradient steps."""
    auc_threshold: float = 0.8
    """AUC_th: T grows by one when the mean AUROC over the window reaches this, an AUROC: 0 to 1; 0.5 is chance."""
    window: int = 1000
    """Images over which the AUROC is averaged before T may grow: ceil(window / batch) training steps."""
    step_size: float = 0.1
    """eta: L2 length of a step, in pixel units of [0, 1]."""
    energy: Literal["joint", "marginal"] = "joint"
    """Energy that the steps lower: E(x, y) with the labels of the real batch, or E(x)."""

    def __post_init__(self) -> None:
        if self.t_max < 0 or self.window < 1 or not 0 < self.step_size < math.inf:
            raise ValueError(
                f"contrastive.t_max must be 0 or more, contrastive.window 1 or more and "
                f"contrastive.step_size above 0, not {self.t_max}, {self.window} and {self.step_size}."
            )
        if not 0 <= self.auc_threshold <= 1:
            raise ValueError(f"contrastive.auc_threshold is {self.auc_threshold}, but is an AUROC: 0 to 1.")


@strict
class LossSettings:
    """Weights of the terms of the loss."""

    cross_entropy: float = 1.0
    """Weight of the classification loss: L_AT-CE of dat, each method's cross-entropy elsewhere."""
    robust: bool = True
    """Classification loss of dat's stage 2: that of adversarial images; false, an ablation: of the images as they are."""
    energy: float = 1.0
    """Weight of the energy loss: L_BCE in dat's stage 2; elsewhere what the method has in its place (see its file)."""
    r1: float | None = None
    """Weight of the gradient penalty R1 on real images; 0 logs it only. None: the method's, 0.01 for at-ebm, else 0."""
    adversarial_energy: float = 0.1
    """eb-jdat: weight of the energy loss between real images and adversarial ones."""

    def __post_init__(self) -> None:
        weights = (self.cross_entropy, self.energy, self.r1 or 0.0, self.adversarial_energy)
        if not all(0 <= w < math.inf for w in weights) or self.cross_entropy == self.energy == 0:
            raise ValueError(
                "loss.cross_entropy, energy, r1 and adversarial_energy must be finite and 0 or more, one of the first two "
                f"above 0, not {weights}."
            )


@strict
class ChainSettings:
    """Chains that sample the model's own density: jem, robust-jem, jempp, sada-jem and eb-jdat.

    None stands for the method's published value, converted from pixels in [-1, 1] to pixels in [0, 1].
    """

    steps: int | None = None
    """Gradient steps of a chain per training step (jempp: outer steps)."""
    inner_steps: int | None = None
    """jempp: steps through the first layer alone per outer step."""
    step_size: float | None = None
    """Factor of the gradient with respect to pixels in [0, 1]."""
    noise: float | None = None
    """Deviation of the noise added after each step (jempp: each inner step), in pixel units of [0, 1]."""
    input_noise: float | None = None
    """Deviation of the noise added to training images, in pixel units of [0, 1]."""
    buffer: int = 10_000
    """Replay buffer: number of images of earlier chains that new ones go on from."""
    restart: float = 0.05
    """Share of chains that start anew from the initial distribution."""

    def __post_init__(self) -> None:
        for name in ("steps", "inner_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"chain.{name} is {value}, but must be 1 or more.")
        if self.step_size is not None and not 0 < self.step_size < math.inf:
            raise ValueError(f"chain.step_size is {self.step_size}, but must be above 0, and finite.")
        for name in ("noise", "input_noise"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"chain.{name} is {value}, but is a deviation: 0 (none) or more.")
        if not 1 <= self.buffer <= 10**7 or not 0 <= self.restart <= 1:
            raise ValueError(
                f"chain.buffer must be 1 to 10,000,000 and chain.restart in [0, 1], not {self.buffer} and {self.restart}."
            )

    def published(self, method: str) -> "ChainSettings":
        """These settings with the method's published values in place of None."""
        if method not in PUBLISHED_CHAINS:
            return self
        blanks = {k: v for k, v in PUBLISHED_CHAINS[method].items() if getattr(self, k) is None}
        return replace(self, **blanks)


_LANGEVIN = {"steps": 20, "step_size": 0.25, "noise": 0.005, "input_noise": 0.015}
PUBLISHED_CHAINS = {
    "jem": _LANGEVIN,
    "robust-jem": _LANGEVIN,
    "jempp": {"steps": 10, "inner_steps": 5, "step_size": 0.05, "noise": 0.0, "input_noise": 0.015},
    "sada-jem": {"steps": 5, "step_size": 0.25, "noise": 0.0, "input_noise": 0.0},
    "eb-jdat": {"steps": 10, "step_size": 0.25, "noise": 0.0, "input_noise": 0.0},
}
"""x' = 2x - 1 turns a step of eta' grad_x' into eta'/4 grad_x, and noise sigma' into sigma'/2."""


@strict
class SharpnessSettings:
    """Sharpness-aware minimisation (SAM): sada-jem."""

    rho: float = 2.0
    """Length of the adaptive climb before the gradient is taken."""

    def __post_init__(self) -> None:
        if not 0 < self.rho < math.inf:
            raise ValueError(f"sharpness.rho is {self.rho}, but must be above 0, and finite.")


@strict
class OutSettings:
    """The attack on images of the initial distribution that must stay unconfident: ratio."""

    eps: float = 1.0
    """L2 radius, in pixel units of [0, 1]."""
    steps: int = 20
    """Gradient steps."""
    step_size: float = 0.1
    """L2 length of a step, in pixel units of [0, 1]; that of the attack on real images is attack.step_size."""
    momentum: float = 0.9
    """Share of the direction of earlier steps that counts on in each, of both attacks, in [0, 1)."""

    def __post_init__(self) -> None:
        if not 0 <= self.eps < math.inf or self.steps < 0 or not 0 < self.step_size < math.inf:
            raise ValueError(
                f"out.eps and out.steps must be 0 or more and out.step_size above 0, "
                f"not {self.eps}, {self.steps} and {self.step_size}."
            )
        if not 0 <= self.momentum < 1:
            raise ValueError(f"out.momentum is {self.momentum}, but must be 0 or more, and below 1.")


@strict
class PositiveSettings:
    """Real images pushed to higher energy before they count as real: at-ebm."""

    steps: int = 5
    """Gradient steps."""
    step_size: float = 0.1
    """L2 length of a step, in pixel units of [0, 1]."""

    def __post_init__(self) -> None:
        if self.steps < 0 or not 0 < self.step_size < math.inf:
            raise ValueError(
                f"positive.steps must be 0 or more and positive.step_size above 0, "
                f"not {self.steps} and {self.step_size}."
            )


@strict
class DiffusionSettings:
    """Noise under which images are learned: egc."""

    sigma_min: float = 0.005
    """Least deviation of the noise, in pixel units of [0, 1]."""
    sigma_max: float = 0.5
    """Largest deviation; samples start with noise of this size (sampling.start_noise)."""
    label_smoothing: float = 0.2
    """Share of the label that is spread over all classes, in [0, 1)."""

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise ValueError(
                f"diffusion.sigma_min and diffusion.sigma_max must be above 0 and the first be smaller, "
                f"not {self.sigma_min} and {self.sigma_max}."
            )
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(
                f"diffusion.label_smoothing is {self.label_smoothing}, but must be 0 (none) or more, and below 1."
            )


_CLASSIFY = ("loss.cross_entropy", "robust_augment")
_JEM = (
    *("chain.steps", "chain.step_size", "chain.noise", "chain.input_noise", "chain.buffer", "chain.restart"),
    *("loss.energy", "energy_augment", *_CLASSIFY),
)
_CONTRASTIVE = (
    "contrastive.t_max",
    "contrastive.auc_threshold",
    "contrastive.window",
    "contrastive.step_size",
)
USED = {
    "dat": (
        "attack",
        "contrastive",
        "loss.energy",
        "loss.robust",
        "loss.r1",
        "energy_augment",
        *_CLASSIFY,
        "stage2",
    ),
    "standard-at": ("attack", "robust_augment"),
    "jem": _JEM,
    "jempp": (*_JEM, "chain.inner_steps"),
    "sada-jem": (*_JEM, "sharpness"),
    "robust-jem": (*_JEM, "attack"),
    "at-ebm": (*_CONTRASTIVE, "positive", "loss.energy", "loss.r1", "energy_augment"),
    "ratio": ("attack", "out", "loss.energy", *_CLASSIFY),
    "eb-jdat": (
        *(*_JEM, "attack.norm", "attack.eps", "attack.steps", "attack.step_size"),
        "loss.adversarial_energy",
    ),
    "egc": ("diffusion", "loss.energy", *_CLASSIFY),
}
"""What each method reads, whole groups or single settings, of those that not all methods read."""
OF_METHODS = {name.partition(".")[0] for names in USED.values() for name in names}
"""The groups of USED; all others concern every method."""


def is_used(method: str, name: str, stages: str = "both") -> bool:
    """Whether the method reads the setting or group of this dotted name. stages: those of dat that are trained."""
    group = name.partition(".")[0]
    if method == "dat" and group == "stage1":
        return stages != "2"
    if (method, name) == ("at-ebm", "sampling.energy"):
        return False  # it learns no labels: there is no E(x, y) to descend
    if group not in OF_METHODS:
        return True
    return any(
        f"{name}.".startswith(f"{used}.") or used.startswith(f"{name}.") for used in used_by(method, stages)
    )


def used_by(method: str, stages: str) -> tuple[str, ...]:
    """Of the groups that not all methods read, what this one does: stage 1 of dat is standard-at."""
    return USED["standard-at" if (method, stages) == ("dat", "1") else method]


def refuse_unused(method: str, names: Iterable[str], stages: str = "both") -> None:
    """ValueError that names the first of these settings that would have no effect. A recipe may hold the settings of
    several methods; what is asked for beside it must matter."""
    for name in names:
        if is_used(method, name, stages):
            continue
        group, used = name.partition(".")[0], used_by(method, stages)
        of_group = [setting for setting in used if setting.startswith(f"{group}.")]
        reads = of_group or dict.fromkeys(setting.partition(".")[0] for setting in used)
        part = f" with stages {stages}" if method == "dat" and stages != "both" else ""
        raise ValueError(
            f"{name} has no effect on method {method}{part}, which reads {', '.join(reads)}: leave it out."
        )
