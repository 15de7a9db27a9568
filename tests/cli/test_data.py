"""`dualat data prepare`: what each kind writes and prints, goes on with, and refuses."""

import hashlib
import json
import re
from pathlib import Path

import pytest
from pictures_on_disk import imagenet_samples, write_bin, write_classes, write_shard

from dualat.cli.main import run


@pytest.fixture
def prepare(capsys, tmp_path, monkeypatch):
    """Run `dualat data prepare ...` in an empty folder; gives exit code, standard output and error output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DUALAT_CACHE", str(tmp_path / "cache"))

    def call(*args: object) -> tuple[int, str, str]:
        try:
            code = run(["data", "prepare", *map(str, args)])
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err + captured.out
        return code, captured.out, captured.err

    return call


def sentence(result: tuple[int, str, str], code: int) -> str:
    assert result[0] == code, result
    lines = [line for line in result[2].splitlines() if line.startswith("dualat: ") and "warning" not in line]
    assert len(lines) == 1 and lines[0].endswith("."), result[2]
    return lines[0]


@pytest.mark.parametrize("kind", ["shards", "images", "open-images", "exclusions", "checksums"])
def test_every_kind_has_help(prepare, kind):
    code, out, _ = prepare(kind, "--help")
    assert code == 0 and "--json" in out


def test_mistakes_are_one_sentence(prepare, capsys):
    assert "Did you mean shards?" in sentence(prepare("shard"), 2)
    assert "KIND is missing: give one of shards" in sentence(prepare(), 2)
    assert "SOURCE is missing" in sentence(prepare("images"), 2)
    assert "--annotations and --descriptions are needed" in sentence(prepare("open-images"), 2)
    assert "--one-based or --zero-based" in sentence(prepare("exclusions"), 2)
    assert "is no folder" in sentence(prepare("shards", "nowhere"), 1)
    assert "is no folder" in sentence(prepare("images", "nowhere"), 1)
    assert "no .tar file matches" in sentence(prepare("shards", "no*.tar"), 1)
    assert "does not exist" in sentence(prepare("checksums", "SHA256SUMS"), 1)
    assert "--workers is -1" in sentence(prepare("images", ".", "--workers", -1), 2)
    assert run(["data", "fetch"]) == 2 and "one command, prepare" in capsys.readouterr().err
    Path("empty").mkdir()
    assert "has no .tar file" in sentence(prepare("shards", "empty"), 1)
    assert "no readable image" in sentence(prepare("images", "empty"), 1)


def test_shards_are_indexed_once_and_damaged_ones_do_not_stop_the_others(prepare, tmp_path):
    for split, first in (("train", 0), ("val", 50)):
        write_shard(tmp_path / "in" / split / "0.tar", imagenet_samples(12, first))
    (tmp_path / "in" / "train" / "1.tar").write_bytes(b"nothing")
    assert "1.tar is damaged" in sentence(prepare("shards", "in"), 1)
    (tmp_path / "in" / "train" / "1.tar").unlink()
    code, out, _ = prepare("shards", "in", "--json")
    facts = {"kind": "shards", "shards": 2, "indexed": 0, "images": 24, "classes": 3}
    assert code == 0 and json.loads(out) == facts, "the good ones were indexed by the first call"


def test_images_lists_what_cannot_be_read(prepare, tmp_path):
    write_classes(tmp_path / "in" / "train", {"a": 3, "b": 3})
    (tmp_path / "in" / "train" / "b" / "1.jpg").write_bytes(b"x")
    code, out, err = prepare("images", "in", "--output", "bad.txt", "--json")
    assert code == 0 and json.loads(out) == {
        "kind": "images",
        "images": 6,
        "unreadable": ["train/b/1.jpg"],
        "output": "bad.txt",
    }
    assert "warning: in/train/b/1.jpg cannot be read" in err
    assert (tmp_path / "bad.txt").read_text().splitlines()[1:] == ["train/b/1.jpg"]


def test_open_images_lists_pictures_that_training_can_use(prepare, tmp_path):
    write_classes(tmp_path / "in", {"pictures": 6})
    Path("names.csv").write_text("/m/1,Dog\n/m/2,Sky\n")
    rows = "".join(f"{i},human,/m/{1 + (i != 4)},1\n" for i in range(6))
    Path("labels.csv").write_text("ImageID,Source,LabelName,Confidence\n" + rows)
    common = ["open-images", "--annotations", "labels.csv", "--descriptions", "names.csv"]
    code, out, _ = prepare(*common, "--labels-output", "labels.txt", "--json")
    assert code == 0 and json.loads(out) == {
        "kind": "open-images",
        "pictures": 5,
        "without_overlap": 5,
        "with_overlap": 1,
        "overlapping_labels": 1,
        "output": "open-images.txt",
    }
    assert Path("labels.txt").read_text().startswith("Dog\t")
    from dualat.data.initial import build_initial
    from dualat.data.settings import InitialSettings

    settings = InitialSettings(kind="images", source="in", include=("open-images.txt",))
    assert len(build_initial(settings, (3, 8, 8), None).state()["images"]) == 5
    prepare(*common, "--count", 2, "--output", "two.txt")
    prepare(*common, "--count", 3, "--skip", 2, "--output", "three.txt")
    two, three = (set(Path(name).read_text().splitlines()[1:]) for name in ("two.txt", "three.txt"))
    assert len(two) == 2 and len(three) == 3 and not two & three
    assert "4 pictures after the first 2 are wanted" in sentence(
        prepare(*common, "--count", 4, "--skip", 2), 1
    )
    Path("classes.txt").write_text("sky\n")
    assert prepare(*common, "--classes", "classes.txt", "--output", "one.txt")[0] == 0
    assert Path("one.txt").read_text().splitlines()[1:] == ["4"]


def test_exclusions_make_one_list_that_says_where_it_counts_from(prepare, tmp_path):
    write_bin(tmp_path / "t.bin", 50)
    Path("hendrycks.txt").write_text("1\n50\n")
    Path("ratio.txt").write_text("7\n49\n")
    lists = ["--one-based", "hendrycks.txt", "--zero-based", "ratio.txt"]
    code, out, _ = prepare("exclusions", *lists, "--count", 50)
    assert code == 0 and "3 pictures from 2 lists: exclude.txt" in out
    from dualat.data.names import read_positions

    assert read_positions(["exclude.txt"], 50, "x").tolist() == [0, 7, 49]
    assert "names image 50, but the file of 49" in sentence(prepare("exclusions", *lists, "--count", 49), 1)
    Path("hendrycks.txt").write_text("79302017\n")
    assert prepare("exclusions", "--one-based", "hendrycks.txt")[0] == 0
    Path("hendrycks.txt").write_text("79302018\n")
    assert "names image 79302018" in sentence(prepare("exclusions", "--one-based", "hendrycks.txt"), 1)


def test_checksums_tell_what_is_wrong_or_missing(prepare, tmp_path):
    Path("a").write_bytes(b"a")
    good = hashlib.sha256(b"a").hexdigest()
    Path("SHA256SUMS").write_text(f"{good}  a\n")
    code, out, _ = prepare("checksums", "SHA256SUMS", "--json")
    assert code == 0 and json.loads(out) == {"kind": "checksums", "right": 1, "wrong": [], "missing": []}
    Path("SHA256SUMS").write_text(f"{good}  a\n{good}  b\n")
    result = prepare("checksums", "SHA256SUMS")
    assert "b in . is missing" in sentence(result, 1) and "1 files as the list says" in result[1]
    Path("b").write_bytes(b"b")
    assert "b in . is not as the list says: fetch it again" in sentence(prepare("checksums", "SHA256SUMS"), 1)


def test_the_kinds_in_the_documentation_are_the_commands():
    from dualat.cli.data import KINDS

    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    assert set(re.findall(r"dualat data prepare ([a-z-]+)", text)) == set(KINDS)
