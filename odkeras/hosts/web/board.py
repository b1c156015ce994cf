"""Who is asked about which image: tasks are handed out, come back if nobody answers, and are answered.

    stream ──► open tasks of a tab ──► answered
                   ▲        │
                   └─ free ◄┘  (the tab is gone)

Each image is given to one tab of one session; with `overlap` to one tab of each session.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from odkeras.formats.prodigy import Task

GONE_AFTER_S = 20.0
"""A tab that is not connected and has not asked for anything for so long is gone. A reload takes a second or two, a
phone in a pocket may sleep for longer: then its answers count all the same."""


@dataclass(frozen=True)
class Tab:
    """One open page of a session."""

    session: str
    name: str


@dataclass(frozen=True)
class Handout:
    """What a tab gets.

    Args:
        tasks: to be shown, in this order.
        done: nothing is left for this session.
        waiting: why there is nothing now; "" if there is, or all is done.
    """

    tasks: tuple[Task, ...] = ()
    done: bool = False
    waiting: str = ""


@dataclass
class _Presence:
    seen_at: float
    connections: int = 0


@dataclass
class _Queue:
    """The tasks of those who share them: of everybody, or with overlap of one session."""

    answered: set[str]
    free: deque[str] = field(default_factory=deque)
    held: dict[str, Tab] = field(default_factory=dict)
    claimed: dict[str, Tab] = field(default_factory=dict)  # by tabs that an earlier run gave them to
    position: int = 0  # in `_order`, the tasks as they came out of the stream


class TaskBoard:
    """May be used by several threads.

    Args:
        stream: the tasks, with light images (a path, not the bytes): they are kept while they are open.
        answered: ids of the images that a session has answered; asked once for each session, with None for all.
        overlap: every session is asked about every image.
        refresh: tasks that were handed out before, with the newest model's suggestions, in the same order.
        is_fresh: whether a task's suggestions are still the newest.
        on_free: told when tasks came back.
        clock: for tests.
    """

    def __init__(
        self,
        stream: Iterator[Task],
        *,
        answered: Callable[[str | None], set[str]],
        overlap: bool = False,
        refresh: Callable[[Sequence[Task]], list[Task]] = list,
        is_fresh: Callable[[Task], bool] = lambda task: True,
        on_free: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._answered_before = answered
        self._overlap = overlap
        self._refresh = refresh
        self._is_fresh = is_fresh
        self._on_free = on_free
        self._clock = clock
        self._lock = threading.RLock()
        self._pulling = threading.Lock()
        self._tasks: dict[str, Task] = {}
        self._earlier: dict[str, dict[int | None, Task]] = {}  # by image and version: what was shown before
        self._order: list[str] = []
        self._exhausted = False
        self._queues: dict[str | None, _Queue] = {}
        self._tabs: dict[Tab, _Presence] = {}

    def next_tasks(self, tab: Tab, count: int, have: Collection[str] = ()) -> Handout:
        """Up to `count` tasks that the tab does not have yet: its own open ones (a page was loaded again), then those
        that came back, then new ones. May take as long as a prediction."""
        self.touch(tab)
        queue = self._queue_of(tab.session)
        self._claim(queue, tab, have)
        found = self._open_tasks(queue, tab, have, count)
        if len(found) < count:
            found += self._up_to_date(self._take_free(queue, tab, count - len(found)))
        while len(found) < count:
            task = self._pull(queue, tab, have)
            if task is None:
                break
            found.append(task)
        return Handout(tuple(found)) if found else self._nothing(queue, tab)

    def take(self, tab: Tab, image_id: str, load: Callable[[], Task]) -> Task | None:
        """One image out of its turn; None if another tab has it, or it is answered. May take as long as a prediction.

        Args:
            load: makes the task of an image that has not come out of the stream; what it raises is raised.
        """
        self.touch(tab)
        queue = self._queue_of(tab.session)
        with self._lock:
            if image_id in queue.answered or queue.held.get(image_id, tab) != tab:
                return None
            task = self._tasks.get(image_id)
        task = task or load()
        with self._lock:
            if image_id in queue.answered or queue.held.get(image_id, tab) != tab:
                return None  # somebody was faster
            if image_id in queue.free:
                queue.free.remove(image_id)
            queue.claimed.pop(image_id, None)
            queue.held[image_id] = tab
            task = self._tasks.setdefault(image_id, task)
        return self._up_to_date([task])[0]

    def holder(self, session: str, image_id: str) -> Tab | None:
        """The tab that has an image, of those that share the session's tasks."""
        queue = self._queue_of(session)
        with self._lock:
            return queue.held.get(image_id)

    def open_tasks(self, session: str) -> list[Task]:
        """The tasks that are handed out, or came back, of those who share the session's tasks."""
        queue = self._queue_of(session)
        with self._lock:
            return [self._tasks[each] for each in [*queue.held, *queue.free] if each in self._tasks]

    def suggest_again(self, tab: Tab, image_ids: Sequence[str]) -> list[Task]:
        """Those of the tab's open tasks for which a newer model has suggestions, with these."""
        self.touch(tab)
        queue = self._queue_of(tab.session)
        with self._lock:
            mine = [self._tasks[each] for each in image_ids if queue.held.get(each) == tab and each in self._tasks]
        fresh = self._up_to_date(mine)
        changed = [(old, new) for old, new in zip(mine, fresh, strict=True) if new is not old]
        with self._lock:
            for old, _ in changed:  # somebody may look at it, and judge these
                if old["image_id"] in self._tasks:
                    self._earlier.setdefault(old["image_id"], {})[_version_of(old)] = old
        return [new for _, new in changed]

    def task(self, image_id: str, version: Any = None) -> Task | None:
        """A task that is open, or answered a moment ago; with the suggestions of that version if it had them before."""
        with self._lock:
            newest = self._tasks.get(image_id)
            if newest is None or _version_of(newest) == version:
                return newest
            found = self._earlier.get(image_id, {}).get(version) if isinstance(version, int) else None
            return found or newest

    def note_answered(self, session: str, image_id: str) -> None:
        """An answer is stored: the image is not asked for again."""
        queue = self._queue_of(session)
        with self._lock:
            queue.answered.add(image_id)
            queue.claimed.pop(image_id, None)
            queue.held.pop(image_id, None)
            if image_id in queue.free:
                queue.free.remove(image_id)
            self._forget(image_id)

    def reopen(self, tab: Tab, image_id: str, task: Task) -> None:
        """An answered image is looked at again by a tab."""
        self.touch(tab)
        if self._overlap:
            return  # others are asked about it too, and are not to see this answer
        queue = self._queue_of(tab.session)
        with self._lock:
            if image_id not in queue.held:
                self._tasks.setdefault(image_id, task)

    def touch(self, tab: Tab) -> None:
        """The tab is there."""
        with self._lock:
            self._tabs.setdefault(tab, _Presence(0.0)).seen_at = self._clock()

    def connect(self, tab: Tab) -> None:
        """The tab listens to events; it is there until `disconnect`."""
        self.touch(tab)
        with self._lock:
            self._tabs[tab].connections += 1

    def disconnect(self, tab: Tab) -> None:
        self.touch(tab)
        with self._lock:
            self._tabs[tab].connections -= 1

    def release_gone(self) -> int:
        """Take back the tasks of tabs that are gone; returns how many. To be called now and then."""
        with self._lock:
            gone = {tab for tab, presence in self._tabs.items() if self._is_gone(presence)}
            freed = sum(_release(queue, gone) for queue in self._queues.values())
            for tab in gone:
                del self._tabs[tab]
        if freed:
            self._on_free()
        return freed

    def sessions_here(self) -> set[str]:
        """Names of the sessions with an open page."""
        with self._lock:
            return {tab.session for tab, presence in self._tabs.items() if not self._is_gone(presence)}

    def all_answered(self) -> bool:
        """Whether no image is left for anybody who has been here. Not before somebody has asked for the last one."""
        with self._lock:
            if not self._exhausted:
                return False
            return not any(queue.held or queue.free or self._is_behind(queue) for queue in self._queues.values())

    def _is_gone(self, presence: _Presence) -> bool:
        return presence.connections <= 0 and self._clock() - presence.seen_at > GONE_AFTER_S

    def _queue_of(self, session: str) -> _Queue:
        audience = session if self._overlap else None
        queue = self._queues.get(audience)
        if queue is None:
            answered = self._answered_before(audience)  # asks the database: nobody is to wait for that
            with self._lock:
                queue = self._queues.setdefault(audience, _Queue(answered=answered))
        return queue

    def _claim(self, queue: _Queue, tab: Tab, have: Collection[str]) -> None:
        """A tab that was away for long still shows its tasks: they are its own again, unless somebody took them. So
        are those that it got before we were started again, once they come out of the stream."""
        with self._lock:
            for image_id in have:
                if image_id in queue.free:
                    queue.free.remove(image_id)
                    queue.held[image_id] = tab
                elif image_id not in queue.held and image_id not in queue.answered:
                    queue.claimed[image_id] = tab

    def _open_tasks(self, queue: _Queue, tab: Tab, have: Collection[str], count: int) -> list[Task]:
        with self._lock:
            mine = [each for each, holder in queue.held.items() if holder == tab and each not in have]
            return [self._tasks[each] for each in mine[:count]]

    def _take_free(self, queue: _Queue, tab: Tab, count: int) -> list[Task]:
        taken: list[Task] = []
        with self._lock:
            while queue.free and len(taken) < count:
                image_id = queue.free.popleft()
                queue.held[image_id] = tab
                taken.append(self._tasks[image_id])
        return taken

    def _pull(self, queue: _Queue, tab: Tab, have: Collection[str]) -> Task | None:
        """The next task that is new to those who share the queue; None if there is none."""
        while True:
            if (task := self._from_order(queue, tab, have)) is not None:
                return self._up_to_date([task])[0]
            with self._pulling:
                if queue.position < len(self._order):
                    continue  # somebody pulled it meanwhile
                task = next(self._stream, None)
                if task is None:
                    self._exhausted = True
                    return None
                self._admit(task)

    def _from_order(self, queue: _Queue, tab: Tab, have: Collection[str]) -> Task | None:
        """The next task of those that have come out of the stream."""
        with self._lock:
            while queue.position < len(self._order):
                image_id = self._order[queue.position]
                queue.position += 1
                if image_id in queue.answered:
                    self._forget(image_id)
                    continue
                if image_id in queue.held or image_id in queue.free:
                    continue  # the same picture twice in the source
                claimant = queue.claimed.pop(image_id, tab)
                queue.held[image_id] = claimant
                if claimant != tab or image_id in have:
                    continue
                return self._tasks[image_id]
        return None

    def _admit(self, task: Task) -> None:
        with self._lock:
            if not self._overlap:  # one queue, and it is past them; with overlap a session may come that needs them
                for queue in self._queues.values():
                    del self._order[: queue.position]
                    queue.position = 0
            self._tasks.setdefault(task["image_id"], task)
            self._order.append(task["image_id"])

    def _is_behind(self, queue: _Queue) -> bool:
        """Whether tasks have come out of the stream that those of the queue have neither got nor answered."""
        return any(image_id not in queue.answered for image_id in self._order[queue.position :])

    def _forget(self, image_id: str) -> None:
        if not self._overlap:  # else others are still to be asked
            self._tasks.pop(image_id, None)
            self._earlier.pop(image_id, None)

    def _up_to_date(self, tasks: list[Task]) -> list[Task]:
        """The same tasks; those with a newer suggestion are other objects."""
        stale = [task for task in tasks if not self._is_fresh(task)]
        if not stale:
            return tasks
        again = {task["image_id"]: task for task in self._refresh(stale)}
        fresh = [again.get(task["image_id"], task) for task in tasks]
        with self._lock:
            for task in fresh:
                if task["image_id"] in self._tasks:
                    self._tasks[task["image_id"]] = task
        return fresh

    def _nothing(self, queue: _Queue, tab: Tab) -> Handout:
        with self._lock:
            others = sum(holder != tab for holder in queue.held.values())
        if others:
            images = "1 image is" if others == 1 else f"{others} images are"
            return Handout(waiting=f"{images} with other annotators; you get what they leave")
        return Handout(done=self._exhausted, waiting="" if self._exhausted else "no images yet")


def _version_of(task: Task) -> int | None:
    version = (task.get("_suggestions") or {}).get("version")
    return version if isinstance(version, int) else None


def _release(queue: _Queue, gone: Collection[Tab]) -> int:
    back = [image_id for image_id, holder in queue.held.items() if holder in gone]
    for image_id in back:
        del queue.held[image_id]
    for image_id in [each for each, claimant in queue.claimed.items() if claimant in gone]:
        del queue.claimed[image_id]
    queue.free.extend(back)
    return len(back)
