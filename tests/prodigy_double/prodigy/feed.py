"""Batches of tasks for sessions, pulled lazily from one shared stream."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from prodigy.hashing import set_hashes
from prodigy.wire import check_task, over_the_wire

Task = dict[str, Any]
GIVE_UP_AFTER = 10_000


@dataclass
class Session:
    """One annotator's session, or the default one of all who give no name."""

    id: str
    total_annotated: int = 0
    unanswered: dict[int, Task] = field(default_factory=dict)
    cursor: _Cursor = field(default_factory=lambda: _Cursor())


@dataclass
class _Cursor:
    """How many of the pulled tasks have been passed."""

    position: int = 0


class Feed:
    """Hands out tasks; one pull at a time, none before it is needed.

    A batch takes exactly as many tasks from the stream as it has, plus those that are dropped: excluded ones, and ones
    with the hash of an earlier one.

    Args:
        stream: yields the tasks.
        view_id: how they are shown.
        hash_key: what tells tasks apart.
        overlap: every session gets every task; else a task goes to the session that asks first.
        keep_order: tasks are sent again until they have been answered; else those never answered are lost.
    """

    def __init__(self, stream: Iterable[Task], *, view_id: str, hash_key: str, overlap: bool, keep_order: bool) -> None:
        self.pulled = 0
        self._tasks = iter(stream)
        self._view_id = view_id
        self._hash_key = hash_key
        self._overlap = overlap
        self._keep_order = keep_order
        self._log: list[Task] = []
        self._seen: set[int] = set()
        self._shared = _Cursor()
        self._lock = threading.Lock()

    def batch(self, session: Session, size: int, excluded: Collection[int]) -> list[Task]:
        with self._lock:
            again = list(session.unanswered.values())[:size] if self._keep_order else []
            new = list(islice(self._unseen_by(session, excluded), size - len(again)))
            session.unanswered |= {task[self._hash_key]: task for task in new}
            return over_the_wire(again + new)

    def answered(self, session: Session, answers: Iterable[Task]) -> None:
        with self._lock:
            for answer in answers:
                session.unanswered.pop(answer.get(self._hash_key, 0), None)

    def _unseen_by(self, session: Session, excluded: Collection[int]) -> Iterator[Task]:
        cursor = session.cursor if self._overlap else self._shared
        while True:
            if cursor.position == len(self._log) and not self._pull():
                return
            cursor.position += 1
            task = self._log[cursor.position - 1]
            if task[self._hash_key] not in excluded:
                yield task

    def _pull(self) -> bool:
        """Adds the next new task to the log; False when there is none."""
        for _ in range(GIVE_UP_AFTER):
            task = next(self._tasks, None)
            if task is None:
                return False
            self.pulled += 1
            check_task(task, self._view_id)
            task = over_the_wire(set_hashes(task))
            if task[self._hash_key] not in self._seen:
                self._seen.add(task[self._hash_key])
                self._log.append(task)
                return True
        raise RuntimeError(f"the stream repeats itself: {GIVE_UP_AFTER} tasks in a row had a hash seen before")
