"""Settings of evaluation. Does not import PyTorch: the command line reads this file."""

import math

from dualat.strict import strict
from dualat.types import Climb, Norm

MANY, SAMPLES = (
    2**31 - 1,
    10_000_000,
)  # more samples would not fit into memory, and no publication has a hundredth of it
COUNTS: dict[str, tuple[int, int]] = {
    **dict.fromkeys(("robust_images", "steps"), (1, MANY)),
    **dict.fromkeys(("autoattack_images", "counterfactual_images", "energy_images"), (2, MANY)),
    **dict.fromkeys(("validation_images", "ood_steps", "counterfactual_steps"), (2, MANY)),
    **dict.fromkeys(("samples", "sweep_samples", "validation_samples", "ood_images"), (2, SAMPLES)),
    "bins": (1, 10**5),
}
"""The least and the most that settings can be."""


@strict
class EvaluationSettings:
    """What is measured on the held-out images at the end of a run, and more briefly while training."""

    norm: Norm = "L2"
    """Norm of the attack's ball."""
    eps: tuple[float, ...] = (0.25, 0.5, 1.0)
    """Radii at which robust accuracy is measured, in pixel units of [0, 1]."""
    steps: int = 20
    """Gradient steps of the attack, each 2.5 * eps / steps long."""
    robust_images: int | None = None
    """Held-out images that are attacked, evenly picked; None: all."""
    large_eps: float | None = None
    """One more radius for PGD, at which no more than one class can resist: a check against masked gradients. None: the
    one within which every image can become the same grey, sqrt(C * H * W) / 2 in L2 and 0.5 in Linf."""
    autoattack_eps: tuple[float, ...] | None = None
    """Radii for AutoAttack and APGD; None: `validation_eps` alone."""
    autoattack_images: int | None = None
    """Held-out images for AutoAttack and APGD, evenly picked; None: as many as `robust_images`."""
    bins: int = 20
    """Bins of the calibration error."""
    temperature_scaling: bool = False
    """Divide logits by a temperature fitted on the validation split before calibration is measured."""
    samples: int = 500
    """Class-balanced samples drawn to measure generation."""
    reference: str = "test"
    """What samples are compared with: `test` or `train` (that split), a data source, a folder of images, or an .npz of
    images or of published mean and covariance."""
    inception_weights: str | None = None
    """Weights file of torch-fidelity's Inception network, for FID; None: torch hub's cache."""
    ood_sources: tuple[str, ...] = ("uniform", "normal")
    """Out-of-distribution images: `uniform` or `normal` noise, a data source, or a folder."""
    ood_images: int = 500
    """Images of each out-of-distribution source, and of the test split beside them."""
    ood_scores: tuple[str, ...] = ("s", "max_softmax", "gradient_norm")
    """Detection scores: s (-E(x)), max_softmax, gradient_norm (of the energy, negated)."""
    ood_eps: float = 1.0
    """L2 radius of the adaptive attack on out-of-distribution images."""
    ood_steps: int = 20
    """Steps of that attack."""
    ood_step_size: float = 0.1
    """L2 length of one of them, in pixel units."""
    counterfactual_eps: tuple[float, ...] = (1.0, 2.0, 4.0)
    """L2 radii of counterfactuals."""
    counterfactual_images: int = 500
    """Held-out images that are changed, evenly picked."""
    counterfactual_steps: int = 50
    """Gradient steps of a counterfactual."""
    counterfactual_climb: Climb = "energy"
    """What a counterfactual climbs: f(x)[target], as published, or log p(target | x)."""
    energy_images: int = 500
    """Images of each kind in the energy histograms."""
    sweep_steps: tuple[int, ...] | None = None
    """Numbers of sampling steps to try on validation images; None: from a quarter to twice the model's own."""
    sweep_samples: int = 500
    """Samples of each."""
    validation_images: int = 500
    """Images of the validation split used while training."""
    validation_samples: int = 200
    """Samples drawn at each evaluation while training."""
    validation_eps: float = 0.5
    """Radius of the attack while training: the best-robust checkpoint is chosen at this one."""

    def __post_init__(self) -> None:
        if not self.eps or not all(0 <= e < math.inf for e in (*self.eps, self.validation_eps)):
            raise ValueError(
                f"evaluation.eps and validation_eps must be finite radii of 0 or more, not {self.eps} and "
                f"{self.validation_eps}."
            )
        if len(set(self.eps)) != len(self.eps):
            raise ValueError(f"evaluation.eps names a radius twice: {self.eps}.")
        for name in ("autoattack_eps", "counterfactual_eps"):
            radii = getattr(self, name)
            if radii is not None and (not radii or not all(0 < e < math.inf for e in radii)):
                raise ValueError(f"evaluation.{name} must be finite radii above 0, not {radii}.")
        if self.large_eps is not None and not max(self.eps) < self.large_eps < math.inf:
            raise ValueError(
                f"evaluation.large_eps is {self.large_eps}, but must be finite and above all of evaluation.eps."
            )
        if self.sweep_steps is not None and (not self.sweep_steps or min(self.sweep_steps) < 0):
            raise ValueError(f"evaluation.sweep_steps must be numbers of 0 or more, not {self.sweep_steps}.")
        for name in ("ood_eps", "ood_step_size"):
            if not 0 < (value := getattr(self, name)) < math.inf:
                raise ValueError(f"evaluation.{name} is {value}, but must be finite and above 0.")
        for name, (least, most) in COUNTS.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                null = ", or None (in YAML null)" if name in ("robust_images", "autoattack_images") else ""
                raise ValueError(f"evaluation.{name} is {value}, but must be from {least} to {most:,}{null}.")
