"""What a session reports to its front end: a `Listener` gets an `Event` for each message and a `SessionStatus` for each
poll.

`StatusWatcher` polls the trainer and the server a few times a second, in its own thread. `events_between` compares two
polled states and yields the events between them.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from odkeras.annotation import Task
from odkeras.project import JsonlTail, Project
from odkeras.version_names import VersionNames

POLL_S = 0.25

_MAP50 = re.compile(r"mAP(50|@0?\.50?(IOU)?)", re.IGNORECASE)

_log = logging.getLogger(__name__)

Row = Mapping[str, Any]


@dataclass(frozen=True)
class SessionStatus:
    """A snapshot of the trainer and the server.

    Args:
        trainer: content of status.json; None before the trainer has written it.
        version: the version being served; None while the server is down or loading.
        failure: why the trainer or the server was given up, in one sentence; "" without a failure.
        log: the last lines of the failed process's log; "" without a failure.
        failed: "trainer" or "server", whichever failed; "" if unknown or neither.
    """

    trainer: Row | None = None
    version: int | None = None
    failure: str = ""
    log: str = ""
    failed: str = ""


@dataclass(frozen=True)
class Event:
    """An event, as a message for the user.

    Args:
        text: the message.
        urgent: whether it reports a problem.
        details: JSON-like data, or the end of a log, for a detailed view; None if there is none.
        version: the version that the message is about; None if it is about none.
    """

    text: str
    urgent: bool = False
    details: Any = None
    version: int | None = None

    @classmethod
    def problem(cls, text: str) -> Event:
        """The event for a message whose first line says what is wrong; the other lines are its details."""
        first, _, rest = text.partition("\n")
        return cls(first, urgent=True, details=rest or None)

    @property
    def line(self) -> str:
        """The text with the version's number, which commands take as their argument."""
        is_named = self.version is None or f"version {self.version}" in self.text
        return self.text if is_named else f"{self.text} (version {self.version})"


class Listener:
    """Receives what a session reports; the methods of this class do nothing. A front end overrides those it needs.

    The calls come from several threads. Exceptions (a closed terminal, a full disk) are suppressed by the session.
    """

    def event(self, event: Event) -> None:
        """A message for the user."""

    def status(self, status: SessionStatus) -> None:
        """The state after each poll, a few times a second, whether it changed or not."""

    def suggested(self, task: Task, seconds: float) -> None:
        """A task got its suggestions; the prediction took `seconds`."""

    def skipped(self, name: str, reason: str) -> None:
        """An image of the source cannot be used."""


class UnfailingListener(Listener):
    """Suppresses the exceptions of another listener (closed terminal, full disk): they must not end the caller."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def event(self, event: Event) -> None:
        with suppress(Exception):
            self._listener.event(event)

    def status(self, status: SessionStatus) -> None:
        with suppress(Exception):
            self._listener.status(status)

    def suggested(self, task: Task, seconds: float) -> None:
        with suppress(Exception):
            self._listener.suggested(task, seconds)

    def skipped(self, name: str, reason: str) -> None:
        with suppress(Exception):
            self._listener.skipped(name, reason)


def events_between(before: SessionStatus, now: SessionStatus, names: VersionNames) -> Iterator[Event]:
    """Yields the events between two snapshots."""
    if now.failure and now.failure != before.failure:
        yield Event(
            f"training or suggestions failed, annotation continues: {now.failure}",
            urgent=True,
            details=now.log or None,
        )
    if before.failure and not now.failure:
        yield Event("training and suggestions work again")
    if now.version != before.version:
        if now.version is not None:
            yield Event(f"model of {names.of(now.version)} is served", version=now.version)
        elif before.version is not None:
            yield Event(f"model of {names.of(before.version)} is no longer served", version=before.version)
    trainer, earlier = now.trainer or {}, before.trainer or {}
    if _stage(trainer) != _stage(earlier):
        yield from _events_of_trainer(trainer)


def _stage(trainer: Row) -> tuple[Any, ...]:
    """What must change for a trainer event. It includes the round's number while training, because consecutive rounds
    can have the same reason, with no poll between them."""
    state = trainer.get("state")
    return state, trainer.get("reason"), trainer.get("round") if state == "training" else None


def _events_of_trainer(trainer: Row) -> Iterator[Event]:
    state, reason = trainer.get("state"), trainer.get("reason")
    if state == "training":
        where = f"round {trainer.get('round')}, {trainer.get('round_steps')} steps"
        yield Event(f"trainer: {where}: {reason}", details=dict(trainer))
    elif state and str(state) in str(reason):  # the reason names the state already: "building: building the model"
        yield Event(f"trainer: {reason}", details=dict(trainer))
    elif state:
        yield Event(f"trainer: {state}{f': {reason}' if reason else ''}", details=dict(trainer))


def events_of_row(row: Row, names: VersionNames) -> Iterator[Event]:
    """Yields the events of a row of metrics.jsonl. The row must have been passed to `names.note` before."""
    kind = row.get("kind")
    if kind == "round":
        yield from _events_of_round(row, names)
    elif kind == "extra":
        yield from _events_of_training(row, f"round {row.get('round')}, further", names)
    elif kind == "evaluation":
        failed = row.get("failed")
        outcome = f"failed: {failed}" if failed else _listed(row.get("metrics") or {})
        text = f"evaluation after round {row.get('round')}: {outcome}"
        yield Event(text, urgent=bool(failed), details=row.get("metrics"))
    elif kind == "garbage":
        counts = [f"{len(row[name])} {name}" for name in ("versions", "records") if row.get(name)]
        if counts:
            yield Event(f"deleted old files: {', '.join(counts)}", details=dict(row))


def _events_of_round(row: Row, names: VersionNames) -> Iterator[Event]:
    number = row.get("round")
    for problem in row.get("problems") or ():
        yield Event(f"a box is excluded from training: {problem}", urgent=True)
    if row.get("failed"):
        yield Event(f"round {number} failed: {row['failed']}", urgent=True, details=dict(row))
        return
    yield from _events_of_training(row, f"round {number}", names)


def _events_of_training(row: Row, number: str, names: VersionNames) -> Iterator[Event]:
    loss = row.get("loss")
    loss_text = "" if loss is None else f", loss {loss:.4g}"
    took = f" in {row['train_s']:.1f} s" if row.get("train_s") else ""
    text = f"{number}: trained {row.get('steps')} steps on {row.get('examples')} images{took}{loss_text}"
    yield Event(text, details=dict(row))
    if row.get("checkpoint"):
        yield Event(f"checkpoint {row['checkpoint']} saved")
    if row.get("outcome") == "held back":
        yield Event(f"{number} held back: {gate_text(row.get('gate') or {})}", details=row.get("gate"))
    elif row.get("version"):
        yield Event(f"model of {names.of(row['version'])} published", version=row["version"])


def gate_text(gate: Mapping[str, Any]) -> str:
    """The comparison in a round's `gate` (see `training.publishing.Comparison`), in words."""
    values = [gate.get(name) for name in ("value", "served_value", "tolerance")]
    value, served, tolerance = (
        f"{number:.3f}" if isinstance(number, (int, float)) else "not known" for number in values
    )
    return f"{gate.get('metric')} is {value}, and {served} in the version that is served (tolerance {tolerance})"


