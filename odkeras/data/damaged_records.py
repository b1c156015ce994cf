"""Opens the replay store of a data directory whose records may be damaged."""

from __future__ import annotations

import logging
from collections.abc import Collection

from odkeras.data.replay import ReplayStore
from odkeras.errors import RecordError
from odkeras.project import Project
from odkeras.record_files import list_record_files, read_record_file, replace_damaged

_log = logging.getLogger(__name__)


def open_replay(project: Project, eval_split: float, class_texts: Collection[str] | None) -> ReplayStore:
    """The store. A damaged record is renamed, and its intact examples are kept: training must not stop for ever because
    of one file.

    Args: as those of `ReplayStore`.

    Raises:
        RecordError: a record cannot be read or renamed.
    """
    try:
        return ReplayStore(project, eval_split, class_texts)
    except RecordError as error:
        if not _replace_damaged(project):
            raise
        _log.error("%s", error)
    return ReplayStore(project, eval_split, class_texts)


def _replace_damaged(project: Project) -> bool:
    """Returns whether a record was damaged."""
    replaced = False
    try:
        for path in list_record_files(project):
            found = read_record_file(path, lambda data: None)
            if found.is_damaged:
                moved = replace_damaged(found, project)
                replaced = True
                _log.error(
                    "%s %s. The %d intact examples are kept; the whole file is now %s. `odkeras doctor PROJECT "
                    "--repair` delivers the lost answers again",
                    path,
                    found.problem,
                    found.examples,
                    moved.name,
                )
    except OSError as error:
        raise RecordError(f"a damaged record cannot be renamed: {error}") from error
    return replaced
