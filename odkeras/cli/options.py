"""Turns the declared options into parameters of commands."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from odkeras.config.option import (
    DIRECTORIES,
    EVALUATION,
    PAGE,
    SERVING,
    SUGGESTIONS,
    TRAINING,
    Declared,
    check_value,
    field_types,
    is_names,
    is_path,
)
from odkeras.config.settings import TrainingSettings, declared_options
from odkeras.config.sources import PROJECT_FILE, read_project_file, unknown_variables
from odkeras.errors import ConfigError
from odkeras.project import config_path

__all__ = ["DIRECTORIES", "EVALUATION", "PAGE", "SERVING", "SUGGESTIONS", "TRAINING"]

COST = "What an action costs"

Settings = TypeVar("Settings", bound=TrainingSettings)
_DECLARED = {each.name: each for each in declared_options()}
_FILE = "odkeras.project_file"


def read_config(ctx: typer.Context, place: Path | None) -> Path | None:
    """Callback of CONFIG: the path of the pipeline.config. The options in the project file beside it become the
    command's defaults.

    Raises:
        ConfigError: there is no config, or the project file is wrong.
    """
    if place is None:
        return None
    path = config_path(place)
    values = read_project_file(path)
    ctx.default_map = {**(ctx.default_map or {}), **{name: _as_given(name, value) for name, value in values.items()}}
    ctx.meta[_FILE] = path.parent / PROJECT_FILE
    return path


def _as_given(name: str, value: Any) -> Any:
    """The value as the parser of the command line takes it."""
    if isinstance(value, tuple):
        return list(value) if _is_repeated(_DECLARED[name]) else ",".join(value)
    return str(value) if _DECLARED[name].option.parse is not None else value


CONFIG_HELP = "The project folder, or its pipeline.config."
# Eager: the project file beside the config is read before the options that it may set.
Config = Annotated[Path, typer.Argument(help=CONFIG_HELP, callback=read_config, is_eager=True)]


def parameter(name: str) -> Any:
    """The annotated type of a command's parameter for a declared option."""
    declared = _DECLARED[name]
    option, kind = declared.option, declared.type
    if _is_repeated(declared):
        kind = list[str] | None
    elif option.parse is not None:
        kind = str if declared.default is not None else str | None
    flags = [declared.flag, *([f"-{option.short}"] if option.short else [])]
    shown = declared.variable in ("ODKERAS_DB", "ODKERAS_TOKEN")
    return Annotated[
        kind,
        typer.Option(
            *flags, help=option.help, rich_help_panel=option.panel, envvar=declared.variable, show_envvar=shown
        ),
    ]


def _is_repeated(declared: Declared) -> bool:
    """Whether the flag is repeated for several values, instead of taking a comma-separated list."""
    return is_names(declared.type) and declared.option.parse is None


ModelDir = parameter("model_dir")
ExportDir = parameter("export_dir")
DataDir = parameter("data_dir")
LabelMapPath = parameter("label_map_path")
BatchSize = parameter("batch_size")
MaxCheckpointsNum = parameter("max_checkpoints_num")
EvalSteps = parameter("eval_steps")
Strategy = parameter("strategy")
TfLoggingLevel = parameter("tf_logging_level")
Database = parameter("db")


@dataclass(frozen=True)
class Given:
    """The values of a command's declared options, and where each comes from.

    Args:
        values: by name, as they were parsed.
        origins: by name: the flag, the environment variable, or the file and key; "" for a default.
    """

    values: Mapping[str, Any]
    origins: Mapping[str, str]

    def build(self, settings: type[Settings], **more: Any) -> Settings:
        """The settings from these values.

        Args:
            more: fields that are no options of the command, and values that replace given ones.

        Raises:
            ConfigError: a value is not allowed; names it as the user wrote it.
        """
        types = field_types(settings)
        values = {name: value for name, value in self.values.items() if name in types} | more
        for name, value in values.items():
            if not is_path(types[name]):
                check_value(name, value, types[name], origin=self.origins.get(name) or f"--{name.replace('_', '-')}")
        return settings(**values)

    def from_command_line(self) -> dict[str, Any]:
        """The values that were given as flags."""
        return {name: value for name, value in self.values.items() if self.origins[name].startswith("-")}


def with_options(command: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator: give a command all options that are declared for it. The function gets them as `given: Given`.

    Args:
        command: annotate, simulate or trainer.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(function, eval_str=True).parameters
        declared = {each.name: each for each in declared_options(command)}

        def run(ctx: typer.Context, **values: Any) -> None:
            for problem in unknown_variables():
                print(f"warning: {problem}", file=sys.stderr)
            mine = {name: value for name, value in values.items() if name not in declared}
            origins = {name: _origin(ctx, each) for name, each in declared.items()}
            options = {name: _parsed(each, values[name], origins[name]) for name, each in declared.items()}
            function(**mine, given=Given(options, origins))

        parameters = [inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)]
        parameters += [
            each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for name, each in own.items() if name != "given"
        ]
        parameters += [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=_default(each, command),
                annotation=parameter(name),
            )
            for name, each in declared.items()
        ]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        run.__name__, run.__doc__, run.__module__ = function.__name__, function.__doc__, function.__module__
        return run

    return decorate


def _default(declared: Declared, command: str) -> Any:
    default = declared.default_on(command)
    if declared.option.parse is not None and default is not None:
        return str(default)
    return None if default == () else default


def _parsed(declared: Declared, value: Any, origin: str) -> Any:
    if _is_repeated(declared):
        return tuple(value or ())
    if declared.option.parse is None or value is None:
        return value
    try:
        return declared.option.parse(value)
    except ValueError as error:
        raise ConfigError(f"{origin or declared.flag}: {error}") from error


def _origin(ctx: typer.Context, declared: Declared) -> str:
    source = ctx.get_parameter_source(declared.name)
    name = source.name if source is not None else ""
    if name == "COMMANDLINE":
        return declared.flag
    if name == "ENVIRONMENT":
        return declared.variable
    return f"{ctx.meta.get(_FILE, PROJECT_FILE)}: {declared.name}" if name == "DEFAULT_MAP" else ""


def beside(config: Path, given: Path | None, name: str) -> Path:
    """The directory that was given, else the one of that name beside the config."""
    return given if given is not None else config.parent / name
