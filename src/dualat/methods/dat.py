"""Dual adversarial training (DAT, ICLR 2026, arXiv 2510.13872): the method of this library.

    L = w_ce * CE( f(x_adv), y )  +  w_energy * L_BCE( s(x_real), s(x_contrastive) )  +  w_r1 * R1

x_adv: PGD in the ball from strongly augmented images. x_contrastive: T steps down the energy, without a ball, from
the initial distribution; T follows the curriculum. No gradient reaches the weights through either loop.

Ours beside the paper: fewer contrastive samples than real images (ratio), and few long steps of the same path (stride).
Both are off by default.
"""

import math
from dataclasses import replace

from torch import Tensor, nn

from dualat.core.energy import joint_energy
from dualat.core.loop import ModelOrLoop, pgd
from dualat.core.losses import energy_bce, gradient_penalty, robust_cross_entropy
from dualat.core.objectives import lower_energy
from dualat.methods.base import Batch, Method, adversarial, forward
from dualat.methods.curriculum import Curriculum, curriculum_of
from dualat.methods.registry import DATSettings


class DAT(Method):
    """Standard adversarial training beside the energy loss on contrastive samples, whose number of steps a curriculum decides."""

    curriculum: Curriculum

    def __init__(self, settings: DATSettings, batch_size: int):
        super().__init__(settings, batch_size)
        self.attack, self.contrastive, self.weights = settings.attack, settings.contrastive, settings.loss
        stride = self.contrastive.stride
        self.step_size = stride * self.contrastive.step_size
        path = replace(self.contrastive, t_max=math.ceil(self.contrastive.t_max / stride), stride=1)
        self.curriculum = curriculum_of(path, batch_size)  # pyright: ignore[reportIncompatibleVariableOverride]

    def contrastive_count(self, images: int) -> int:
        """Contrastive samples of a batch of so many real images."""
        return max(1, round(self.contrastive.ratio * images))

    def loop_sizes(self, images: int) -> tuple[int, ...]:
        return (images, self.contrastive_count(images))

    def generate(self, model: ModelOrLoop, batch: Batch) -> dict[str, Tensor]:
        assert batch.starts is not None
        count = self.contrastive_count(len(batch.starts))
        labels = batch.energy_labels if self.contrastive.energy == "joint" else None
        contrastive = pgd(
            model,
            batch.starts[:count],
            lower_energy(None if labels is None else labels[:count]),
            steps=self.curriculum.steps,
            step_size=self.step_size,
            checked=False,
        )
        if not (self.weights.cross_entropy and self.weights.robust):
            return {"contrastive": contrastive}
        x_adv = adversarial(model, batch.robust_images, batch.robust_labels, self.attack)
        return {"contrastive": contrastive, "adversarial": x_adv}

    def loss_on(
        self, model: nn.Module, batch: Batch, made: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        real, labels = batch.energy_images, batch.energy_labels
        assert real is not None and labels is not None
        # without the AT branch (ablations) the images as they are stand in for adversarial ones
        x_adv = made.get("adversarial", batch.robust_images)
        logits = forward(model, [real, made["contrastive"], x_adv])
        real_logits, contrastive_logits, adversarial_logits = logits
        loss_energy = energy_bce(real_logits, contrastive_logits)
        loss_ce = robust_cross_entropy(adversarial_logits, batch.robust_labels)
        loss = self.weights.cross_entropy * loss_ce + self.weights.energy * loss_energy
        if self.weights.r1:
            loss = loss + self.weights.r1 * gradient_penalty(model, real)

        drawn = labels[: len(contrastive_logits)]
        self.curriculum.see(-joint_energy(real_logits, labels), -joint_energy(contrastive_logits, drawn))
        return loss, {"loss_ce": loss_ce.detach(), "loss_energy": loss_energy.detach()}
