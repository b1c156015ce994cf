"""What people call a model version: by the round that made it and the time, `round 7, 13:36`.

    names = VersionNames(read_jsonl(project.metrics_path))
    names.of(1795613835)

The page, the news and the tables of the command line take their names from here, so that a version has one name.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

FIRST_TIME = 10**9
"""A smaller version is a number that somebody chose, not the second in which it was published."""


class VersionNames:
    """Names of versions; may be read while another thread notes.

    Args:
        rows: lines of metrics.jsonl.
        clock: seconds since the epoch, for tests.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]] = (), clock: Any = time.time) -> None:
        self._clock = clock
        self._rounds: dict[int, int] = {}
        for row in rows:
            self.note(row)

    def note(self, row: Mapping[str, Any]) -> None:
        """A line of metrics.jsonl: the round that published a version. One that failed, or was held back, tells of the
        version before it."""
        version, number = row.get("version"), row.get("round")
        if row.get("kind") != "round" or row.get("failed") or row.get("outcome") == "held back":
            return
        if isinstance(version, int) and isinstance(number, int):
            self._rounds.setdefault(version, number)

    def of(self, version: int) -> str:
        """`round 7, 13:36`; without the round where nobody knows it, with the day if that is not today, and the number
        if that is no time: `13:30`, `round 7, 27 Nov 13:36`, `version 7`."""
        number = self._rounds.get(version)
        when = self._time_of(version)
        if number is None:
            return when or f"version {version}"
        return f"round {number}, {when or f'version {version}'}"

    def _time_of(self, version: int) -> str:
        try:
            at = datetime.fromtimestamp(version) if version >= FIRST_TIME else None
        except (OverflowError, ValueError, OSError):
            at = None
        if at is None:
            return ""
        today = datetime.fromtimestamp(self._clock()).date()
        return f"{at:%H:%M}" if at.date() == today else f"{at.day} {at:%b %H:%M}"
