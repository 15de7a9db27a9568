"""Independent judges of samples: classifiers that share nothing with the model but the real training images.

An SVM for small images (its decision is a convex problem: no seed, no luck), and a small convolutional network whose
penultimate features measure Frechet distances and which judges larger images.
"""

import math
from functools import partial

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dualat.data.in_distribution import ImageData
from dualat.files import cache_folder, keep
from dualat.seeding import mix_seed

SVM_PIXELS = 256  # the SVM judges images of up to this many values


class JudgeNetwork(nn.Module):
    """Two convolutions, pooled, and a layer of 64 features; trained on clean images only."""

    def __init__(self, shape: tuple[int, int, int], classes: int):
        super().__init__()
        channels, height, width = shape
        stride = 1 if min(height, width) < 16 else 2
        self.body = nn.Sequential(
            nn.Conv2d(channels, 32, 3, stride, 1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, 2, 1),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(1024, 64),
            nn.ReLU(),
        )
        self.head = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class Judge:
    """Says which class an image shows, and gives features for Frechet distances.

    Args:
        train: the real training images; the judge sees no others.
        steps: training steps of the feature network, batch 128, Adam 2e-3 with cosine decay; None: 500, or 1500
            for more than 10,000 images.
    """

    def __init__(self, train: ImageData, steps: int | None = None):
        self.train = train
        self.steps = steps or (1500 if len(train) > 10_000 else 500)
        self.network = self._trained_network()
        self.svm = None
        several = len(train.labels.unique()) > 1  # an SVM parts classes: of one there is nothing to part
        if several and math.prod(train.shape) <= SVM_PIXELS and len(train) <= 20_000:
            from sklearn.svm import SVC

            self.svm = SVC(C=10.0, gamma="scale").fit(train.float().flatten(1).numpy(), train.labels.numpy())

    @property
    def name(self) -> str:
        """How records name the classifier that judges samples."""
        return "svm-rbf-pixels" if self.svm is not None else "judge-cnn"

    def predict(self, x: Tensor) -> Tensor:
        """Classes (N,) of images x: (N, C, H, W) in [0, 1]."""
        if self.svm is not None:
            return torch.from_numpy(self.svm.predict(x.cpu().flatten(1).numpy()))
        with torch.no_grad():
            return torch.cat([self.network(part.cpu()).argmax(1) for part in x.split(1000)])

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """Features (N, 64) of images x: (N, C, H, W) in [0, 1]."""
        return torch.cat([self.network.body(part.cpu()) for part in x.split(1000)])

    def features_of(self, data: ImageData) -> Tensor:
        """Features (N, 64) of real images, which need not be in memory: 500 are read at a time."""
        return torch.cat([self.features(data.float(part)) for part in torch.arange(len(data)).split(500)])

    def _trained_network(self) -> JudgeNetwork:
        classes = len(self.train.class_names)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = JudgeNetwork(self.train.shape, classes)
            key = mix_seed(
                self.train.content,
                self.steps,
                torch.__version__,
            )
            path = cache_folder() / f"judge-{key:016x}.safetensors"
            try:
                network.load_state_dict(load_file(path))
            except (OSError, SafetensorError, RuntimeError):  # absent or damaged: train it (again)
                fit(network, self.train, self.steps)
                keep(path, partial(save_file, network.state_dict()))
        return network.eval()


def fit(network: nn.Module, train: ImageData, steps: int) -> None:
    """Train on clean images by cross-entropy; the data order is fixed by seed 0."""
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(0)
    network.train()
    for _ in range(steps):
        picked = torch.randint(len(train), (128,), generator=generator)
        loss = F.cross_entropy(network(train.float(picked)), train.labels[picked])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
