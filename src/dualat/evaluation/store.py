"""The file of records: several evaluations may write one at the same time, and a damaged one is moved aside, not lost."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dualat.results.record import Record, read_records, write_records
from dualat.system.lock import locked

Merge = Callable[[list[Record]], list[Record]]


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


def set_aside(path: Path, tell: Callable[[str], None] = lambda line: None) -> None:
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
            f"warning: {path} was no file of records: it is kept as {place}, and its figures are measured again"
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
