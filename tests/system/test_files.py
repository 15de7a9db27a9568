"""Files: whole or absent, and what only saves time is never in the way."""

import os
from pathlib import Path

import pytest
import torch

from dualat.cli.main import run
from dualat.config import load_recipe
from dualat.data.checksums import verify
from dualat.data.in_distribution import load_splits
from dualat.evaluation.reuse import kept_tensors
from dualat.models.model import save_model
from dualat.run.model import new_model
from dualat.system.files import _cannot_keep, atomic_path, cache_folder, keep, write_text


@pytest.fixture(autouse=True)
def unsaid():
    """The one warning is due again."""
    _cannot_keep.cache_clear()


@pytest.fixture
def no_cache(tmp_path: Path, monkeypatch) -> Path:
    """A cache that cannot be written: it lies below a file."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DUALAT_CACHE", str(tmp_path / "file" / "cache"))
    return tmp_path / "file" / "cache"


@pytest.mark.parametrize("path", ["", ".", "/", "a/.."])
def test_a_path_without_a_name_is_refused_in_a_sentence(path, tmp_path, monkeypatch):
    """`--output .` said that PosixPath('.') has an empty name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    with pytest.raises(ValueError, match="is no name of a file"):
        write_text(path, "x")


def test_what_cannot_be_kept_is_said_once(no_cache: Path):
    with pytest.warns(
        UserWarning, match=rf"cannot be kept in {no_cache} \(.*\): going on without it"
    ) as said:
        keep(no_cache / "a", lambda path: path.write_text("x"))
        keep(no_cache / "partial" / "b", lambda path: path.write_text("x"))
    assert len(said) == 1
    assert not no_cache.exists()


def test_what_can_be_kept_is(tmp_path: Path):
    keep(tmp_path / "new" / "a", lambda path: path.write_text("x"))
    assert (tmp_path / "new" / "a").read_text() == "x" and os.listdir(tmp_path / "new") == ["a"]


def test_a_user_without_a_home_has_no_cache(monkeypatch, tmp_path):
    """Path.home() raises a RuntimeError, which was a traceback."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DUALAT_CACHE", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as where no home can be found
    with pytest.warns(UserWarning, match="going on without it"):
        keep(cache_folder() / "a", lambda path: path.write_text("x"))
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(os.path, "expanduser", lambda path: path.replace("~", "/home/her"))
    assert cache_folder() == Path("/home/her/.cache/dualat")


def test_an_evaluation_goes_on_without_a_cache(no_cache: Path, tmp_path: Path, capsys, monkeypatch):
    """Half-done samples, attacked images, the judge and features: none is needed."""
    config = load_recipe("digits", {"data.limit": 100, "network.name": "wrn-10-1"})
    save_model(new_model(config, load_splits(config.data).train, torch.device("cpu")), tmp_path / "model")
    monkeypatch.setattr("dualat.evaluation.judge.fit", lambda *_: None)
    monkeypatch.setattr("dualat.evaluation.samples.descend", lambda m, x, *_: x)
    few = ["--samples", "20", "--ood-images", "20", "--ood-steps", "2"]
    args = ["evaluate", str(tmp_path / "model.safetensors"), *few]
    assert run([*args, "--metrics", "generation", "ood"]) == 0
    error = capsys.readouterr().err
    assert error.count("going on without it") == 1 and "Traceback" not in error


def test_half_done_work_goes_on_without_its_file(no_cache: Path):
    made = {"fooled": torch.ones(2, dtype=torch.bool)}
    with pytest.warns(UserWarning, match="going on without it"):
        assert kept_tensors(no_cache / "0-clean-00000.safetensors", lambda found: True, lambda: made) is made


def test_a_file_of_somebody_elses_is_not_written_over(tmp_path: Path, monkeypatch, capsys):
    """Every command whose output goes by default to a name that a user may have given to a file."""
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    Path("images/a.png").write_bytes(b"no picture")
    Path("list.txt").write_text("7\n")
    Path("labels.csv").write_text("/m/1,Cat\n")
    Path("run").mkdir()
    Path("run/config.yaml").write_text("seed: 1\n")
    commands = {
        "unreadable.txt": ["data", "prepare", "images", "images"],
        "exclude.txt": ["data", "prepare", "exclusions", "--one-based", "list.txt", "--count", "9"],
        "open-images.txt": [
            "data",
            "prepare",
            "open-images",
            "--annotations",
            "x",
            "--descriptions",
            "labels.csv",
        ],
        "run/report.html": ["report", "run"],
    }
    for output, args in commands.items():
        Path(output).write_text("mine")
        assert run(args) == 1
        error = capsys.readouterr().err
        assert f"{output} is there, and `dualat " in error and "did not write it" in error
        assert error.count("\n") == 1 and Path(output).read_text() == "mine"
    for output in ("unreadable.txt", "exclude.txt", "run/report.html"):  # twice: over its own as well
        Path(output).write_text("")
        assert run(commands[output]) == run(commands[output]) == 0
        assert Path(output).read_text() != ""


def test_checksums_go_on_without_their_state(tmp_path: Path):
    (tmp_path / "a").write_text("x")
    (tmp_path / "state").mkdir()  # a folder where the file should be
    with pytest.warns(UserWarning, match="going on without it"):
        found = verify({"a": "9dd4e461268c8034f5c8564e155c67a6"}, tmp_path, tmp_path / "state")
    assert found.right == ["a"]
    (tmp_path / "list").write_text("[1]")
    assert verify({"a": "9dd4e461268c8034f5c8564e155c67a6"}, tmp_path, tmp_path / "list").right == ["a"]


def test_a_full_disk_names_the_file(tmp_path: Path):
    with pytest.raises(OSError, match="cannot write .*a: No space left"), atomic_path(tmp_path / "a"):
        raise OSError(28, "No space left on device")
    assert not list(tmp_path.iterdir())


def test_a_pipe_or_a_device_is_never_replaced(tmp_path):
    # as root, --output /dev/null put an ordinary file in the place of the device
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="cannot write .*pipe: it is a device or a pipe, not a file"):
        write_text(tmp_path / "pipe", "x")
    assert not (tmp_path / "pipe").is_file() and os.listdir(tmp_path) == ["pipe"]


def test_a_link_stays_a_link_and_its_file_is_written(tmp_path):
    # /dev/stdout is a link
    (tmp_path / "far").mkdir()
    (tmp_path / "link.json").symlink_to("far/real.json")
    for text in ("one", "two"):
        write_text(tmp_path / "link.json", text)
        assert (tmp_path / "link.json").is_symlink() and (tmp_path / "far" / "real.json").read_text() == text
    assert os.listdir(tmp_path / "far") == ["real.json"]
