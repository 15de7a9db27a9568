"""The models that come with dualat: found by name, whole, small, and with the record of what they do."""

import hashlib
import json

import pytest
import torch

import dualat
from dualat.cli.main import run
from dualat.models.shipped import FOLDER, shipped_file, shipped_models


def test_every_model_has_its_record_and_at_most_8_mib():
    assert shipped_models() == ["fashion-mnist"]
    for name in shipped_models():
        weights = FOLDER / f"{name}.safetensors"
        record = json.loads((FOLDER / f"{name}.record.json").read_text())
        assert weights.stat().st_size <= 8 * 2**20
        assert record["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
        assert "licence" in record["data"] and record["made_by"][0].startswith("dualat train fashion-mnist")
        assert {"clean_accuracy", "robust_accuracy", "frechet_distance"} <= {
            r["metric"] for r in record["records"]
        }


def test_a_name_loads_a_model_that_draws_what_it_is_asked_for():
    model = dualat.load("fashion-mnist")
    labels = torch.arange(20) % 10
    images = dualat.sample(model, labels, generator=torch.Generator().manual_seed(0))
    assert images.shape == (20, 1, 28, 28) and model.class_names[9] == "Ankle boot"
    assert (model.predict_proba(images).argmax(1) == labels).float().mean() >= 0.9
    start = model.initial.sample(20, labels, torch.Generator().manual_seed(0))
    assert (model.energy(images, labels) < model.energy(start, labels)).all()


def test_what_exists_under_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shipped_file("fashion-mnist") is not None and shipped_file("digits") is None
    (tmp_path / "fashion-mnist").mkdir()
    assert shipped_file("fashion-mnist") is None
    with pytest.raises(FileNotFoundError, match=r"holds no model\.safetensors"):
        dualat.load("fashion-mnist")


def test_the_command_line_knows_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["sample", "fashion-mnist", "--count", "4", "--steps", "1", "--output", "s.png"]) == 0
    assert (tmp_path / "s.png").stat().st_size > 0
    with pytest.raises(FileNotFoundError, match="fashion-mnist"):
        dualat.load("no-such-model")
