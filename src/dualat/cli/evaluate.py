"""`dualat evaluate TARGET [--metrics ...]`."""

import json
import os
import sys
import time
from pathlib import Path

from dualat.cli.arguments import UsageError, field_names, parse
from dualat.cli.outputs import output_file
from dualat.config import RunConfig, load_recipe
from dualat.evaluation.registry import METRICS
from dualat.evaluation.settings import EvaluationSettings
from dualat.models.shipped import FOLDER, shipped_file
from dualat.strict import strict

USAGE = """usage: dualat evaluate TARGET [--metrics NAME ...] [--setting value ...]

TARGET is a run folder, a .safetensors file of dualat, a model that comes with it (fashion-mnist), or samples of
anybody's: a folder of images or an .npz.
`dualat evaluate TARGET --help` lists every setting with the values that TARGET has.
`--plugin my_file.py` runs the code of that file first; metrics that it registers can be named.

metrics:
{metrics}"""


@strict
class EvaluateArguments:
    """Measure a model or samples on held-out images; what is measured already is used again.

    `--plugin my_file.py` runs the code of that file first; metrics that it registers can be named.
    """

    metrics: tuple[str, ...] = ("all",)
    """all (those of samples, for samples), or names: `dualat evaluate` lists them."""
    weights: str = "final"
    """Run folders: which weights: final, stage1, best-robust, best-generation."""
    source: str | None = None
    """Real images for weights or samples outside a run folder: a named source, or a folder. For a
    run: where its own images are now, if they have moved."""
    root: str | None = None
    """Folder in which the files of that source lie; None: the usual places."""
    seed: int | None = None
    """Seed of samples, attacks and intervals; None: the run's own, or 0."""
    test_list: str | None = None
    """Folders and shards: text file with the names of the test images; all: every one; None: the run's own."""
    initial_images: str | None = None
    """What samples start from in place of the pictures in the model, of which it keeps 1,000: a folder, shards, an .npy
    or .npz file, or a .bin file of Tiny Images."""
    initial_include: tuple[str, ...] = ()
    """Lists of those pictures to use, as of --initial.include in `dualat train`."""
    initial_exclude: tuple[str, ...] = ()
    """Lists of those pictures to leave out."""
    output: str | None = None
    """File of records; None: evaluation.json of the run folder, or TARGET.evaluation.json; with --test-list
    evaluation.LIST.json."""
    again: bool = False
    """Measure anew what is in that file already."""
    device: str = "auto"
    """auto, cpu, cuda ..."""
    json: bool = False
    """Print records as JSON."""


