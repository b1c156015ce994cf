"""Write the options tables of recipes/README.md from the recipe files.

Example:
    python scripts/recipe_options.py            # rewrites recipes/README.md
    python scripts/recipe_options.py --check    # exit status 1 if it is out of date
"""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from odkeras.config import declared_options

RECIPES_DIR = Path(__file__).parents[1] / "recipes"
README = RECIPES_DIR / "README.md"
COMMANDS = {"image_train": "recipe", "image_serving": "servingmodel"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing")
    args = parser.parse_args()
    before = README.read_text(encoding="utf-8")
    after = with_tables(before)
    if args.check:
        sys.exit(f"{README} is out of date: run python scripts/recipe_options.py" if after != before else 0)
    README.write_text(after, encoding="utf-8")


def with_tables(text: str) -> str:
    """The text with each `<!-- options: FILE -->` ... `<!-- end -->` regenerated."""
    for file in COMMANDS:
        start, end = f"<!-- options: {file} -->", "<!-- end -->"
        place = re.search(rf"{re.escape(start)}.*?{re.escape(end)}", text, re.DOTALL)
        if place is None:
            sys.exit(f"{README} has no place for the options of {file}: {start} {end}")
        text = f"{text[: place.start()]}{start}\n{table_of(file)}\n{end}{text[place.end() :]}"
    return text


def table_of(file: str) -> str:
    """A Markdown table of a recipe file's arguments."""
    function, annotations = read_recipe(file)
    defaults = inspect.signature(function).parameters
    rows = ["| argument | default | |", "| --- | --- | --- |"]
    command = COMMANDS[file]
    declared = {each.name: each.default_on(command) for each in declared_options(command)}
    for name, (text, kind, abbreviation, _) in annotations.items():
        default = declared[name] if kind != "positional" else defaults[name].default
        rows.append(f"| {_spelled(name, kind, abbreviation)} | {_default(default, kind)} | {text} |")
    return "\n".join(rows)


def read_recipe(file: str) -> tuple[Callable[..., Any], dict[str, tuple[Any, ...]]]:
    """A recipe's function and its argument tuples. Works without Prodigy, which is replaced by a stub."""
    found: list[tuple[Callable[..., Any], dict[str, tuple[Any, ...]]]] = []

    def recipe(name: str, **annotations: tuple[Any, ...]) -> Callable[..., Any]:
        def note(function: Callable[..., Any]) -> Callable[..., Any]:
            found.append((function, annotations))
            return function

        return note

    listener = ModuleType("prodigy")
    listener.recipe = recipe  # type: ignore[attr-defined]
    installed = sys.modules.get("prodigy")
    sys.modules["prodigy"] = listener
    try:
        spec = importlib.util.spec_from_file_location(f"options_of_{file}", RECIPES_DIR / f"{file}.py")
        assert spec is not None and spec.loader is not None
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    finally:
        if installed is None:
            del sys.modules["prodigy"]
        else:
            sys.modules["prodigy"] = installed
    return found[0]


def _spelled(name: str, kind: str, abbreviation: str | None) -> str:
    return f"`{name.upper()}`" if kind == "positional" else f"`--{name.replace('_', '-')}`, `-{abbreviation}`"


def _default(value: Any, kind: str) -> str:
    if value is inspect.Parameter.empty:
        return "required"
    if kind == "flag":
        return "off"
    return f"`{value}`" if value not in (None, "", 0) else ""


if __name__ == "__main__":
    main()
