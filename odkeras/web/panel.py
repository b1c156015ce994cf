"""The status that the page shows, updated by callbacks of the session."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from odkeras.annotation import DECISIONS
from odkeras.control import RUNNING
from odkeras.numeric import is_number
from odkeras.project import JsonlTail, Project
from odkeras.session.events import Event, SessionStatus
from odkeras.version_names import FIRST_TIME, VersionNames
from odkeras.web import replies
from odkeras.web.stored import VersionEdits

MAX_LINES = 50
MAX_ROUNDS = 50
MAX_SKIPPED = 20
MAX_METRICS = 16

_ROUND_FIGURES = ("round", "loss", "steps", "examples", "train_s", "version")
_MAX_CHARACTERS = 300


@dataclass(frozen=True)
class LogLine:
    """A line of the page's log; by `number`, a page knows which lines it already has."""

    number: int
    text: str
    urgent: bool
    at: float
    version: int | None = None

    def message(self) -> replies.News:
        return replies.News(self.text, self.urgent, self.at, self.version)


class Panel:
    """Collects the status in `state`; every change increases `revision`. Thread-safe.

    Args:
        project: the directories, for the trainer's metrics.
        counts: returns answer counts as {session: {decision: number}}.
        edits: returns the edit counts of each version's suggestions.
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
        self._seen_versions: deque[int] = deque(maxlen=MAX_ROUNDS)
        self._first_loss: float | None = None
        self._status = SessionStatus()
        self._lines: deque[LogLine] = deque(maxlen=MAX_LINES)
        self._last_line = 0
        self._skipped: deque[replies.SkippedImage] = deque(maxlen=MAX_SKIPPED)
        self._skipped_count = 0
        self._rounds: deque[replies.Round] = deque(maxlen=MAX_ROUNDS)
        self._evaluations: deque[replies.Evaluation] = deque(maxlen=MAX_ROUNDS)
        self._facts: dict[str, Any] = {}
        self._is_counted = False
        self._counts: Mapping[str, Mapping[str, int]] = {}
        self._versions: list[replies.VersionUse] = []
        self.revision = 0

    @property
    def version(self) -> int | None:
        """The served version in the last status snapshot; None if there was none."""
        return self._status.version

    def set_status(self, status: SessionStatus) -> None:
        """Show a snapshot of the trainer and the server. Also reads new rows of the trainer's metrics."""
        rows = self._metrics.read()
        with self._lock:
            for row in rows:
                self._add_row(row)
            if rows or status != self._status:
                self._status = status
                self.revision += 1
            if status.version is not None and status.version not in self._seen_versions:
                self._seen_versions.append(status.version)

    def log(self, event: Event) -> None:
        """Add a line to the log."""
        with self._lock:
            self._last_line += 1
            text = one_line(event.text)  # the full text is on the terminal and in the log file
            self._lines.append(LogLine(self._last_line, text, event.urgent, time.time(), event.version))

    def skipped(self, file: str, reason: str) -> None:
        """Callback for an image that cannot be used."""
        with self._lock:
            self._skipped.append(replies.SkippedImage(file, reason))
            self._skipped_count += 1
            self.revision += 1

    def answered(self) -> None:
        """Mark the counts as stale after answers were stored; the next `count` updates them."""
        self._is_counted = False

    def count(self) -> None:
        """Update the answer counts if they are stale. Called by the housekeeping thread, so that answers do not wait.

        Raises:
            DatabaseError: the database cannot be read.
        """
        if self._is_counted:
            return
        self._is_counted = True  # set first: an answer that arrives while we count makes the counts stale again
        try:
            counts, edits = self._counts_now(), self._edits_now()
        except BaseException:
            self._is_counted = False
            raise
        with self._lock:
            self._counts = counts
            self._versions = [_version_use(row) for row in edits]
            self.revision += 1

    def update(self, **facts: Any) -> None:
        """Set further fields of the state: total, left (by session; under None for all sessions together),
        pending, training (running, paused or stopped), labels (a number that increases when they change), here (the
        sessions with an open page)."""
        with self._lock:
            if any(self._facts.get(name) != value for name, value in facts.items()):
                self._facts.update(facts)
                self.revision += 1

    def answered_by(self, session: str) -> int:
        """Number of a session's answers at the last `count`."""
        with self._lock:
            return sum((self._counts.get(session) or {}).values())

    def lines_after(self, number: int) -> list[LogLine]:
        """Log lines newer than the given number, oldest first."""
        with self._lock:
            return [line for line in self._lines if line.number > number]

    @property
    def last_line(self) -> int:
        """Number of the newest log line; 0 if there is none."""
        return self._last_line

    def own_figures(self, session: str) -> dict[str, Any]:
        """The fields of `state` that differ between sessions, or change as time goes by."""
        with self._lock:
            left = self._facts.get("left") or {}
            return {
                "published_s_ago": _age_s(self._status.version),
                "mine": _total([self._counts.get(session) or {}]),
                "left": left.get(session, left.get(None)),
            }

    def state(self, session: str) -> replies.PanelState:
        """The status as the page of this session shows it."""
        with self._lock:
            version = self._status.version
            here = self._facts.get("here") or ()
            names = sorted({*self._counts, *here})
            return replies.PanelState(
                trainer=_trainer(self._status.trainer),
                failure=one_line(self._status.failure),
                failed=cast(Literal["", "trainer", "server"], self._status.failed),
                version=version,
                names=self._names_of_versions(),
                answers=_total(self._counts.values()),
                total=self._facts.get("total"),
                **self.own_figures(session),
                pending=self._facts.get("pending", 0),
                training=self._facts.get("training", RUNNING),
                labels=self._facts.get("labels", 0),
                skipped=list(self._skipped),
                skipped_count=self._skipped_count,
                sessions=[replies.Annotator(name, self.answered_by(name), name in here) for name in names],
                versions=self._versions[-MAX_ROUNDS:],
                first_loss=self._first_loss,
                rounds=list(self._rounds),
                evaluations=list(self._evaluations),
            )

    def _names_of_versions(self) -> dict[str, str]:
        """Display names of all versions that the page may mention, by version."""
        of_rounds = [row.version for row in self._rounds if isinstance(row.version, int)]
        of_answers = [row.version for row in self._versions[-MAX_ROUNDS:]]
        return {str(version): self._names.of(version) for version in {*of_rounds, *of_answers, *self._seen_versions}}

    def _add_row(self, row: Mapping[str, Any]) -> None:
        self._names.note(row)
        kind, failed = row.get("kind"), one_line(str(row.get("failed") or ""))
        if kind == "round":
            figures = {name: value if _is_figure(value := row.get(name)) else None for name in _ROUND_FIGURES}
            self._rounds.append(replies.Round(**figures, failed=failed))
            if self._first_loss is None:
                self._first_loss = figures["loss"]
        elif kind == "evaluation":
            metrics = row.get("metrics")
            metrics = metrics if isinstance(metrics, Mapping) else {}
            numbers = [(name, value) for name, value in metrics.items() if _is_figure(value)]
            shown = dict(numbers[:MAX_METRICS])  # per-class metrics could be thousands
            self._evaluations.append(replies.Evaluation(row.get("round"), shown, failed))


