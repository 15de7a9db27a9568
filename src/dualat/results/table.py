"""Records as a table for a terminal: one row per metric value, one column per model."""

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from dualat.results.catalogue import described, features
from dualat.results.intervals import asymmetric
from dualat.results.naming import flat, group, names
from dualat.results.record import Record


def table(records: Sequence[Record], title: str) -> Table:
    """One row per metric value with the settings that tell it from its neighbours, one column per model. What a training run
    ends with fits into 80 columns."""
    models = list(dict.fromkeys(r.model for r in records))
    judges = {features(flat(r.settings)) for r in records if features in described(r.metric).told} - {""}
    caption = "± or a range: 95 % interval."
    if len(judges) == 1:
        caption += f" Samples are judged in the features of {next(iter(judges))}."
    view = Table(
        title=Text(title),  # as it is: [x] in a name is no markup
        title_justify="left",
        caption=Text(caption),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    view.add_column("metric value")
    for model in models:
        view.add_column(Text(model), justify="right")
    view.add_column("n", justify="right")
    values = group([r for r in records if r.model == model] for model in models)
    omit = ("n", "split", *(("features",) if len(judges) == 1 else ()))
    for words, cells in zip(
        names([dict(key) for key in values], omit, short=True), values.values(), strict=True
    ):
        texts = [cell(cells[at]) if at in cells else "" for at in range(len(models))]
        view.add_row(Text(words), *texts, str(next(iter(cells.values())).n))
    return view


def cell(record: Record) -> str:
    """Value to three digits at least, and half the width of its 95 % interval, or its ends where it is asymmetric."""
    value, digits = record.value, digits_after_point(record.value)
    text = f"{value:.{digits}f}"
    if record.ci95 is None:
        return text
    low, high = record.ci95
    if asymmetric(value, record.ci95):
        return f"{text} " + "-".join(f"{end:.{digits}f}".replace("0.", ".", 1) for end in (low, high))
    return f"{text} ±{(high - low) / 2:.{digits}f}"


def digits_after_point(value: float) -> int:
    """Three below 10, then fewer: 0.123, 12.34, 123.4, 1234."""
    return 3 if abs(value) < 10 else 2 if abs(value) < 100 else 1 if abs(value) < 1000 else 0
