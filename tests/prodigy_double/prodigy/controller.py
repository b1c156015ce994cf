"""The controller: runs what a recipe returned."""

from __future__ import annotations

import inspect
import math
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from prodigy.components.db import connect
from prodigy.configuration import resolve_config
from prodigy.eras import Era, current_era
from prodigy.feed import Feed, Session
from prodigy.hashing import INPUT_HASH_ATTR, SESSION_ID_ATTR, TASK_HASH_ATTR
from prodigy.util import log
from prodigy.wire import check_plain, over_the_wire
from prodigy.workers import Workers

Task = dict[str, Any]
DECISIONS = ("accept", "reject", "ignore")
REQUIRED = ("dataset", "view_id", "stream")
OPTIONAL = ("update", "progress", "on_load", "on_exit", "exclude", "config")
SINCE_1_10 = ("before_db",)


class Controller:
    """Hands out batches of tasks and takes answers, each on another thread.

    In a test: `with Controller.from_components(name, recipe(...)) as controller`, which calls `on_load` and `on_exit`
    as the server does. Without `with`, `on_load` is called at the first batch, `on_exit` by `save()`.
    """

    def __init__(self, name: str, components: Mapping[str, Any]) -> None:
        self.era = current_era()
        self._components = check_components(name, components, self.era)
        self.dataset: str = self._components["dataset"]
        self.view_id: str = self._components["view_id"]
        self.config = resolve_config(self._components["config"] or {}, self.era)
        self.batch_size = int(self.config["batch_size"])
        self.db = connect()
        self.progress: float | None = None  # as of the last batch or answers; None shows as ∞
        self.session_annotated = 0
        self.session_id = time.strftime("%Y-%m-%d_%H-%M-%S")
        self._stored_before = len(self.db.get_dataset(self.dataset) or [])
        self._lock = threading.RLock()
        self._workers = Workers()
        self._sessions: dict[str, Session] = {}
        self._started = self._saved = False
        exclude_by = self.config["exclude_by"] if self.era.since("1.10") else "task"
        self._hash_key = {"task": TASK_HASH_ATTR, "input": INPUT_HASH_ATTR}[exclude_by]
        self._feed = Feed(
            self._components["stream"],
            view_id=self.view_id,
            hash_key=self._hash_key,
            overlap=bool(self.config["feed_overlap"]),
            keep_order=bool(self.config["force_stream_order"]),
        )

    @classmethod
    def from_components(cls, name: str, components: Mapping[str, Any]) -> Controller:
        return cls(name, components)

    def __enter__(self) -> Controller:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.save()
        self._workers.close()

    def start(self) -> None:
        """Once: makes the dataset, calls `on_load`."""
        with self._lock:
            if self._started:
                return
            self._started = True
            self.db.add_dataset(self.dataset)
            if on_load := self._components["on_load"]:
                on_load(self)

    def save(self) -> None:
        """What happens when the server stops, once: calls `on_exit`."""
        with self._lock:
            if self._saved or not self._started:
                return
            self._saved = True
            if on_exit := self._components["on_exit"]:
                on_exit(self)

    @property
    def pulled(self) -> int:
        """How many tasks were taken from the stream."""
        return self._feed.pulled

    @property
    def total_annotated(self) -> int:
        return self._stored_before + self.session_annotated

    def session_named(self, name: str | None) -> str:
        """`<dataset>-<name>`; names that look like this already stay, no name is the default session."""
        if name is None or name == self.session_id:
            return self.session_id
        return name if name.startswith(f"{self.dataset}-") else f"{self.dataset}-{name}"

    def get_questions(self, session_id: str | None = None) -> list[Task]:
        self.start()
        session = self._session(session_id)
        return self._workers.run(lambda: self._next_batch(session))

    def receive_answers(self, answers: Sequence[Task], session_id: str | None = None) -> None:
        """Raises what `update` or `before_db` raises; then the answers are lost if they were not stored yet."""
        self.start()
        received = over_the_wire(list(answers))
        for answer in received:
            if answer.get("answer") not in DECISIONS:
                raise ValueError(f"answer must be one of {', '.join(DECISIONS)}; got {answer.get('answer')!r}")
        session = self._session(session_id or next((answer.get(SESSION_ID_ATTR) for answer in received), None))
        self._workers.run(lambda: self._take_in(session, received))

    def _next_batch(self, session: Session) -> list[Task]:
        log(f"CONTROLLER: batch of {self.batch_size} tasks for session {session.id}")
        tasks = self._feed.batch(session, self.batch_size, self._excluded_for(session))
        self._compute_progress(session, [], None)
        return tasks

    def _take_in(self, session: Session, answers: list[Task]) -> None:
        if self.era.updates_before_db:
            self._update(session, answers)
            self.db.add_examples(self._edited(answers), datasets=[self.dataset])
        else:
            edited = self._edited(answers)
            self.db.add_examples(edited, datasets=[self.dataset])
            self._update(session, edited)

    def _update(self, session: Session, answers: list[Task]) -> None:
        update = self._components["update"]
        returned = update(answers) if update else None
        with self._lock:
            self.session_annotated += len(answers)
            session.total_annotated += len(answers)
        self._feed.answered(session, answers)
        self._compute_progress(session, answers, returned)

    def _edited(self, answers: list[Task]) -> list[Task]:
        before_db = self._components["before_db"]
        edited = before_db(answers) if before_db else answers
        if not isinstance(edited, list):
            raise TypeError(f"before_db must return the list of examples; got {type(edited).__name__}")
        return edited

    def _compute_progress(self, session: Session, answers: list[Task], returned: Any) -> None:
        """`progress` has had three signatures."""
        if (progress := self._components["progress"]) is None:
            return
        arguments: tuple[Any, ...] = (self, returned)
        if not self.era.since("1.10"):
            arguments = (self.session_annotated, self.total_annotated, returned)
        elif self.era.since("1.12") and len(inspect.signature(progress).parameters) == 4:
            arguments = (self, session, answers, returned)
        self.progress = progress(*arguments)
        if self.progress is not None and not (math.isfinite(self.progress) and 0 <= self.progress <= 1):
            raise ValueError(f"progress must be between 0 and 1; got {self.progress!r}")

    def _session(self, session_id: str | None) -> Session:
        name = self.session_named(session_id)
        with self._lock:
            return self._sessions.setdefault(name, Session(name))

    def _excluded_for(self, session: Session) -> set[int]:
        """With `feed_overlap`, what a named session has answered; else, and without a name, what anyone has."""
        excluded = self._hashes_in(*(self._components["exclude"] or []))
        if self.config["feed_overlap"] and session.id != self.session_id:
            stored = self.db.get_dataset(self.dataset) or []
            return excluded | {row[self._hash_key] for row in stored if row.get(SESSION_ID_ATTR) == session.id}
        return excluded | self._hashes_in(self.dataset)

    def _hashes_in(self, *datasets: str) -> set[int]:
        by_input = self._hash_key == INPUT_HASH_ATTR
        return self.db.get_input_hashes(*datasets) if by_input else self.db.get_task_hashes(*datasets)


def check_components(name: str, components: Mapping[str, Any], era: Era) -> dict[str, Any]:
    """All components that the recipes of odkeras return, None for those that are not there; keys of later versions are
    left out. How tolerant Prodigy is of keys that it does not know is unknown: they are refused.

    Raises:
        TypeError: a component of the wrong type.
        ValueError: components that are missing or unknown.
    """
    if unknown := set(components) - {*REQUIRED, *OPTIONAL, *SINCE_1_10}:
        raise ValueError(f"recipe {name} returns unknown components: {', '.join(unknown)}")
    known = {**dict.fromkeys((*REQUIRED, *OPTIONAL)), **components}
    known["before_db"] = components.get("before_db") if era.since("1.10") else None
    if missing := [key for key in REQUIRED if not known[key]]:
        raise ValueError(f"recipe {name} returns no {', '.join(missing)}")
    for key in ("update", "progress", "on_load", "on_exit", "before_db"):
        if known[key] is not None and not callable(known[key]):
            raise TypeError(f"recipe {name}: {key} must be callable or None; got {known[key]!r}")
    check_plain([known["exclude"], known["config"]], "exclude and config")
    return known
