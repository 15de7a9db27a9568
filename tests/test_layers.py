"""The layers of the package: a file imports only from lower layers, or from its own folder."""

import ast
from collections.abc import Iterator
from pathlib import Path

import dualat

SOURCE = Path(dualat.__file__).parent

LAYERS = (
    ("types",),
    ("system",),
    ("strict",),
    ("results",),
    ("core",),
    ("data",),
    ("models",),
    ("sampling", "counterfactuals"),
    ("methods",),
    ("training", "evaluation"),
    ("short_form",),
    ("recipes",),
    ("config",),
    ("run",),
    ("planning", "bench"),
    ("cli",),
    ("__main__",),
)
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}


def unit(module: str) -> str:
    """The table's name for a module: `dualat.models.registry` and `dualat.models` are both `models`."""
    return module.split(".")[1]


def absolute(node: ast.ImportFrom, package: str) -> str:
    """The module that a `from ... import` names, relative ones too."""
    if not node.level:
        return node.module or ""
    parents = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*parents, *([node.module] if node.module else [])])


def imports(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """Line and full name of each module of dualat that is imported, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            source = absolute(node, package)
            # `from dualat import x` means the module x, or the module that a public name x comes from.
            names = (
                [f"dualat.{dualat._HOME.get(a.name, a.name)}" for a in node.names if a.name != "__version__"]
                if source == "dualat"
                else [source]
            )
        elif isinstance(node, ast.Call) and "import_module" in ast.dump(node.func):
            names = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.startswith("dualat."))


def violations(path: Path, source: Path) -> list[str]:
    relative = path.relative_to(source)
    parts = relative.with_suffix("").parts
    own = parts[0]
    if own not in LAYER:
        return [f"{relative}: {own} has no layer: add it to LAYERS in tests/test_layers.py."]
    package = ".".join(["dualat", *parts[:-1]])
    in_folder = len(parts) > 1
    problems = []
    for line, name in imports(ast.parse(path.read_text(encoding="utf-8")), package):
        other = unit(name)
        if other not in LAYER:
            problems.append(
                f"{relative}:{line}: {name} has no layer: add it to LAYERS in tests/test_layers.py."
            )
            continue
        # Two single files of one layer are in the same folder, src/dualat; two folders of one layer are apart.
        same_folder = other == own or (not in_folder and not (source / other).is_dir())
        if LAYER[other] > LAYER[own] or (LAYER[other] == LAYER[own] and not same_folder):
            problems.append(
                f"{relative}:{line}: layer {LAYER[own]} ({own}) may not import {name} of layer {LAYER[other]}."
            )
    return problems


def test_no_file_imports_from_a_higher_layer_or_a_neighbour():
    files = [path for path in sorted(SOURCE.rglob("*.py")) if path != SOURCE / "__init__.py"]
    assert files
    problems = [problem for path in files for problem in violations(path, SOURCE)]
    assert not problems, "\n".join(problems)


def plant(root: Path, name: str, text: str) -> list[str]:
    for folder in ("training", "evaluation", "models", "data", "core", "system"):
        (root / folder).mkdir(exist_ok=True)
    path = root / name
    path.write_text(text)
    return violations(path, root)


def test_planted_violations_are_found(tmp_path: Path):
    upward = plant(tmp_path, "core/energy.py", "import dualat.models.registry")
    assert f"layer {LAYER['core']} (core) may not import dualat.models.registry of layer" in upward[0]
    assert plant(tmp_path, "sampling.py", "def f():\n    from dualat.training.loop import run")
    assert plant(tmp_path, "sampling.py", "from .training import loop")
    assert plant(
        tmp_path, "sampling.py", "from importlib import import_module\nimport_module('dualat.training')"
    )
    assert plant(
        tmp_path, "training/loop.py", "from dualat.evaluation.metrics.clean_accuracy import accuracy"
    )
    assert plant(tmp_path, "training/loop.py", "from ..evaluation import accuracy")
    assert plant(tmp_path, "evaluation/attack.py", "from dualat.training import loop")
    assert plant(tmp_path, "models/registry.py", "from dualat import ThreatModel, sample")
    assert "has no layer" in plant(tmp_path, "unheard_of.py", "")[0]
    assert "has no layer" in plant(tmp_path, "sampling.py", "import dualat.unheard_of")[0]


def test_allowed_imports_pass(tmp_path: Path):
    assert not plant(
        tmp_path, "core/loop.py", "import torch\nfrom dualat.core.objectives import lower_energy"
    )
    assert not plant(
        tmp_path, "training/loop.py", "from dualat.training.ema import Ema\nfrom . import ema\nimport timm"
    )
    assert not plant(tmp_path, "training/loop.py", "from dualat import __version__, ThreatModel")


MOST_IMPORTS = 15
"""Modules of ours that the file which makes a run may import."""
LONGEST_FUNCTION = 60
"""Lines of a function without its docstring."""


def test_the_file_that_makes_a_run_imports_few_modules():
    found = {name for _, name in imports(ast.parse((SOURCE / "run" / "train.py").read_text()), "dualat.run")}
    assert len(found) <= MOST_IMPORTS, sorted(found)


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function, without its docstring."""
    first, *_ = function.body
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    text = first.end_lineno - first.lineno + 1 if documented and first.end_lineno else 0
    return (function.end_lineno or function.lineno) - function.lineno + 1 - text


def test_no_function_is_long():
    found = {
        f"{path.relative_to(SOURCE)}: {node.name}": length(node)
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert len(found) > 1000
    assert not {name: lines for name, lines in found.items() if lines > LONGEST_FUNCTION}


def test_lines_of_a_function_are_counted_without_its_docstring():
    text = 'def f(\n    x,\n):\n    """One.\n\n    Two.\n    """\n    return x\n'
    (node,) = ast.parse(text).body
    assert isinstance(node, ast.FunctionDef) and length(node) == 4


def words(path: Path) -> Iterator[tuple[str, ...]]:
    """The words of each Literal that a file spells out."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if (
            isinstance(node, ast.Subscript)
            and isinstance(node.value, ast.Name)
            and node.value.id == "Literal"
        ):
            values = node.slice.elts if isinstance(node.slice, ast.Tuple) else []
            if values and all(isinstance(value, ast.Constant) for value in values):
                yield tuple(sorted(ast.unparse(value) for value in values))


def test_a_choice_of_words_is_spelled_once():
    """Those that several files need stand in types.py."""
    found = {
        (choice, str(path.relative_to(SOURCE))) for path in SOURCE.rglob("*.py") for choice in words(path)
    }
    choices = [choice for choice, _ in found]
    assert len(choices) > 10
    assert not sorted(place for place in found if choices.count(place[0]) > 1)
