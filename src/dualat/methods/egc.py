"""EGC: an energy-based classifier of noisy images, sampled by diffusion (Guo et al., ICCV 2023, arXiv 2304.02012).

    L = w_energy * mean ( z + sigma * grad_x s(x_sigma) )^2 + w_ce * CE( f(x_sigma), y ),   x_sigma = x + sigma z

log sigma is uniform, z ~ N(0, I), labels are smoothed. Published weights are 1 and 0.005, the defaults 1 and 1: set
--loss.cross-entropy 0.005. The first term makes grad s the score of the noisy images (denoising score matching, Vincent
2011), and so -s their energy. It is differentiated twice. Sampling walks the levels of noise down:

    x_{t+1} = x_t + sigma_t (sigma_t - sigma_{t+1}) grad f(x_t)[y],   sigma_t = sigma_max r^t      (DDIM)

with r^T = 1/100. This is the one gradient loop with rule gradient, schedule exponential, start_noise sigma_max, no clipping
and step_size = sigma_max^2 / ((1 + r) T): for sigma_max = 0.5 and T = 20, 0.00697. What is ours: pixels instead of latents,
no guidance, and a network that is not told sigma, which it sees. The score of an image must not depend on the others of its
batch: BatchNorm in eval mode, --stage1.freeze-batchnorm.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dualat.core.loop import ModelOrLoop
from dualat.core.losses import denoising
from dualat.methods.base import Batch, Method
from dualat.methods.registry import EGCSettings


class EGC(Method):
    compiles = False

    def __init__(self, settings: EGCSettings, batch_size: int):
        super().__init__(settings, batch_size)
        self.diffusion, self.weights = settings.diffusion, settings.loss

    def generate(self, model: ModelOrLoop, batch: Batch) -> dict[str, Tensor]:
        """Noisy images, their noise z, and sigma (B, 1, 1, 1) of each; no gradient loop is run."""
        x, levels = batch.robust_images, self.diffusion
        share = torch.rand(len(x), 1, 1, 1, device=x.device)
        sigma = levels.sigma_min * (share * math.log(levels.sigma_max / levels.sigma_min)).exp()
        noise = torch.randn_like(x)
        return {"noisy": x + sigma * noise, "noise": noise, "sigma": sigma}

    def loss_on(
        self, model: nn.Module, batch: Batch, made: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        loss_energy, logits = denoising(model, made["noisy"], made["noise"], made["sigma"])
        smoothing = self.diffusion.label_smoothing
        loss_ce = F.cross_entropy(logits.float(), batch.robust_labels, label_smoothing=smoothing)
        loss = self.weights.energy * loss_energy + self.weights.cross_entropy * loss_ce
        return loss, {"loss_ce": loss_ce.detach(), "loss_energy": loss_energy.detach()}
