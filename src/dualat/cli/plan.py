"""`dualat plan RECIPE [--gpus 8] [--gpu h100] [--key.sub value ...]`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dualat.cli.recipe_arguments import read
from dualat.planning.settings import PlanSettings
from dualat.recipes.reading import recipe_names
from dualat.strict import strict

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

USAGE = """usage: dualat plan RECIPE [--gpus N] [--gpu KIND] [--key.sub value ...]

What training by a recipe would take, before anything is spent: memory, time, cost, disk, and the files that it needs.
Neither a GPU nor the data has to be there. RECIPE is one of {names}, or the path of a YAML file.
`dualat plan RECIPE --help` lists every setting with the recipe's own values."""

MEMORY = {
    "weights": "weights",
    "gradients": "gradients",
    "optimizer": "optimiser",
    "average": "averaged weights",
    "copies": "copies for evaluation and restart",
    "images": "images that wait",
    "activations": "activations",
    "loop": "gradient loop, recorded",
    "slack": "workspaces and gaps",
    "context": "CUDA",
}
PASSES = {
    "loop": "forward and back to the image",
    "first": "the same, first layer alone",
    "forward": "forward alone",
    "learn": "forward and back to the weights",
    "penalty": "gradient penalty",
}


@strict
class PlanFlags:
    """Say what training by a recipe would take: memory, time, cost, disk, files."""

    json: bool = False
    """Print results as JSON."""


def main(args: list[str]) -> int:
    """Parse, then plan; 0 also where the run would not fit or files are missing: the answer says so."""
    if not args or args[0] in ("-h", "--help"):
        print(USAGE.format(names=", ".join(recipe_names())))
        return 0
    name = args[0]
    config, settings, flags = read("dualat plan", args, PlanSettings, PlanFlags)

    from dualat.planning.plan import plan

    facts = {"recipe": name, **plan(config, settings)}
    if flags.json:
        print(json.dumps(facts, indent=2))
    else:
        show(facts, Path(name).stem)
    return 0


def show(facts: dict[str, Any], name: str) -> None:
    """The plan for a person."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=110)  # into a file: the whole table
    hardware, network, images = facts["hardware"], facts["network"], facts["images"]
    shape = "x".join(map(str, network["shape"]))
    counted = "unknown" if images["train"] is None else f"{images['train']:,} ({images['origin']})"
    lines = (
        f"{name} on {hardware['gpus']} x {hardware['title']}, {hardware['precision']} "
        f"(peak {number(hardware['peak_flops'])}FLOP/s; {hardware['source']})",
        f"network: {network['name']}, {network['parameters']:,} weights, "
        f"{number(network['forward_flops_per_image'])}FLOP forward per image of {shape}; training images: {counted}",
        f"speed: {hardware['speed']}; T at half of T_max, in brackets at T_max",
    )
    for line in lines:
        tell(console, line)
    for table in (steps_table(facts), memory_table(facts), files_table(facts)):
        console.print(table)
    for line in conclusion(facts):
        tell(console, line)


def tell(console: "Console", line: str) -> None:
    """A line as it is, however long."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def number(value: float, unit: int = 1000) -> str:
    """1.23e15 as `1.23 P`, with a space, for a unit to follow."""
    for prefix in ("", "k", "M", "G", "T", "P", "E", "Z"):
        if abs(value) < unit or prefix == "Z":
            return f"{value:.3g} {prefix}"
        value /= unit
    raise AssertionError


