"""The campaign: 10,000 broken or odd inputs over all readers, and none of them ends in a traceback, a hang, a heap of memory
or a write where nobody asked for one.

It mirrors no file of the package: it is about all that the package reads. `originals.py` makes whole inputs, tiny ones;
`damage.py` breaks bytes, texts and trees of values; `images_broken.py`, `models_broken.py`, `texts_broken.py` and
`command_lines.py` make a case from a random generator and say what reads it; `verdict.py` says what passes; `campaign.py`
runs cases in a process of its own. A case is made from its seed and number alone: what fails is run again by the command that
the failure names. Another seed: CAMPAIGN_SEED=7.
"""

import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

SEED = int(os.environ.get("CAMPAIGN_SEED", "0"))
CASES, QUICK = 10_000, 200
HERE = Path(__file__).parent
SHOWN = 20
Row = dict[str, Any]


def run_cases(seed: int, count: int, *more: str) -> list[Row]:
    """What came of each case. One that ends the process (a hang, a crash) has failed, and the next process goes on."""
    rows: list[Row] = []
    first = 0
    while first < count:
        words = ["--seed", str(seed), "--first", str(first), "--last", str(count), *more]
        done = subprocess.run(
            [sys.executable, str(HERE / "campaign.py"), *words], capture_output=True, text=True
        )
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        rows += [line for line in lines if "outcome" in line]
        if not lines or "outcome" in lines[-1]:
            assert done.returncode == 0 and lines, done.stderr[-3000:]
            break
        ended = f"the process ended with {done.returncode}: {done.stderr[-1500:]}"
        rows.append(
            {
                **lines[-1],
                "outcome": "failed",
                "problem": ended,
                "input": "",
                "told": "",
                "seconds": 0,
                "memory": 0,
            }
        )
        first = lines[-1]["case"] + 1
    return rows


def told(rows: list[Row]) -> str:
    """Counts by reader, and the slowest and the hungriest case."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    seconds: Counter[str] = Counter()
    for row in rows:
        counts[row["reader"]][row["outcome"]] += 1
        seconds[row["reader"]] += row["seconds"]
    lines = [f"{name:<11} {dict(counts[name])} in {seconds[name]:.1f} s" for name in sorted(counts)]
    slowest, largest = (max(rows, key=lambda row, key=key: row[key]) for key in ("seconds", "memory"))
    lines.append(f"slowest: case {slowest['case']} ({slowest['reader']}), {slowest['seconds']:.1f} s")
    lines.append(
        f"most memory: case {largest['case']} ({largest['reader']}), {largest['memory'] / 2**20:.0f} MiB"
    )
    return "\n".join(lines)


def failures(rows: list[Row], seed: int, *more: str) -> str:
    """Every kind of failure once, by the shortest of its inputs, with the command that runs it again and leaves its input in
    the folder case-NUMBER."""
    kinds: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row["outcome"] == "failed":
            kinds[row["reader"], row["problem"][:60]].append(row)
    lines = []
    for (reader, _), found in sorted(kinds.items(), key=lambda kind: -len(kind[1]))[:SHOWN]:
        row = min(found, key=lambda row: len(row["input"]))
        lines += [
            f"{len(found)} x {reader}: {row['problem'][-1500:]}",
            f"    {row['input'][:300]}",
            f"    {row['told'][:300]}",
            f"    {' '.join(('python tests/campaign/campaign.py --seed', str(seed), *more, '--case', str(row['case'])))}",
        ]
    return "\n".join(lines)


def test_two_hundred_broken_inputs_are_taken_or_refused_in_a_sentence():
    rows = run_cases(SEED, QUICK, "--quick")
    assert len(rows) == QUICK
    assert not (text := failures(rows, SEED, "--quick")), text


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_thousand_broken_inputs_are_taken_or_refused_in_a_sentence():
    rows = run_cases(SEED, CASES)
    print(told(rows))
    assert len(rows) == CASES
    assert not (text := failures(rows, SEED)), text
    refused, taken = (
        Counter(row["reader"] for row in rows if row["outcome"] == o) for o in ("refused", "taken")
    )
    readers = {row["reader"] for row in rows}
    assert not (never := readers - set(taken)), f"nothing is taken of {never}"  # both ends are reached
    assert readers - set(refused) == {"index", "command", "process"}  # made anew; told by its exit code
    reasons = {
        row["told"].rpartition(": ")[2]
        for row in rows
        if row["reader"] == "foreign" and row["outcome"] == "refused"
    }
    assert len(reasons) > 20, "other people's weights are refused in many ways"


def test_the_campaign_sees_what_it_is_to_see():
    """A case of each kind that must fail does, and what is right passes."""
    words = [sys.executable, str(HERE / "campaign.py"), "--self-test"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    problems = {row["reader"]: row.get("problem", "") for row in rows if "outcome" in row}
    assert "TypeError" in problems.pop("traceback")
    assert "'pydantic'" in problems.pop("internal")
    assert "GiB of memory" in problems.pop("memory")
    assert "writes" in problems.pop("write")
    assert "touched" in problems.pop("input")
    assert "left" in problems.pop("half")
    assert "os.system" in problems.pop("program")
    assert list(problems.items()) == [
        ("good", ""),
        ("sentence", ""),
        ("lines", ""),
    ]  # a command shows a line break as \\n
    assert (
        rows[-1]["reader"] == "busy" and "known.py" in done.stderr and done.returncode < 0
    )  # never comes back
    waiting = subprocess.run([*words, "--only", "waiting"], capture_output=True, text=True, timeout=300)
    assert '"waiting"' in waiting.stdout and "Timeout" in waiting.stderr and waiting.returncode == 1
