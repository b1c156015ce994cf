"""Turns the declared options into parameters of commands."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import msgspec
import typer

from odkeras.config.commands import declared_options
from odkeras.config.option import DIRECTORIES, EVALUATION, SERVING, SUGGESTIONS, TRAINING, Declared
from odkeras.config.sources import Effective, effective_values, unknown_variables
from odkeras.project import config_path
from odkeras.text import say

__all__ = ["DIRECTORIES", "EVALUATION", "SERVING", "SUGGESTIONS", "TRAINING"]

S = TypeVar("S", bound=msgspec.Struct)
_TYPE_NAMES = {int: "<int>", float: "<float>", Path: "<path>"}
_SHOWN_VARIABLES = ("ODKERAS_DB", "ODKERAS_TOKEN")

CONFIG_HELP = "The project folder, or its pipeline.config."
Config = Annotated[Path, typer.Argument(metavar="CONFIG", help=CONFIG_HELP)]
ProjectFolder = Annotated[Path, typer.Argument(metavar="PROJECT", help=CONFIG_HELP)]


@dataclass(frozen=True)
class Given:
    """The values of a command's declared options, and where each comes from.

    Args:
        config: the path of the pipeline.config; None without a project.
        rows: the options with their values, by name.
    """

    config: Path | None
    rows: Mapping[str, Effective]

    def __getitem__(self, name: str) -> Any:
        """The value of an option."""
        return self.rows[name].value

    def build(self, settings: type[S], **more: Any) -> S:
        """The settings from these values.

        Args:
            more: fields that are no options of the command, and values that replace given ones.

        Raises:
            ConfigError: the values do not fit together.
        """
        fields = settings.__struct_fields__
        values = {name: row.value for name, row in self.rows.items() if name in fields}
        place = {"config": self.config} if "config" in fields else {}
        return settings(**{**values, **place, **more})

    def is_flag(self, name: str) -> bool:
        """Whether the value was given on the command line."""
        return self.rows[name].origin.startswith("-")

    def from_command_line(self) -> dict[str, Any]:
        """The values that were given on the command line."""
        return {name: row.value for name, row in self.rows.items() if self.is_flag(name)}

    def alternatives(self, *names: str) -> dict[str, Any]:
        """The values of options of which one is enough: if one is given on the command line, only those are."""
        flags = [name for name in names if self.is_flag(name)]
        return {name: self[name] if name in flags or not flags else None for name in names}


def with_options(command: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator: give a command all options that are declared for it. The function gets them as `given: Given`. Its
    parameter `config` or `project`, if it has one, names the project whose odkeras.toml is read.

    Args:
        command: a command of `config.commands`.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(function, eval_str=True).parameters
        declared = {each.name: each for each in declared_options(command)}

        def run(ctx: typer.Context, **values: Any) -> None:
            for problem in unknown_variables():
                say(f"warning: {problem}", file=sys.stderr)
            mine = {name: value for name, value in values.items() if name not in declared}
            place = mine.get("config") or mine.get("project")
            config = None if place is None else config_path(place)
            texts = {name: values[name] for name in declared if _is_on_command_line(ctx, name)}
            rows = {row.declared.name: row for row in effective_values(config, command, texts)}
            function(**mine, given=Given(config, rows))

        parameters = [inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)]
        parameters += [
            each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for name, each in own.items() if name != "given"
        ]
        parameters += [_parameter(each, command) for each in declared.values()]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        run.__name__, run.__doc__, run.__module__ = function.__name__, function.__doc__, function.__module__
        run.variables = {name: each.variable for name, each in declared.items()}  # type: ignore[attr-defined]
        return run

    return decorate


def _parameter(declared: Declared, command: str) -> inspect.Parameter:
    """The parameter of a command's function for an option. Its value is a text, as in the environment; a switch's is
    a bool, and that of a repeated flag is a list."""
    option, default = declared.option, declared.default_on(command)
    if declared.type is bool:
        kind: Any = bool
    elif declared.repeated:
        kind, default = list[str] | None, None
    else:
        kind, default = str | None, default if default is None else str(default)
    about: dict[str, Any] = {"help": option.help}
    if declared.type is not bool:  # a switch's variable is not for click, which would refuse a wrong value as a flag's
        about |= {"envvar": declared.variable, "show_envvar": declared.variable in _SHOWN_VARIABLES}
        about["metavar"] = next((_TYPE_NAMES[type_] for type_ in _types(declared) if type_ in _TYPE_NAMES), None)
    if declared.written(command) != declared.flag:
        info = typer.Argument(**{**about, "metavar": declared.name.upper(), "show_default": False})
    else:
        flags = [declared.flag, *([f"-{option.short}"] if option.short else [])]
        if option.underscores:
            flags.append(declared.flag.replace("-", "_").replace("__", "--", 1))
        info = typer.Option(*dict.fromkeys(flags), rich_help_panel=option.panel, **about)
    if declared.required:
        kind, default = str, inspect.Parameter.empty
    return inspect.Parameter(
        declared.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info]
    )


def _types(declared: Declared) -> tuple[Any, ...]:
    return () if declared.option.parse is not None else (declared.type, *get_args(declared.type))


def _is_on_command_line(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
