"""The file of records: what is in it is used again where nothing that it depends on has changed; several evaluations may write
one at the same time; and a damaged one is moved aside, not lost."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from dualat.evaluation.context import EvaluationContext
from dualat.evaluation.inception_weights import MissingWeights
from dualat.evaluation.masking import masking_bounds, note_masking
from dualat.evaluation.measure import check_needs, measure
from dualat.evaluation.registry import METRICS
from dualat.results.record import Record, read_records, write_records
from dualat.system.distributed import is_first, total, world_size
from dualat.system.lock import locked

Tell = Callable[[str], None]
"""Takes a line for a person."""
Merge = Callable[[list[Record]], list[Record]]


def update_records(
    path: Path,
    context: EvaluationContext,
    model_name: str,
    metrics: Sequence[str],
    *,
    by_name: bool,
    again: bool = False,
    tell: Tell = lambda line: None,
) -> list[Record]:
    """Bring the records in `path` up to date, metric by metric; the file is whole after each.

    What is there with the same fingerprint is used again. A file that holds no records is moved aside.

    Args:
        by_name: the metrics were asked for by name: one whose weights are missing is an error. Otherwise it is left
            out.
        again: measure anew what is there.
        tell: is told what is used again and what is left out.

    Returns:
        The records of these metrics and this model.
    """
    found: list[Record] = []
    if is_first():
        set_aside(path, tell)
    known = {} if again else {name: current_records(path, context, model_name, name) for name in metrics}
    pending = []
    for name in metrics:  # before hours are spent on another metric
        try:
            if not known.get(name):
                check_needs(context, name)
                pending.append(name)
        except MissingWeights as error:
            if by_name:
                raise
            tell(f"{name} is left out: {error}")
    if pending and is_first():
        check_writable(path)
    for name in metrics:
        found += known.get(name) or []
        if name not in pending:
            continue
        new = [replace(r, model=model_name) for r in measure(context, name)]
        found += new
        if is_first():
            change_records(path, partial(merge, new=new))
        context.forget(name, METRICS[name].uses)
    if reused := [name for name in metrics if known.get(name)]:
        tell(f"already in {path}, with the same settings: {', '.join(reused)}")
    if any(METRICS[name].of_samples for name in metrics) or "samples" in vars(context):
        context.forget("samples", ("samples",))
    if is_first():
        note_warnings(path, context, model_name, found)
    return found


def current_records(path: Path, context: EvaluationContext, model_name: str, name: str) -> list[Record]:
    """The records of a metric in `path`, if they have the fingerprint that they would have now; else none."""
    key = context.key(name, METRICS[name].uses)
    mine = [r for r in known_records(path) if r.model == model_name and r.key == key]
    # all ranks must decide alike, whoever has read the file before it was written
    return mine if total(int(bool(mine))) == world_size() else []


def note_warnings(path: Path, context: EvaluationContext, model_name: str, found: Sequence[Record]) -> None:
    """Signs of masked gradients, in the file's records of this model as it is and in `found`, which are some of them."""

    def noted(known: list[Record]) -> list[Record]:
        current = [r for r in known if r.model == model_name and f":{context.content[:12]}:" in r.key]
        note_masking([*current, *found], **masking_bounds(context.data.test))
        return known

    known = known_records(path)
    before = [r.warnings for r in known]
    if [r.warnings for r in noted(known)] != before:
        change_records(path, noted)


def merge(old: Sequence[Record], new: Sequence[Record]) -> list[Record]:
    """Old and new records of one metric and model. Dropped are those of other weights or data, which are out of date,
    and those measured in the same way; the same metric with other settings stays."""
    (model,), (metric, content, _) = {r.model for r in new}, new[0].key.split(":")
    again = [(r.metric, r.settings, r.n, r.seed) for r in new]

    def stays(r: Record) -> bool:
        if r.model != model or not r.key.startswith(f"{metric}:"):
            return True
        current = r.key.startswith(f"{metric}:{content}:")
        return current and (r.metric, r.settings, r.n, r.seed) not in again

    return [r for r in old if stays(r)] + list(new)


def known_records(path: Path) -> list[Record]:
    """Records of a file; none where it is absent or damaged."""
    try:
        return read_records(path) if path.is_file() else []
    except ValueError:
        return []


def change_records(path: Path, merge: Merge) -> None:
    """Replace the records of a file by what `merge` makes of those that are there now. No other evaluation writes between."""
    with _alone(path):
        set_aside(path)
        write_records(path, merge(known_records(path)))


def check_writable(path: Path) -> None:
    """OSError where records cannot be written there: said before hours are spent on them."""
    with _alone(path):
        pass


def set_aside(path: Path, tell: Tell = lambda line: None) -> None:
    """Move a damaged file of records out of the way, under a name that is free."""
    try:
        if path.is_file():
            read_records(path)
    except ValueError:
        place = path.with_name(f"{path.name}.damaged")
        number = 1
        while place.exists():
            number += 1
            place = path.with_name(f"{path.name}.damaged-{number}")
        path.rename(place)
        tell(
            f"warning: {path} was no file of records: it is kept as {place}, and its metrics are measured again"
        )


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(path.with_name(f".{path.name}.lock"), str(path), wait=True))
        except OSError as error:
            raise OSError(
                error.errno, f"records cannot be written there: {error.strerror}", str(path)
            ) from error
        yield
