"""The `odkeras` command. Commands are thin: they parse, call one library function, and print."""

from __future__ import annotations

import io
import logging
import sys

import typer

from odkeras import __version__
from odkeras.cli import (
    annotate,
    bulk,
    control,
    db,
    export_labels,
    frames,
    import_labels,
    labels,
    project,
    records,
    serving,
    stats,
    training,
    upkeep,
    weights,
)
from odkeras.cli.usage import use_command_class
from odkeras.errors import OdkerasError
from odkeras.text import say

_log = logging.getLogger(__name__)

app = typer.Typer(
    name="odkeras",
    help="Train TensorFlow 2 Object Detection API models in the loop while a person annotates.",
    epilog="Start with: odkeras init my_project --label cat --label dog",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        say(f"odkeras {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", help="Print the version and exit.", is_eager=True, callback=_print_version
    ),
) -> None: ...


project.add_commands(app)
upkeep.add_commands(app)
weights.add_commands(app)
records.add_commands(app)
bulk.add_commands(app)
annotate.add_commands(app)
stats.add_commands(app)
db.add_commands(app)
export_labels.add_commands(app)
import_labels.add_commands(app)
frames.add_commands(app)
labels.add_commands(app)
training.add_commands(app)
control.add_commands(app)
serving.add_commands(app)
use_command_class(app)


def main() -> None:
    """Run the command line; an error of ours becomes one line and an exit code, Ctrl-C exit code 130."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # names from JSON and of files may have lone surrogates
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except OdkerasError as error:
        say(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:  # a full disk or a directory that is gone, where no code of ours expected it
        _log.debug("ended by an OSError", exc_info=True)
        say(f"error: {f'{error.filename}: ' if error.filename else ''}{error.strerror or error}", file=sys.stderr)
        sys.exit(OdkerasError.exit_code)
    except KeyboardInterrupt:
        say("stopped", file=sys.stderr)
        sys.exit(130)
