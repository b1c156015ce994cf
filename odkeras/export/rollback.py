"""Roll back: publish a copy of an earlier version under a new number, which every server then loads as the newest.

    plan = plan_rollback(Path("raccoons/export"))
    version = roll_back(Path("raccoons/export"), plan)

Only files are copied; TensorFlow is not needed. The trainer does not replace such a version before its next round ends.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from odkeras import project
from odkeras.errors import ConfigError, SetupError
from odkeras.export.info import read_export_info, write_export_info
from odkeras.version_dirs import list_versions, reveal_version, version_dir


@dataclass(frozen=True)
class RollbackPlan:
    """A planned rollback.

    Args:
        source: the version to copy.
        newest: the newest version now, which the copy supersedes.
    """

    source: int
    newest: int


def plan_rollback(export_dir: Path, to: int | None = None) -> RollbackPlan:
    """Choose the version to roll back to.

    Args:
        to: the version; None for the one before the newest. If the newest is a copy by an earlier rollback, None is
            the one before its original, so that two rollbacks go back two versions.

    Raises:
        ConfigError: there is no version `to`, it is already the newest, or there is no earlier version.
    """
    versions = list_versions(export_dir)
    if not versions:
        raise ConfigError(f"{export_dir} has no version to go back to; is it the export directory?")
    newest, listed = versions[-1], ", ".join(map(str, versions))
    if to is None:
        info = read_export_info(version_dir(export_dir, newest))
        origin = info.copy_of if info is not None and info.copy_of is not None else newest
        earlier = [version for version in versions if version < origin]
        if not earlier:
            before = "" if origin == newest else f" (a copy of {origin})"
            raise ConfigError(
                f"there is no version before {newest}{before} to go back to; in {export_dir} there are: {listed}"
            )
        return RollbackPlan(earlier[-1], newest)
    if to not in versions:
        raise ConfigError(f"there is no version {to}; in {export_dir} there are: {listed}")
    if to == newest:
        raise ConfigError(f"version {to} is the newest already; earlier ones in {export_dir}: {listed}")
    return RollbackPlan(to, newest)


def roll_back(export_dir: Path, plan: RollbackPlan, *, clock: Callable[[], float] = time.time) -> int:
    """Publish a copy of `plan.source` atomically under the next version number, and return the number.

    Args:
        clock: returns seconds since the epoch, for the version number.

    Raises:
        SetupError: the files cannot be copied, because the disk is full or the version was deleted in the meantime.
    """
    project.remove_stale_temporaries(export_dir)
    partial = export_dir / project.temporary_name()
    try:
        _copy(export_dir, plan, partial)
        version = reveal_version(partial, export_dir, clock())
        project.sync_to_disk(export_dir)
    except (OSError, shutil.Error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise SetupError(f"version {plan.source} cannot be copied in {export_dir}: {reason}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return version


def _copy(export_dir: Path, plan: RollbackPlan, partial: Path) -> None:
    shutil.copytree(version_dir(export_dir, plan.source), partial)
    info = read_export_info(partial)
    if info is not None:
        origin = info.copy_of if info.copy_of is not None else plan.source
        replaced = read_export_info(version_dir(export_dir, plan.newest))
        steps = [max(version.step, version.replaced_step) for version in (info, replaced) if version is not None]
        write_export_info(partial, replace(info, copy_of=origin, replaced_step=max(steps)))
    for path in [*partial.rglob("*"), partial]:
        project.sync_to_disk(path)
