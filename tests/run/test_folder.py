"""A run folder: what --overwrite replaces and what it leaves, whose folder it is, and one run at a time."""

from pathlib import Path

import pytest
import torch
import yaml
from pictures_on_disk import write_classes

import dualat
from dualat.config import RunConfig, load_recipe, to_yaml
from dualat.data.in_distribution import load_splits
from dualat.models.model import save_model
from dualat.run.data import check_same, known_content, load_run_splits, located, write_data
from dualat.run.folder import LOCK, check_folder, check_unused, clear_run, is_run, run_files
from dualat.run.model import new_model
from dualat.short_form import in_short
from dualat.system.lock import locked

OURS = (
    "metrics.jsonl",
    "model.safetensors",
    "model.json",
    "evaluation.json",
    "outcome.json",
    "data.json",
    "checkpoints/state-2-00000010.safetensors",
    "checkpoints/latest.json",
    "checkpoints/stage1.safetensors",
    "checkpoints/best-robust.json",
    "samples/stage1-000008.png",
    "samples/final.png",
    "counterfactuals/3-eps0.5.png",
    "tensorboard/events.out.tfevents.1.host.1.0",
    "tensorboard/1796117256.6/events.out.tfevents.1.host.1.1",
    "tensorboard/1796117256.6/hparams.yml",
)
THEIRS = (
    "checkpoints/my_model.pt",
    "checkpoints/state-mine.safetensors",
    "samples/photo.png",
    "samples/stage1.png",
    "counterfactuals/favourite.png",
    "tensorboard/notes.txt",
    "tensorboard/mine/hparams.yml",
    "report.html",
    "notes.md",
    "data/cat.png",
    "evaluation.mine.json",
)


def fill(folder: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("content")


def files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def config(folder: Path, **changes) -> RunConfig:
    return load_recipe("digits", {"output": str(folder), **changes})


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with the files of a run, and a stranger's."""
    fill(tmp_path / "run", (*OURS, *THEIRS))
    (tmp_path / "run" / "config.yaml").write_text(to_yaml(config(tmp_path / "run")))
    return tmp_path / "run"


def test_overwrite_removes_what_dualat_writes_and_nothing_else(run: Path):
    check_folder(config(run), resume=False, overwrite=True)
    clear_run(run)
    assert files(run) == {*THEIRS, "config.yaml"}
    assert not (run / "tensorboard" / "1796117256.6").exists()


def test_a_run_that_has_its_methods_in_short_is_recognised_and_goes_on(run: Path):
    """As versions wrote them that knew no stages with methods."""
    values = in_short(yaml.safe_load((run / "config.yaml").read_text()))
    values |= {"method": "dat", "stages": "both", "chain": {"steps": None, "buffer": 7}, "loss": {"r1": None}}
    (run / "config.yaml").write_text(yaml.safe_dump(values))
    assert is_run(run)
    assert check_folder(config(run), resume=True, overwrite=False) == run
    with pytest.raises(ValueError, match=r"stage2\.method\.contrastive\.t_max: there \d+, here 9\)"):
        check_folder(config(run, **{"contrastive.t_max": 9}), resume=True, overwrite=False)


def test_a_report_of_dualat_goes_with_its_run(run: Path):
    (run / "report.html").write_text('<html><head><meta name="generator" content="dualat 0.1.0">')
    clear_run(run)
    assert files(run) == {*THEIRS, "config.yaml"} - {"report.html"}


def test_all_that_a_run_writes_is_known(tiny_run: Path):
    assert files(tiny_run) == {str(p.relative_to(tiny_run)) for p in run_files(tiny_run)} | {"config.yaml"}


@pytest.mark.parametrize("text", ["seed: 1\n", "port: 80\nhost: x\n", "[1, 2]", "a: [", "", None], ids=str)
@pytest.mark.parametrize(
    "way", [(False, True), (False, False), (True, False)], ids=["overwrite", "plain", "resume"]
)
def test_a_folder_with_a_strangers_config_is_left_alone(run: Path, text, way):
    if text is None:  # the recipe that a user keeps under this name
        text = "".join(
            line for line in to_yaml(config(run)).splitlines(True) if not line.startswith("output")
        )
    (run / "config.yaml").write_text(text)
    before = files(run)
    with pytest.raises(
        ValueError, match=r"config\.yaml is no configuration of a dualat run: give another --output\.$"
    ):
        dualat.train("digits", {"output": str(run)}, resume=way[0], overwrite=way[1])
    clear_run(run)
    assert files(run) == before


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_folder_that_never_was_a_run_keeps_its_files(tmp_path: Path, overwrite):
    fill(tmp_path / "mine", THEIRS)
    check_folder(config(tmp_path / "mine"), resume=False, overwrite=overwrite)
    clear_run(tmp_path / "mine")
    assert files(tmp_path / "mine") == set(THEIRS)
    fill(tmp_path / "mine", ("model.safetensors",))  # training would write over it
    with pytest.raises(ValueError, match=r"holds model\.safetensors, but no config\.yaml"):
        check_folder(config(tmp_path / "mine"), resume=False, overwrite=overwrite)


def test_runs_of_older_and_newer_versions_are_recognised(run: Path):
    values = yaml.safe_load((run / "config.yaml").read_text())
    for group in ("deterministic", "stability", "compile"):
        del values[group]
    values["not_yet"] = 1
    (run / "config.yaml").write_text(yaml.safe_dump(values))
    clear_run(run)
    assert files(run) == {*THEIRS, "config.yaml"}


@pytest.mark.parametrize("output", ["", " "])
def test_an_empty_output_is_refused(output):
    with pytest.raises(ValueError, match="output is empty"):
        dualat.train("digits", {"output": output})


def test_a_second_run_in_the_folder_is_refused_in_a_sentence(run: Path):
    """Started beside it, it died by "[Errno 2]", and metrics.jsonl had lines twice."""
    with locked(run / LOCK, "it"):
        for options in ({"resume": True}, {"overwrite": True}, {}):
            with pytest.raises(
                ValueError, match=rf"^{run} is in use by process \d+ on .*: wait until it has ended\.$"
            ):
                dualat.train("digits", {"output": str(run)}, **options)
    assert files(run) == {*OURS, *THEIRS, "config.yaml"}
    check_unused(run)


def test_two_runs_that_begin_together_do_not_mix(tmp_path: Path, monkeypatch):
    """The second has looked at an empty folder; while it reads its data, the first makes a whole run there."""
    import importlib

    module = importlib.import_module("dualat.run.train")
    read = module.load_run_splits

    def meanwhile(*args):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "config.yaml").write_text(to_yaml(config(tmp_path / "run")))
        return read(*args)

    monkeypatch.setattr(module, "load_run_splits", meanwhile)
    with pytest.raises(ValueError, match="already holds a run"):
        dualat.train("digits", {"output": str(tmp_path / "run"), "network.name": "wrn-10-1"})
    assert files(tmp_path / "run") == {"config.yaml"}


