"""Statistics of a dataset of answers, as JSON or as text."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from odkeras.annotation import DECISIONS
from odkeras.web.database import AnswerDatabase
from odkeras.web.deliveries import Deliveries
from odkeras.web.stored import VersionEdits

VERSION_COLUMNS = ("version", "images", "kept", "adjusted", "relabelled", "deleted", "added")


@dataclass(frozen=True)
class DatasetStats:
    """Statistics of a dataset.

    Args:
        images: number of images with an answer.
        sessions: {session: {decision: images}}, by each session's latest answer for an image.
        boxes: {label: boxes} of the images whose latest answer is accept, most frequent label first.
        first_s, last_s: times of the first and last answer, seconds since the epoch.
        waiting: number of answers that the trainer does not have.
        versions: edit counts of the suggestions, oldest version first.
    """

    dataset: str
    images: int
    sessions: dict[str, dict[str, int]]
    boxes: dict[str, int]
    first_s: float
    last_s: float
    waiting: int
    versions: list[VersionEdits]

    @classmethod
    def of(cls, database: AnswerDatabase, dataset: str) -> DatasetStats:
        """The statistics of a dataset that has answers."""
        first_s, last_s = database.period(dataset) or (0.0, 0.0)
        return cls(
            dataset,
            images=len(database.answered(dataset)),
            sessions=database.counts(dataset),
            boxes=database.engine.count_boxes(dataset),
            first_s=first_s,
            last_s=last_s,
            waiting=Deliveries(database, dataset).count_pending(),
            versions=database.version_edits(dataset),
        )

    @property
    def decisions(self) -> dict[str, int]:
        """{decision: images}, summed over all sessions."""
        return {name: sum(counts[name] for counts in self.sessions.values()) for name in DECISIONS}

    def to_json(self) -> dict[str, Any]:
        return {
            "dataset": self.dataset,
            "images": self.images,
            **self.decisions,
            "boxes": self.boxes,
            "sessions": self.sessions,
            "first_answer": _utc(self.first_s),
            "last_answer": _utc(self.last_s),
            "not_handed_on": self.waiting,
            "versions": [_version_json(row) for row in self.versions],
        }

    def lines(self) -> list[tuple[str, str]]:
        """The statistics as (name, text) pairs."""
        labels = ", ".join(f"{label} {number}" for label, number in self.boxes.items())
        sessions = ", ".join(f"{name} {sum(counts.values())}" for name, counts in self.sessions.items())
        return [
            ("images", str(self.images)),
            ("answers", ", ".join(f"{name} {number}" for name, number in self.decisions.items())),
            ("boxes", f"{sum(self.boxes.values())}{': ' if labels else ''}{labels}"),
            ("sessions", sessions),
            ("answered", f"{_local(self.first_s)} to {_local(self.last_s)}"),
            ("not delivered", str(self.waiting)),
        ]

    def version_rows(self) -> list[tuple[str, ...]]:
        """One row per version, with the columns `VERSION_COLUMNS`: counts with their share in percent."""
        return [_version_row(row) for row in self.versions]


def shares(row: VersionEdits) -> dict[str, float | None]:
    """Fractions from 0 to 1: kept, adjusted, relabelled and deleted boxes of all suggestions; added boxes of all
    objects. None where the total is 0."""
    edits = row.edits
    counts = edits.to_json()
    totals = {name: edits.objects if name in ("added", "picked") else edits.suggested for name in counts}
    return {name: round(counts[name] / total, 4) if total else None for name, total in totals.items()}


def _version_json(row: VersionEdits) -> dict[str, Any]:
    return {"version": row.version, "images": row.images, **row.edits.to_json(), "shares": shares(row)}


def _version_row(row: VersionEdits) -> tuple[str, ...]:
    share, counts = shares(row), row.edits.to_json()
    cells = [
        f"{counts[name]} (-)" if share[name] is None else f"{counts[name]} ({share[name]:.0%})"
        for name in VERSION_COLUMNS[2:]
    ]
    return (str(row.version), str(row.images), *cells)


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")


def _local(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")