def event_of_rejected(row: Row) -> Event:
    """The event of a row of rejected.jsonl."""
    return Event(f"an answer cannot be used for training (see rejected.jsonl): {row.get('reason')}", urgent=True)


def _listed(metrics: Mapping[str, Any], most: int = 4) -> str:
    """The first `most` metrics as text; mAP and mAP50 come first, under these short names."""
    values = {name: value for name, value in metrics.items() if isinstance(value, float) and value >= 0}
    short = {name: short_name for name in values if (short_name := short_metric_name(name))}
    first = sorted(short, key=lambda name: short[name])
    others = [name for name in values if name not in short]
    shown = [f"{short.get(name, name)} {values[name]:.3f}" for name in (*first, *others)]
    return ", ".join(shown[:most]) or "no figures"


def short_metric_name(name: str) -> str:
    """ "mAP" or "mAP50" if `name` is what one of the API's metric sets calls that metric; "" for any other."""
    last = name.rpartition("/")[2]
    if last == "mAP":
        return "mAP"
    return "mAP50" if _MAP50.fullmatch(last) else ""


class StatusWatcher:
    """Context manager that polls the status in its own thread until `close()`, which is idempotent.

    Args:
        poll: returns the current snapshot; may raise. It must read the trainer's status last: metrics.jsonl then has
            all rounds that the status implies, and their events are reported before those of the status.
        project: the project's directories.
        listener: receives each event, and after these the snapshot.
        poll_s: seconds between polls.
    """

    def __init__(
        self, poll: Callable[[], SessionStatus], project: Project, listener: Listener, *, poll_s: float = POLL_S
    ) -> None:
        self._poll = poll
        self._listener = listener
        self._poll_s = poll_s
        self._metrics = JsonlTail(project.metrics_path)
        self._rejected = JsonlTail(project.rejected_path)
        self._names = VersionNames()
        self._last = SessionStatus()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="odkeras-watch", daemon=True)

    def __enter__(self) -> StatusWatcher:
        for row in self._metrics.read():  # rows of earlier runs: needed for names, not reported
            self._names.note(row)
        self._rejected.skip()
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop polling. Idempotent. Waits at most 5 s for a poll that is running."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5.0)

    def _run(self) -> None:
        problem = ""
        while not self._stop.wait(self._poll_s):
            try:
                self.poll_once()
            except Exception as error:  # a failed poll must not end the reports, nor the annotation
                if repr(error) != problem:
                    _log.exception("the status of the trainer and the server cannot be read")
                problem = repr(error)

    def poll_once(self) -> None:
        """Poll once, and report the events since the last poll."""
        before, now = self._last, self._poll()
        self._last = now
        for row in self._metrics.read():
            self._names.note(row)
            for event in events_of_row(row, self._names):
                self._listener.event(event)
        for row in self._rejected.read():
            self._listener.event(event_of_rejected(row))
        for event in events_between(before, now, self._names):
            self._listener.event(event)
        self._listener.status(now)
