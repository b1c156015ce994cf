"""Command lines of recipes, read by plac in old versions and by radicli in newer ones, both of them the real ones.

How newer versions turn tuples into radicli arguments is not public: here (help, kind, abbrev, type) becomes
Arg(--name, -abbrev, help, type), the rest is up to the signature. What is known to break is refused with a TypeError.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

Annotations = Mapping[str, tuple[Any, ...]]


class CommandLine(Protocol):
    """A recipe that can be run with arguments as text."""

    name: str

    def run(self, args: Sequence[str]) -> Any: ...


class PlacLine:
    def __init__(self, name: str, function: Callable[..., Any], annotations: Annotations) -> None:
        self.name = name
        self._function = function
        self._annotations = dict(annotations)
        check_annotations(function, annotations)

    def run(self, args: Sequence[str]) -> Any:
        """plac reads its own annotations where Python has type hints, so it gets a copy of the function."""
        import plac

        given = self._function
        function = types.FunctionType(given.__code__, given.__globals__, given.__name__, given.__defaults__)
        function.__doc__, function.__annotations__ = given.__doc__, self._annotations
        return plac.parser_from(function, prog=f"prodigy {self.name}").consume(list(args))[1]


class RadicliLine:
    def __init__(self, name: str, function: Callable[..., Any], annotations: Annotations) -> None:
        from radicli import Radicli
        from radicli.cli import Command

        self.name = name
        self._function = function
        self._radicli = Radicli(prog="prodigy")
        check_annotations(function, annotations)
        parameters = inspect.signature(function).parameters
        args = {name: to_arg(parameters[name], annotation) for name, annotation in annotations.items()}
        self._command = Command.from_function(name, args, function, converters=self._radicli.converters)

    def run(self, args: Sequence[str]) -> Any:
        return self._function(**self._radicli.parse(list(args), self._command))


def to_arg(parameter: inspect.Parameter, annotation: tuple[Any, ...]) -> Any:
    """The radicli argument for a 4-tuple."""
    from radicli import Arg

    help, kind, abbrev, converter = annotation
    option = "--" + parameter.name.replace("_", "-")
    if kind == "positional":
        return Arg(help=help, converter=converter)
    if kind == "option":
        return Arg(option, f"-{abbrev}", help=help, converter=converter)
    if parameter.annotation is not bool:  # a postponed hint is the text "bool"
        raise TypeError(f"the flag {parameter.name} needs the type hint bool; it has {parameter.annotation!r}")
    return Arg(option, f"-{abbrev}", help=help)


def check_annotations(function: Callable[..., Any], annotations: Annotations) -> None:
    """Raises TypeError for what works in some versions only."""
    parameters = inspect.signature(function).parameters
    if list(annotations) != [name for name in parameters if name in annotations]:
        raise TypeError("the annotations must be of arguments of the function, in their order")
    for name, (_, kind, abbrev, converter) in annotations.items():
        if kind == "positional" and abbrev is not None:
            raise TypeError(f"the positional argument {name} cannot have an abbreviation; got {abbrev!r}")
        if kind != "positional" and (not abbrev or abbrev in ("F", "h")):  # those are Prodigy's own
            raise TypeError(f"the {kind} {name} needs an abbreviation of its own; got {abbrev!r}")
        if not callable(converter):  # versions of plac differ in what they guess
            raise TypeError(f"{name} needs a type; got {converter!r}")
