"""JEM: your classifier is secretly an energy-based model (Grathwohl et al., ICLR 2020).

    L = w_energy * L_EBM + w_ce * CE( f(x), y ),   L_EBM = -( mean s(x) - mean s(x-) )

x-: stochastic gradient Langevin dynamics on s, from a replay buffer: x <- x + eta * grad s(x) + sigma * z, unclipped.
Published: chains in eval mode, from uniform noise (initial.kind: uniform). Here they start from the run's initial
distribution, and BatchNorm that is not frozen uses the batch's statistics, as the loss does (models/batchnorm.py).
Published FID and IS are of the replay buffer; ours are of fresh samples.
"""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from dualat.core.loop import ModelOrLoop, pgd
from dualat.core.losses import ebm_difference
from dualat.core.objectives import lower_energy
from dualat.methods.base import Batch, Method, forward, noisy
from dualat.methods.registry import ChainMethodSettings
from dualat.methods.replay_buffer import ReplayBuffer
from dualat.models.batchnorm import as_the_loss_sees_it
from dualat.types import StepRule


class JEM(Method):
    """Also the parent of the systems that change its sampler or its classification loss."""

    one_process = True
    rule: StepRule = "gradient"
    clip = False

    def __init__(self, settings: ChainMethodSettings, batch_size: int):
        super().__init__(settings, batch_size)
        self.chain, self.weights = settings.chain, settings.loss
        self.buffer = ReplayBuffer(self.chain.buffer, self.chain.restart)

    def walk(self, model: ModelOrLoop, x: Tensor) -> Tensor:
        """The sampler: from images (B, C, H, W) to samples x-."""
        return pgd(
            model,
            x,
            lower_energy(),
            steps=self.chain.steps,
            step_size=self.chain.step_size,
            noise=self.chain.noise,
            rule=self.rule,
            clip=self.clip,
            checked=False,
        )

    def generate(self, model: ModelOrLoop, batch: Batch) -> dict[str, Tensor]:
        assert batch.starts is not None and batch.energy_images is not None
        places, x = self.buffer.draw(batch.starts)
        samples = self.walk(as_the_loss_sees_it(model), x)
        self.buffer.keep(places, samples)
        return {
            "samples": samples,
            "real": noisy(batch.energy_images, self.chain.input_noise),
            "classified": noisy(batch.robust_images, self.chain.input_noise),
        }

    def loss_on(
        self, model: nn.Module, batch: Batch, made: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        real, samples, classified = forward(model, [made["real"], made["samples"], made["classified"]])
        loss_energy = ebm_difference(real, samples)
        loss_ce = F.cross_entropy(classified.float(), batch.robust_labels)
        loss = self.weights.cross_entropy * loss_ce + self.weights.energy * loss_energy
        return loss, {"loss_ce": loss_ce.detach(), "loss_energy": loss_energy.detach()}

    def tensors(self) -> dict[str, Tensor]:
        return self.buffer.tensors()

    def restore(self, state: Mapping[str, object], tensors: Mapping[str, Tensor]) -> None:
        self.buffer.restore(tensors)