def test_a_run_holds_its_lock_from_before_its_first_file_to_its_last(tiny, tmp_path: Path, monkeypatch):
    import importlib

    module = importlib.import_module("dualat.run.train")
    seen = []

    def look(name):
        found = getattr(module, name)

        def looking(*args, **kwargs):
            with pytest.raises(ValueError, match="is in use"):
                check_unused(tmp_path / "run")
            seen.append(name)
            return found(*args, **kwargs) if name == "write_text" else None

        return looking

    for name in ("write_text", "train_stages", "evaluate_run"):
        monkeypatch.setattr(module, name, look(name))
    dualat.train("digits", {**tiny, "output": str(tmp_path / "run")})
    assert seen == ["write_text", "train_stages", "evaluate_run"]
    check_unused(tmp_path / "run")
    assert not (tmp_path / "run" / LOCK).exists()


@pytest.fixture
def photos(tmp_path: Path, monkeypatch) -> RunConfig:
    """A begun run on a folder of pictures that is named relative to the working directory."""
    write_classes(tmp_path / "here" / "photos", {"a": 8, "b": 8})
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    made = config(Path("run"), **{"data.source": "photos", "data.image_size": 8, "network.name": "wrn-10-1"})
    splits = load_splits(made.data)
    (tmp_path / "here" / "run").mkdir()
    (tmp_path / "here" / "run" / "config.yaml").write_text(to_yaml(made))
    write_data(Path("run"), made, made, splits)
    save_model(new_model(made, splits.train, torch.device("cpu")), "run/model")
    return made


def test_a_run_finds_its_data_from_another_directory(photos: RunConfig, tmp_path: Path, monkeypatch):
    folder = tmp_path / "here" / "run"
    monkeypatch.chdir(tmp_path / "elsewhere")
    places = located(folder, photos)
    assert places.data.source == str(tmp_path / "here" / "photos") and photos.data.source == "photos"
    splits = load_run_splits(photos, places)
    assert splits.train.name == "photos train"  # as records have named it
    assert {"train": splits.train.content}.items() <= known_content(folder).items()
    (tmp_path / "here" / "photos").rename(tmp_path / "gone")
    assert located(folder, photos) == photos


def test_config_yaml_is_still_what_older_versions_read(photos: RunConfig):
    assert yaml.safe_load(Path("run/config.yaml").read_text())["data"]["source"] == "photos"
    assert load_recipe("run/config.yaml") == photos


def test_a_run_goes_on_with_the_same_images_in_another_place_alone(photos: RunConfig, tmp_path: Path):
    (tmp_path / "here" / "photos").rename(tmp_path / "moved")
    moved = config(Path("run"), **{**CHANGES, "data.source": str(tmp_path / "moved")})
    assert check_folder(moved, resume=True, overwrite=False) == Path("run")
    check_same(Path("run"), moved, photos, load_splits(moved.data))
    write_classes(tmp_path / "other", {"a": 8, "b": 8}, first_seed=100)
    other = config(Path("run"), **{**CHANGES, "data.source": str(tmp_path / "other")})
    with pytest.raises(
        ValueError, match="holds other train images than those that the run in run began with"
    ):
        check_same(Path("run"), other, photos, load_splits(other.data))
    with pytest.raises(ValueError, match=r"other settings \(data.split_seed"):
        check_folder(config(Path("run"), **{**CHANGES, "data.split_seed": 1}), resume=True, overwrite=False)


CHANGES = {"data.source": "photos", "data.image_size": 8, "network.name": "wrn-10-1"}


def test_images_that_have_changed_in_their_place_are_told(photos: RunConfig, tmp_path: Path):
    write_classes(tmp_path / "here" / "photos", {"a": 8, "b": 8}, first_seed=50)
    with pytest.warns(UserWarning, match="are others than those that the run in run began with"):
        check_same(Path("run"), photos, photos, load_splits(photos.data))


def test_a_run_from_before_data_json_is_known_by_its_model(photos: RunConfig, tmp_path: Path):
    Path("run/data.json").unlink()
    assert known_content(Path("run")) == {"train": load_splits(photos.data).train.content}
    assert located(Path("run"), photos) == photos
    Path("run/model.json").write_text("{")  # nothing is known: as ever
    assert known_content(Path("run")) == {}
    moved = config(Path("run"), **{**CHANGES, "data.source": str(tmp_path / "x")})
    with pytest.raises(ValueError, match=r"other settings \(data.source"):
        check_folder(moved, resume=True, overwrite=False)
