"""Display names of model versions: the training round and the time of publishing, `round 7, 13:36`.

    names = VersionNames(read_jsonl(project.metrics_path))
    names.of(1795613835)

The page, the event messages and the tables of the command line all use these names.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

FIRST_TIME = 10**9
"""Versions below this were numbered by hand; others are the time of publishing, in seconds since the epoch."""


class VersionNames:
    """Display names of versions. One thread may call `note` while others call `of`.

    Args:
        rows: rows of metrics.jsonl.
        clock: returns seconds since the epoch; tests replace it.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]] = (), clock: Any = time.time) -> None:
        self._clock = clock
        self._rounds: dict[int, int] = {}
        for row in rows:
            self.note(row)

    def note(self, row: Mapping[str, Any]) -> None:
        """Add a row of metrics.jsonl. Only rounds that published a version are used: the row of a round that failed or
        was held back contains the previous version."""
        version, number = row.get("version"), row.get("round")
        if row.get("kind") not in ("round", "extra") or row.get("failed") or row.get("outcome") == "held back":
            return
        if isinstance(version, int) and isinstance(number, int):
            self._rounds.setdefault(version, number)

    def of(self, version: int) -> str:
        """The display name of a version.

        `round 7, 13:36` usually; `13:30` if the round is unknown; `round 7, 27 Nov 13:36` if that was not today;
        `version 7` if the number is not a time.
        """
        number = self._rounds.get(version)
        when = self._publish_time(version)
        if number is None:
            return when or f"version {version}"
        return f"round {number}, {when or f'version {version}'}"

    def _publish_time(self, version: int) -> str:
        try:
            at = datetime.fromtimestamp(version) if version >= FIRST_TIME else None
        except (OverflowError, ValueError, OSError):
            at = None
        if at is None:
            return ""
        today = datetime.fromtimestamp(self._clock()).date()
        return f"{at:%H:%M}" if at.date() == today else f"{at.day} {at:%b %H:%M}"
