"""What an option is, and the check of a value against its declaration."""

# No `from __future__ import annotations`: evaluated later, the functions in annotations would not see their module.
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from odkeras.errors import ConfigError

DIRECTORIES = "Directories and files"
TRAINING = "Model and training"
EVALUATION = "Evaluation"
SUGGESTIONS = "Images and suggestions"
SERVING = "Serving"
PAGE = "Page"

ENVIRONMENT_PREFIX = "ODKERAS_"
Names = tuple[str, ...]


@dataclass(frozen=True)
class Option:
    """What a field of the settings is for its users.

    Args:
        help: one line for `--help` and the tables.
        short: the short flag without its dash; "" for none.
        panel: the group in `--help`.
        on: the commands that have it: annotate, simulate, trainer and recipe.
        allowed: the allowed values, for error messages.
        check: further check of a value that has the field's type.
        choices: the allowed values of a text or number.
        parse: turns the text of a flag into the value; None for the type's own conversion.
        defaults: defaults of single commands that differ from the field's.
        secret: messages and listings leave the value out.
    """

    help: str
    short: str = ""
    panel: str = TRAINING
    on: str = ""
    allowed: str = ""
    check: Callable[[Any], bool] = lambda value: True
    choices: tuple[Any, ...] = ()
    parse: Callable[[str], Any] | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    secret: bool = False


@cache
def field_types(settings: type[msgspec.Struct]) -> dict[str, Any]:
    """The declared type of each field, with its annotations."""
    hints = typing.get_type_hints(settings, include_extras=True)
    return {name: hints[name] for name in settings.__struct_fields__}


def option_of(type_: Any) -> Option | None:
    """The `Option` that an annotated type carries; None if it carries none."""
    return next((each for each in getattr(type_, "__metadata__", ()) if isinstance(each, Option)), None)


@dataclass(frozen=True)
class Declared:
    """An option with the field that declares it.

    Args:
        name: name of the field.
        type: type of the field, without its annotations.
        default: default of the field.
    """

    name: str
    option: Option
    type: Any
    default: Any

    @property
    def flag(self) -> str:
        """The long flag."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def variable(self) -> str:
        """The environment variable."""
        return f"{ENVIRONMENT_PREFIX}{self.name.upper()}"

    def default_on(self, command: str) -> Any:
        """The default of a command."""
        return self.option.defaults.get(command, self.default)


def declared_in(settings: type[msgspec.Struct], command: str = "") -> Iterator[Declared]:
    """The declared options in the order of their declaration.

    Args:
        command: only those that this command has; all when "".
    """
    types = field_types(settings)
    defaults = {each.name: each.default for each in msgspec.structs.fields(settings)}
    for name, type_ in types.items():
        option = option_of(type_)
        if option is not None and option.on and (not command or command in option.on.split()):
            yield Declared(name, option, typing.get_args(type_)[0], defaults[name])


def check_value(name: str, value: Any, type_: Any, *, origin: str = "") -> None:
    """Check a value against the type and the option of its field.

    Args:
        origin: what the user wrote, for the message: a flag, an environment variable, or a file and key; the field's
            name when "".

    Raises:
        ConfigError: it is not allowed.
    """
    option = option_of(type_)
    try:
        if not (is_path(type_) and isinstance(value, Path)):
            msgspec.convert(value, type_)
        if option is None or ((not option.choices or value in option.choices) and option.check(value)):
            return
        problem = ""
    except msgspec.ValidationError as error:
        problem = str(error)
    allowed = option.allowed or ", ".join(map(str, option.choices)) if option is not None else ""
    wrong = "has a wrong value" if option is not None and option.secret else f"is {value!r}"
    raise ConfigError(f"{origin or name} {wrong}; allowed: {allowed or problem}")


def is_path(type_: Any) -> bool:
    """Whether a field's type is a path, or a path or None."""
    return type_ is Path or Path in typing.get_args(_bare(type_))


def is_names(type_: Any) -> bool:
    """Whether a field's type is a tuple of texts, or one or None."""
    bare = _bare(type_)
    return bare == Names or Names in typing.get_args(bare)


def _bare(type_: Any) -> Any:
    return typing.get_args(type_)[0] if hasattr(type_, "__metadata__") else type_
