"""EB-JDAT: energy-based joint distribution adversarial training (Jiang et al., arXiv 2505.19459).

    L = w_1 * L_EBM( x, x- ) + CE( f(x), y ) + w_2 * L_EBM( x, xa ) + CE( f(xa), y ),   w_1 = 1, w_2 = 0.1

x-: SADA-JEM's sampler with 10 steps. xa: the last iterate of a climb of the energy in a ball around x, from a random start.
The first term takes x from the energy batch, the others from the batch for CE, from which xa comes, without its noise. What is ours: norm, radius
and steps of xa are those of `attack`. Published: Linf 8/255, 5 steps of 2/255 on pixels in [-1, 1], which on [0, 1] is
--attack.norm Linf --attack.eps 0.0157 --attack.steps 5 --attack.step-size 0.0039.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from dualat.core.geometry import ThreatModel
from dualat.core.loop import ModelOrLoop, pgd
from dualat.core.losses import ebm_difference, robust_cross_entropy
from dualat.core.objectives import raise_energy
from dualat.methods.base import Batch, forward
from dualat.methods.jem import JEM
from dualat.methods.registry import EBJDATSettings
from dualat.types import StepRule


class EBJDAT(JEM):
    rule: StepRule = "clipped"
    clip = True

    def __init__(self, settings: EBJDATSettings, batch_size: int):
        super().__init__(settings, batch_size)
        self.attack, self.adversarial_energy = settings.attack, settings.loss.adversarial_energy

    def generate(self, model: ModelOrLoop, batch: Batch) -> dict[str, Tensor]:
        raised = pgd(
            model,
            batch.robust_images,
            raise_energy(),
            ThreatModel(self.attack.norm, self.attack.eps),
            steps=self.attack.steps,
            step_size=self.attack.step_size,
            random_start=True,
            checked=False,
        )
        return super().generate(model, batch) | {"raised": raised}

    def loss_on(
        self, model: nn.Module, batch: Batch, made: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        names = ("real", "samples", "classified", "raised")
        real, samples, clean, raised = forward(model, [made[name] for name in names])
        loss_energy = ebm_difference(real, samples)
        loss_raised = ebm_difference(clean, raised)
        loss_ce = F.cross_entropy(clean.float(), batch.robust_labels)
        loss_robust = robust_cross_entropy(raised, batch.robust_labels)
        weights = self.weights
        loss = weights.cross_entropy * (loss_ce + loss_robust)
        loss = loss + weights.energy * loss_energy + self.adversarial_energy * loss_raised
        return loss, {
            "loss_ce": (loss_ce + loss_robust).detach(),
            "loss_energy": loss_energy.detach(),
            "loss_raised": loss_raised.detach(),
        }
