"""Standard adversarial training (Madry et al., 2018).

L = CE( f(x_adv), y ),   x_adv = PGD in the ball, maximising the cross-entropy
"""

from torch import Tensor, nn

from dualat.core.loop import ModelOrLoop
from dualat.core.losses import robust_cross_entropy
from dualat.methods.base import Batch, Method, adversarial
from dualat.methods.registry import StandardATSettings


class StandardAT(Method):
    def __init__(self, settings: StandardATSettings, batch_size: int):
        super().__init__(settings, batch_size)
        self.attack = settings.attack

    def generate(self, model: ModelOrLoop, batch: Batch) -> dict[str, Tensor]:
        return {"adversarial": adversarial(model, batch.robust_images, batch.robust_labels, self.attack)}

    def loss_on(
        self, model: nn.Module, batch: Batch, made: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        loss = robust_cross_entropy(model(made["adversarial"]), batch.robust_labels)
        return loss, {"loss_ce": loss.detach()}
