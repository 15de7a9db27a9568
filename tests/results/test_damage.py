"""Damaged files of records: every reader of them says the same, in words."""

import json

import pytest

from dualat.results.compare.sources import read_source
from dualat.results.record import read_records
from dualat.results.report.reading import read_figures

WHOLE = {"metric": "r1", "value": 0.5, "n": 10}


@pytest.mark.parametrize("read", [read_records, read_source, read_figures])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'[{"metric": "r1",\n "value', "line 2 is no JSON"),
        (b"\xff\xfe[]", "it is no text"),
        (b"[" * 3000, "it is nested too deeply"),
        (json.dumps([{"n": 3}]).encode(), "a record has no metric|a record is not as dualat writes it"),
        (b"3", "a record is not as dualat writes it"),
        (b"[null]", "a record is not as dualat writes it"),
        (
            json.dumps([WHOLE | {"ci95": 3, "value": "x"}]).encode(),
            "a record('s value is 'x'| is not as dualat)",
        ),
    ],
)
def test_what_is_wrong_is_said_in_words(tmp_path, read, content, words):
    path = tmp_path / "evaluation.json"
    path.write_bytes(content)
    try:
        read(path)
    except ValueError as error:
        text = str(error)
        assert text.startswith(f"{path} is no file of records (")
        assert not {"Error", "argument", "object", "decode", "'NoneType'"} & set(
            text.replace(":", " ").split()
        ), text
        with pytest.raises(ValueError, match=words):
            raise
    else:  # a report takes what it can
        assert read is read_figures and b"ci95" in content


def test_figures_beyond_any_number_are_refused(tmp_path):
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps([WHOLE | {"value": 10**400}]))
    for read in (read_source, read_figures):
        with pytest.raises(ValueError, match="is no file of records"):
            read(path)
