"""Groups of settings that methods read. Does not import PyTorch: the command line reads this file.

Which method has which groups is in registry.py. Pixel units are those of images in [0, 1]. Defaults of chains are the
published values, converted from pixels x' = 2x - 1 in [-1, 1]: a factor eta' of grad_x' is eta'/4 of grad_x, noise sigma'
is sigma'/2.
"""

import math

from dualat.strict import shown, strict
from dualat.types import Energy, Norm


@strict
class MethodSettings:
    """What every method's settings have: the name by which the configuration tells one method from another."""

    name: str
    """Method; the default of each class is the name of the method that it belongs to, and nothing else is taken."""

    def __post_init__(self) -> None:
        own = getattr(type(self), "name", self.name)
        if self.name != own:
            raise ValueError(f"name is {shown(self.name)}, but these are settings of {own}.")


@strict
class BallSettings:
    """Gradient steps inside a ball around an image."""

    norm: Norm = "L2"
    """Norm of the ball."""
    eps: float = 0.5
    """Radius of the ball, in pixel units of [0, 1]."""
    steps: int = 10
    """Gradient steps."""
    step_size: float = 0.1
    """Length of a step, in pixel units of [0, 1]."""

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
class AttackSettings(BallSettings):
    """The attack of adversarial training: PGD on the cross-entropy, inside a ball."""

    random_start: bool = False
    """Start at a random point of the ball instead of at the image."""


@strict
class CurriculumSettings:
    """Contrastive samples, and the curriculum on their number of steps T."""

    t_max: int = 50
    """T_max: the largest number of gradient steps."""
    auc_threshold: float = 0.8
    """AUC_th: T grows by one when the mean AUROC over the window reaches this, an AUROC: 0 to 1; 0.5 is chance."""
    window: int = 1000
    """Images over which the AUROC is averaged before T may grow: ceil(window / batch) training steps."""
    step_size: float = 0.1
    """eta: L2 length of a step, in pixel units of [0, 1]."""

    def __post_init__(self) -> None:
        if self.t_max < 0 or self.window < 1 or not 0 < self.step_size < math.inf:
            raise ValueError(
                f"contrastive.t_max must be 0 or more, contrastive.window 1 or more and "
                f"contrastive.step_size above 0, not {self.t_max}, {self.window} and {self.step_size}."
            )
        if not 0 <= self.auc_threshold <= 1:
            raise ValueError(f"contrastive.auc_threshold is {self.auc_threshold}, but is an AUROC: 0 to 1.")


@strict
class ContrastiveSettings(CurriculumSettings):
    """Contrastive samples, and the curriculum on their number of steps T."""

    energy: Energy = "joint"
    """Energy that the steps lower: E(x, y) with the labels of the real batch, or E(x)."""
    ratio: float = 1.0
    """Contrastive samples per real image, in (0, 1]. With 0.5 the energy loss has the mean over half as many of them."""
    stride: int = 1
    """Steps of the path that are taken as one: T_max / stride steps of stride * step_size. 2 with ratio 0.5 is the fast
    pace: a quarter of the passes for contrastive samples."""

    def __post_init__(self) -> None:
        CurriculumSettings.__post_init__(self)
        if not 0 < self.ratio <= 1:
            raise ValueError(f"contrastive.ratio is {self.ratio}, but must be above 0, and at most 1.")
        if not 1 <= self.stride <= max(1, self.t_max):
            raise ValueError(
                f"contrastive.stride is {self.stride}, but must be 1 to contrastive.t_max, which is {self.t_max}."
            )


@strict
class LossSettings:
    """Weights of the terms of the loss."""

    cross_entropy: float = 1.0
    """Weight of the classification loss."""
    energy: float = 1.0
    """Weight of the energy loss, or of what the method has in its place (see its file)."""

    def __post_init__(self) -> None:
        _check_weights(cross_entropy=self.cross_entropy, energy=self.energy)


@strict
class DualLossSettings(LossSettings):
    """Weights of adversarial training, of the energy loss and of its gradient penalty."""

    robust: bool = True
    """Classification loss of adversarial images; false, an ablation: of the images as they are."""
    r1: float = 0.0
    """Weight of the gradient penalty R1 on real images; 0 logs it only."""

    def __post_init__(self) -> None:
        _check_weights(cross_entropy=self.cross_entropy, energy=self.energy, r1=self.r1)


