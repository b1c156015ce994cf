"""The controller: runs what a recipe returned."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from prodigy.components.db import open_database
from prodigy.configuration import prodigy_home, resolve_config
from prodigy.eras import Era, current_era
from prodigy.feed import Feed, Session
from prodigy.hashing import INPUT_HASH_ATTR, SESSION_ID_ATTR, TASK_HASH_ATTR
from prodigy.progress import Progress
from prodigy.settings import check_components
from prodigy.util import log
from prodigy.wire import over_the_wire
from prodigy.workers import Workers

Task = dict[str, Any]
DECISIONS = ("accept", "reject", "ignore")


class Controller:
    """Hands out batches of tasks and takes answers, each on another thread.

    In a test: `with Controller.from_components(name, recipe(...), version="1.8") as controller`, which calls `on_load`
    and `on_exit` as the server does. Without `with`, `on_load` is called at the first batch, `on_exit` by `save()`.
    """

    def __init__(self, name: str, components: Mapping[str, Any], era: Era | None = None) -> None:
        self.era = era or current_era()
        self._components = check_components(name, components, self.era)
        self.name = name
        self.dataset: str | bool = self._components["dataset"]
        self.view_id: str = self._components["view_id"]
        self.config = resolve_config(self._components["config"] or {}, self.era)
        self.batch_size = int(self.config["batch_size"])
        self.home = prodigy_home()
        self.db = open_database(self._components["db"], self.era)
        self.session_annotated = 0
        make_id = self._components["get_session_id"] or (lambda: time.strftime("%Y-%m-%d_%H-%M-%S"))
        self.session_id: str = make_id()
        self._stored_before = len(self._stored())
        self._updates_before_db = self.era.updates_before_db
        self._lock = threading.RLock()
        self._workers = Workers()
        self._sessions: dict[str, Session] = {}
        self._started = self._saved = False
        self._feed = self._make_feed()
        self._add_newer_attributes()

    @classmethod
    def from_components(cls, name: str, components: Mapping[str, Any], version: str | None = None) -> Controller:
        """`version` is the double's: the one of the environment when None."""
        return cls(name, components, Era(version) if version else None)

    def _make_feed(self) -> Feed:
        stream = self._components["stream"]
        if self.config.get("auto_count_stream") and self.era.since("1.10"):
            stream = list(stream)  # which is why a recipe with a model in the loop must not ask for it
        self._progress = Progress(self._components["progress"], stream, self.era.progress_generation)
        exclude_by = self.config["exclude_by"] if self.era.since("1.10") else "task"
        self._hash_key = {"task": TASK_HASH_ATTR, "input": INPUT_HASH_ATTR}[exclude_by]
        return Feed(
            stream,
            view_id=self.view_id,
            hash_key=self._hash_key,
            overlap=bool(self.config["feed_overlap"]),
            keep_order=bool(self.config["force_stream_order"]),
        )

    def _add_newer_attributes(self) -> None:
        if self.era.since("1.10"):
            self.exclude_by = self.config["exclude_by"]
        if self.era.since("1.12"):
            self.stream = self._components["stream"]
            self.get_session_name = self.session_named
            self.session_ids = self.all_session_ids = [self.session_id]

    def __enter__(self) -> Controller:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.save()
        self._workers.close()

    def start(self) -> None:
        """Once: makes the dataset, calls `on_load`."""
        with self._lock:
            if self._started:
                return
            self._started = True
            if self.db and self.dataset and self.dataset not in self.db:
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

    @property
    def progress(self) -> float | None:
        """As of the last batch or answers; None shows as ∞."""
        return self._progress.value

    def session_named(self, name: str | None) -> str:
        """`<dataset>-<name>`; names that look like this already stay, no name is the default session."""
        if name is None or name == self.session_id:
            return self.session_id
        return name if name.startswith(f"{self.dataset}-") else f"{self.dataset}-{name}"

    def get_questions(self, session_id: str | None = None) -> list[Task]:
        self.start()
        session = self._session(session_id)
        return self._workers.run(lambda: self._next_batch(session))

    def validate_answer(self, answer: Task) -> None:
        """What the UI asks before it takes an answer: raises what the recipe raises."""
        if validate := self._components["validate_answer"]:
            self._workers.run(lambda: validate(over_the_wire(answer)))

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
        self._progress.compute(self, session, [], None)
        return tasks

    def _take_in(self, session: Session, answers: list[Task]) -> None:
        log(f"CONTROLLER: {len(answers)} answers of session {session.id}")
        if self._updates_before_db:
            self._update(session, answers)
            self._store(self._edited(answers))
        else:
            edited = self._edited(answers)
            self._store(edited)
            self._update(session, edited)

    def _update(self, session: Session, answers: list[Task]) -> None:
        update = self._components["update"]
        returned = update(answers) if update else None
        with self._lock:
            self.session_annotated += len(answers)
            session.total_annotated += len(answers)
        self._feed.answered(session, answers)
        self._progress.compute(self, session, answers, returned)

    def _edited(self, answers: list[Task]) -> list[Task]:
        before_db = self._components["before_db"]
        edited = before_db(answers) if before_db else answers
        if not isinstance(edited, list):
            raise TypeError(f"before_db must return the list of examples; got {type(edited).__name__}")
        return edited

    def _store(self, answers: list[Task]) -> None:
        if self.db and self.dataset:
            self.db.add_examples(answers, datasets=[self.dataset])

    def _stored(self) -> list[Task]:
        return (self.db.get_dataset(self.dataset) or []) if self.db and self.dataset else []

    def _session(self, session_id: str | None) -> Session:
        name = self.session_named(session_id)
        with self._lock:
            if name not in self._sessions:
                self._sessions[name] = Session(name)
                if self.era.since("1.12") and name not in self.session_ids:
                    self.session_ids.append(name)
            return self._sessions[name]

    def _excluded_for(self, session: Session) -> set[int]:
        """With `feed_overlap`, what a named session has answered; else, and without a name, what anyone has."""
        excluded = self._hashes_in(self._components["exclude"] or [])
        if self.db and self.dataset and self.config["auto_exclude_current"]:
            if self.config["feed_overlap"] and session.id != self.session_id:
                own = [example for example in self._stored() if example.get(SESSION_ID_ATTR) == session.id]
                excluded |= {example[self._hash_key] for example in own}
            else:
                excluded |= self._hashes_in([self.dataset])
        return excluded

    def _hashes_in(self, datasets: Sequence[str | bool]) -> set[int]:
        if not self.db or not datasets:
            return set()
        by_input = self._hash_key == INPUT_HASH_ATTR
        return set(self.db.get_input_hashes(*datasets) if by_input else self.db.get_task_hashes(*datasets))
