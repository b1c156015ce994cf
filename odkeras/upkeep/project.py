"""Checks and repairs a whole project."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from odkeras.config.sources import effective_values
from odkeras.database_url import DatabaseLocation, DatabaseUrl
from odkeras.errors import OdkerasError, error_reason
from odkeras.locks import locked
from odkeras.project import Project
from odkeras.upkeep.answers import check_database, check_deliveries
from odkeras.upkeep.files import (
    check_other_records,
    check_records,
    check_state_files,
    check_versions,
    describe_checks,
)
from odkeras.upkeep.findings import Finding
from odkeras.web.location import find_database


@dataclass(frozen=True)
class ProjectPlaces:
    """Where the parts of a project are.

    Args:
        config: its pipeline.config.
        project: the three directories.
        database: its answer database, which need not exist.
    """

    config: Path
    project: Project
    database: DatabaseLocation

    @classmethod
    def of(cls, config: Path) -> ProjectPlaces:
        """The places that `odkeras annotate` uses: those of the environment, of odkeras.toml, or the defaults.

        Raises:
            ConfigError: odkeras.toml is wrong.
        """
        values = {row.declared.name: row.value for row in effective_values(config, "annotate")}
        data, model, export = (
            Path(values.get(f"{name}_dir") or config.parent / name) for name in ("data", "model", "export")
        )
        try:
            database: DatabaseLocation = find_database(values.get("db"), config.parent, None, data_dir=data).path
        except OdkerasError:  # it is damaged
            database = config.parent / "annotations.db"
        return cls(config, Project(data, model, export), database)


def check_project(places: ProjectPlaces) -> list[Finding]:
    """Everything that is wrong with the files of a project. Changes nothing."""
    findings = [*check_state_files(places.project), *check_versions(places.project)]
    findings += check_other_records(places.project)
    in_records: set[str] = set()
    for finding, image_ids in check_records(places.project):
        in_records |= image_ids
        findings += [finding] if finding is not None else []
    if isinstance(places.database, DatabaseUrl) or places.database.is_file():
        problems = list(check_database(places.database))
        if not problems:  # the rows of a damaged database mean nothing
            problems = list(check_deliveries(places.database, places.project, in_records))
        findings += problems
    return findings


def describe_project_checks(places: ProjectPlaces) -> list[str]:
    """What `check_project` looks at, one line for each kind of file."""
    checks = describe_checks(places.project)
    if isinstance(places.database, DatabaseUrl):
        return [*checks, f"{places.database}: its answers against the records"]
    what = "SQLite's own check, and its answers against the records"
    return [*checks, f"{places.database.name}: {what}"] if places.database.is_file() else checks


def repair_project(places: ProjectPlaces) -> Iterator[tuple[Finding, str, bool]]:
    """Repair what can be repaired, and check again, until nothing new is found: answers that were lost with a record
    are found only then. Yields each finding with what was done, and whether that was a repair.

    Raises:
        InUseError: the page or the trainer is running.
    """
    done: set[tuple[DatabaseLocation, str]] = set()
    with _nobody_else(places.project):
        while new := [each for each in check_project(places) if (each.where, each.problem) not in done]:
            for finding in new:
                done.add((finding.where, finding.problem))
                if finding.repair is None:
                    yield finding, finding.fix, False
                    continue
                try:
                    yield finding, finding.repair(), True
                except (OSError, OdkerasError, sqlite3.Error) as error:
                    yield finding, f"cannot be repaired: {error_reason(error)}", False


@contextmanager
def _nobody_else(project: Project) -> Iterator[None]:
    with ExitStack() as stack:
        for path, who in ((project.data_dir / "annotate.lock", "odkeras annotate"), (project.lock_path, "the trainer")):
            if path.parent.is_dir():
                taken = f"{who} is using {path.parent}; stop it before the repair"
                stack.enter_context(locked(path, taken=taken, wait_s=0.5))
        yield
