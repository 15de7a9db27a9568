"""SADA-JEM: JEM towards flat minima, with one augmentation for each loss (Yang, Su, Ji, CVPR 2023).

    L = w_energy * L_EBM + w_ce * CE,  minimised by SAM (training/sharpness.py) on the same samples x-
    x-:  x <- clip_[0,1]( x + eta * clip( grad s(x), +-LIMIT ) ), no noise, from a replay buffer

The batch for p(x) is not augmented (`energy_augment.kind: none`), nor noisy where `chain.input_noise` is set; the batch for CE
is. Chains take BatchNorm's statistics of the batch, in training and when the model is sampled, as its authors' do
(`sampling.batch_statistics`). What is ours: both batches have one size; published are 64 and 128, and an epoch is one of the latter.
"""

from torch import Tensor

from dualat.core.loop import ModelOrLoop
from dualat.methods.base import Batch
from dualat.methods.jem import JEM
from dualat.methods.registry import SADAJEMSettings
from dualat.types import StepRule


class SADAJEM(JEM):
    rule: StepRule = "clipped"
    clip = True

    def __init__(self, settings: SADAJEMSettings, batch_size: int):
        super().__init__(settings, batch_size)
        self.sharpness = settings.sharpness.rho

    def generate(self, model: ModelOrLoop, batch: Batch) -> dict[str, Tensor]:
        assert batch.energy_images is not None
        return super().generate(model, batch) | {"real": batch.energy_images}
