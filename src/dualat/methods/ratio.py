"""RATIO: adversarial training in and out of the distribution (Augustin, Meinke, Hein, ECCV 2020).

    L = 1/2 CE( f(x_adv), y ) + 1/2 KL( uniform, softmax f(z_adv) )

x_adv: PGD in the ball, maximising the cross-entropy. z_adv: images of the initial distribution, perturbed in a ball of
their own to maximise the same KL. Both attacks have momentum and keep the best iterate. Both batches go through the network
in one pass: BatchNorm normalises them together, as its running statistics, which classify later, have them together.
"""

import torch
from torch import Tensor, nn

from dualat.core.geometry import ThreatModel
from dualat.core.loop import ModelOrLoop, pgd
from dualat.core.losses import robust_cross_entropy
from dualat.core.objectives import raise_cross_entropy, raise_uniform_kl, uniform_kl
from dualat.methods.base import Batch, Method
from dualat.methods.registry import RATIOSettings


class RATIO(Method):
    def __init__(self, settings: RATIOSettings, batch_size: int):
        super().__init__(settings, batch_size)
        self.attack, self.out, self.weights = settings.attack, settings.out, settings.loss

    def generate(self, model: ModelOrLoop, batch: Batch) -> dict[str, Tensor]:
        assert batch.starts is not None
        x_adv = pgd(
            model,
            batch.robust_images,
            raise_cross_entropy(batch.robust_labels),
            ThreatModel(self.attack.norm, self.attack.eps),
            steps=self.attack.steps,
            step_size=self.attack.step_size,
            momentum=self.out.momentum,
            random_start=self.attack.random_start,
            keep="best",
            checked=False,
        )
        z_adv = pgd(
            model,
            batch.starts,
            raise_uniform_kl(),
            ThreatModel("L2", self.out.eps),
            steps=self.out.steps,
            step_size=self.out.step_size,
            momentum=self.out.momentum,
            keep="best",
            checked=False,
        )
        return {"adversarial": x_adv, "out": z_adv}

    def loss_on(
        self, model: nn.Module, batch: Batch, made: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        images = (made["adversarial"], made["out"])
        adversarial, out = model(torch.cat(images)).split([len(x) for x in images])
        loss_ce = robust_cross_entropy(adversarial, batch.robust_labels)
        loss_out = uniform_kl(out).mean()
        loss = 0.5 * (self.weights.cross_entropy * loss_ce + self.weights.energy * loss_out)
        return loss, {"loss_ce": loss_ce.detach(), "loss_out": loss_out.detach()}
