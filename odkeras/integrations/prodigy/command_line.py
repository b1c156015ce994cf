"""The argument tuples and the signatures of the recipes, from the declared options."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from odkeras.config.commands import declared_options

Argument = tuple[str, str, str | None, type[str] | type[bool]]
"""Help, kind (positional, option or flag), abbreviation and converter, as `prodigy.recipe` takes them."""

_REQUIRED = inspect.Parameter.empty
_DATASET = "Dataset that the answers are stored in"
_SOURCE = "Directory of images, image, JSONL file, dataset:NAME, or - for JSONL on stdin"
_CONFIG = "The project folder, or its pipeline.config"


def recipe_arguments(command: str = "recipe") -> dict[str, Argument]:
    """The argument tuples of a recipe, by name. Values stay texts, which are read and checked as those of commands are.

    Args:
        command: recipe, for `image.trainmodel`, or servingmodel.
    """
    return {name: argument for name, (argument, _) in _parameters(command).items()}


def _parameters(command: str) -> dict[str, tuple[Argument, Any]]:
    """Argument tuple and default of each parameter, in their order."""

    def positional(text: str, default: Any = _REQUIRED) -> tuple[Argument, Any]:
        return (text, "positional", None, str), default

    arguments: dict[str, tuple[Argument, Any]] = {}
    options: dict[str, tuple[Argument, Any]] = {}
    for each in declared_options(command):
        text = each.option.help.rstrip(".")
        # None says that it was not given, so that the environment or the project file may have the value.
        if command in each.option.argument_of:
            arguments[each.name] = positional(text, _REQUIRED if each.required else None)
        elif each.type is bool:
            options[each.name] = (text, "flag", each.option.short or None, bool), False
        else:
            options[each.name] = (text, "option", each.option.short or None, str), None
    if command == "servingmodel":
        return {"dataset": positional(_DATASET), **arguments, "source": positional(_SOURCE, "-"), **options}
    own = {"dataset": positional(_DATASET), "source": positional(_SOURCE), "config_path": positional(_CONFIG)}
    return {**own, **arguments, **options}


def with_recipe_signature(function: Callable[..., Any], command: str = "recipe") -> Callable[..., Any]:
    """Decorator: give a function that takes `**arguments` the parameters by which Prodigy reads the command line.

    Old versions read them from the code object, which a `__signature__` does not change, so a function is compiled.
    """
    parameters = _parameters(command)
    defaults = {name: default for name, (_, default) in parameters.items()}
    texts = [name if default is _REQUIRED else f"{name}=defaults[{name!r}]" for name, default in defaults.items()]
    scope: dict[str, Any] = {"function": function, "defaults": defaults}
    exec(f"def {function.__name__}({', '.join(texts)}):\n    return function(**locals())", scope)
    compiled: Callable[..., Any] = scope[function.__name__]
    compiled.__annotations__ = {
        name: converter | None if default is None else converter
        for name, ((_, _, _, converter), default) in parameters.items()
    } | {"return": dict[str, Any]}
    compiled.__doc__, compiled.__module__ = function.__doc__, function.__module__
    return compiled
