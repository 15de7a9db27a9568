"""`dualat recipes [NAME]`."""

import json
from typing import Annotated

import tyro

from dualat.cli.arguments import UsageError, parse
from dualat.recipes.reading import recipe_names, recipe_text
from dualat.strict import strict


@strict
class RecipesArguments:
    """List the recipes that come with dualat, or print one."""

    name: Annotated[str, tyro.conf.Positional] = ""
    """Recipe to print; none: list all with their first comment line."""
    json: bool = False
    """Print names as JSON."""


def main(args: list[str]) -> int:
    (parsed,) = parse(args, "dualat recipes", RecipesArguments)
    if parsed.name:
        try:
            print(recipe_text(parsed.name), end="")
        except (ValueError, FileNotFoundError) as error:
            raise UsageError(str(error)) from error
    elif parsed.json:
        print(json.dumps(recipe_names()))
    else:
        width = max(len(name) for name in recipe_names())
        for name in recipe_names():
            print(f"{name:<{width}}  {recipe_text(name).splitlines()[0].lstrip('# ')}")
    return 0
