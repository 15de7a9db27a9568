"""Named sources: each row is all that is said of one, and it says what its reader gives."""

import ast
from importlib import import_module
from pathlib import Path

import pytest

import dualat
from dualat.data.in_distribution import load_splits
from dualat.data.registry import SOURCES
from dualat.data.settings import DataSettings

PACKAGE = Path(dualat.__file__).parent


@pytest.mark.parametrize("name", SOURCES)
def test_a_row_names_its_reader_and_what_planning_must_know(name):
    row = SOURCES[name]
    module, _, function = str(row.reader).partition(":")
    assert callable(getattr(import_module(f"dualat.data.{module}"), function)) and row.name == name
    assert min(row.shape) > 0 and row.classes > 1 and row.train > 1000
    assert bool(row.files) == bool(row.folder) == bool(row.download) == row.has_test


def test_digits_are_as_their_row_says():
    row, splits = SOURCES["digits"], load_splits(DataSettings())
    parts = (splits.train, splits.validation, splits.test)
    assert sum(map(len, parts)) == row.train
    assert (splits.train.shape, len(splits.train.class_names)) == (row.shape, row.classes)


def test_a_source_is_named_in_its_row_and_its_own_file_alone():
    """`digits` is the default of DataSettings, too."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        constants = (
            node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)
        )
        if SOURCES.keys() & {value for value in constants if isinstance(value, str)}:
            found.add(path.relative_to(PACKAGE).as_posix())
    assert found == {"data/registry.py", "data/cifar.py", "data/settings.py"}


def test_files_are_looked_for_in_the_root_and_below_it(tmp_path):
    row = SOURCES["cifar100"]
    assert row.place(str(tmp_path)) is None and "is not in" in str(row.missing(str(tmp_path)))
    for place in (tmp_path / row.folder, tmp_path):
        place.mkdir(exist_ok=True)
        for name in row.files:
            (place / name).touch()
        assert row.place(str(tmp_path)) == place
