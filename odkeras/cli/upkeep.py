"""`odkeras doctor` and `odkeras backup`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from odkeras.cli import options
from odkeras.text import say


def add_commands(app: typer.Typer) -> None:
    app.command("doctor", epilog="Example: odkeras doctor raccoons/ --repair")(doctor)
    app.command("backup", epilog="Example: odkeras backup raccoons/ backups/monday")(backup)


def doctor(
    config: Annotated[
        Path | None,
        typer.Argument(help="A project, or its pipeline.config: its files are checked, too.", show_default=False),
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Repair the files of the project; nothing is deleted.")
    ] = False,
) -> None:
    """Check the installation: Python, TensorFlow, the Object Detection API, GPU, disk, weights. With a project, also
    its files: the database against the records, the checksums of all records, versions and state files. It says what
    it has checked.

    With --repair, a damaged file is renamed, and what can be made again is made again: answers that are lost in the
    records are delivered again, a damaged database is copied as far as it can be read.
    """
    from odkeras.doctor import all_ok, check_environment
    from odkeras.errors import ConfigError
    from odkeras.project import config_path

    if repair and config is None:
        raise ConfigError("--repair: name the project to repair")
    healthy = config is None or _check_files(config_path(config), repair)
    if repair:
        raise typer.Exit(code=0 if healthy else 3)
    checks = check_environment(config=config_path(config) if config is not None else None)
    width = max(len(check.name) for check in checks)
    for check in checks:
        say(f"{'ok  ' if check.ok else 'FAIL'}  {check.name:{width}}  {check.detail}")
        if check.fix:
            say(f"      {'':{width}}  -> {check.fix}")
    if not all_ok(checks) or not healthy:
        raise typer.Exit(code=3)


def _check_files(config: Path, repair: bool) -> bool:
    """Print what is wrong with the files of a project. Returns whether nothing is, or is left after the repair."""
    from odkeras.upkeep.project import ProjectPlaces, check_project, describe_project_checks, repair_project

    places = ProjectPlaces.of(config)
    if repair:
        left = 0
        for finding, what, repaired in repair_project(places):
            left += not repaired
            say(f"{'done' if repaired else 'FAIL'}  {finding.where}: {finding.problem}\n      -> {what}")
        return left == 0
    findings = check_project(places)
    for line in describe_project_checks(places):
        say(f"      checked: {line}")
    for finding in findings:
        say(f"FAIL  {finding.where}: {finding.problem}\n      -> --repair: {finding.fix}")
    if not findings:
        say(f"ok    the files of {places.config.parent}")
    return not findings


def backup(
    config: options.Config, out: Annotated[Path, typer.Argument(help="A new folder; it becomes a project itself.")]
) -> None:
    """Copy a project while it is in use: configuration, answers, records, checkpoints, versions. Source images are not
    copied. The copy is checked."""
    from odkeras.project import config_path
    from odkeras.upkeep.backup import back_up
    from odkeras.upkeep.project import ProjectPlaces

    problems = back_up(ProjectPlaces.of(config_path(config)), out)
    for problem in problems:
        say(f"damaged in the project, too: {problem}", file=sys.stderr)
    say(f"{out}: a copy of {config}; `odkeras annotate DATASET SOURCE {out}` continues from it")
    if problems:
        raise typer.Exit(code=3)
