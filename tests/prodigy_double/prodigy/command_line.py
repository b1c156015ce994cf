"""Command lines of recipes, read by plac in old versions and by radicli in newer ones, both of them the real ones.

What is known to break is refused with a TypeError. How newer versions turn tuples into radicli arguments is not
public: here (help, kind, abbrev, type) becomes Arg(--name, -abbrev, help, type), the rest is up to the signature.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

KINDS = ("positional", "option", "flag")
TAKEN_ABBREVS = ("F", "h")
_EMPTY = inspect.Parameter.empty

Annotations = Mapping[str, Any]


class CommandLine(Protocol):
    """A recipe that can be run with arguments as text."""

    name: str
    function: Callable[..., Any]

    def run(self, args: Sequence[str]) -> Any: ...


class PlacLine:
    """4-, 5- and 6-tuples: the fifth element is the choices, the sixth the metavar. Built when it is run."""

    def __init__(self, name: str, function: Callable[..., Any], annotations: Annotations) -> None:
        self.name = name
        self.function = function
        self._annotations = dict(annotations)
        for parameter, annotation in _matched(function, annotations):
            check_tuple(parameter, annotation, (4, 5, 6))
            _check_type(parameter, annotation)

    def run(self, args: Sequence[str]) -> Any:
        """Raises TypeError for a flag with another default than False (plac does)."""
        import plac

        parser = plac.parser_from(self._annotated(), prog=f"prodigy {self.name}")
        return parser.consume(list(args))[1]

    def _annotated(self) -> Callable[..., Any]:
        """A copy of the function: plac reads its own annotations where Python has type hints."""
        function = self.function
        if not isinstance(function, types.FunctionType):
            raise TypeError(f"recipe {self.name} must be a function; got {type(function).__name__}")
        copied = types.FunctionType(
            function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
        )
        copied.__doc__, copied.__kwdefaults__ = function.__doc__, function.__kwdefaults__
        copied.__annotations__ = self._annotations
        return copied


class RadicliLine:
    """4-tuples and `Arg`s, with type hints. Built when the recipe is registered."""

    def __init__(self, name: str, function: Callable[..., Any], annotations: Annotations) -> None:
        from radicli import Radicli
        from radicli.cli import Command

        self.name = name
        self.function = function
        self._radicli = Radicli(prog="prodigy")
        args = {parameter.name: to_arg(parameter, given) for parameter, given in _matched(function, annotations)}
        has_extra = "_extra" in inspect.signature(function).parameters
        self._command = Command.from_function(
            name, args, function, allow_extra=has_extra, converters=self._radicli.converters
        )
        _check_no_catch_all(function)

    def run(self, args: Sequence[str]) -> Any:
        return self.function(**self._radicli.parse(list(args), self._command))


def to_arg(parameter: inspect.Parameter, annotation: Any) -> Any:
    """The radicli argument for a 4-tuple; an `Arg` stays."""
    from radicli import Arg

    if isinstance(annotation, Arg):
        return annotation
    check_tuple(parameter, annotation, (4,))
    help, kind, abbrev, converter = annotation
    if kind == "positional":
        return Arg(help=help, converter=converter)
    option, short = "--" + parameter.name.replace("_", "-"), f"-{abbrev}"
    if kind == "option":
        return Arg(option, short, help=help, converter=converter)
    if parameter.annotation is not bool:
        raise TypeError(f"the flag {parameter.name} needs the type hint bool; it has {parameter.annotation!r}")
    return Arg(option, short, help=help)


def check_tuple(parameter: inspect.Parameter, annotation: Any, lengths: tuple[int, ...]) -> None:
    """Raises TypeError where it is known, or to be feared, that the annotation does not work."""
    name = parameter.name
    if not isinstance(annotation, tuple):
        raise TypeError(f"the annotation of {name} must be a tuple; got {annotation!r}")
    if len(annotation) not in lengths:
        raise TypeError(f"the annotation of {name} must have {lengths} elements; got {len(annotation)}")
    _, kind, abbrev, converter = annotation[:4]
    if kind not in KINDS:
        raise TypeError(f"{name} must be of kind {', '.join(KINDS)}; got {kind!r}")
    if converter is not None and not callable(converter):
        raise TypeError(f"the type of {name} must be callable; got {converter!r}")
    if kind == "positional" and abbrev is not None:
        raise TypeError(f"the positional argument {name} cannot have an abbreviation; got {abbrev!r}")
    if kind != "positional" and (not isinstance(abbrev, str) or not abbrev or abbrev.startswith("-")):
        raise TypeError(f"the {kind} {name} needs an abbreviation without dash; got {abbrev!r}")
    if abbrev in TAKEN_ABBREVS:
        raise TypeError(f"the abbreviation of {name}, -{abbrev}, is Prodigy's own")


def _check_type(parameter: inspect.Parameter, annotation: tuple[Any, ...]) -> None:
    """Old plac leaves the text as it is when no type is given, newer plac guesses one from the default."""
    _, kind, _, converter = annotation[:4]
    default = parameter.default
    if kind != "flag" and converter is None and default not in (None, _EMPTY) and not isinstance(default, str):
        raise TypeError(f"{parameter.name} needs a type: what its default {default!r} means depends on plac")


def _matched(function: Callable[..., Any], annotations: Annotations) -> list[tuple[inspect.Parameter, Any]]:
    """The annotations with their parameters, in the order of the signature: that is the order on the command line."""
    parameters = inspect.signature(function).parameters
    if unknown := [name for name in annotations if name not in parameters]:
        raise TypeError(f"annotations of arguments that the function does not have: {', '.join(unknown)}")
    return [(parameter, annotations[name]) for name, parameter in parameters.items() if name in annotations]


def _check_no_catch_all(function: Callable[..., Any]) -> None:
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise TypeError(f"*{parameter.name} does not work with radicli; use _extra")
