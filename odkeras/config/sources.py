"""Where settings come from besides the command line: the environment and the project file `odkeras.toml`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec

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
    config: Path,
    command: str,
    given: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Iterator[Effective]:
    """Yields each option of a command with its value: that of the flag, else of the environment, else of the project
    file, else the default.

    Args:
        config: the pipeline.config, beside which the project file is.
        given: values of the flags, by name; only those that were given.

    Raises:
        ConfigError: a value is not allowed; names its origin.
    """
    file, types = read_project_file(config), field_types(AnnotateSettings)
    for each in declared_options(command):
        if given is not None and each.name in given:
            value, origin = given[each.name], each.flag
        elif text := environment.get(each.variable):
            value, origin = _value_of_text(each, text), each.variable
        elif each.name in file:
            value, origin = file[each.name], f"{config.parent / PROJECT_FILE}: {each.name}"
        else:
            value, origin = each.default_on(command), ""
        if isinstance(value, str) and is_path(types[each.name]):
            value = Path(value)
        check_value(each.name, value, types[each.name], origin=origin or each.flag)
        yield Effective(each, value, origin)


def _value_of_text(declared: Declared, text: str) -> Any:
    """The value of an environment variable; the text itself if it is none, which the check then refuses."""
    try:
        if declared.option.parse is not None:
            return declared.option.parse(text)
        return text if is_path(declared.type) else msgspec.convert(text, declared.type, strict=False)
    except (ValueError, msgspec.ValidationError):
        return text


def unknown_variables(environment: Mapping[str, str] = os.environ) -> list[str]:
    """A message for each environment variable that looks like a misspelt option."""
    known = [each.variable for each in declared_options()]
    names = [name for name in environment if name.startswith(ENVIRONMENT_PREFIX) and name not in known]
    matches = [(name, get_close_matches(name, known, n=1, cutoff=0.85)) for name in sorted(names)]
    return [
        f"the environment variable {name} is no option; did you mean {close[0]}?" for name, close in matches if close
    ]
