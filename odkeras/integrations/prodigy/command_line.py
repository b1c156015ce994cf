"""The argument tuples and the signature of `image.trainmodel`, from the declared options."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from odkeras.config.option import Declared, is_names, is_path
from odkeras.config.settings import declared_options

Argument = tuple[str, str, str | None, Callable[[str], Any]]
"""Help, kind (positional, option or flag), abbreviation and converter, as `prodigy.recipe` takes them."""

_POSITIONAL: dict[str, tuple[str, type, Any]] = {
    "dataset": ("Dataset that the answers are stored in", str, inspect.Parameter.empty),
    "source": (
        "Directory of images, image, JSONL file, dataset:NAME, or - for JSONL on stdin",
        str,
        inspect.Parameter.empty,
    ),
    "config_path": ("The project folder, or its pipeline.config", str, inspect.Parameter.empty),
    "ip": ("Address of a running TensorFlow Serving; without it a model server is started", str, None),
    "port": ("Its REST port; 8501 if only IP is given", int, 0),
    "model_name": ("Its model's name; odkeras if not given", str, None),
}


def recipe_arguments() -> dict[str, Argument]:
    """The argument tuples of `image.trainmodel`, by name."""
    positional: dict[str, Argument] = {
        name: (text, "positional", None, kind) for name, (text, kind, _) in _POSITIONAL.items()
    }
    options = {each.name: _argument(each) for each in declared_options("recipe")}
    return positional | options


def with_recipe_signature(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: give a function that takes `**arguments` the parameters by which Prodigy reads the command line.

    Old versions read them from the code object, which a `__signature__` does not change, so a function is compiled.
    """
    defaults = {name: default for name, (_, _, default) in _POSITIONAL.items()}
    types = {name: kind for name, (_, kind, _) in _POSITIONAL.items()}
    for each in declared_options("recipe"):
        # None says that the flag was not given, so that the environment or the project file may have the value.
        defaults[each.name], types[each.name] = False if each.type is bool else None, _type_of(each)
    required = inspect.Parameter.empty
    parameters = [name if default is required else f"{name}=defaults[{name!r}]" for name, default in defaults.items()]
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
