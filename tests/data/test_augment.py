"""Augmentation: equal to slicing by hand, to torchvision per image, and independent of the rest of the batch."""

import pytest
import torch
from torchvision.transforms import AutoAugment

from dualat.data.augment import apply_operation, augment, auto_augment, cutout, pad_and_crop, random_flip
from dualat.data.settings import AugmentSettings


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(n: int = 6, channels: int = 3, height: int = 10, width: int = 12) -> torch.Tensor:
    return torch.randint(1, 256, (n, channels, height, width), generator=seeded(7)).float() / 255


def test_pad_and_crop_is_slicing_per_image():
    x, pad = pictures(40), 3
    out = pad_and_crop(x, pad, seeded())
    corners = torch.randint(2 * pad + 1, (40, 2), generator=seeded())
    for image, cropped, (top, left) in zip(x, out, corners.tolist(), strict=True):
        padded = torch.zeros(3, 10 + 2 * pad, 12 + 2 * pad)
        padded[:, pad : pad + 10, pad : pad + 12] = image
        assert torch.equal(cropped, padded[:, top : top + 10, left : left + 12])
    assert corners.unique(dim=0).shape[0] > 20 and set(corners.flatten().tolist()) == set(range(2 * pad + 1))


def test_random_flip_mirrors_about_half():
    x = pictures(400, 1, 4, 4)
    out = random_flip(x, seeded())
    same = (out == x).flatten(1).all(1)
    assert torch.equal(out[~same], x[~same].flip(-1)) and 150 < int(same.sum()) < 250


@pytest.mark.parametrize("size", [1, 4, 5, 40])
def test_cutout_clears_one_clipped_square(size):
    x = pictures(60)
    out = cutout(x, size, seeded())
    tops, lefts = (torch.randint(high, (60, 1), generator=g) for g in [seeded()] for high in (10, 12))
    for image, cut, top, left in zip(x, out, tops.flatten().tolist(), lefts.flatten().tolist(), strict=True):
        expected = image.clone()
        top, left = top - size // 2, left - size // 2
        expected[:, max(top, 0) : max(top + size, 0), max(left, 0) : max(left + size, 0)] = 0
        assert torch.equal(cut, expected)
    assert (out == 0).flatten(1).any(1).all()


OPERATIONS = [
    *[
        (name, level)
        for name in ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
        for level in (3, 9)
    ],
    *[(name, level) for name in ("Brightness", "Color", "Contrast", "Sharpness") for level in (1, 8)],
    *[(name, level) for name in ("Posterize", "Solarize") for level in (2, 5, 9)],
    *[(name, None) for name in ("AutoContrast", "Equalize", "Invert")],
]


@pytest.mark.parametrize(("operation", "level"), OPERATIONS)
def test_operations_are_torchvisions(operation, level):
    """torchvision's own transform, with one operation for its policy, gives what ours gives with + or - magnitude."""
    x = (pictures(2) * 255).round().to(torch.uint8)
    theirs = AutoAugment()
    theirs.policies = [((operation, 1.0, level), ("Invert", -1.0, None))]
    strength = 0.0 if level is None else level / 9
    ours = [apply_operation(x, operation, sign * strength) for sign in (1, -1)]
    for i in range(2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(i)
            expected = theirs(x[i])
        assert min(int((mine[i].int() - expected.int()).abs().max()) for mine in ours) <= 1


def test_unknown_operation_is_refused():
    with pytest.raises(ValueError, match="'Swirl'"):
        apply_operation(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), "Swirl", 1.0)


def test_auto_augment_changes_most_images_and_only_colour():
    x = pictures(100)
    out = auto_augment(x, seeded())
    assert out.min() >= 0 and out.max() <= 1 and out.shape == x.shape
    changed = (out - x).abs().flatten(1).amax(1) > 1e-6
    assert 60 < int(changed.sum()) < 100
    torch.testing.assert_close(out[~changed], x[~changed])
    with pytest.raises(ValueError, match="not 1"):
        auto_augment(x[:, :1], seeded())


@pytest.mark.parametrize("kind", ["none", "basic", "strong"])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_a_batch_do_not_touch_each_other(kind, channels):
    settings, x = AugmentSettings(kind=kind, cutout=4 if kind == "strong" else 16), pictures(30, channels)
    out = augment(x, settings, seeded())
    assert torch.equal(out, augment(x, settings, seeded()))  # same generator state, same output
    assert kind == "none" or not torch.equal(out, augment(x, settings, seeded(1)))
    other = x.clone()
    other[1:] = 1 - other[1:]
    assert torch.equal(augment(other, settings, seeded())[0], out[0])


def test_parts_can_be_switched_off():
    x = pictures()
    assert augment(x, AugmentSettings(kind="none"), seeded()) is x
    assert torch.equal(augment(x, AugmentSettings(pad=0, flip=False), seeded()), x)
    basic = augment(x, AugmentSettings(pad=2), seeded())
    g = seeded()
    assert torch.equal(basic, random_flip(pad_and_crop(x, 2, g), g))
    with pytest.raises(ValueError, match="pad is -1"):
        AugmentSettings(pad=-1)
