"""The database that a command reads or adds to, and what is said about the answers in it."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from odkeras.cli.options import Given
from odkeras.config.sources import read_project_file
from odkeras.database_url import DatabaseLocation
from odkeras.errors import ConfigError
from odkeras.text import say
from odkeras.web.location import DATABASE_NAME

Dataset = Annotated[str, typer.Argument(help="Name of the dataset.")]
ProjectOption = Annotated[
    Path | None,
    typer.Option(
        "--project",
        "-p",
        help="The project folder, or its pipeline.config: its database; default: annotations.db in this folder.",
    ),
]


def database_path(given: Given, project: Path | None, dataset: str | None, *, create: bool = False) -> DatabaseLocation:
    """The database to read, or to add to: the one that is named, that of the project, or the one in this folder. A
    project on the command line overrides a database in the environment.

    Args:
        create: it need not exist.

    Raises:
        ConfigError: both are named on the command line.
        DatabaseError: it does not exist; says where it was looked for.
    """
    from odkeras.errors import DatabaseError
    from odkeras.project import CONFIG_NAME, config_path
    from odkeras.web.location import find_database

    if project is not None and given.is_flag("db"):
        raise ConfigError(f"--db {given['db']} and --project {project}: give one of them")
    here = Path(DATABASE_NAME)
    if project is None and given["db"] is not None:
        location: DatabaseLocation = given["db"]
        return location
    if project is None and not here.is_file() and Path(CONFIG_NAME).is_file():
        project = Path()
    if project is None:
        if not here.is_file() and not create:
            raise DatabaseError(f"there is no {here} in {Path.cwd()}; {_advice()}")
        if not here.is_file():
            say(f"{here} is new, in {Path.cwd()}; --project adds to a project's database", file=sys.stderr)
        return here
    config = config_path(project)
    file = read_project_file(config)
    data_dir = file.get("data_dir", config.parent / "data")
    place = find_database(file.get("db"), config.parent, dataset, data_dir=data_dir)
    for remark in place.remarks:
        say(f"{place.path}: {remark}", file=sys.stderr)
    if not create and isinstance(place.path, Path) and not place.path.is_file():
        looked_in = " or ".join(map(str, place.looked_in))
        raise DatabaseError(f"{project} has no answers yet: there is no {looked_in}; `odkeras annotate` creates it")
    return place.path


def _advice() -> str:
    near = sorted(str(path) for path in Path().glob(f"*/{DATABASE_NAME}"))
    hint = f" (there is {', '.join(near)})" if near else ""
    return f"name the project with --project FOLDER, or the database with --db FILE{hint}"


def data_directory(database: DatabaseLocation, project: Path | None) -> Path | None:
    """The data directory of the project that a database belongs to; None if it belongs to none.

    Args:
        database: its path or URL.
        project: the project that was named; None: the one beside the database, if there is one; for a URL, the one in
            this folder.
    """
    from odkeras.project import CONFIG_NAME, config_path

    beside = database.parent if isinstance(database, Path) else Path()
    config = beside / CONFIG_NAME if project is None else config_path(project)
    if not config.is_file():
        return None
    data_dir: Path = read_project_file(config).get("data_dir", config.parent / "data")
    return data_dir


def print_skipped(skipped: Iterable[tuple[str, str]]) -> None:
    """Say what was left out, and why."""
    for where, reason in skipped:
        say(f"skipped {where}: {reason}", file=sys.stderr)
