"""Images of one's own: Datasets, pairs of tensors and splits become the same three splits, or a sentence."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from dualat.data.images import ImageData, Splits
from dualat.data.own import own_splits


def tensors(count: int = 40, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 3, 5, 6), generator=generator, dtype=torch.uint8)
    return images, torch.arange(count) % classes


class Pictures(Dataset):
    """What torchvision's data sets are: PIL pictures, plain numbers, class names."""

    classes = ("ant", "bee", "cat", "dog")

    def __len__(self) -> int:
        return 40

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        images, labels = tensors()
        return Image.fromarray(images[i].permute(1, 2, 0).numpy()), int(labels[i])


def everything(splits: Splits) -> list[tuple[bytes, int]]:
    parts = (splits.train, splits.validation, splits.test)
    return sorted(
        (x.numpy().tobytes(), int(y)) for part in parts for x, y in zip(part.images, part.labels, strict=True)
    )


def test_every_form_gives_the_same_splits():
    images, labels = tensors()
    forms: list[Any] = [
        (images, labels),
        (images.float() / 255, labels),
        (images.numpy(), labels.tolist()),
        TensorDataset(images.double() / 255, labels),
        [(x.permute(1, 2, 0).numpy(), np.int64(y)) for x, y in zip(images, labels, strict=True)],
        Pictures(),
    ]
    wanted = own_splits(forms[0])
    assert everything(wanted) == sorted(
        (x.numpy().tobytes(), int(y)) for x, y in zip(images, labels, strict=True)
    )
    assert [len(p) for p in (wanted.train, wanted.validation, wanted.test)] == [28, 4, 8]
    for form in forms[1:]:
        found = own_splits(form)
        assert torch.equal(found.train.images, wanted.train.images)
        assert torch.equal(found.test.labels, wanted.test.labels)
    assert wanted.train.class_names == ("0", "1", "2", "3")
    assert own_splits(Pictures()).train.class_names == Pictures.classes
    assert own_splits(forms[0], class_names="wxyz").test.class_names == ("w", "x", "y", "z")


def test_given_splits_stay():
    images, labels = tensors()
    splits = own_splits(
        {"train": (images[:30], labels[:30]), "test": TensorDataset(images[30:], labels[30:])}
    )
    assert torch.equal(splits.test.images, images[30:]) and len(splits.train) + len(splits.validation) == 30
    assert own_splits(splits) is splits


def test_grey_pictures_and_arrays_have_one_channel():
    entries = [(Image.fromarray(np.full((4, 4), i, np.uint8)), i % 2) for i in range(20)]
    assert own_splits(entries).train.shape == (1, 4, 4)  # pyright: ignore[reportArgumentType]
    assert own_splits([(np.zeros((4, 4), np.uint8), i % 2) for i in range(20)]).train.shape == (1, 4, 4)  # pyright: ignore[reportArgumentType]


class Endless(IterableDataset):
    def __iter__(self):
        yield torch.zeros(1, 2, 2), 0


IMAGES, LABELS = tensors()


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ((IMAGES.float(), LABELS), r"values from 0 to 255, but must lie in \[0, 1\]"),
        ((IMAGES.long(), LABELS), "are torch.int64, but must be uint8"),
        ((IMAGES, LABELS[:5]), r"not of shapes \(40, 3, 5, 6\) and \(5,\)"),
        ((IMAGES, LABELS.float()), "must be class numbers from 0 on"),
        ((IMAGES, LABELS - 1), "must be class numbers from 0 on"),
        ({"test": (IMAGES, LABELS)}, "train is missing"),
        ({"train": (IMAGES, LABELS), "val": (IMAGES, LABELS)}, "'val' is unknown"),
        (Endless(), "Endless, but must be a Dataset with a length"),
        ([(IMAGES[0], 0), (IMAGES[0, :, :2], 1), (IMAGES[0], 1)], r"image 1 of .* has the shape \(3, 2, 6\)"),
        ([IMAGES[0]] * 3, r"must be \(image, label\), not Tensor"),
        ([("a.png", 0)] * 3, "or PIL pictures, not str"),
        ([], "must be images|no images"),
        (7, "is int, but must be a Dataset"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(data, sentence):
    with pytest.raises(ValueError, match=sentence):
        own_splits(data)


def test_splits_of_ours_are_ours():
    data = ImageData(IMAGES, LABELS, tuple("abcd"), "x")
    assert own_splits(Splits(data, data, data)).train is data
