"""`dualat compare A B C [--published cifar10] [--format markdown] [--output FILE]`."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from dualat.cli.arguments import UsageError, parse
from dualat.cli.outputs import output_file
from dualat.strict import strict

_ENDINGS = {".md": "markdown", ".csv": "csv", ".tex": "latex", ".json": "json"}


@strict
class CompareArguments:
    """Compare runs, other systems and published figures in one table.

    Weights and samples are measured first, by `dualat evaluate`.
    """

    sources: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")] = ()
    """Run folders, weights, samples (a folder or an .npz), or files of records as evaluation.json."""
    published: str | None = None
    """Add the published figures of a data set: cifar10, cifar100, imagenet256."""
    models: tuple[str, ...] = ("final", "samples")
    """Which weights of each source, one row each: final, stage1, start, best-robust ...; samples of somebody's."""
    figures: tuple[str, ...] = ()
    """Figures to show, by their metric's name, as in clean_accuracy robust_accuracy fid; none: all."""
    format: Literal["table", "markdown", "csv", "latex", "json"] | None = None
    """Format; None: by the ending of --output (.md, .csv, .tex, .json; .txt: table), else table."""
    output: str | None = None
    """File to write; None: print."""


def main(args: list[str]) -> int:
    (parsed,) = parse(args, "dualat compare", CompareArguments)
    if not parsed.sources and parsed.published is None:
        raise UsageError("there is nothing to compare: give run folders or files of records, or --published.")
    if not parsed.models:
        raise UsageError("--models names none: give at least one, as in --models final.")
    if len(set(parsed.sources)) != len(parsed.sources):
        raise UsageError("a source is given twice: give each once.")
    if parsed.output is not None:
        endings = (*_ENDINGS, ".txt") if parsed.format is None else ()
        output_file(parsed.output, endings, inputs=parsed.sources)
    from dualat.results.compare import FORMATS, compare, published_names

    if parsed.published is not None and parsed.published not in published_names():
        raise UsageError(
            f"--published is {parsed.published!r}, but there are {', '.join(published_names())}."
        )
    comparison = compare([Path(s) for s in parsed.sources], parsed.published, parsed.models, parsed.figures)
    suffix = Path(parsed.output).suffix.lower() if parsed.output else ""
    text = FORMATS[parsed.format or _ENDINGS.get(suffix, "table")](comparison)
    if parsed.output:
        from dualat.system.files import write_text

        write_text(parsed.output, text)
        print(f"comparison: {parsed.output}")
    else:
        print(text, end="")
    return 0
