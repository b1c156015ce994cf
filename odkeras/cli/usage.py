"""The usage line of every command, and what to say about command lines of `odkeras annotate` that cannot work."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from odkeras.errors import ConfigError
from odkeras.project import CONFIG_NAME

_USAGE = "odkeras annotate DATASET SOURCE CONFIG"


class Command(TyperCommand):
    """The parser of a command. Its usage line has arguments in capitals, as the help texts have them, and optional ones
    in brackets; typer's has `{config}`, for one that is required."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for argument in self._arguments:
            argument.metavar = (argument.metavar or argument.name).upper()

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        pieces = [f"{each.metavar}..." if each.nargs == -1 else each.metavar for each in self._arguments]
        required = [each.required for each in self._arguments]
        return ["[OPTIONS]", *(text if must else f"[{text}]" for text, must in zip(pieces, required, strict=True))]

    @property
    def _arguments(self) -> list[Any]:
        return [each for each in self.params if each.param_type_name == "argument"]


def use_command_class(app: typer.Typer) -> None:
    """Let all commands of an application, and of those in it, be `Command`s."""
    for command in app.registered_commands:
        if not issubclass(command.cls or TyperCommand, Command):
            command.cls = Command
    for group in app.registered_groups:
        if group.typer_instance is not None:
            use_command_class(group.typer_instance)


class AnnotateCommand(Command):
    """The command's parser: it explains arguments that are missing, and files that the shell made of a pattern.

    Raises:
        ConfigError: on parsing.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        check_one_source(args)
        given = list(args)  # parsing takes them out
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            if type(error).__name__ != "MissingParameter":  # click's, of which newer versions of typer have a copy
                raise
            positional = list(takewhile(lambda argument: not argument.startswith("-"), given))
            raise ConfigError(missing_arguments(positional)) from None


def check_one_source(arguments: Sequence[str]) -> None:
    """SOURCE is one argument. The shell makes many of `images/*.jpg`, and the rest would be taken for CONFIG and IP.

    Raises:
        ConfigError: several files of images or of JSON lines are given; names their folder.
    """
    from odkeras.images import SUFFIXES

    sources = {*SUFFIXES, ".jsonl", ".ndjson"}
    values = {at + 1 for at, text in enumerate(arguments) if text == "--labels"}
    words = [text for at, text in enumerate(arguments) if at not in values and not text.startswith("-")]
    files = [text for text in words if Path(text).suffix.lower() in sources]
    if len(files) < 2:
        return
    parents = [os.path.dirname(file) or "." for file in files]  # noqa: PTH120 (as it was typed)
    folder = parents[0] if len(set(parents)) == 1 else _common(parents)
    raise ConfigError(
        f"SOURCE must be one argument; got {len(files)} files ({files[0]}, ...), because the shell expands a pattern "
        "such as *.jpg. Give the folder instead; all its images are used: "
        f"odkeras annotate DATASET {shlex.quote(folder)} CONFIG"
    )


def missing_arguments(given: Sequence[str]) -> str:
    """The complete command line, for an error about missing arguments. The given ones are recognized by their paths."""
    projects = [argument for argument in given if _is_project(Path(argument))]
    config = projects[-1] if projects else None  # an earlier one is a dataset of the same name
    source = next((argument for argument in given if argument not in projects and Path(argument).exists()), None)
    dataset = next(iter([*projects[:-1], *(text for text in given if text not in (*projects, source))]), None)
    if dataset is None and config is not None:
        folder = Path(config) if Path(config).is_dir() else Path(config).parent
        dataset = folder.resolve().name or None
    line = [dataset or "DATASET", source or "IMAGES_FOLDER", config or "PROJECT_FOLDER"]
    return (
        f"three arguments are needed: {_USAGE} (a name to store the answers under, the folder of images, the project "
        f"that `odkeras init` created); for example: odkeras annotate {' '.join(map(shlex.quote, line))}"
    )


def _is_project(path: Path) -> bool:
    return (path / CONFIG_NAME).is_file() or (path.suffix == ".config" and path.is_file())


def _common(folders: Sequence[str]) -> str:
    try:
        return os.path.commonpath(folders) or "."
    except ValueError:  # absolute and relative ones
        return folders[0]
