"""A consistent copy of a project that is in use.

The parts are copied in the order in which answers walk through them: database, inbox, records, checkpoints, versions.
So each answer is in the copy of its place or of a later one, and whoever continues from the copy trains each of them:
what the copied database counts as delivered is in the copied inbox or records.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path

from odkeras import __version__
from odkeras.database_url import DatabaseLocation, DatabaseUrl
from odkeras.errors import ConfigError, DatabaseError, SetupError
from odkeras.project import TEMPORARY_PREFIX, Project, sync_to_disk, write_atomically
from odkeras.record_files import list_record_files
from odkeras.upkeep.answers import copy_answers
from odkeras.upkeep.project import ProjectPlaces, check_project
from odkeras.version_dirs import version_dirs
from odkeras.web.database import AnswerDatabase
from odkeras.web.location import DATABASE_NAME

NOTE = "backup.json"
_PASSES = 20
_CONFIG_FILES = ("*.config", "*.pbtxt", "odkeras.toml")
_CACHES = ("index.sqlite",)
_NOT_COPIED = (".lock", ".owner")


def back_up(places: ProjectPlaces, out: Path) -> list[str]:
    """Copy a project to a new folder, which is a project itself; the images of the source are not copied.

    Returns:
        What is wrong with the copy: damage that the project has, too.

    Raises:
        ConfigError: `out` exists and is not empty.
        DatabaseError: the database cannot be copied.
        SetupError: no permission, or disk full; nothing is left of the copy.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out}: exists already; name a new folder")
    partial = out.with_name(f"{TEMPORARY_PREFIX}backup-{out.name}")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        copied = _copy(places, partial)
        problems = [f"{_below(each.where, partial)}: {each.problem}" for each in check_project(copied)]
        note = {"odkeras": __version__, "made_at": time.time(), "of": str(places.config.absolute()), "damage": problems}
        write_atomically(partial / NOTE, json.dumps(note, indent=1) + "\n")
        with suppress(OSError):
            out.rmdir()
        partial.rename(out)
        sync_to_disk(out.absolute().parent)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise SetupError(f"{out}: the backup cannot be written: {error.strerror or error}") from error
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return problems


def _copy(places: ProjectPlaces, out: Path) -> ProjectPlaces:
    project = places.project
    copy = ProjectPlaces(
        out / "pipeline.config", Project(out / "data", out / "model", out / "export"), out / DATABASE_NAME
    )
    out.mkdir(parents=True)
    for pattern in _CONFIG_FILES:
        for path in places.config.parent.glob(pattern):
            if path.name != "odkeras.toml" or not _names_places(path):
                _copy_file(path, out / path.name)
    _copy_database(places.database, out / DATABASE_NAME)
    _copy_until_complete(project.inbox_dir, copy.project.inbox_dir, lambda: _files(project.inbox_dir))
    # Examples move from the records of rounds to shards, and from old shards to new ones, never the other way.
    _copy_until_complete(
        project.data_dir, copy.project.data_dir, lambda: [*project.train_records(), *list_record_files(project)]
    )
    _copy_until_complete(project.data_dir, copy.project.data_dir, lambda: _other_data(project))
    _copy_until_complete(project.model_dir, copy.project.model_dir, lambda: _files(project.model_dir))
    _copy_until_complete(project.export_dir, copy.project.export_dir, lambda: _version_files(project))
    return copy


def _below(where: DatabaseLocation, folder: Path) -> str:
    return str(where.relative_to(folder) if isinstance(where, Path) else where)


def _names_places(toml: Path) -> bool:
    """Whether an odkeras.toml names directories or a database: the copy has its own."""
    return any(name in toml.read_text(errors="replace") for name in ("data_dir", "model_dir", "export_dir", "db"))


def _copy_database(path: DatabaseLocation, target: Path) -> None:
    if isinstance(path, DatabaseUrl):
        with AnswerDatabase.open(path, create=False) as database:
            copy_answers(database, target)
        return
    if not path.is_file():
        return
    try:
        with (
            closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(target)) as copy,
        ):
            source.backup(copy)
        sync_to_disk(target)
    except sqlite3.DatabaseError as error:
        raise DatabaseError(f"{path}: cannot be copied: {error}; `odkeras doctor PROJECT` checks it") from error


def _copy_until_complete(folder: Path, target: Path, files: Callable[[], Iterable[Path]]) -> None:
    """Copy files that others may delete or replace meanwhile, until a pass has nothing left to copy."""
    target.mkdir(parents=True, exist_ok=True)
    done: set[Path] = set()
    for _ in range(_PASSES):
        missing = [path for path in files() if path not in done]
        if not missing:
            return
        for path in missing:
            try:
                _copy_file(path, target / path.relative_to(folder))
                done.add(path)
            except FileNotFoundError:
                continue
    raise SetupError(f"{folder}: its files change too fast to be copied; pause training, and try again")


def _copy_file(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path, target)
    sync_to_disk(target)


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden and path.suffix not in _NOT_COPIED and not path.name.startswith(_CACHES):
            yield path


def _other_data(project: Project) -> Iterator[Path]:
    """The files of the data directory that are neither records nor batches."""
    for path in _files(project.data_dir):
        if path.suffix != ".record" and path.parent != project.inbox_dir:
            yield path


def _version_files(project: Project) -> Iterator[Path]:
    for version in version_dirs(project.export_dir).values():
        yield from _files(version)
