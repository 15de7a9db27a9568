"""`report.html` of a run: one file with everything inside, to read, send and print."""

from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from dualat import __version__
from dualat.results.record import read_records
from dualat.results.report import curves, reading, sections
from dualat.results.report.training import training
from dualat.system.files import REPORT_MARK, check_own, write_text


def write_report(folder: Path, output: Path | None = None) -> Path:
    """Write the report of the run `folder` to `output` (default: report.html in it), and return where it is.

    Raises FileNotFoundError where `folder` is no run folder, ValueError where its evaluation.json holds no records, or where
    `output` is a file that is no report.
    """
    output = output or folder / "report.html"
    check_own(output, REPORT_MARK, "dualat report")
    write_text(output, render(folder))
    return output


def render(folder: Path) -> str:
    """The report as HTML. It refers to nothing outside itself."""
    if not any((folder / name).is_file() for name in ("config.yaml", "metrics.jsonl", "evaluation.json")):
        raise FileNotFoundError(
            f"{folder} is no run folder: it holds neither config.yaml nor metrics.jsonl nor evaluation.json; "
            "`dualat train RECIPE --output FOLDER` makes one."
        )
    text, config = reading.read_config(folder / "config.yaml")
    records = read_records(folder / "evaluation.json")
    run = str(folder)
    parts = [
        sections.headline(records, run),
        training(reading.read_metrics(folder / "metrics.jsonl"), config, run),
        sections.samples(reading.sample_grids(folder / "samples"), run),
        curves.step_sweep(records, run),
        curves.robustness(records, run),
        sections.counterfactuals(records, sorted((folder / "counterfactuals").glob("*.png")), run),
        curves.reliability(records, run),
        curves.detection(records, run),
        curves.energies(records, run),
        sections.throughput(records, run),
        sections.every_record(records, run),
        sections.resolved(text, run),
        sections.versions(records, run),
    ]
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = resources.files("dualat.results.report").joinpath("template.html").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        name=folder.resolve().name, facts=sections.facts(config), sections=parts, version=__version__
    )