@strict
class EnergyLossSettings:
    """Weights of an energy loss without a classification loss."""

    energy: float = 1.0
    """Weight of the energy loss."""
    r1: float = 0.01
    """Weight of the gradient penalty R1 on real images; 0 logs it only."""

    def __post_init__(self) -> None:
        if self.energy == 0:
            raise ValueError("loss.energy is 0, but the method has no other loss: give a weight above 0.")
        _check_weights(energy=self.energy, r1=self.r1)


@strict
class JointLossSettings(LossSettings):
    """Weights of the terms of the loss, one more of them for adversarial images."""

    adversarial_energy: float = 0.1
    """Weight of the energy loss between real images and adversarial ones."""

    def __post_init__(self) -> None:
        _check_weights(
            cross_entropy=self.cross_entropy, energy=self.energy, adversarial_energy=self.adversarial_energy
        )


def _check_weights(**weights: float) -> None:
    first, second, *_ = values = tuple(weights.values())
    if not all(0 <= w < math.inf for w in values) or first == second == 0:
        *names, last = weights
        raise ValueError(
            f"loss.{', '.join(names)} and {last} must be finite and 0 or more, one of the first two above 0, not {values}."
        )


@strict
class ChainSettings:
    """Chains that sample the model's own density, in a replay buffer."""

    steps: int = 20
    """Gradient steps of a chain per training step."""
    step_size: float = 0.25
    """Factor of the gradient with respect to pixels in [0, 1]."""
    noise: float = 0.005
    """Standard deviation of the noise added after each step, in pixel units of [0, 1]."""
    input_noise: float = 0.015
    """Standard deviation of the noise added to training images, in pixel units of [0, 1]."""
    buffer: int = 10_000
    """Replay buffer: number of images of earlier chains that new ones go on from."""
    restart: float = 0.05
    """Share of chains that start anew from the initial distribution."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"chain.steps is {self.steps}, but must be 1 or more.")
        if not 0 < self.step_size < math.inf:
            raise ValueError(f"chain.step_size is {self.step_size}, but must be above 0, and finite.")
        for name in ("noise", "input_noise"):
            if not 0 <= (value := getattr(self, name)) < math.inf:
                raise ValueError(f"chain.{name} is {value}, but is a standard deviation: 0 (none) or more.")
        if not 1 <= self.buffer <= 10**7 or not 0 <= self.restart <= 1:
            raise ValueError(
                f"chain.buffer must be 1 to 10,000,000 and chain.restart in [0, 1], not {self.buffer} and {self.restart}."
            )


@strict
class ClippedChainSettings(ChainSettings):
    """Chains with clipped gradients and without noise, in a replay buffer."""

    steps: int = 5
    noise: float = 0.0
    input_noise: float = 0.0


@strict
class LongClippedChainSettings(ClippedChainSettings):
    """Chains with clipped gradients and without noise, in a replay buffer."""

    steps: int = 10


@strict
class ProximalChainSettings(ChainSettings):
    """Chains that mostly differentiate the first layer alone, in a replay buffer."""

    steps: int = 10
    """Outer steps of a chain per training step: gradients through the whole network."""
    step_size: float = 0.05
    noise: float = 0.0
    """Standard deviation of the noise added after each inner step, in pixel units of [0, 1]."""
    inner_steps: int = 5
    """Steps through the first layer alone per outer step."""

    def __post_init__(self) -> None:
        ChainSettings.__post_init__(self)
        if self.inner_steps < 1:
            raise ValueError(f"chain.inner_steps is {self.inner_steps}, but must be 1 or more.")


@strict
class SharpnessSettings:
    """Sharpness-aware minimisation (SAM)."""

    rho: float = 2.0
    """Length of the adaptive climb before the gradient is taken."""

    def __post_init__(self) -> None:
        if not 0 < self.rho < math.inf:
            raise ValueError(f"sharpness.rho is {self.rho}, but must be above 0, and finite.")


@strict
class OutSettings:
    """The attack on images of the initial distribution that must stay unconfident."""

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
    """Real images pushed to higher energy before they count as real."""

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
    """Noise under which images are learned."""

    sigma_min: float = 0.005
    """Least standard deviation of the noise, in pixel units of [0, 1]."""
    sigma_max: float = 0.5
    """Largest standard deviation; samples start with noise of this size (sampling.start_noise)."""
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
