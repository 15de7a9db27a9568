"""`dualat bench [--network wrn-28-2 --steps 10 ...]`."""

import json
import sys
from dataclasses import asdict

from pydantic.dataclasses import dataclass

from dualat.bench.settings import BenchSettings
from dualat.cli.arguments import field_names, parse
from dualat.settings import STRICT


@dataclass(config=STRICT)
class BenchArguments(BenchSettings):
    """Time training steps, sampling, attacks and classification against a textbook loop, in one process, in turn."""

    device: str = "auto"
    """auto, cpu, cuda ..."""
    output: str | None = None
    """File for the result (JSON); None: none."""
    json: bool = False
    """Print the result as JSON."""


def main(args: list[str]) -> int:
    parsed = parse(BenchArguments, args, "dualat bench")
    settings = BenchSettings(**{k: v for k, v in asdict(parsed).items() if k in field_names(BenchSettings)})
    from rich.console import Console
    from rich.table import Table

    from dualat.bench.run import bench
    from dualat.files import write_text
    from dualat.precision import choose_device

    result = bench(settings, choose_device(parsed.device), lambda line: print(line, file=sys.stderr))
    text = json.dumps(result, indent=1) + "\n"
    if parsed.output:
        write_text(parsed.output, text)
    if parsed.json:
        print(text, end="")
        return 0
    hardware, console = result["hardware"], Console()
    if not console.is_terminal:
        console = Console(width=110)  # into a file: the whole table
    for task, rows in result["tasks"].items():
        table = Table(
            title=f"{task}: {hardware['device']}, {hardware['threads']} threads", title_justify="left"
        )
        for name in ("", "seconds", "images/s", "x textbook", "spread", "first s", "MFU"):
            table.add_column(name, justify="right" if name else "left", no_wrap=True)
        for name, row in rows.items():
            cells = [name, f"{row['seconds']:.4f}", f"{row['images_per_second']:.0f}"]
            if "times_textbook" in row:
                low, high = row["times_textbook_spread"]
                cells += [f"{row['times_textbook']:.2f}", f"{low:.2f}-{high:.2f}"]
                cells += [f"{row['first_call_seconds']:.1f}", f"{row['mfu']:.0%}"]
            table.add_row(*cells)
        console.print(table)
    print(f"peak of matrix products, GFLOP/s: {result['matmul_peak_gflops']}")
    if "data_share_of_train_step" in result:
        print(f"data, share of the fastest training step: {result['data_share_of_train_step']:.1%}")
    return 0
