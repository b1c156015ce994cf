"""`odkeras labels`: the classes of a project."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from odkeras.cli.options import Given, ProjectFolder, with_options
from odkeras.config.settings import TrainingSettings
from odkeras.text import say

if TYPE_CHECKING:
    from odkeras.pipeline.label_edits import InAnswers, LabelFiles

labels = typer.Typer(
    name="labels",
    help="List, add, rename and remove the classes of a project. A running `odkeras annotate` takes changes over.",
    epilog="Example: odkeras labels add raccoons tail",
    no_args_is_help=True,
)


def add_commands(app: typer.Typer) -> None:
    app.add_typer(labels)


@labels.command("list", epilog="Example: odkeras labels list raccoons")
@with_options("labels")
def list_labels(project: ProjectFolder, *, given: Given) -> None:
    """Print the classes with their ids, and when those were added that the project did not begin with."""
    import time

    from odkeras.cli.tables import print_table
    from odkeras.pipeline.class_history import read_class_history

    settings = given.build(TrainingSettings)
    history = read_class_history(settings.project)
    added_s = history.added_s if history is not None else {}
    rows = []
    for label in _files(settings).load().labels:
        at = added_s.get(label.name, 0.0)
        rows.append([label.name, str(label.id), time.strftime("%Y-%m-%d %H:%M", time.localtime(at)) if at else ""])
    print_table("classes", ["name", "id", "added"], rows)


@labels.command("add", epilog="Example: odkeras labels add raccoons tail")
@with_options("labels")
def add(
    project: ProjectFolder, name: Annotated[str, typer.Argument(help="Name of the new class.")], *, given: Given
) -> None:
    """Add a class: the label map gets the next id, num_classes is raised. The trainer extends the model when it starts,
    and the old classes keep their weights. Images answered before are no negatives for the new class.
    """
    from odkeras.pipeline.label_edits import add_label

    settings = given.build(TrainingSettings)
    label = add_label(_files(settings), name)
    say(f"{label.name} has id {label.id}; the model is extended when the trainer starts")


@labels.command("rename", epilog="Example: odkeras labels rename raccoons tail ringed-tail")
@with_options("labels")
def rename(
    project: ProjectFolder,
    old: Annotated[str, typer.Argument(help="The name so far.")],
    new: Annotated[str, typer.Argument(help="The new name.")],
    *,
    given: Given,
) -> None:
    """Rename a class in the label map and in the answers. It keeps its id, and the model what it has learned."""
    from odkeras.pipeline.label_edits import rename_label

    settings = given.build(TrainingSettings)
    with _answers(settings) as in_answers:
        rename_label(_files(settings), old, new, in_answers)


@labels.command("merge", epilog="Example: odkeras labels merge raccoons 'racoon baby' raccoon")
@with_options("labels")
def merge(
    project: ProjectFolder,
    old: Annotated[str, typer.Argument(help="The class that is given up.")],
    into: Annotated[str, typer.Argument(help="The class that gets its objects.")],
    *,
    given: Given,
) -> None:
    """Make the objects of a class objects of another one, in the answers too, and remove it from the label map."""
    from odkeras.pipeline.label_edits import merge_label

    settings = given.build(TrainingSettings)
    with _answers(settings) as in_answers:
        merge_label(_files(settings), old, into, in_answers)


@labels.command("retire", epilog="Example: odkeras labels retire raccoons tail")
@with_options("labels")
def retire(project: ProjectFolder, name: Annotated[str, typer.Argument(help="The class.")], *, given: Given) -> None:
    """Remove a class from the label map. Its objects stay in the answers, but are not trained on."""
    from odkeras.pipeline.label_edits import retire_label

    retire_label(_files(given.build(TrainingSettings)), name)


@labels.command("recolour", epilog="Example: odkeras labels recolour raccoons tail '#d55e00'")
@with_options("labels")
def recolour(
    project: ProjectFolder,
    name: Annotated[str, typer.Argument(help="The class.")],
    colour: Annotated[str, typer.Argument(help="#rrggbb.")],
    *,
    given: Given,
) -> None:
    """Choose the colour of a class in the page."""
    from odkeras.pipeline.label_edits import recolour_label

    recolour_label(_files(given.build(TrainingSettings)), name, colour)


@contextmanager
def _answers(settings: TrainingSettings) -> Iterator[InAnswers]:
    """Yields what renames a label in all datasets of the project's database, and prints how many answers changed."""
    from odkeras.config.sources import read_project_file
    from odkeras.web.database import AnswerDatabase
    from odkeras.web.location import find_database
    from odkeras.web.relabel import relabel

    project_dir, data_dir = settings.config.parent, settings.project.data_dir
    place = find_database(read_project_file(settings.config).get("db"), project_dir, None, data_dir=data_dir)
    if isinstance(place.path, Path) and not place.path.is_file():
        yield lambda old, new: None
        return
    with AnswerDatabase.open(place.path) as database:

        def in_answers(old: str, new: str) -> None:
            for dataset in database.datasets:
                if count := relabel(database, dataset, old, new):
                    say(f"{count} answers of {dataset} in {place.path} have {new!r} now")

        yield in_answers


def _files(settings: TrainingSettings) -> LabelFiles:
    """Raises: ConfigError: no such project, or it names no label map."""
    from odkeras.errors import ConfigError
    from odkeras.pipeline import get_label_map_path, load_pipeline
    from odkeras.pipeline.label_edits import LabelFiles

    label_map = settings.label_map_path or get_label_map_path(load_pipeline(settings.config))
    if not label_map:
        raise ConfigError(f"{settings.config} names no label map; set label_map_path in its train_input_reader")
    return LabelFiles(settings.config, Path(label_map), settings.project)
