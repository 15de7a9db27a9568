"""Code of your own, run before a command: a file, or packages that name a module in the entry points `dualat.plugins`.

What it registers (`dualat.register_method`, `register_metric`, `register_network`, `register_source`) works like what comes with dualat. It is run, not only read: give files
that you trust.
"""

import hashlib
import sys
import traceback
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

GROUP = "dualat.plugins"
LOAD = "if it is one of your own, load the file that registers it first (import it, or give --plugin FILE)"
"""End of a sentence about a name that is not known."""


def load_plugin(path: Path | str) -> None:
    """Run the code of a Python file, once in this process.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no .py file, or its code fails; the sentence says in which line.
    """
    file = Path(path).expanduser().absolute()
    if file.suffix != ".py":
        raise ValueError(f"the plugin {path} is no Python file: give one that ends in .py.")
    if not file.is_file():
        raise FileNotFoundError(f"the plugin {path} does not exist: give a Python file.")
    name = f"dualat_plugin_{hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:8]}_{file.stem}"
    if name in sys.modules:
        return
    spec = spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    sys.modules[name] = module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ValueError(f"the plugin {path} fails{_line(error, file)}: {_said(error)}") from error


def load_installed() -> None:
    """Import the modules that installed packages name in the group `dualat.plugins`. ValueError where one fails."""
    from importlib.metadata import entry_points  # `dualat --help` does without

    for entry in entry_points(group=GROUP):
        try:
            entry.load()
        except Exception as error:
            raise ValueError(
                f"the plugin {entry.value} of an installed package fails: {_said(error)}"
            ) from error


def take_plugins(args: list[str]) -> tuple[list[str], list[str]]:
    """A command line without its `--plugin FILE`, and these files. ValueError where a file is missing."""
    rest, files, left = [], [], iter(args)
    for arg in left:
        if arg != "--plugin" and not arg.startswith("--plugin="):
            rest.append(arg)
            continue
        file = arg.partition("=")[2] if "=" in arg else next(left, "")
        if not file or file.startswith("-"):
            raise ValueError("--plugin is given without a file: give a Python file of your own.")
        files.append(file)
    return rest, files


def _line(error: Exception, file: Path) -> str:
    """In which line of the file an error arose; nothing where that is not known."""
    if isinstance(error, SyntaxError):
        return f" in line {error.lineno}"
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(file)]
    return f" in line {lines[-1]}" if lines else ""


def _said(error: Exception) -> str:
    """What an error says; the kind too, where it is not a sentence."""
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
