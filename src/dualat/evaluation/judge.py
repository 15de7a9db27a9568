"""Independent judges of samples: classifiers that share nothing with the model but the real training images.

An SVM for small images (its decision is a convex problem: no seed, no luck), and a small convolutional network whose
penultimate features measure Frechet distances and which judges larger images.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dualat.core.classifier import check_images
from dualat.data.in_distribution import ImageData
from dualat.evaluation.reuse import kept_tensors
from dualat.system.distributed import broadcast, is_first
from dualat.system.files import cache_folder
from dualat.system.precision import float32_by_default, strict_fp32
from dualat.system.seeds import mix_seed

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

    Of several processes the first trains it and the others receive it: all make one together.

    Args:
        train: the real training images; the judge sees no others.
        steps: training steps of the feature network, batch 128, Adam 2e-3 with cosine decay; None: 500, or 1500
            for more than 10,000 images.
        device: where the network is trained and works, in float32; on the CPU where deterministic kernels are asked for,
            as its pooling has none on GPUs.
    """

    def __init__(self, train: ImageData, steps: int | None = None, device: torch.device | str = "cpu"):
        self.train = train
        self.device = torch.device("cpu" if torch.are_deterministic_algorithms_enabled() else device)
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

    @property
    def features_name(self) -> str:
        """How records name its features."""
        return f"judge-cnn, {self.steps} steps on {self.train.name}"

    def predict(self, x: Tensor) -> Tensor:
        """Classes (N,) of images x: (N, C, H, W) in [0, 1]; ValueError for others."""
        x = check_images(x).float()
        if self.svm is not None:
            return torch.from_numpy(self.svm.predict(x.cpu().flatten(1).numpy()))
        with torch.no_grad(), strict_fp32():
            return torch.cat([self.network(part.to(self.device)).argmax(1).cpu() for part in x.split(1000)])

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """Features (N, 64) of images x: (N, C, H, W) in [0, 1], on the CPU; ValueError for others."""
        x = check_images(x).float()
        with strict_fp32():
            return torch.cat([self.network.body(part.to(self.device)).cpu() for part in x.split(1000)])

    def features_of(self, data: ImageData) -> Tensor:
        """Features (N, 64) of real images, which need not be in memory: 500 are read at a time."""
        return torch.cat([self.features(data.float(part)) for part in torch.arange(len(data)).split(500)])

    @float32_by_default()
    def _trained_network(self) -> JudgeNetwork:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = JudgeNetwork(self.train.shape, len(self.train.class_names)).to(self.device)
            if is_first():
                self._read_or_train(network)
        broadcast([*network.parameters(), *network.buffers()], alone=True)
        return network.eval()

    def _read_or_train(self, network: JudgeNetwork) -> None:
        """Weights from the cache; where they are absent or damaged, trained (again)."""
        where = () if self.device.type == "cpu" else (self.device.type,)
        key = mix_seed(self.train.content, self.steps, torch.__version__, *where)

        def load(weights: dict[str, Tensor]) -> bool:
            if not all(bool(tensor.isfinite().all()) for tensor in weights.values()):
                return False
            network.load_state_dict(weights)
            return True

        def trained() -> dict[str, Tensor]:
            with strict_fp32():
                fit(network, self.train, self.steps)
            return network.state_dict()

        kept_tensors(cache_folder() / f"judge-{key:016x}.safetensors", load, trained)


def fit(network: nn.Module, train: ImageData, steps: int) -> None:
    """Train on clean images by cross-entropy; the data order is fixed by seed 0."""
    device = next(network.parameters()).device
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(0)
    network.train()
    for _ in range(steps):
        picked = torch.randint(len(train), (128,), generator=generator)
        loss = F.cross_entropy(network(train.float(picked).to(device)), train.labels[picked].to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
