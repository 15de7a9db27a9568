"""`dualat report` and `dualat compare`: what they write, and one sentence with the right exit code for each mistake."""

import csv
import io
import json
from pathlib import Path

import pytest

from dualat.cli.main import run


@pytest.fixture
def command(capsys):
    """Run a command line; gives exit code, standard output and error output. No traceback ever."""

    def call(*args: object) -> tuple[int, str, str]:
        try:
            code = run([str(a) for a in args])
        except SystemExit as stop:  # tyro ends --help this way
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err + captured.out
        return code, captured.out, captured.err

    return call


def sentence(result: tuple[int, str, str], code: int) -> str:
    """The one line that a failed command prints."""
    assert result[0] == code, result
    lines = result[2].splitlines()
    assert len(lines) == 1 and lines[0].startswith("dualat: ") and lines[0].endswith("."), result[2]
    return lines[0]


def make(folder: Path, value: float) -> Path:
    folder.mkdir()
    record = {"metric": "clean_accuracy", "value": value, "n": 400, "ci95": [value - 0.02, value + 0.02]}
    (folder / "evaluation.json").write_text(json.dumps([record]))
    return folder


@pytest.fixture
def runs(tmp_path):
    return make(tmp_path / "one", 0.9), make(tmp_path / "two", 0.8)


@pytest.mark.parametrize("name", ["report", "compare"])
def test_help(command, name):
    code, out, _ = command(name, "--help")
    assert code == 0 and "--output" in out


def test_report_writes_a_page(command, runs, tmp_path):
    code, out, _ = command("report", runs[0])
    assert code == 0 and out == f"report: {runs[0] / 'report.html'}\n"
    assert "0.900" in (runs[0] / "report.html").read_text()
    assert command("report", runs[0], "--output", tmp_path / "x.html")[0] == 0
    assert (tmp_path / "x.html").read_text() == (runs[0] / "report.html").read_text()


def test_report_mistakes(command, runs, tmp_path):
    assert "RUN is missing" in sentence(command("report"), 2)
    assert "--outptu" in sentence(command("report", runs[0], "--outptu", "x"), 2)
    assert "is no run folder" in sentence(command("report", tmp_path / "none"), 1)
    (runs[0] / "evaluation.json").write_text("{")
    assert "is no file of records" in sentence(command("report", runs[0]), 1)
    assert not (runs[0] / "report.html").exists()
    (tmp_path / "file").write_text("")
    assert "is a file" in sentence(command("report", runs[1], "--output", tmp_path / "file" / "x.html"), 2)


@pytest.mark.parametrize(
    ("form", "ending", "expected"),
    [
        ("table", "txt", "0.900 ±0.020*"),
        ("markdown", "md", "| one | **0.900 ±0.020** |"),
        ("csv", "csv", "one,final,"),
        ("latex", "tex", "one & \\textbf{0.900 $\\pm$0.020} \\\\"),
        ("json", "json", '"value": 0.9'),
    ],
)
def test_compare_prints_and_writes_each_format(command, runs, tmp_path, form, ending, expected):
    code, out, _ = command("compare", *runs, "--format", form)
    assert code == 0 and expected in out
    target = tmp_path / f"x.{ending}"
    assert command("compare", *runs, "--output", target)[1] == f"comparison: {target}\n"
    assert target.read_text() == out, "the ending chooses the format"


def test_compare_adds_published_figures(command, runs):
    code, out, _ = command("compare", *runs, "--published", "cifar10", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0 and [r["system"] for r in rows[:3]] == ["one", "two", "JEM"]
    assert command("compare", "--published", "imagenet256")[0] == 0, "published figures alone"


def test_compare_mistakes(command, runs, tmp_path):
    assert "nothing to compare" in sentence(command("compare"), 2)
    assert "given twice" in sentence(command("compare", runs[0], runs[0]), 2)
    assert "cifar10, cifar100, imagenet256" in sentence(
        command("compare", runs[0], "--published", "mnist"), 2
    )
    assert "html" in sentence(command("compare", runs[0], "--format", "html"), 2)
    assert "does not exist" in sentence(command("compare", tmp_path / "none"), 1)
    assert "--models" in sentence(command("compare", *runs, "--models", "stage1"), 1)
    assert "Did you mean clean_accuracy" in sentence(command("compare", *runs, "--figures", "clean"), 1)
    (tmp_path / "m.safetensors").write_bytes(b"")
    assert "dualat evaluate" in sentence(command("compare", tmp_path / "m.safetensors"), 1)
