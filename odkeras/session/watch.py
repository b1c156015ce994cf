"""Reports events of the trainer and the server as messages for the user.

    with Watch(loop.look, loop.project, tell=lambda item: print(item.text)): ...

`Watch` polls the status a few times a second, in its own thread. `news` compares two polled states and yields the
events between them.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from odkeras.control import PAUSED, STOPPED
from odkeras.project import JsonlTail, Project
from odkeras.version_names import VersionNames

POLL_S = 0.25

_MAP50 = re.compile(r"mAP(50|@0?\.50?(IOU)?)", re.IGNORECASE)

_log = logging.getLogger(__name__)

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Look:
    """A snapshot of the status of the trainer and the server.

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
class News:
    """An event, as a message for the user.

    Args:
        text: the message.
        urgent: whether it reports a problem.
        details: JSON-like data for a detailed view; None if there is none.
        version: the version that the message is about; None if it is about none.
    """

    text: str
    urgent: bool = False
    details: Any = None
    version: int | None = None

    @property
    def line(self) -> str:
        """The text with the version's number, which commands take as their argument."""
        known = self.version is None or f"version {self.version}" in self.text
        return self.text if known else f"{self.text} (version {self.version})"


def news(before: Look, now: Look, names: VersionNames) -> Iterator[News]:
    """Yields the events between two snapshots."""
    if now.failure and now.failure != before.failure:
        yield News(
            f"annotating goes on, but training or suggestions do not: {now.failure}",
            urgent=True,
            details=now.log or None,
        )
    if now.version != before.version:
        if now.version is not None:
            yield News(f"model of {names.of(now.version)} is served", version=now.version)
        elif before.version is not None:
            yield News(f"model of {names.of(before.version)} is no longer served", version=before.version)
    trainer, earlier = now.trainer or {}, before.trainer or {}
    if _stage(trainer) != _stage(earlier):
        yield from _news_of_the_trainer(trainer)


def _stage(trainer: Row) -> tuple[Any, ...]:
    """What must change for a trainer event. It includes the round's number while training, because consecutive rounds
    can have the same reason, with no poll between them."""
    state = trainer.get("state")
    return state, trainer.get("reason"), trainer.get("round") if state == "training" else None


def _news_of_the_trainer(trainer: Row) -> Iterator[News]:
    state, reason = trainer.get("state"), trainer.get("reason")
    if state == "training":
        where = f"round {trainer.get('round')}, {trainer.get('round_steps')} steps"
        yield News(f"trainer: {where}: {reason}", details=dict(trainer))
    elif state in (PAUSED, STOPPED) and state in str(reason):  # the reason names the state already
        yield News(f"trainer: {reason}", details=dict(trainer))
    elif state:
        yield News(f"trainer: {state}{f': {reason}' if reason else ''}", details=dict(trainer))


def news_of_row(row: Row, names: VersionNames) -> Iterator[News]:
    """Yields the events of a row of metrics.jsonl. The row must have been passed to `names.note` before."""
    kind = row.get("kind")
    if kind == "round":
        yield from _news_of_round(row, names)
    elif kind == "evaluation":
        failed = row.get("failed")
        said = f"failed: {failed}" if failed else _listed(row.get("metrics") or {})
        text = f"evaluation after round {row.get('round')}: {said}"
        yield News(text, urgent=bool(failed), details=row.get("metrics"))
    elif kind == "garbage":
        counts = [f"{len(row[name])} {name}" for name in ("versions", "records") if row.get(name)]
        if counts:
            yield News(f"deleted what is no longer kept: {', '.join(counts)}", details=dict(row))


def _news_of_round(row: Row, names: VersionNames) -> Iterator[News]:
    number = row.get("round")
    for problem in row.get("problems") or ():
        yield News(f"a box is left out of training: {problem}", urgent=True)
    if row.get("failed"):
        yield News(f"round {number} failed: {row['failed']}", urgent=True, details=dict(row))
        return
    loss = row.get("loss")
    told = "" if loss is None else f", loss {loss:.4g}"
    took = f" in {row['train_s']:.1f} s" if row.get("train_s") else ""
    text = f"round {number}: trained {row.get('steps')} steps on {row.get('examples')} images{took}{told}"
    yield News(text, details=dict(row))
    if row.get("checkpoint"):
        yield News(f"checkpoint {row['checkpoint']} saved")
    if row.get("outcome") == "held back":
        yield News(f"round {number} held back: {gate_text(row.get('gate') or {})}", details=row.get("gate"))
    elif row.get("version"):
        yield News(f"model of {names.of(row['version'])} published", version=row["version"])


def gate_text(gate: Mapping[str, Any]) -> str:
    """The comparison in a round's `gate` (see `training.gate.Comparison`), in words."""
    values = [gate.get(name) for name in ("value", "served_value", "tolerance")]
    value, served, tolerance = (f"{each:.3f}" if isinstance(each, (int, float)) else "not known" for each in values)
    return f"{gate.get('metric')} is {value}, and {served} in the version that is served (tolerance {tolerance})"


def news_of_rejected(row: Row) -> News:
    """The event of a row of rejected.jsonl."""
    return News(f"an answer cannot be trained on, and is kept in rejected.jsonl: {row.get('reason')}", urgent=True)


def _listed(metrics: Mapping[str, Any], most: int = 4) -> str:
    """The first `most` metrics as text; mAP and mAP50 come first, under these short names."""
    values = {name: value for name, value in metrics.items() if isinstance(value, float) and value >= 0}
    short = {name: found for name in values if (found := short_metric_name(name))}
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


class Watch:
    """Context manager that polls the status in its own thread until `close()`, which is idempotent.

    Args:
        look: returns the current snapshot; may raise. It must read the trainer's status last: metrics.jsonl then has
            all rounds that the status implies, and their events are reported before those of the status.
        project: the project's directories.
        tell: callback for each event.
        on_look: callback for each snapshot, changed or not, after its events.
        poll_s: seconds between polls.
    """

    def __init__(
        self,
        look: Callable[[], Look],
        project: Project,
        tell: Callable[[News], None],
        *,
        on_look: Callable[[Look], None] | None = None,
        poll_s: float = POLL_S,
    ) -> None:
        self._look = look
        self._tell = tell
        self._on_look = on_look or (lambda look: None)
        self._poll_s = poll_s
        self._metrics = JsonlTail(project.metrics_path)
        self._rejected = JsonlTail(project.rejected_path)
        self._names = VersionNames()
        self._seen = Look()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="odkeras-watch", daemon=True)

    def __enter__(self) -> Watch:
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
                self.look_once()
            except Exception as error:  # a failed poll must not end the reports, nor the annotation
                if repr(error) != problem:
                    _log.exception("cannot see what the trainer and the server do")
                problem = repr(error)

    def look_once(self) -> None:
        """Poll once, and report the events since the last poll."""
        before, now = self._seen, self._look()
        self._seen = now
        for row in self._metrics.read():
            self._names.note(row)
            for item in news_of_row(row, self._names):
                self._tell(item)
        for row in self._rejected.read():
            self._tell(news_of_rejected(row))
        for item in news(before, now, self._names):
            self._tell(item)
        self._on_look(now)
