"""Robust JEM: JEM whose classification loss is adversarial training (Korst and Asadulaev, arXiv 2207.08950).

    L = w_energy * L_EBM( x, x- ) + w_ce * CE( f(x_adv), y )

`chain.input_noise` reaches the images of L_EBM alone. There is no public code: this is JEM's generative loss and sampler with the cross-entropy of adversarial images.
"""

from torch import Tensor

from dualat.core.loop import ModelOrLoop
from dualat.methods.base import Batch, adversarial
from dualat.methods.jem import JEM
from dualat.methods.registry import RobustJEMSettings


class RobustJEM(JEM):
    def __init__(self, settings: RobustJEMSettings, batch_size: int):
        super().__init__(settings, batch_size)
        self.attack = settings.attack

    def generate(self, model: ModelOrLoop, batch: Batch) -> dict[str, Tensor]:
        x_adv = adversarial(model, batch.robust_images, batch.robust_labels, self.attack)
        return super().generate(model, batch) | {"classified": x_adv}
