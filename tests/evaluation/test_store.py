"""The file of records: written by several at a time, and damaged."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from dualat.evaluation.store import change_records, check_writable, known_records, set_aside
from dualat.results.record import Record, read_records, write_records


def test_two_evaluations_at_the_same_time_keep_both_their_records(tmp_path: Path):
    path = tmp_path / "evaluation.json"

    def evaluation(name: str) -> None:
        def slowly(known: list[Record], number: int) -> list[Record]:
            time.sleep(0.01)  # so that the other writes meanwhile, if nothing hinders it
            return [*known, Record(f"{name}{number}", 0.5, 1)]

        for number in range(5):
            change_records(path, partial(slowly, number=number))

    with ThreadPoolExecutor() as pool:
        list(pool.map(evaluation, "ab"))
    assert sorted(r.metric for r in read_records(path)) == [f"{name}{i}" for name in "ab" for i in range(5)]
    assert os.listdir(tmp_path) == ["evaluation.json"]


@pytest.mark.parametrize(
    "text", ['[{"metric": "a"', "{}x", "\xff", '[{"metric": "a", "value": 1, "n": 3, "ci95": 5}]', "5"]
)
def test_a_damaged_file_is_moved_aside_and_said(tmp_path: Path, text):
    path, lines = tmp_path / "evaluation.json", []
    for _ in range(2):
        path.write_bytes(text.encode("latin-1"))
        assert known_records(path) == []
        set_aside(path, lines.append)
    assert not path.exists() and len(lines) == 2 and f"kept as {path}.damaged-2" in lines[1]
    assert {p.read_bytes() for p in tmp_path.iterdir()} == {text.encode("latin-1")}
    path.write_bytes(text.encode("latin-1"))
    change_records(path, lambda known: [*known, Record("a", 0.5, 1)])
    assert len(read_records(path)) == 1 and (tmp_path / "evaluation.json.damaged-3").is_file()


def test_a_whole_file_stays_where_it_is(tmp_path: Path):
    path = tmp_path / "evaluation.json"
    set_aside(path)
    write_records(path, [Record("a", 0.5, 1)])
    set_aside(path)
    check_writable(path)
    assert os.listdir(tmp_path) == ["evaluation.json"] and json.loads(path.read_text())[0]["metric"] == "a"


def test_a_folder_that_cannot_be_written_is_said_beforehand(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="records cannot be written there"):
        check_writable(tmp_path / "file" / "evaluation.json")
