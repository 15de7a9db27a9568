"""Which images a run has and which files it needs, told without reading them."""

from pathlib import Path
from typing import Literal

import pytest
from pictures_on_disk import jpeg, write_classes, write_shard

from dualat.data.in_distribution import load_splits
from dualat.data.registry import SOURCES
from dualat.data.settings import DataSettings, InitialSettings
from dualat.models.settings import NetworkSettings
from dualat.planning.data import data_facts
from dualat.planning.memory import disk, initial_bytes
from dualat.planning.needs import data_needs, initial_needs, source_need, weights_needs


@pytest.mark.parametrize(
    ("source", "shape", "classes", "train"),
    [
        ("cifar10", (3, 32, 32), 10, 45_000),
        ("cifar100", (3, 32, 32), 100, 45_000),
        ("fashion-mnist", (1, 28, 28), 10, 54_000),
    ],
)
def test_named_sources_are_known(source: str, shape: tuple[int, int, int], classes: int, train: int):
    found = data_facts(DataSettings(source, validation_fraction=0.1), None, None)
    assert (found.shape, found.classes, found.train, found.origin) == (shape, classes, train, "known")
    assert data_facts(DataSettings(source, limit=100), None, None).train == 100


def test_digits_are_as_many_as_are_loaded():
    settings = DataSettings("digits", validation_fraction=0.12, test_fraction=0.24)
    found, loaded = data_facts(settings, None, None), load_splits(settings).train
    assert found.train == pytest.approx(len(loaded), abs=10)
    assert found.shape == loaded.shape and found.classes == len(loaded.class_names)


@pytest.mark.parametrize(
    ("parts", "val_as"),
    [
        (("",), "validation"),
        (("train",), "validation"),
        (("train", "val"), "validation"),
        (("train", "test"), "validation"),
        (("train", "valid", "test"), "validation"),
        (("train", "val"), "test"),
    ],
)
def test_a_folder_is_counted_as_it_is_loaded(
    tmp_path: Path, parts: tuple[str, ...], val_as: Literal["validation", "test"]
):
    for part in parts:
        write_classes(tmp_path / part, {"a": 20, "b": 20})
    (tmp_path / parts[0] / "a" / "notes.txt").write_text("no image")
    settings = DataSettings(
        str(tmp_path), image_size=8, validation_fraction=0.1, test_fraction=0.2, val_as=val_as
    )
    found = data_facts(settings, None, None)
    assert (found.train, found.origin) == (len(load_splits(settings).train), "counted")
    assert found.classes == 2 and found.shape == (3, 8, 8)
    assert data_needs(settings)[0].there
    with pytest.raises(ValueError, match="has 2: leave it out"):
        data_facts(settings, None, 5)


def test_shards_need_their_number(tmp_path: Path):
    write_shard(tmp_path / "train-0.tar", [("a", {"jpg": jpeg(1), "cls": b"0"})])
    settings = DataSettings(str(tmp_path), image_size=8)
    assert data_facts(settings, None, None).train is None
    assert data_facts(settings, 1000, 7).train == 1000
    assert data_facts(settings, 1000, 7).classes == 7
    (tmp_path / "classnames.txt").write_text("cat\ndog\n")
    assert data_facts(settings, 1000, None).classes == 2
    assert data_needs(settings)[0].there
    assert not (tmp_path / ".dualat-index").exists(), "a plan writes nothing"
    assert source_need("x", str(tmp_path / "none-*.tar"), None, False).there is False


@pytest.mark.parametrize("source", ["cifar10", "cifar100", "fashion-mnist"])
def test_a_named_source_is_there_when_all_its_files_are(tmp_path: Path, source: str):
    names = SOURCES[source].files
    folder = tmp_path if source == "fashion-mnist" else tmp_path / SOURCES[source].folder
    folder.mkdir(exist_ok=True)
    settings = DataSettings(source, root=str(tmp_path))
    for name in names:
        assert not data_needs(settings)[0].there
        (folder / name).touch()
    assert data_needs(settings)[0].there
    (folder / names[0]).unlink()
    (folder / f"{names[0]}.gz").touch()
    assert data_needs(settings)[0].there == (source == "fashion-mnist")


def test_a_download_is_told_and_counted(tmp_path: Path):
    (need,) = data_needs(DataSettings("cifar10", root=str(tmp_path), download=True))
    assert not need.there and need.download > 3e8 and "the run fetches it" in need.advice
    assert all(row.download > 3e7 for row in SOURCES.values() if row.files)


def test_a_missing_list_says_where_it_comes_from(tmp_path: Path):
    excluded, tested = str(tmp_path / "bad.txt"), str(tmp_path / "ids.txt")
    settings = DataSettings(str(tmp_path), image_size=8, exclude=(excluded,), test_list=tested)
    advice = {need.where: need.advice for need in data_needs(settings) if not need.there}
    assert "dualat data prepare" in advice[excluded] and "RobustBench" not in advice[excluded]
    assert "RobustBench's repository" in advice[tested] and "prepare" not in advice[tested]


def test_lists_and_pictures_that_samples_start_from(tmp_path: Path):
    pictures, listed = tmp_path / "tiny.bin", tmp_path / "cifar.txt"
    settings = InitialSettings("images", source=str(pictures), exclude=(f"one-based:{listed}",))
    assert [need.there for need in initial_needs(settings)] == [False, False]
    pictures.touch()
    listed.touch()
    assert [need.there for need in initial_needs(settings)] == [True, True]
    assert initial_needs(InitialSettings("gaussian")) == []


def test_weights_are_looked_for(tmp_path: Path):
    network = NetworkSettings("wrn-10-1")
    assert weights_needs(None, network) == []
    (need,) = weights_needs(str(tmp_path), network)
    assert not need.there and "import-weights" in need.advice
    (tmp_path / "model.safetensors").touch()
    assert weights_needs(str(tmp_path), network)[0].there


def test_pretrained_weights_are_looked_for_in_the_cache_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import huggingface_hub

    asked = []

    def cached(repository: str, file: str) -> str | None:
        asked.append((repository, file))
        return "here" if file == "model.safetensors" and len(asked) > 2 else None

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", cached)
    network = NetworkSettings("timm/resnet50", pretrained=True)
    assert not weights_needs(None, network)[0].there
    assert weights_needs(None, network)[0].there
    assert asked[0] == ("timm/resnet50.a1_in1k", "model.safetensors")
    network = NetworkSettings("timm/resnet18.none_such", pretrained=True)
    assert "has none" in weights_needs(None, network)[0].advice


def test_disk_item_by_item():
    taken = disk(state=100, optimizer=10, buffer=5, start=7, lines=2, downloads=3)
    assert (taken["checkpoints"], taken["models"], taken["downloads"]) == (3 * 215, 4 * 107, 3)
    assert taken["total"] == taken["checkpoints"] + taken["models"] + taken["logs"] + 3
    assert initial_bytes(InitialSettings("class-gaussian", rank=4), (1, 2, 2), 10) == 10 * 4 * 5 * 4
    assert initial_bytes(InitialSettings("images", source="x"), (3, 8, 8), 10) == 1000 * 192
    assert initial_bytes(InitialSettings("uniform"), (3, 8, 8), 10) == 0