def main(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help"):
        print(USAGE.format(metrics="\n".join(f"  {n:<18} {row.what}" for n, row in METRICS.items())))
        return 0
    if args[0].startswith("-"):
        raise UsageError(f"the target comes first, as in `dualat evaluate runs/digits {args[0]} ...`.")
    target = shipped_file(args[0]) or Path(args[0])
    config = run_config(target)
    base = config.evaluation if config else EvaluationSettings()
    settings, parsed = parse(args[1:], f"dualat evaluate {target}", base, EvaluateArguments())
    if not target.exists():
        raise FileNotFoundError(
            f"{target} does not exist: give a run folder, a .safetensors file, or samples (a folder or an .npz)."
        )
    if target.is_dir() and not config and (runs := sorted(p.parent for p in target.glob("*/config.yaml"))):
        raise UsageError(f"{target} holds runs: give one of them, as in `dualat evaluate {runs[0]}`.")
    if target.is_file() and target.suffix not in (".safetensors", ".npz"):
        raise ValueError(
            f"{target} is neither .safetensors (weights of dualat) nor .npz (samples): other formats may run code when "
            "they are read, and are refused."
        )
    if parsed.output is not None:
        output_file(parsed.output, inputs=[str(target)])
    if parsed.weights != "final" and not (target / "config.yaml").is_file():
        raise UsageError("--weights chooses among those of a run folder: leave it out.")
    if (parsed.initial_include or parsed.initial_exclude) and not parsed.initial_images:
        raise UsageError(
            "--initial-include and --initial-exclude are lists of --initial-images: give it too."
        )
    refuse_unused(parsed.metrics, settings, base)
    from dualat.results.record import read_records
    from dualat.system.distributed import processes

    if parsed.output and Path(parsed.output).exists():
        read_records(Path(parsed.output))  # what is no file of records is not written over

    with processes(parsed.device):
        return evaluate(target, parsed, settings, config)


def refuse_unused(metrics: tuple[str, ...], settings: EvaluationSettings, base: EvaluationSettings) -> None:
    """A setting that none of the metrics asked for depends on would be ignored: say so."""
    if metrics == ("all",):
        return
    if "all" in metrics:
        raise UsageError("--metrics has all and others: give all alone, or names.")
    from dualat.evaluation.measure import check_metrics

    try:
        check_metrics(metrics)
    except ValueError as error:
        raise UsageError(str(error)) from error
    used = {setting for name in metrics for setting in METRICS[name].uses}
    for name in sorted(field_names(EvaluationSettings) - used):
        if getattr(settings, name) != getattr(base, name):
            owners = [n for n, metric in METRICS.items() if name in metric.uses]
            whose = f"belongs to {', '.join(owners)}" if owners else "is used while training alone"
            raise UsageError(f"--{name.replace('_', '-')} {whose}: name one in --metrics, or leave it out.")


def run_config(target: Path) -> RunConfig | None:
    """The configuration of the run that the target is, or lies in; None outside a run folder."""
    folder = run_of(target)
    return None if folder is None else load_recipe(str(folder / "config.yaml"))


def run_of(target: Path) -> Path | None:
    """The run folder that the target is, or lies in."""
    whole = Path(os.path.abspath(target))
    inside = (whole.parent, whole.parent.parent) if whole.suffix == ".safetensors" else ()
    return next((folder for folder in (whole, *inside) if (folder / "config.yaml").is_file()), None)


def evaluate(
    target: Path, parsed: EvaluateArguments, settings: EvaluationSettings, config: RunConfig | None
) -> int:
    """Measure, print, and say what looks like masked gradients."""
    from rich.console import Console

    from dualat.cli.targets import build_context
    from dualat.evaluation.masking import warnings_of
    from dualat.evaluation.store import update_records
    from dualat.results.record import as_json
    from dualat.results.table import table
    from dualat.run.evaluation import save_strips
    from dualat.system.distributed import is_first

    by_name = parsed.metrics != ("all",)
    seed = parsed.seed if parsed.seed is not None else config.seed if config else 0
    context = build_context(target, parsed, config, settings, seed)
    if by_name:
        names = list(dict.fromkeys(parsed.metrics))
    else:
        names = [n for n, metric in METRICS.items() if context.model is not None or metric.of_samples]
        if context.model is not None and context.model.initial is None:
            say("this model carries no initial distribution: figures of samples are left out")
            names = [n for n in names if not (METRICS[n].of_samples or METRICS[n].draws)]
    context.progress = Lines()
    name = model_name(target, parsed.weights) if context.model is not None else "samples"
    path = Path(parsed.output) if parsed.output else records_path(target, parsed.test_list)
    records = update_records(path, context, name, names, by_name=by_name, again=parsed.again, tell=say)
    if not is_first():
        return 0
    if context.model is not None and target.is_dir() and "counterfactual" in names:
        folder = target / "counterfactuals"
        save_strips(context.model, context.data.test, context.settings, folder)
    if parsed.json:
        print(json.dumps(as_json(records), indent=2))
    else:
        Console().print(table(records, f"{target}: held-out images"))
        say(f"records: {path}")
    for text in warnings_of(records, context.data.test):
        say(f"warning: {text}")
    return 0


def model_name(target: Path, weights: str) -> str:
    """How records name the weights: a checkpoint by its file, others as asked for."""
    return target.stem if target.is_file() and target.absolute().parent.name == "checkpoints" else weights


def records_path(target: Path, test_list: str | None = None) -> Path:
    """Where records of a target go by default: beside it, and those of a model that comes with dualat in this folder.
    Records on another list of test images have a file of their own."""
    name = f"evaluation.{Path(test_list).stem}.json" if test_list else "evaluation.json"
    if target.parent == FOLDER:
        return Path(f"{target.stem}.{name}")
    if (target / "config.yaml").is_file():
        return target / name
    if target.name in ("", ".."):  # as `.` has it
        target = target.resolve()
    if not target.name:
        raise UsageError(f"{target} has no name that records could be named by: give --output.")
    return target.with_name(f"{target.name}.{name}")


def say(line: str) -> None:
    """One line for a person, on the error stream, so that --json output stays clean."""
    print(f"dualat: {line}", file=sys.stderr)


class Lines:
    """Progress on the error stream: a bar on a terminal, else one line when something new begins, and one each 20 s."""

    def __init__(self) -> None:
        self.what, self.began, self.told = "", 0.0, 0.0
        self.bar = sys.stderr.isatty()

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if what != self.what:
            self.what, self.began, self.told = what, now, 0.0
        if self.bar:
            filled = "█" * (30 * done // max(total, 1))
            end = "\n" if done == total else ""
            print(f"\r\033[K{what:<24} {filled:<30} {done}/{total}", end=end, file=sys.stderr, flush=True)
        elif not self.told or now - self.told > 20:
            self.told = now
            print(f"  {what}: {done} of {total}", file=sys.stderr, flush=True)
