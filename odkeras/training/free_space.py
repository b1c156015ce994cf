"""A floor of free disk space, below which no round starts.

A round writes a record, a checkpoint and a version. On a full disk it would fail half-way, again and again, and take
the last space from the answers.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from odkeras.project import Project

_EVERY_S = 2.0
_GB = 10**9


class FreeSpace:
    """Checks the disks of a project's directories.

    Args:
        directories: on one disk or several.
        min_free_gb: gigabytes that must be free on each; 0 = no check.
        clock: monotonic clock, for tests.
    """

    def __init__(self, directories: Project, min_free_gb: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._directories = (directories.data_dir, directories.model_dir, directories.export_dir)
        self._min_free_gb = min_free_gb
        self._clock = clock
        self._checked_at = -float("inf")
        self._problem = ""

    def problem(self) -> str:
        """Why no round may start; "" if there is room. Looks every `_EVERY_S` seconds."""
        if self._min_free_gb and self._clock() - self._checked_at >= _EVERY_S:
            self._checked_at = self._clock()
            self._problem = next(filter(None, map(self._problem_of, self._directories)), "")
        return self._problem

    def _problem_of(self, directory: Path) -> str:
        try:
            free = shutil.disk_usage(directory).free
        except OSError:  # it is gone, which whoever writes to it reports
            return ""
        if free >= self._min_free_gb * _GB:
            return ""
        return (
            f"the disk of {directory} has {free / _GB:.2f} GB left, less than --min-free {self._min_free_gb:g}: "
            "training waits until there is room; answers are still stored"
        )
