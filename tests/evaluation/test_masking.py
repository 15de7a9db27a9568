"""Signs of masked gradients: each is one sentence, and chance is none."""

import pytest
import torch

from dualat.core.geometry import ThreatModel, image_norm
from dualat.evaluation.masking import grey_radius, masking_warnings, note_masking
from dualat.results.record import Record, proportion


@pytest.mark.parametrize("norm", ["L2", "Linf"])
def test_within_the_grey_radius_every_image_can_become_grey(norm):
    shape = (3, 4, 5)
    corners = torch.randint(0, 2, (50, *shape), generator=torch.Generator().manual_seed(0)).float()
    radius = grey_radius(norm, shape)
    assert image_norm(corners - 0.5, norm).max() <= radius + 1e-6
    torch.testing.assert_close(
        ThreatModel(norm, radius).project(torch.full_like(corners, 0.5), corners),
        torch.full_like(corners, 0.5),
    )


def robust(
    value: float, attack: str = "pgd", eps: float = 0.1, norm: str = "Linf", n: int = 1000, **more
) -> Record:
    settings = {"attack": attack, "norm": norm, "eps": eps}
    return proportion("robust_accuracy", round(value * n), n, settings=settings, **more)


def test_sound_records_give_no_warning():
    records = [
        proportion("clean_accuracy", 900, 1000),
        robust(0.001, eps=0.5),
        robust(0.0, "autoattack", 0.5),
    ]
    for eps, value in [(0.01, 0.8), (0.1, 0.4), (0.2, 0.1)]:
        records += [robust(value, eps=eps), robust(value - 0.02, "autoattack", eps)]
    records += [robust(0.99, "autoattack", model="stage1"), robust(0.99, norm="L2", eps=50.0)]
    assert masking_warnings(records) == []


@pytest.mark.parametrize(
    ("records", "told"),
    [
        ([robust(0.60), robust(0.66, "autoattack")], ["AutoAttack", "0.1", "66.0%", "weaker PGD", "60.0%"]),
        ([robust(0.60, "apgd"), robust(0.66, "autoattack")], ["weaker APGD"]),
        ([robust(0.60, eps=0.1), robust(0.66, eps=0.2)], ["eps 0.2", "66.0%", "smaller eps 0.1", "60.0%"]),
        ([robust(0.20, eps=0.5)], ["20.0%", "grey"]),
        ([robust(0.20, eps=28.0, norm="L2")], ["L2", "grey"]),
        (
            [robust(0.50, "autoattack", details={"after": {"clean": 0.9, "fab-t": 0.52, "square": 0.50}})],
            ["2.0%", "Square"],
        ),
    ],
)
def test_each_sign_of_masking_is_one_sentence(records, told):
    (sentence,) = masking_warnings(records, grey={"L2": 27.7})
    assert all(part in sentence for part in told), sentence
    assert sentence.endswith(".") and "\n" not in sentence


def test_chance_is_no_sign_of_masking():
    assert masking_warnings([robust(0.60), robust(0.62, "autoattack")]) == []
    assert masking_warnings([robust(0.60, n=10**5), robust(0.62, "autoattack", n=10**5)]) != []
    assert masking_warnings([robust(0.60, eps=0.1), robust(0.62, eps=0.2)]) == []
    assert masking_warnings([robust(0.11, eps=0.5)]) == []
    assert masking_warnings([robust(0.50, eps=0.5)], largest_class=0.5) == []
    square = {"after": {"clean": 0.9, "fab-t": 0.502, "square": 0.5}}
    assert masking_warnings([robust(0.5, "autoattack", details=square)]) == []


def test_doubts_stand_in_every_robust_accuracy_of_the_same_model_split_and_norm():
    fails, near = robust(0.20, eps=0.5), robust(0.30, "autoattack", 0.1)
    others = [
        robust(0.3, eps=0.1, model="stage1"),
        robust(0.3, eps=0.1, split="train"),
        robust(0.3, eps=0.1, norm="L2"),
        proportion("clean_accuracy", 900, 1000),
    ]
    for _ in range(2):  # the second time nothing is added
        note_masking([fails, near, *others])
        assert fails.warnings == near.warnings == masking_warnings([fails, near]) != []
        assert all(r.warnings == [] for r in others)
    fails.value = 0.05
    note_masking([fails, near, *others])
    assert fails.warnings == near.warnings == []
