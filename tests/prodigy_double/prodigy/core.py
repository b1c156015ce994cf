"""`prodigy.core`: the decorator for recipes, and finding them by name."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

from prodigy.command_line import CommandLine, PlacLine, RadicliLine
from prodigy.controller import Controller
from prodigy.eras import current_era

Function = TypeVar("Function", bound=Callable[..., Any])
RECIPES: dict[str, CommandLine] = {}


def recipe(name: str, **annotations: Any) -> Callable[[Function], Function]:
    """Registers the function, and leaves it as it is. An annotation is (help, kind, abbrev, type).

    Raises:
        TypeError: an annotation that does not work in this version.
    """

    def register(function: Function) -> Function:
        line = RadicliLine if current_era().uses_radicli else PlacLine
        RECIPES[name] = line(name, function, annotations)
        return function

    return register


def find_recipe(name: str, path: str | Path | None = None) -> CommandLine | None:
    """From the file, from what is registered already, or from an installed package that has it as entry point."""
    if path is not None:
        load_recipes(path)
    if name not in RECIPES:
        for entry_point in entry_points(group="prodigy_recipes", name=name):
            entry_point.load()
    return RECIPES.get(name)


def load_recipes(path: str | Path) -> None:
    """Runs the file. It is not part of a package and not in `sys.modules`, and must not rely on either."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec is not None and spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


__all__ = ["Controller", "find_recipe", "recipe"]
