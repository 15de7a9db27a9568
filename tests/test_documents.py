"""The documents say what is there: Python that they show can be imported, files that they link to exist."""

import ast
import importlib
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def python_blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_the_readme_shows_python():
    assert python_blocks((ROOT / "README.md").read_text())


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_shown_python_imports_is_there(document: Path):
    for block in python_blocks(document.read_text()):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dualat"):
                module = importlib.import_module(node.module or "")
                missing = [name.name for name in node.names if not hasattr(module, name.name)]
                assert not missing, f"{node.module} has no {missing}"
            names = (
                re.findall(r"\bdualat\.(\w+)", ast.unparse(node)) if isinstance(node, ast.Attribute) else []
            )
            assert all(hasattr(importlib.import_module("dualat"), name) for name in names), names


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path):
    links = re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", document.read_text())
    missing = [link for link in links if not (document.parent / link).exists()]
    assert not missing


def test_the_tests_that_the_oldest_torch_runs_are_there():
    listed = re.search(r"^OF_TORCH=\((.*?)\)", (ROOT / ".ci" / "run").read_text(), re.MULTILINE | re.DOTALL)
    assert listed is not None
    shell = ["bash", "-c", f"printf '%s\n' {listed[1].replace(chr(10), ' ')}"]
    paths = subprocess.run(shell, capture_output=True, text=True, check=True).stdout.split()
    assert len(paths) > 10 and not [path for path in paths if not (ROOT / path).exists()]


def test_the_tests_that_are_named_are_there():
    """docs/testing.md: promise by promise, the test that shows it."""
    named = set(re.findall(r"`((?:[\w-]+/)*test_\w+\.py)", (ROOT / "docs" / "testing.md").read_text()))
    assert named and not [name for name in named if not (ROOT / "tests" / name).exists()]
