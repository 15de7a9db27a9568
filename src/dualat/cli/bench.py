"""`dualat bench [--network wrn-28-2 --steps 10 ...]`."""

import json
import sys
from typing import TYPE_CHECKING, Any

from dualat.bench.settings import BenchSettings
from dualat.cli.arguments import parse
from dualat.cli.outputs import output_file
from dualat.strict import strict

if TYPE_CHECKING:
    from rich.table import Table


@strict
class BenchArguments:
    """Time training steps, sampling, attacks and classification against a textbook loop, in one process, in turn."""

    device: str = "auto"
    """auto, cpu, cuda ..."""
    output: str | None = None
    """File for the result (JSON); None: none."""
    json: bool = False
    """Print the result as JSON."""


def main(args: list[str]) -> int:
    settings, parsed = parse(args, "dualat bench", BenchSettings, BenchArguments)
    if parsed.output is not None:
        output_file(parsed.output)
    from rich.console import Console

    from dualat.bench.run import bench
    from dualat.system.files import write_text
    from dualat.system.precision import choose_device

    result = bench(settings, choose_device(parsed.device), lambda line: print(line, file=sys.stderr))
    text = json.dumps(result, indent=1) + "\n"
    if parsed.output:
        write_text(parsed.output, text)
    if parsed.json:
        print(text, end="")
        return 0
    console = Console()
    if not console.is_terminal:
        console = Console(width=110)  # into a file: the whole table
    for task in result["tasks"]:
        console.print(table_of(task, result))
    for line in sentences(result):
        print(line)
    return 0


def table_of(task: str, result: dict[str, Any]) -> "Table":
    """One task's contenders, one a row."""
    from rich.table import Table

    hardware, reference = result["hardware"], result["references"][task].split()[0]
    title = f"{task}: {hardware['device']}, {hardware['threads']} threads"
    table = Table(title=title, title_justify="left")
    for name in ("", "seconds", "images/s", f"x {reference}", "spread", "first s", "MFU"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for name, row in result["tasks"][task].items():
        low, high = row["times_reference_spread"]
        cells = [name, f"{row['seconds']:.4f}", f"{row['images_per_second']:.1f}"]
        cells += [
            f"{row['times_reference']:.2f}",
            f"{low:.2f}-{high:.2f}",
            f"{row['first_call_seconds']:.1f}",
        ]
        table.add_row(*cells, "" if row["mfu"] is None else f"{row['mfu']:.0%}")
    return table


def sentences(result: dict[str, Any]) -> list[str]:
    """What the tables do not hold."""
    lines = [f"peak of matrix products, GFLOP/s: {result['matmul_peak_gflops']}"]
    for name, row in result.get("attack_against_libraries", {}).items():
        low, high = row["times_spread"]
        lines.append(
            f"attack: {row['by']} is {row['times']:.2f} ({low:.2f}-{high:.2f}) times as fast as {name}"
        )
    if compared := dict(result.get("largest_difference_of_compiled_from_eager", {})):
        steps = compared.pop("steps")
        said = ", ".join(f"{name} {value:.1e}" for name, value in compared.items())
        lines.append(f"largest difference of a pixel, compiled from eager, after {steps} steps: {said}")
    if result["fell_back_to_eager"]:
        lines.append(f"could not be compiled, and ran eagerly: {', '.join(result['fell_back_to_eager'])}")
    for task in ("data", "logging"):
        if (share := result.get(f"{task}_share_of_train_step")) is not None:
            lines.append(f"{task}, share of the fastest training step: {share:.2%}")
    return lines
