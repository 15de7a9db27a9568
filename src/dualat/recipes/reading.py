"""Recipes: YAML files that come with dualat, or of one's own, each of which may extend another.

    extends: cifar10          a recipe that comes with dualat, or a path relative to this file
    contrastive: {t_max: 100}

What a recipe states beside `extends` counts as overrides of the other do (short_form.overridden). Does not import PyTorch.
"""

import difflib
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from dualat.short_form import extended
from dualat.strict import shown
from dualat.system.files import read_yaml

LARGEST_RECIPE = 2**22  # bytes
ENDINGS = (".yaml", ".yml")


def recipe_names() -> list[str]:
    """Names of the recipes that come with dualat."""
    folder = resources.files("dualat").joinpath("recipes")
    return sorted(p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml"))


def recipe_text(name: str) -> str:
    """The YAML of a recipe: one that comes with dualat, or a file's path. ValueError/FileNotFoundError otherwise."""
    if name in recipe_names():
        return resources.files("dualat").joinpath("recipes", f"{name}.yaml").read_text(encoding="utf-8")
    path = Path(name)
    if path.suffix in ENDINGS:
        if not path.is_file():
            raise FileNotFoundError(f"recipe file {path} does not exist.")
        if path.stat().st_size > LARGEST_RECIPE:
            raise ValueError(f"recipe file {path} has {path.stat().st_size:,} bytes, which no recipe has.")
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"recipe file {path} is not a text file.") from error
    near = difflib.get_close_matches(name, recipe_names(), n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise ValueError(
        f"recipe {name!r} is unknown.{hint} There are {', '.join(recipe_names())}; "
        "your own is a path that ends in .yaml."
    )


def recipe_values(name: str, extending: tuple[str, ...] = ()) -> dict[str, Any]:
    """What a recipe says, with what it extends below it; in short or complete (short_form.py), not checked yet.

    extending: the recipes that led here.

    Raises ValueError/FileNotFoundError: it, or one that it extends, is none, or they extend each other in a circle.
    """
    path = Path(name)
    place = name if name in recipe_names() or path.suffix not in ENDINGS else str(path.resolve())
    if place in extending:
        raise ValueError(f"recipe {name} extends itself ({' -> '.join([*extending, place])}): leave one out.")
    try:
        values = read_yaml(recipe_text(name))
    except yaml.YAMLError as error:
        raise ValueError(f"recipe {name} is no valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(values, dict | None):
        raise ValueError(f"recipe {name} must be a mapping of settings, but is a {type(values).__name__}.")
    given = dict(values or {})
    if "extends" not in given:
        return given
    other = given.pop("extends")
    if not isinstance(other, str):
        raise ValueError(f"extends is {shown(other)} in recipe {name}, but names a recipe, or a file of one.")
    if Path(other).suffix in ENDINGS:
        other = str(path.parent / other)
        if not Path(other).is_file():
            raise FileNotFoundError(f"recipe {name} extends {other}, which does not exist.")
    return extended(recipe_values(other, (*extending, place)), given)
