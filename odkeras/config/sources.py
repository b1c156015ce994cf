"""Where settings come from besides the command line: the environment and the project file `odkeras.toml`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from odkeras.config.commands import IN_A_PROJECT, declared_options
from odkeras.config.option import ENVIRONMENT_PREFIX, Declared, is_names, is_path, read_path
from odkeras.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT_FILE = "odkeras.toml"


def read_project_file(config: Path) -> dict[str, Any]:
    """The settings in `odkeras.toml` beside a pipeline.config; empty without that file.

    Relative paths in the file are relative to its directory. Keys may be written with `-` or `_`.

    Raises:
        ConfigError: the file cannot be read, or has an unknown key or a wrong value; names file and key.
    """
    path = config.parent / PROJECT_FILE
    if not path.is_file():
        return {}
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    known = {each.name: each for each in declared_options(*IN_A_PROJECT)}
    values: dict[str, Any] = {}
    for key, value in given.items():
        name = key.replace("-", "_")
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else f"; known: {', '.join(known)}"
            raise ConfigError(f"{path}: there is no option {key!r}{hint}")
        if isinstance(value, list) and is_names(known[name].type):
            value = tuple(value)
        if isinstance(value, str) and is_path(known[name].type):
            value = read_path(known[name].type, value, path.parent)
        known[name].check(value, f"{path}: {key}")
        values[name] = value
    return values


@dataclass(frozen=True)
class Effective:
    """An option with its value.

    Args:
        origin: where the value comes from, as a user wrote it: the flag, the environment variable, or file and key; ""
            for the default.
    """

    declared: Declared
    value: Any
    origin: str


def effective_values(
    config: Path | None,
    command: str,
    given: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Iterator[Effective]:
    """Yields each option of a command with its value: that of the command line, else of the environment, else of the
    project file, else the default.

    Args:
        config: the pipeline.config, beside which the project file is; None without a project.
        given: values on the command line, by name, as texts or as values; only those that were given.

    Raises:
        ConfigError: a value is not allowed, or a required one is missing; names its origin.
    """
    file = {} if config is None else read_project_file(config)
    given = given or {}
    for each in declared_options(command):
        written = each.written(command)
        if each.name in given:
            value, origin = given[each.name], written
            value = each.read(value) if isinstance(value, str) else value
        elif text := environment.get(each.variable):
            value, origin = each.read(text), each.variable
        elif config is not None and each.name in file:
            value, origin = file[each.name], f"{config.parent / PROJECT_FILE}: {each.name}"
        else:
            value, origin = each.default_on(command), ""
        if each.required and not origin:
            raise ConfigError(f"{written} is missing; {each.option.help}")
        each.check(value, origin or written)
        yield Effective(each, value, origin)


def unknown_variables(environment: Mapping[str, str] = os.environ) -> list[str]:
    """A message for each environment variable that looks like a misspelt option."""
    known = [each.variable for each in declared_options()]
    names = [name for name in environment if name.startswith(ENVIRONMENT_PREFIX) and name not in known]
    matches = [(name, get_close_matches(name, known, n=1, cutoff=0.85)) for name in sorted(names)]
    return [
        f"the environment variable {name} is no option; did you mean {close[0]}?" for name, close in matches if close
    ]