def one_line(text: str) -> str:
    """The first non-empty line of a message, at most `_MAX_CHARACTERS` long. The rest is in the log files."""
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return first if len(first) <= _MAX_CHARACTERS else f"{first[:_MAX_CHARACTERS]}…"


def _trainer(status: Mapping[str, Any] | None) -> replies.Trainer | None:
    if status is None:
        return None
    return replies.Trainer(
        state=str(status.get("state") or ""),
        reason=one_line(str(status.get("reason") or "")),
        round=status.get("round"),
        step=status.get("round_step"),
        steps=status.get("round_steps"),
        loss=status.get("loss") if _is_figure(status.get("loss")) else None,
    )


def _age_s(version: int | None) -> float | None:
    """Seconds since a version was published, because versions are named by Unix time; None for other versions."""
    return None if version is None or version < FIRST_TIME else max(0.0, time.time() - version)


def _version_use(row: VersionEdits) -> replies.VersionUse:
    return replies.VersionUse(
        version=row.version, images=row.images, suggested=row.edits.suggested, **row.edits.to_json()
    )


def _total(counts: Iterable[Mapping[str, int]]) -> replies.Counts:
    total: Counter[str] = Counter()
    for of_session in counts:
        total.update(of_session)
    return replies.Counts(**{decision: total[decision] for decision in DECISIONS})


def _is_figure(value: Any) -> bool:
    """Whether JSON can hold the value: a browser cannot parse a document that contains NaN."""
    return is_number(value, 1e30)
