"""`dualat report RUN [--output FILE]`."""

from pathlib import Path
from typing import Annotated

import tyro

from dualat.cli.arguments import parse
from dualat.cli.outputs import output_file
from dualat.strict import strict


@strict
class ReportArguments:
    """Write a run's report: one HTML page with figures, curves, samples and settings, and nothing outside itself."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder."""
    output: str | None = None
    """HTML file to write; None: report.html in the run folder."""


def main(args: list[str]) -> int:
    (parsed,) = parse(args, "dualat report", ReportArguments)
    output = None if parsed.output is None else output_file(parsed.output, (".html", ".htm"))
    from dualat.results.report.page import write_report

    written = write_report(Path(parsed.run), output)
    print(f"report: {written}")
    return 0
