"""The curriculum on T, and AUROC against pairs counted by hand and scikit-learn."""

import json
import math

import pytest
import torch
from sklearn.metrics import roc_auc_score

from dualat.methods.curriculum import Curriculum, auroc


def test_auroc_points_the_right_way():
    low, high = torch.tensor([0.0, 1.0]), torch.tensor([2.0, 3.0])
    assert auroc(high, low).item() == 1 and auroc(low, high).item() == 0
    assert auroc(low, low).item() == 0.5  # ties count half


def test_auroc_agrees_with_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    positive = torch.randint(0, 12, (60,), generator=generator).float() + 2  # with ties
    negative = torch.randint(0, 12, (40,), generator=generator).float()
    expected = roc_auc_score([1] * 60 + [0] * 40, torch.cat([positive, negative]).numpy())
    assert auroc(positive, negative).item() == pytest.approx(expected, abs=1e-6)


def test_t_grows_by_one_when_a_full_windows_mean_reaches_the_threshold():
    curriculum = Curriculum(t_max=5, threshold=0.75, batch_size=400, window=1000)  # ceil(2.5) = 3 steps
    assert curriculum.steps == 0 and math.isnan(curriculum.mean())
    seen = []
    for value in (1.0, 1.0, 0.125, 0.875, 0.875, 0.5, 0.875, 0.875, 0.5):
        curriculum.update(value)
        seen.append(curriculum.steps)
    # Means of the last three: .71, .67, .63, then .75, exactly the threshold: T = 1 and the window is empty. Two values
    # later it is not full yet; the third gives .75 again.
    assert seen == [0, 0, 0, 0, 0, 1, 1, 1, 2]


def test_the_window_restarts_after_a_rise():
    curriculum = Curriculum(t_max=5, threshold=0.8, batch_size=500, window=1000)
    for value in (1.0, 1.0):
        curriculum.update(value)
    assert curriculum.steps == 1
    curriculum.update(1.0)  # one value is not a window
    assert curriculum.steps == 1
    curriculum.update(0.5)
    assert curriculum.steps == 1 and curriculum.mean() == 0.75


def test_t_never_exceeds_t_max_and_stuck_says_so():
    curriculum = Curriculum(t_max=2, threshold=0.8, batch_size=1000, window=1000)
    for _ in range(10):
        assert not curriculum.stuck() or curriculum.steps == 2
        curriculum.update(1.0)
    assert curriculum.steps == 2 and curriculum.stuck()
    curriculum.update(0.7)
    assert not curriculum.stuck()


def test_state_survives_json_and_goes_on_alike():
    first = Curriculum(5, 0.8, 300, 1000)
    for value in (1.0, 1.0, 1.0, 1.0, 0.9, 0.8):
        first.update(value)
    second = Curriculum(5, 0.8, 300, 1000)
    second.restore(json.loads(json.dumps(first.state())))
    assert (second.steps, second.window) == (1, [0.9, 0.8])
    kept = json.dumps(first.state())
    for value in (0.7, 0.8, 0.9, 1.0):
        first.update(value)
        second.update(value)
        assert first.state() == second.state()
    assert first.steps == 2 and json.dumps(first.state()) != kept
