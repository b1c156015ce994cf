"""Where settings come from besides the command line: the environment and the project file `odkeras.toml`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from odkeras.config.option import ENVIRONMENT_PREFIX, Declared, check_value, field_types, is_names, is_path
from odkeras.config.settings import AnnotateSettings, declared_options
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
    known = {each.name: each for each in declared_options()}
    types = field_types(AnnotateSettings)
    values: dict[str, Any] = {}
    for key, value in given.items():
        name = key.replace("-", "_")
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else f"; known: {', '.join(known)}"
            raise ConfigError(f"{path}: there is no option {key!r}{hint}")
        if isinstance(value, list) and is_names(types[name]):
            value = tuple(value)
        if isinstance(value, str) and is_path(types[name]):
            value = path.parent / value
        check_value(name, value, types[name], origin=f"{path}: {key}")
        values[name] = value
    return values


def effective_values(
    config: Path, command: str, environment: Mapping[str, str] = os.environ
) -> list[tuple[Declared, Any, str]]:
    """Each option of a command with its value, unless a flag overrides it, and where the value comes from.

    A value of the environment is its text.

    Raises:
        ConfigError: the project file is wrong.
    """
    file = read_project_file(config)
    rows: list[tuple[Declared, Any, str]] = []
    for each in declared_options(command):
        if environment.get(each.variable):
            rows.append((each, environment[each.variable], each.variable))
        elif each.name in file:
            rows.append((each, file[each.name], str(config.parent / PROJECT_FILE)))
        else:
            rows.append((each, each.default_on(command), "default"))
    return rows


def unknown_variables(environment: Mapping[str, str] = os.environ) -> list[str]:
    """A message for each environment variable that looks like a misspelt option."""
    known = [each.variable for each in declared_options()]
    names = [name for name in environment if name.startswith(ENVIRONMENT_PREFIX) and name not in known]
    matches = [(name, get_close_matches(name, known, n=1, cutoff=0.85)) for name in sorted(names)]
    return [
        f"the environment variable {name} is no option; did you mean {close[0]}?" for name, close in matches if close
    ]
