"""What an option is, and the check of a value against its declaration."""

# No `from __future__ import annotations`: evaluated later, the functions in annotations would not see their module.
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from odkeras.database_url import DatabaseUrl, read_database_location
from odkeras.errors import ConfigError

DIRECTORIES = "Directories and files"
TRAINING = "Model and training"
EVALUATION = "Evaluation"
SUGGESTIONS = "Images and suggestions"
SERVING = "Serving"
WORK = "Workers and shards"
PAGE = "Page"
COST = "What an action costs"

ENVIRONMENT_PREFIX = "ODKERAS_"
Names = tuple[str, ...]


@dataclass(frozen=True)
class Option:
    """What a field of the settings is for its users.

    Args:
        help: one line for `--help` and the tables.
        short: the short flag without its dash; "" for none.
        panel: the group in `--help`.
        on: the commands that have it, separated by spaces.
        allowed: the allowed values, for error messages.
        check: further check of a value that has the field's type.
        choices: the allowed values of a text or number.
        parse: turns the text of a flag into the value; None for the type's own conversion.
        defaults: defaults of single commands that differ from the field's.
        secret: messages and listings leave the value out.
        argument_of: the commands that take it as an argument, not as a flag, with its place among those from 1.
        flag: the long flag without its dashes, where that is not the name of the field.
        underscores: the flag may also be written with underscores, as TensorFlow Serving writes it.
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
    argument_of: Mapping[str, int] = field(default_factory=dict)
    flag: str = ""
    underscores: bool = False


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
        annotated: type of the field, with the annotations that check its value.
        default: default of the field; `msgspec.NODEFAULT` if a value is required.
    """

    name: str
    option: Option
    annotated: Any
    default: Any

    @property
    def type(self) -> Any:
        """Type of the field, without its annotations."""
        return typing.get_args(self.annotated)[0]

    @property
    def flag(self) -> str:
        """The long flag."""
        return f"--{self.option.flag or self.name.replace('_', '-')}"

    @property
    def variable(self) -> str:
        """The environment variable."""
        return f"{ENVIRONMENT_PREFIX}{self.name.upper()}"

    @property
    def required(self) -> bool:
        """Whether there is no default."""
        return self.default is msgspec.NODEFAULT

    @property
    def repeated(self) -> bool:
        """Whether the flag is repeated for several values, instead of taking a list."""
        return is_names(self.type) and self.option.parse is None

    def default_on(self, command: str) -> Any:
        """The default of a command."""
        return self.option.defaults.get(command, self.default)

    def written(self, command: str) -> str:
        """How the command line of a command names it: by its flag, or as an argument."""
        return self.name.upper() if command in self.option.argument_of else self.flag

    def read(self, text: str) -> Any:
        """The value of a text; the text itself if it is none, which `check_value` then refuses."""
        if not text and not self.required and self.default is None:
            return None
        if self.repeated:
            return tuple(text.replace(",", " ").split())
        kinds = (self.type, *typing.get_args(self.type))
        parse = self.option.parse or next((_PARSERS[kind] for kind in _PARSERS if kind in kinds), str)
        try:
            return parse(text)
        except ValueError:
            return text

    def check(self, value: Any, origin: str) -> None:
        """Raises: ConfigError: the value is not allowed; see `check_value`."""
        check_value(self.name, value, self.annotated, origin=origin)


_YES, _NO = ("1", "true", "t", "yes", "y", "on"), ("0", "false", "f", "no", "n", "off")


def _read_switch(text: str) -> bool:
    word = text.strip().lower()
    if word not in _YES + _NO:
        raise ValueError(text)
    return word in _YES


_PARSERS: dict[Any, Callable[[str], Any]] = {
    bool: _read_switch,
    int: int,
    float: float,
    DatabaseUrl: read_database_location,  # before Path: a text is one or the other
    Path: Path,
}


def declared_in(settings: type[msgspec.Struct], command: str) -> Iterator[Declared]:
    """The options of a command in the order of their declaration."""
    types = field_types(settings)
    for each in msgspec.structs.fields(settings):
        option = option_of(types[each.name])
        if option is not None and command in option.on.split():
            yield Declared(each.name, option, types[each.name], each.default)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Checks the values of its fields.

    Raises:
        ConfigError: a value is not allowed.
    """

    def __post_init__(self) -> None:
        for name, type_ in field_types(type(self)).items():
            value = getattr(self, name)
            if isinstance(value, str) and is_path(type_):
                msgspec.structs.force_setattr(self, name, read_path(type_, value))
            elif isinstance(value, list) and is_names(type_):
                msgspec.structs.force_setattr(self, name, tuple(value))
            else:
                check_value(name, value, type_)


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
        if not is_path(type_):
            msgspec.convert(value, type_)
        elif not isinstance(value, (Path, DatabaseUrl)):
            msgspec.convert(value, Path if _bare(type_) is Path else Path | None)
        if option is None or ((not option.choices or value in option.choices) and option.check(value)):
            return
        problem = ""
    except msgspec.ValidationError as error:
        problem = "true or false" if _bare(type_) is bool else str(error)
    allowed = option.allowed or ", ".join(map(str, option.choices)) if option is not None else ""
    wrong = "has a wrong value" if option is not None and option.secret else f"is {value!r}"
    raise ConfigError(f"{origin or name} {wrong}; allowed: {allowed or problem}")


def is_path(type_: Any) -> bool:
    """Whether a field's type is a path, or a path or None."""
    bare = _bare(type_)
    return bare is Path or Path in typing.get_args(bare)


def read_path(type_: Any, text: str, folder: Path | None = None) -> Any:
    """The path that a text is; a URL of a database where the type allows one.

    Args:
        folder: where relative paths start; None leaves them as they are.

    Raises:
        ConfigError: the URL cannot be used.
    """
    if DatabaseUrl in typing.get_args(_bare(type_)):
        return read_database_location(text, folder)
    return Path(text) if folder is None else folder / text


def is_names(type_: Any) -> bool:
    """Whether a field's type is a tuple of texts, or one or None."""
    bare = _bare(type_)
    return bare == Names or Names in typing.get_args(bare)


def _bare(type_: Any) -> Any:
    return typing.get_args(type_)[0] if hasattr(type_, "__metadata__") else type_
