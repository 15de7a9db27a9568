"""Replay buffer: chains go on from where earlier ones ended, so that a few steps each make long chains.

Source: Du and Mordatch (2019); JEM (Grathwohl et al., 2020), sec. 3. A place of the buffer that was never used stands
for a draw of the initial distribution, so that the buffer need not be filled beforehand.
"""

from collections.abc import Mapping

import torch
from torch import Tensor


class ReplayBuffer:
    """Up to `size` images; a share `restart` of the chains starts anew.

    Random numbers are drawn from PyTorch's global generator of the CPU.
    """

    def __init__(self, size: int, restart: float):
        self.size, self.restart = size, restart
        self.images: Tensor | None = None
        self.used = torch.zeros(size, dtype=torch.bool)

    def draw(self, starts: Tensor) -> tuple[Tensor, Tensor]:
        """Places (B,) of the buffer, all different where it has B, and the images (B, C, H, W) that chains go on from.

        starts: (B, C, H, W), draws of the initial distribution; they stand where a chain starts anew.
        """
        if len(starts) <= self.size:
            places = torch.randperm(self.size)[: len(starts)]
        else:
            places = torch.randint(self.size, (len(starts),))
        old = self.used[places] & (torch.rand(len(starts)) >= self.restart)
        images = starts.clone()
        if self.images is not None and old.any():
            images[old.to(starts.device)] = self.images[places[old]].to(starts.device)
        return places, images

    def keep(self, places: Tensor, images: Tensor) -> None:
        """Store where chains ended."""
        if self.images is None:
            self.images = torch.zeros(self.size, *images.shape[1:])
        self.images[places] = images.detach().float().cpu()
        self.used[places] = True

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint must hold."""
        if self.images is None:
            return {}
        places = self.used.nonzero().flatten()
        return {"buffer_places": places, "buffer_images": self.images[places]}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take `tensors()` back."""
        self.images, self.used = None, torch.zeros(self.size, dtype=torch.bool)
        if "buffer_images" in tensors:
            self.keep(tensors["buffer_places"].cpu(), tensors["buffer_images"])
