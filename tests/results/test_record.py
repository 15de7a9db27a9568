"""Records: Wilson's interval against known figures, and files that come back."""

import json
import math
import time
from pathlib import Path

import pytest

from dualat.results.record import (
    Record,
    proportion,
    read_records,
    timed,
    versions,
    wilson_interval,
    write_records,
)


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [
        # R: binom::binom.confint(hits, n, methods = "wilson"); Newcombe 1998, table I, rows 81/263, 15/148, 0/20, 1/29.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (5, 10, 0.2366, 0.7634),
        (10, 10, 0.7225, 1.0000),
    ],
)
def test_wilson_interval_is_as_published(hits, n, low, high):
    assert wilson_interval(hits, n) == pytest.approx((low, high), abs=6e-5)


def test_wilson_interval_solves_its_equation_and_stays_in_bounds():
    for hits, n in ((3, 17), (250, 500), (9999, 10000)):
        for edge in wilson_interval(hits, n):  # |p - edge| = z sqrt(edge (1 - edge) / n)
            assert abs(hits / n - edge) == pytest.approx(
                1.959964 * math.sqrt(edge * (1 - edge) / n), rel=1e-5
            )
    assert wilson_interval(0, 0) == (0.0, 1.0)
    for n in (1, 7, 10_000):
        assert wilson_interval(0, n)[0] == pytest.approx(0, abs=1e-12) and wilson_interval(0, n)[0] >= 0
        assert wilson_interval(n, n)[1] == pytest.approx(1) and wilson_interval(n, n)[1] <= 1


def test_a_proportion_is_a_complete_record():
    record = proportion("clean_accuracy", 90, 100, seed=3, settings={"eps": 0.5})
    assert (record.metric, record.value, record.n, record.seed) == ("clean_accuracy", 0.9, 100, 3)
    assert record.ci95 == wilson_interval(90, 100) and record.ci95[0] < 0.9 < record.ci95[1]
    assert record.settings == {"eps": 0.5} and record.split == "test"
    assert record.versions == versions() and {"dualat", "torch", "python"} <= set(record.versions)


def test_records_come_back_from_their_file(tmp_path: Path):
    records = [proportion("clean_accuracy", 9, 10), Record("frechet_distance", 1.5, 20, settings={"a": [1]})]
    write_records(tmp_path / "evaluation.json", records)
    assert read_records(tmp_path / "evaluation.json") == records
    assert json.loads((tmp_path / "evaluation.json").read_text())[0]["value"] == 0.9


def test_warnings_come_back_and_records_from_before_there_were_any_are_read(tmp_path: Path):
    path = tmp_path / "evaluation.json"
    record = proportion("robust_accuracy", 9, 10, warnings=["The attack fails."])
    write_records(path, [record])
    assert read_records(path) == [record]
    (fields,) = json.loads(path.read_text())
    assert fields.pop("warnings") == ["The attack fails."]
    path.write_text(json.dumps([fields]))
    assert read_records(path)[0].warnings == [] and read_records(path)[0].value == 0.9
    path.write_text(json.dumps([fields | {"warnings": "no list"}]))
    with pytest.raises(ValueError, match="is no file of records .*warnings"):
        read_records(path)


def test_an_undefined_value_is_written_as_json_has_it(tmp_path: Path):
    path = tmp_path / "evaluation.json"
    write_records(path, [Record("auroc", math.nan, 3)])
    assert json.loads(path.read_text(), parse_constant=pytest.fail)[0]["value"] is None
    assert math.isnan(read_records(path)[0].value)


def test_what_old_and_foreign_records_lack_is_unknown(tmp_path: Path):
    path = tmp_path / "evaluation.json"
    path.write_text('[{"metric": "fid", "value": null, "ci95": [null, 1], "settings": null}]')
    (record,) = read_records(path)
    assert math.isnan(record.value) and (record.n, record.ci95, record.seed) == (0, None, None)
    assert (record.settings, record.model, record.split) == ({}, "final", "test")
    assert record.versions == {}, "not those of this process"
    assert read_records(tmp_path / "none.json") == []


@pytest.mark.parametrize(
    "text",
    [
        *("{", "3", '{"a": 1}', '[{"surprise": 1}]', "[1]", "\xff", "[" * 100_000, '[{"value": 1}]', '[{"metric": "a"}]'),
        *(f'[{{"metric": "a", "value": 1, {other}}}]' for other in (
            '"b": 1', '"n": "x"', '"n": true', '"seed": "x"', '"settings": 3', '"model": 3', '"details": [1]', '"versions": "x"',
            '"ci95": ["x", 1]', '"ci95": [1]', '"ci95": [true, 1]', '"ci95": 3',
        )),
    ],
)  # fmt: skip
def test_other_files_are_refused_by_name(tmp_path: Path, text):
    path = tmp_path / "evaluation.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"evaluation\.json is no file of records"):
        read_records(path)


def test_timed_measures_the_measurement():
    def measure() -> Record:
        time.sleep(0.05)
        return Record("x", 1.0, 1)

    assert 0.05 <= timed(measure).seconds < 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'[{"metric": "r1",\n "value', "line 2 is no JSON"),
        (b"\xff\xfe[]", "it is no text"),
        (b"[" * 3000, "it is nested too deeply"),
        (b"3", "it is no list"),
        (b"[null]", "a record has a metric and a value"),
        (b'[{"metric": "r1", "value": "%s"}]' % (b"x" * 500), r"value of 'r1' is 'x{59}\)"),
        (b'[{"metric": "r1", "value": 1%s}]' % (b"0" * 400), r"value of 'r1' is 10{59}\)"),
        (b'[{"metric": "r1", "value": 1, "ci95": [0, 1%s]}]' % (b"0" * 400), r"ci95 is \[0, 10+\)"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_words(tmp_path: Path, content: bytes, words: str):
    path = tmp_path / "evaluation.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words) as refused:
        read_records(path)
    assert str(refused.value).startswith(f"{path} is no file of records (") and len(str(refused.value)) < 300
