"""AT-EBM: an energy-based model of the images alone, by adversarial training (Yin, Li, Rohde, ECCV 2022).

    L = L_BCE( s(x+), s(x-) ) + w_r1 * R1,   R1 = 1/2 mean ||grad_x s(x+)||^2,   L_BCE the mean over x+ and x-

x-: normalised ascent on s from the initial distribution, T by the curriculum. x+: real images after a few steps down s.
There is no classification loss: labels are not learned, and its accuracy is chance. Here s(x) = logsumexp f(x) of the
same network as all others, in place of a scalar of its own.

Published: T to 25, step 0.1, AUROC over 100 batches of 32: --contrastive.t-max 25 --contrastive.step-size 0.1
--contrastive.window 3200 --stage1.batch-size 32; BatchNorm in eval mode: --stage1.freeze-batchnorm. Defaults are 50, 0.1,
1,000 images, 128, and BatchNorm in train mode; recipes have their own.
"""

from torch import Tensor, nn

from dualat.core.energy import marginal_energy
from dualat.core.loop import ModelOrLoop, pgd
from dualat.core.losses import energy_bce, gradient_penalty
from dualat.core.objectives import lower_energy, raise_energy
from dualat.methods.base import Batch, Method, forward
from dualat.methods.curriculum import Curriculum, curriculum_of
from dualat.methods.registry import ATEBMSettings


class ATEBM(Method):
    curriculum: Curriculum

    def __init__(self, settings: ATEBMSettings, batch_size: int):
        super().__init__(settings, batch_size)
        self.contrastive, self.positive, self.weights = settings.contrastive, settings.positive, settings.loss
        self.curriculum = curriculum_of(settings.contrastive, batch_size)  # pyright: ignore[reportIncompatibleVariableOverride]

    def generate(self, model: ModelOrLoop, batch: Batch) -> dict[str, Tensor]:
        assert batch.starts is not None and batch.energy_images is not None
        contrastive = pgd(
            model,
            batch.starts,
            lower_energy(),
            steps=self.curriculum.steps,
            step_size=self.contrastive.step_size,
            checked=False,
        )
        positive = pgd(
            model,
            batch.energy_images,
            raise_energy(),
            steps=self.positive.steps,
            step_size=self.positive.step_size,
            checked=False,
        )
        return {"contrastive": contrastive, "positive": positive}

    def loss_on(
        self, model: nn.Module, batch: Batch, made: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        positive, contrastive = forward(model, [made["positive"], made["contrastive"]])
        loss_energy = energy_bce(positive, contrastive)
        loss = self.weights.energy * loss_energy
        if self.weights.r1:
            loss = loss + self.weights.r1 * gradient_penalty(model, made["positive"])
        self.curriculum.see(-marginal_energy(positive), -marginal_energy(contrastive))
        return loss, {"loss_energy": loss_energy.detach()}
