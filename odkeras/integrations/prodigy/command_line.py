"""The argument tuples and the signatures of the recipes, from the declared options."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from odkeras.config.commands import declared_options
from odkeras.config.option import Declared, is_names, is_path

Argument = tuple[str, str, str | None, Callable[[str], Any]]
"""Help, kind (positional, option or flag), abbreviation and converter, as `prodigy.recipe` takes them."""

_REQUIRED = inspect.Parameter.empty
_DATASET = ("Dataset that the answers are stored in", str, _REQUIRED)
_SOURCE = "Directory of images, image, JSONL file, dataset:NAME, or - for JSONL on stdin"
_CONFIG = ("The project folder, or its pipeline.config", str, _REQUIRED)


def recipe_arguments(command: str = "recipe") -> dict[str, Argument]:
    """The argument tuples of a recipe, by name.

    Args:
        command: recipe, for `image.trainmodel`, or servingmodel.
    """
    positional: dict[str, Argument] = {
        name: (text, "positional", None, kind) for name, (text, kind, _) in _positional(command).items()
    }
    return positional | {each.name: _argument(each) for each in _options(command)}


def _positional(command: str) -> dict[str, tuple[str, Any, Any]]:
    """Help, type and default of each positional argument."""
    declared = {
        each.name: (each.option.help.rstrip("."), _type_of(each), _REQUIRED if each.required else None)
        for each in declared_options(command)
        if command in each.option.argument_of
    }
    if command == "servingmodel":
        return {"dataset": _DATASET, **declared, "source": (_SOURCE, str, "-")}
    return {"dataset": _DATASET, "source": (_SOURCE, str, _REQUIRED), "config_path": _CONFIG, **declared}


def _options(command: str) -> list[Declared]:
    return [each for each in declared_options(command) if command not in each.option.argument_of]


def with_recipe_signature(function: Callable[..., Any], command: str = "recipe") -> Callable[..., Any]:
    """Decorator: give a function that takes `**arguments` the parameters by which Prodigy reads the command line.

    Old versions read them from the code object, which a `__signature__` does not change, so a function is compiled.
    """
    defaults = {name: default for name, (_, _, default) in _positional(command).items()}
    types = {name: kind for name, (_, kind, _) in _positional(command).items()}
    for each in _options(command):
        # None says that the flag was not given, so that the environment or the project file may have the value.
        defaults[each.name], types[each.name] = False if each.type is bool else None, _type_of(each)
    parameters = [name if default is _REQUIRED else f"{name}=defaults[{name!r}]" for name, default in defaults.items()]
    scope: dict[str, Any] = {"function": function, "defaults": defaults}
    exec(f"def {function.__name__}({', '.join(parameters)}):\n    return function(**locals())", scope)
    compiled: Callable[..., Any] = scope[function.__name__]
    compiled.__annotations__ = {
        name: kind | None if defaults[name] is None else kind for name, kind in types.items()
    } | {"return": dict[str, Any]}
    compiled.__doc__, compiled.__module__ = function.__doc__, function.__module__
    return compiled


def _argument(declared: Declared) -> Argument:
    option = declared.option
    converter = option.parse or _type_of(declared)
    kind = "flag" if declared.type is bool else "option"
    return option.help.rstrip("."), kind, option.short or None, converter


def _type_of(declared: Declared) -> Any:
    """The type as a command line knows it."""
    if is_names(declared.type):
        return list[str]
    if is_path(declared.type) or Path is declared.type:
        return str
    if declared.option.parse is not None:
        return float  # the threshold; its converter takes `auto`, too
    for known in (bool, int, float):
        if declared.type in (known, known | None):
            return known
    return str
