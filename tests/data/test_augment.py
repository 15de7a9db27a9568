"""Augmentation: equal to slicing by hand, to torchvision per image, and independent of the rest of the batch."""

import numpy as np
import pytest
import torch
from torchvision.transforms import AutoAugment
from torchvision.transforms.v2 import functional as V

from dualat.data.augment import (
    apply_operation,
    augment,
    auto_augment,
    crop_boxes,
    cutout,
    pad_and_crop,
    random_flip,
    random_resized_crop,
)
from dualat.data.draws import Draws
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


def test_a_crop_after_mirroring_the_border_is_slicing_too():
    x, pad = pictures(40), 3
    out = pad_and_crop(x, pad, seeded(), "reflect")
    corners = torch.randint(2 * pad + 1, (40, 2), generator=seeded())
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (pad, pad), (pad, pad)), mode="reflect")
    for i, (top, left) in enumerate(corners.tolist()):
        assert np.array_equal(out[i].numpy(), padded[i, :, top : top + 10, left : left + 12])
    settings = AugmentSettings(kind="basic", pad=3, padding="reflect", flip=False)
    assert torch.equal(augment(x, settings, seeded()), out) and out.min() > 0, "no black borders"
    with pytest.raises(ValueError, match="pad is 4, but an image of 4x4 pixels"):
        pad_and_crop(x[:, :, :4, :4], 4, seeded(), "reflect")


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


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 33), (64, 24)])
def test_random_resized_crop_is_torchvisions_per_image(height, width):
    x = pictures(24, 3, height, width)
    out = random_resized_crop(x, 0.08, seeded(1))
    boxes = crop_boxes(24, height, width, 0.08, seeded(1)).tolist()
    for image, cropped, box in zip(x, out, boxes, strict=True):
        expected = V.resized_crop(image, *box, [height, width], antialias=False)
        torch.testing.assert_close(cropped, expected, atol=2e-5, rtol=0)
    assert len({tuple(box) for box in boxes}) > 20, "each image of the batch has a crop of its own"


def test_crop_boxes_have_the_known_distribution():
    top, left, high, wide = crop_boxes(20_000, 256, 256, 0.08, seeded()).unbind(1)
    assert (top >= 0).all() and (left >= 0).all() and (top + high <= 256).all() and (left + wide <= 256).all()
    area, ratio = high * wide / 256**2, wide / high
    assert area.min() > 0.078 and ratio.min() > 0.74 and ratio.max() < 1.35
    assert float(ratio.log().mean()) == pytest.approx(0, abs=0.01)
    small = area < 0.5  # rectangles of every ratio fit there: uniform
    assert float(area[small].mean()) == pytest.approx((0.08 + 0.5) / 2, abs=0.005)
    assert float(small.float().mean()) > (0.5 - 0.08) / (1 - 0.08)
    assert float((top / (256 - high).clamp_min(1)).mean()) == pytest.approx(0.5, abs=0.02)
    whole = crop_boxes(50, 40, 40, 1.0, seeded())
    assert (whole[:, 2:] >= 34).all()
    tall = crop_boxes(50, 90, 30, 1.0, seeded())  # nothing fits: the largest centred rectangle of ratio 3/4
    assert tall.tolist() == [[25, 0, 40, 30]] * 50


@pytest.mark.parametrize("kind", ["basic", "strong", "imagenet"])
def test_processes_that_share_a_batch_augment_it_like_one(kind):
    settings, x = AugmentSettings(kind=kind), pictures(10)
    whole = augment(x, settings, seeded())
    for part in (slice(0, 4), slice(4, 10), slice(1, None, 3)):
        assert torch.equal(augment(x[part], settings, Draws(seeded(), 10, part)), whole[part])
    with pytest.raises(ValueError, match="3 images, but draws for 4"):
        augment(x[:3], settings, Draws(seeded(), 10, slice(0, 4)))


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
    theirs = AutoAugment(fill=[128.0, 128.0, 128.0])
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


@pytest.mark.parametrize("kind", ["none", "basic", "strong", "imagenet"])
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
    imagenet = augment(x, AugmentSettings(kind="imagenet", scale=0.5), seeded())
    g = seeded()
    assert torch.equal(imagenet, random_flip(random_resized_crop(x, 0.5, g), g))
    for values, message in [
        ({"kind": "imagenet", "scale": 0.0}, "scale is 0"),
        ({"scale": 0.5}, "scale does nothing for augmentation 'basic'"),
        ({"kind": "imagenet", "pad": 2}, "pad does nothing"),
    ]:
        with pytest.raises(ValueError, match=message):
            AugmentSettings(**values)
