"""The state of affairs as the page shows it, kept up to date from what the loop tells."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from odkeras.annotation import DECISIONS
from odkeras.control import RUNNING
from odkeras.hosts.web.stored import VersionEdits
from odkeras.loop.watch import Look, News
from odkeras.numeric import is_number
from odkeras.project import JsonlTail, Project
from odkeras.version_names import FIRST_TIME, VersionNames

MOST_NEWS = 50
MOST_ROUNDS = 50
MOST_SKIPPED = 20
MOST_METRICS = 16

_ROUND_FIGURES = ("round", "loss", "steps", "examples", "train_s", "version")
_MOST_CHARACTERS = 300

Document = dict[str, Any]


@dataclass(frozen=True)
class Line:
    """A line of news, with the number by which a page knows that it has it."""

    number: int
    text: str
    urgent: bool
    at: float
    version: int | None = None

    def document(self) -> Document:
        return {"text": self.text, "urgent": self.urgent, "at": self.at, "version": self.version}


class Panel:
    """What `document` says; every change makes `revision` larger. May be used by several threads.

    Args:
        project: where the trainer's metrics are.
        counts: answers by session and decision.
        edits: what was done with each version's suggestions.
    """

    def __init__(
        self,
        project: Project,
        *,
        counts: Callable[[], Mapping[str, Mapping[str, int]]],
        edits: Callable[[], list[VersionEdits]],
    ) -> None:
        self._counts_now = counts
        self._edits_now = edits
        self._lock = threading.RLock()
        self._metrics = JsonlTail(project.metrics_path)
        self._names = VersionNames()
        self._seen_versions: deque[int] = deque(maxlen=MOST_ROUNDS)
        self._first_loss: float | None = None
        self._look = Look()
        self._news: deque[Line] = deque(maxlen=MOST_NEWS)
        self._told = 0
        self._skipped: deque[Document] = deque(maxlen=MOST_SKIPPED)
        self._skipped_count = 0
        self._rounds: deque[Document] = deque(maxlen=MOST_ROUNDS)
        self._evaluations: deque[Document] = deque(maxlen=MOST_ROUNDS)
        self._facts: Document = {}
        self._is_counted = False
        self._counts: Mapping[str, Mapping[str, int]] = {}
        self._versions: list[Document] = []
        self.revision = 0

    @property
    def version(self) -> int | None:
        """The version served at the last look."""
        return self._look.version

    def looked(self, look: Look) -> None:
        """What is to be seen now."""
        rows = self._metrics.read()
        with self._lock:
            for row in rows:
                self._add_row(row)
            if rows or look != self._look:
                self._look = look
                self.revision += 1
            if look.version is not None and look.version not in self._seen_versions:
                self._seen_versions.append(look.version)

    def told(self, news: News) -> None:
        """A line for the log."""
        with self._lock:
            self._told += 1
            text = one_line(news.text)  # what a log says is on the terminal, and in the log
            self._news.append(Line(self._told, text, news.urgent, time.time(), news.version))

    def skipped(self, file: str, reason: str) -> None:
        """An image cannot be used."""
        with self._lock:
            self._skipped.append({"file": file, "reason": reason})
            self._skipped_count += 1
            self.revision += 1

    def answered(self) -> None:
        """Answers were stored: the next `count` counts them anew."""
        self._is_counted = False

    def count(self) -> None:
        """Bring the figures about answers up to date; nobody who answers waits for it.

        Raises:
            DatabaseError: they cannot be counted.
        """
        if self._is_counted:
            return
        self._is_counted = True  # before they are: an answer may come meanwhile
        try:
            counts, edits = self._counts_now(), self._edits_now()
        except BaseException:
            self._is_counted = False
            raise
        with self._lock:
            self._counts = counts
            self._versions = [_version_document(each) for each in edits]
            self.revision += 1

    def update(self, **facts: Any) -> None:
        """Other facts of the document: total, left (by session; None: of all sessions together), not_handed_on,
        training (running, paused or stopped), here (the sessions with an open page)."""
        with self._lock:
            if any(self._facts.get(name) != value for name, value in facts.items()):
                self._facts.update(facts)
                self.revision += 1

    def answered_by(self, session: str) -> int:
        """Answers of a session, at the last count."""
        with self._lock:
            return sum((self._counts.get(session) or {}).values())

    def news_after(self, number: int) -> list[Line]:
        """The lines that are newer, oldest first."""
        with self._lock:
            return [line for line in self._news if line.number > number]

    @property
    def last_news(self) -> int:
        """The number of the newest line."""
        return self._told

    def document(self, session: str) -> Document:
        """What the page of a session shows."""
        with self._lock:
            version = self._look.version
            here = self._facts.get("here") or ()
            names = sorted({*self._counts, *here})
            return {
                "trainer": _trainer_document(self._look.trainer),
                "failure": one_line(self._look.failure),
                "failed": self._look.failed,
                "version": version,
                "names": self._names_of_versions(),
                "published_s_ago": _age_s(version),
                "answers": _added(self._counts.values()),
                "mine": dict(self._counts.get(session) or dict.fromkeys(DECISIONS, 0)),
                "total": self._facts.get("total"),
                "left": _left_for(session, self._facts.get("left") or {}),
                "not_handed_on": self._facts.get("not_handed_on", 0),
                "training": self._facts.get("training", RUNNING),
                "skipped": list(self._skipped),
                "skipped_count": self._skipped_count,
                "sessions": [
                    {"name": name, "answers": sum((self._counts.get(name) or {}).values()), "here": name in here}
                    for name in names
                ],
                "versions": self._versions[-MOST_ROUNDS:],
                "first_loss": self._first_loss,
                "rounds": list(self._rounds),
                "evaluations": list(self._evaluations),
            }

    def _names_of_versions(self) -> dict[str, str]:
        """What the versions are called of which the page may speak."""
        of_rounds = [each["version"] for each in self._rounds if isinstance(each["version"], int)]
        of_answers = [each["version"] for each in self._versions[-MOST_ROUNDS:]]
        return {str(each): self._names.of(each) for each in {*of_rounds, *of_answers, *self._seen_versions}}

    def _add_row(self, row: Mapping[str, Any]) -> None:
        self._names.note(row)
        kind = row.get("kind")
        if kind == "round":
            figures = {name: row[name] if _is_figure(row.get(name)) else None for name in _ROUND_FIGURES}
            self._rounds.append({**figures, "failed": one_line(str(row.get("failed") or ""))})
            if self._first_loss is None:
                self._first_loss = figures["loss"]
        elif kind == "evaluation":
            metrics = row.get("metrics")
            metrics = metrics if isinstance(metrics, Mapping) else {}
            found = [(name, value) for name, value in metrics.items() if _is_figure(value)]
            figures = dict(found[:MOST_METRICS])  # there may be some for each of a thousand classes
            self._evaluations.append(
                {"round": row.get("round"), "metrics": figures, "failed": one_line(str(row.get("failed") or ""))}
            )


def one_line(text: str) -> str:
    """The first line of what went wrong, not too long: the others are for the log."""
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return first if len(first) <= _MOST_CHARACTERS else f"{first[:_MOST_CHARACTERS]}…"


def _left_for(session: str, left: Mapping[str | None, int | None]) -> int | None:
    return left.get(session, left.get(None))


def _trainer_document(status: Mapping[str, Any] | None) -> Document | None:
    if status is None:
        return None
    return {
        "state": str(status.get("state") or ""),
        "reason": one_line(str(status.get("reason") or "")),
        "round": status.get("round"),
        "step": status.get("round_step"),
        "steps": status.get("round_steps"),
        "loss": status.get("loss") if _is_figure(status.get("loss")) else None,
    }


def _age_s(version: int | None) -> float | None:
    """Versions are named by the second in which they were published."""
    return None if version is None or version < FIRST_TIME else max(0.0, time.time() - version)


def _version_document(row: VersionEdits) -> Document:
    return {"version": row.version, "images": row.images, "suggested": row.edits.suggested, **row.counts}


def _added(counts: Any) -> dict[str, int]:
    total = dict.fromkeys(DECISIONS, 0)
    for of_session in counts:
        for decision, number in of_session.items():
            total[decision] = total.get(decision, 0) + number
    return total


def _is_figure(value: Any) -> bool:
    """JSON has no NaN: a browser could not read the whole document."""
    return is_number(value, 1e30)
