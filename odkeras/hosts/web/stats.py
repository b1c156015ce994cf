"""What a dataset of answers holds, in numbers; as JSON or for people."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from odkeras.hosts.web.database import AnswerDatabase
from odkeras.hosts.web.stored import DECISIONS, VersionEffort

VERSION_COLUMNS = ("version", "images", "kept", "moved", "deleted", "added")


@dataclass(frozen=True)
class DatasetStats:
    """A dataset in numbers.

    Args:
        images: with an answer.
        sessions: {session: {decision: images}}, by each session's last answer about an image.
        boxes: {label: boxes} of the images that were accepted last, most first.
        first_s, last_s: when answers were given, seconds since the epoch.
        waiting: answers that the trainer does not have.
        versions: what was done with suggestions, oldest version first.
    """

    dataset: str
    images: int
    sessions: dict[str, dict[str, int]]
    boxes: dict[str, int]
    first_s: float
    last_s: float
    waiting: int
    versions: list[VersionEffort]

    @classmethod
    def of(cls, database: AnswerDatabase, dataset: str) -> DatasetStats:
        """A dataset that has answers."""
        first_s, last_s = database.period(dataset) or (0.0, 0.0)
        boxes: Counter[str] = Counter()
        for _, example in database.iter_latest(dataset, decision="accept"):
            spans = example.get("spans")
            labels = (span.get("label") for span in spans if isinstance(span, dict)) if isinstance(spans, list) else ()
            boxes.update(label for label in labels if isinstance(label, str))
        return cls(
            dataset,
            images=len(database.answered(dataset)),
            sessions=database.counts(dataset),
            boxes=dict(sorted(boxes.items(), key=lambda item: (-item[1], item[0]))),
            first_s=first_s,
            last_s=last_s,
            waiting=database.waiting(dataset),
            versions=database.version_efforts(dataset),
        )

    @property
    def decisions(self) -> dict[str, int]:
        """Of all sessions together."""
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
            "versions": [_version_json(each) for each in self.versions],
        }

    def lines(self) -> list[tuple[str, str]]:
        """(name, text) for people."""
        labels = ", ".join(f"{label} {number}" for label, number in self.boxes.items())
        sessions = ", ".join(f"{name} {sum(counts.values())}" for name, counts in self.sessions.items())
        return [
            ("images", str(self.images)),
            ("answers", ", ".join(f"{name} {number}" for name, number in self.decisions.items())),
            ("boxes", f"{sum(self.boxes.values())}{': ' if labels else ''}{labels}"),
            ("sessions", sessions),
            ("answered", f"{_local(self.first_s)} to {_local(self.last_s)}"),
            ("not handed on", str(self.waiting)),
        ]

    def version_rows(self) -> list[tuple[str, ...]]:
        """A row for each of `VERSION_COLUMNS`: numbers, with their share in percent."""
        return [_version_row(each) for each in self.versions]


def shares(effort: VersionEffort) -> dict[str, float | None]:
    """From 0 to 1: how many of the suggestions were kept, moved and deleted, and how many of the objects (kept, moved,
    added) had no suggestion; None where there were none."""
    numbers = _numbers(effort)
    suggested, objects = effort.effort.suggested, effort.effort.objects
    totals = {"kept": suggested, "moved": suggested, "deleted": suggested, "added": objects}
    return {name: round(numbers[name] / total, 4) if total else None for name, total in totals.items()}


def _numbers(found: VersionEffort) -> dict[str, int]:
    did = found.effort
    return {"kept": did.kept_90, "moved": did.moved + did.relabelled, "deleted": did.deleted, "added": did.drawn}


def _version_json(found: VersionEffort) -> dict[str, Any]:
    return {"version": found.version, "images": found.images, **_numbers(found), "shares": shares(found)}


def _version_row(found: VersionEffort) -> tuple[str, ...]:
    of = shares(found)
    cells = [
        f"{number} (-)" if of[name] is None else f"{number} ({of[name]:.0%})"
        for name, number in _numbers(found).items()
    ]
    return (str(found.version), str(found.images), *cells)


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")


def _local(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")