def figure(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def duration(hours: float) -> str:
    """In hours, or in minutes where it is less than one."""
    return f"{figure(hours)} h" if hours >= 1 else f"{figure(60 * hours)} min"


def gigabytes(value: float) -> str:
    """Bytes as GB (10^9)."""
    return f"{value / 1e9:.2f}"


def both(row: dict[str, Any], text: Any) -> str:
    """A figure of the guess and, where it is another, in brackets, with T at T_max."""
    guess, most = text(row["guess"]), text(row["most"])
    return guess if guess == most else f"{guess} ({most})"


def new_table(facts: dict[str, Any], title: str) -> "Table":
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column("", no_wrap=True)
    for row in facts["stages"]:
        table.add_column(f"stage {row['stage']}: {row['method']}", justify="right")
    return table


def steps_table(facts: dict[str, Any]) -> "Table":
    """Passes, operations and time of each stage."""
    table, rows = new_table(facts, "training"), facts["stages"]

    def add(label: str, cell: Any) -> None:
        table.add_row(label, *(cell(row) for row in rows))

    add("batch: all GPUs / each / at work", at_work)
    if any(row["t_max"] is not None for row in rows):
        add("T", lambda r: "" if r["t_max"] is None else f"{r['t_max'] // 2} ({r['t_max']})")
    for kind, label in PASSES.items():
        if any(row["most"]["passes"][kind] for row in rows):
            add(f"passes per image: {label}", lambda r, k=kind: both(r, lambda s: f"{s['passes'][k]:g}"))
    add("FLOP per image and step", lambda r: both(r, lambda s: number(s["flops_per_image"])))
    add("FLOP per step", lambda r: both(r, lambda s: number(s["flops_per_step"])))
    if all(row["epochs"] is not None for row in rows):
        add("FLOP per epoch", lambda r: both(r, lambda s: number(s["flops_per_epoch"])))
        add("epochs", lambda r: f"{r['epochs']:,.4g}")
    add("steps", lambda r: f"{r['steps']:,}")
    add("seconds per step", lambda r: both(r, lambda s: f"{s['seconds_per_step']:.3g}"))
    add("images/s", lambda r: both(r, lambda s: figure(s["images_per_second"])))
    add("MFU", lambda r: both(r, lambda s: f"{s['mfu']:.1%}"))
    add("time", lambda r: both(r, lambda s: duration(s["hours"])))
    return table


def at_work(row: dict[str, Any]) -> str:
    """Batch of all GPUs, of each, and what each has at work at a time."""
    return f"{row['batch_size']} / {row['images_per_gpu']} / {row['images_per_gpu'] // row['accumulate']}"


def memory_table(facts: dict[str, Any]) -> "Table":
    """What one GPU holds at its fullest, in GB."""
    rows, room = facts["stages"], facts["hardware"]["memory"]
    table = new_table(facts, "memory of each GPU, GB")
    for key, label in MEMORY.items():
        if any(row["memory"][key] for row in rows):
            table.add_row(label, *(gigabytes(row["memory"][key]) for row in rows))
    table.add_section()
    table.add_row("all", *(gigabytes(row["memory"]["total"]) for row in rows))
    if room is not None:
        fits = {True: "fits", False: "does not fit"}
        table.add_row(f"of {room / 1e9:g}", *(fits[row["fits"]] for row in rows))
    return table


def files_table(facts: dict[str, Any]) -> "Table":
    """What must be there, and what the run folder will take."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title="files", title_justify="left")
    for column in ("what", "where", "state"):
        table.add_column(column)
    for need in facts["needs"]:
        table.add_row(need["what"], Text(need["where"]), "there" if need["there"] else "not there")
    disk = facts["disk"]
    for key in ("checkpoints", "models", "logs", "downloads"):
        if disk[key]:
            table.add_row(f"disk: {key}", "", f"{gigabytes(disk[key])} GB")
    return table


def conclusion(facts: dict[str, Any]) -> list[str]:
    """The sums, and what stands in the way."""
    total, disk = facts["total"], facts["disk"]
    line = f"all: {both(total, lambda t: duration(t['hours']))}"
    if facts["hardware"]["gpus"] > 1:
        line += f", GPU hours {both(total, lambda t: figure(t['gpu_hours']))}"
    if total["guess"]["cost"] is not None:
        cost = both(total, lambda t: f"{t['cost']:,.0f}")
        line += f", cost {cost}"
    line += (
        f"; {gigabytes(disk['total'])} GB of disk. Evaluations, reading and augmenting images come on top."
    )
    return [line, *facts["warnings"]]
