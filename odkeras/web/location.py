"""Finds the database with a project's answers. It is next to the pipeline.config, independent of the working directory.

    place = find_database(None, Path("shapes"), "shapes", data_dir=Path("shapes/data"))
    with AnswerDatabase.open(place.path) as database: ...

Earlier versions used `annotations.db` in the working directory. That database, or one once given with `--db`, is used
as long as it has answers in the dataset and the one next to the config has none: answers must never look lost.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from odkeras.database_url import DatabaseLocation, DatabaseUrl, absolute_location, read_database_location
from odkeras.errors import DatabaseError
from odkeras.project import Project, write_atomically

DATABASE_NAME = "annotations.db"
_OF_SOMETHING_ELSE = ("no such table", "no such column", "not a database")


@dataclass(frozen=True)
class DatabasePlace:
    """The database to use.

    Args:
        path: absolute, unless it was given; may not exist yet.
        looked_in: all locations that were checked, including `path`.
        remarks: messages for the user: why it is not the one next to the config, and which others have answers.
    """

    path: DatabaseLocation
    looked_in: tuple[DatabaseLocation, ...]
    remarks: tuple[str, ...] = ()


def find_database(
    given: DatabaseLocation | None, project_dir: Path, dataset: str | None, *, data_dir: Path, also: Sequence[str] = ()
) -> DatabasePlace:
    """Find the database of a project.

    Args:
        given: the database that the user named; used without any check.
        project_dir: directory of the pipeline.config.
        dataset: the dataset whose answers are looked for; any dataset when None.
        data_dir: directory with the note that `remember_database` wrote.
        also: other datasets that will be read. They decide if no database has answers in `dataset`.

    Raises:
        DatabaseError: as `count_answers`.
    """
    if given is not None:
        return DatabasePlace(given, (given,))
    beside = project_dir.absolute() / DATABASE_NAME
    noted = _noted(data_dir)
    remembered = [noted[dataset]] if dataset in noted else list(noted.values()) if dataset is None else []
    here = Path.cwd() / DATABASE_NAME
    places = _distinct([beside, *map(read_database_location, remembered), here])
    counts = {place: count_answers(place, None if dataset is None else [dataset]) for place in places}
    with_answers = [place for place in places if counts[place]]
    if not with_answers:
        path = next((place for place in places if also and count_answers(place, also)), beside)
        return DatabasePlace(path, tuple(places), _why(path, beside, here))
    path, *others = with_answers
    which = "dataset" if dataset is None else f"dataset {dataset}"
    unused = [f"{place} has {answers_text(counts[place])} of {which}, too; --db uses that one" for place in others]
    return DatabasePlace(path, tuple(places), (*_why(path, beside, here), *unused))


def answers_text(count: int) -> str:
    return "1 answer" if count == 1 else f"{count} answers"


def count_answers(path: DatabaseLocation, datasets: Sequence[str] | None) -> int:
    """Number of answers in these datasets (in all when None). 0 if there is no file or it is not an odkeras database.
    Opens the database read-only.

    Raises:
        DatabaseError: the database cannot be read now, so its content is unknown.
    """
    if isinstance(path, DatabaseUrl):
        return _count_in_postgres(path, datasets)
    if not path.is_file():
        return 0
    of_datasets = "" if datasets is None else f" AND dataset IN ({','.join('?' * len(datasets))})"
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)) as connection:
            query = "SELECT COUNT(*) FROM answers WHERE replaced = 0"
            if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'decision_counts'").fetchone():
                # Since schema 7: without reading all answers. The module of the schema is not imported for its number,
                # because `odkeras --help` imports this one.
                query = "SELECT COALESCE(SUM(images), 0) FROM decision_counts WHERE images > 0"
            return int(connection.execute(query + of_datasets, list(datasets or ())).fetchone()[0])
    except sqlite3.Error as error:
        if any(text in str(error) for text in _OF_SOMETHING_ELSE):
            return 0
        raise DatabaseError(
            f"{path}: cannot be read, so it is unknown whether it has the answers: {error}. Retry, or select the "
            "database with --db"
        ) from error


def _count_in_postgres(url: DatabaseUrl, datasets: Sequence[str] | None) -> int:
    from odkeras.web.database import AnswerDatabase  # `odkeras --help` imports this module

    with AnswerDatabase.open(url) as database:
        names = database.datasets if datasets is None else datasets
        return sum(sum(count.values()) for name in names for count in database.counts(name).values())


def remember_database(data_dir: Path, dataset: str, path: DatabaseLocation, project_dir: Path) -> None:
    """Note which database has a dataset's answers, unless it is the one next to the config. Never raises."""
    noted = _noted(data_dir)
    wanted = {**noted, dataset: str(absolute_location(path))}
    if _is_same(path, project_dir / DATABASE_NAME):
        wanted.pop(dataset)
    if wanted != noted:
        with suppress(OSError):
            write_atomically(_note_path(data_dir), json.dumps(wanted, indent=1) + "\n")


def _note_path(data_dir: Path) -> Path:
    return Project(data_dir, data_dir, data_dir).databases_path


def _noted(data_dir: Path) -> dict[str, str]:
    try:
        noted = json.loads(_note_path(data_dir).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return {str(name): str(path) for name, path in noted.items()} if isinstance(noted, dict) else {}


def _why(path: DatabaseLocation, beside: Path, here: Path) -> tuple[str, ...]:
    if path == beside:
        return ()
    if path == here:
        return (
            f"these answers are in the working directory, where odkeras stored them before; without them "
            f"{beside} would be used",
        )
    return (f"these answers were stored in {path} before; without them {beside} would be used",)


def _distinct(paths: Iterable[DatabaseLocation]) -> list[DatabaseLocation]:
    distinct: list[DatabaseLocation] = []
    for path in paths:
        if not any(_is_same(path, other) for other in distinct):
            distinct.append(path)
    return distinct


def _is_same(one: DatabaseLocation, other: DatabaseLocation) -> bool:
    if isinstance(one, DatabaseUrl) or isinstance(other, DatabaseUrl):
        return one == other
    return one.resolve() == other.resolve()
