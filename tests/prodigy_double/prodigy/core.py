"""`prodigy.core`: the decorator for recipes, and finding them by name."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

from prodigy.command_line import Annotations, CommandLine, PlacLine, RadicliLine
from prodigy.controller import Controller
from prodigy.eras import current_era
from prodigy.util import log

if current_era().uses_radicli:
    from radicli import Arg as Arg

Function = TypeVar("Function", bound=Callable[..., Any])
RECIPES: dict[str, CommandLine] = {}


def recipe(name: str, **annotations: Any) -> Callable[[Function], Function]:
    """Registers the function, and leaves it as it is. An annotation is (help, kind, abbrev, type), or an `Arg`."""

    def register(function: Function) -> Function:
        set_recipe(name, function, annotations)
        return function

    return register


def set_recipe(name: str, function: Callable[..., Any], annotations: Annotations) -> None:
    """Under its name, and with - for _ and _ for -. A later recipe takes the place of an earlier one.

    Raises:
        TypeError: an annotation that does not work in this version.
    """
    line = RadicliLine if current_era().uses_radicli else PlacLine
    for alias in (name.replace("-", "_"), name.replace("_", "-"), name):
        RECIPES[alias] = line(name, function, annotations)


def find_recipe(name: str, path: str | Path | None = None) -> CommandLine | None:
    """From the file, from what is registered already, or from an installed package that has it as entry point."""
    if path is not None:
        load_recipes(path)
    if name not in RECIPES:
        for entry_point in entry_points(group="prodigy_recipes"):
            if name in (entry_point.name, entry_point.name.replace("-", "_"), entry_point.name.replace("_", "-")):
                log(f"RECIPE: loading entry point {entry_point.value}")
                entry_point.load()
    return RECIPES.get(name)


def load_recipes(path: str | Path) -> None:
    """Runs the file. It is no part of a package and not in `sys.modules`: nothing in it may rely on being so."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None or spec.loader is None or not Path(path).is_file():
        raise FileNotFoundError(f"can't import recipes from {path}")
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


def make_controller(name: str, returned: Any) -> Controller | None:
    """Of what a recipe returned; None for one that returned nothing: it was just a command."""
    if returned is None or isinstance(returned, Controller):
        return returned
    return Controller.from_components(name, returned)


def get_recipe(name: str, path: str | Path | None = None) -> Callable[..., Controller | None]:
    """A function that calls the recipe and makes a controller of what it returns.

    Raises:
        ValueError: there is no such recipe.
    """
    found = find_recipe(name, path)
    if found is None:
        raise ValueError(f"can't find recipe {name!r}")
    function = found.function
    return lambda *args, **options: make_controller(name, function(*args, **options))


__all__ = ["Controller", "get_recipe", "recipe", "set_recipe"]
