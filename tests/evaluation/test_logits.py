"""Logits and attacked images in batches: the model's own, whatever the batch size, and the closed form on grey images."""

import math

import pytest
import torch
from torch import Tensor, nn

from dualat.core.geometry import ThreatModel
from dualat.data.images import ImageData
from dualat.evaluation.attack import pgd_attack, under_attack
from dualat.evaluation.logits import predict_logits, shared_logits
from dualat.evaluation.metrics.robust_accuracy import robust_accuracy

SHAPE = (1, 3, 4)


class Brightness(nn.Module):
    """Class 1 where the mean pixel is above 1/2."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(4.0))
        self.sizes = []

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        mean = self.scale * (x.flatten(1).mean(1) - 0.5)
        return torch.stack([-mean, mean], dim=1)


def greys() -> ImageData:
    """Grey images of levels 60 ... 196 with their true labels."""
    levels = torch.arange(60, 197, 8)
    images = levels.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, *SHAPE).contiguous()
    return ImageData(images, (levels > 127).long(), ("dark", "bright"), "greys")


@pytest.mark.parametrize("size", [1, 5, 500])
def test_logits_are_the_models_in_any_batches(size):
    data, model = greys(), Brightness()
    expected = 4 * (data.float().flatten(1).mean(1) - 0.5)
    for images in (data, data.float(), data.float().double()):
        model.sizes.clear()
        logits = predict_logits(model, images, size)
        assert torch.equal(shared_logits(Brightness(), data, size), predict_logits(Brightness(), data, size))
        torch.testing.assert_close(logits, torch.stack([-expected, expected], 1))
        assert logits.dtype == torch.float32 and not logits.requires_grad
        assert max(model.sizes) == min(size, len(data)) and sum(model.sizes) == len(data)


def test_the_model_is_read_in_eval_mode_and_left_as_it_was():
    network = nn.Sequential(nn.BatchNorm2d(1), Brightness()).train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    together = predict_logits(network, greys())
    alone = predict_logits(network, greys(), batch_size=1)
    torch.testing.assert_close(together, alone)
    attacked_images(network, greys(), ThreatModel("L2", 0.1), 2)
    assert network.training and all(p.requires_grad and p.grad is None for p in network.parameters())
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


@pytest.mark.parametrize("norm", ["L2", "Linf"])
@pytest.mark.parametrize("steps", [1, 4])
def test_the_attack_moves_all_pixels_alike_to_the_edge_of_the_ball(norm, steps):
    data, eps = greys(), 0.1
    reach = eps if norm == "Linf" else eps / math.sqrt(math.prod(SHAPE))
    away = torch.where(data.labels == 1, -reach, reach).view(-1, 1, 1, 1)
    attacked = attacked_images(Brightness(), data, ThreatModel(norm, eps), steps)
    torch.testing.assert_close(attacked, data.float() + away, rtol=0, atol=1e-6)
    logits = predict_logits(Brightness(), attacked)
    for size in (5, 500):
        assert torch.equal(
            under_attack(Brightness(), data, ThreatModel(norm, eps), steps, size).logits, logits
        )


@pytest.mark.parametrize("eps", [0.0, 0.1, 0.3])
def test_accuracy_on_attacked_images_is_robust_accuracy(eps):
    data, model, threat = greys(), Brightness(), ThreatModel("L2", eps)
    attacked = under_attack(model, data, threat, 5)
    share = float((attacked.logits.argmax(1) == data.labels).float().mean())
    assert share == float(attacked.kept.float().mean())
    assert share == pytest.approx(robust_accuracy(model, data, threat, 5).value)


def attacked_images(model: nn.Module, data: ImageData, threat: ThreatModel, steps: int) -> Tensor:
    return pgd_attack(model, data.float(), data.labels, threat, steps)[0]


class Ridge(nn.Module):
    """The wrong class peaks at one pixel value, 0.55, a step of 0.05 away from grey 128; farther on it falls."""

    def forward(self, x: Tensor) -> Tensor:
        t = x.flatten(1)[:, :1]
        return torch.cat([torch.zeros_like(t), 1 - 10 * (t - 0.55).abs()], dim=1)


def test_the_best_iterate_is_kept_not_the_last():
    data = ImageData(torch.full((1, 1, 1, 1), 128, dtype=torch.uint8), torch.zeros(1).long(), ("a", "b"), "x")
    # steps of 2.5 * 0.1 / 2 = 0.125: 0.502 -> 0.602 (edge) -> 0.477; the values are 0.52, 0.48, 0.27
    attacked = attacked_images(Ridge(), data, ThreatModel("Linf", 0.1), 2)
    assert float(attacked) == pytest.approx(128 / 255)
    # one ball smaller: 0.502 -> 0.542 is best
    attacked = attacked_images(Ridge(), data, ThreatModel("Linf", 0.04), 1)
    assert float(attacked) == pytest.approx(128 / 255 + 0.04)


class Shaped(Brightness):
    shape = SHAPE


def test_bad_input_is_answered_with_a_sentence():
    data, model = greys(), Brightness()
    none = data.take(torch.arange(0))
    with pytest.raises(ValueError, match="greys holds no images: give at least one"):
        predict_logits(model, none)
    with pytest.raises(ValueError, match="greys holds no images"):
        under_attack(model, none, ThreatModel("L2", 0.1), 2)
    with pytest.raises(ValueError, match="greys holds no images"):
        shared_logits(model, none)
    with pytest.raises(ValueError, match="must be floating-point of shape"):
        predict_logits(model, data.images)
    with pytest.raises(ValueError, match="must be floating-point of shape"):
        predict_logits(model, torch.rand(3, 4))
    for images in (2 * data.float() - 1, data.float() * 255, data.float() * math.nan):
        with pytest.raises(ValueError, match=r"images must lie in \[0, 1\]"):
            predict_logits(model, images)
    with pytest.raises(ValueError, match="batch_size is 0"):
        predict_logits(model, data, 0)
    with pytest.raises(ValueError, match=r"shape \(1, 2, 2\), but this model takes \(1, 3, 4\)"):
        predict_logits(Shaped(), torch.rand(3, 1, 2, 2))
    assert len(predict_logits(Shaped(), data)) == len(data)
    for threat, steps in ((ThreatModel("L2", 0.1), 0), (ThreatModel(), 3)):
        with pytest.raises(ValueError, match="an attack needs a finite eps and at least 1 step"):
            under_attack(model, data, threat, steps)
