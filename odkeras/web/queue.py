"""The task queue: leases images to tabs, takes them back from tabs that are gone, and removes answered ones.

    stream ──► leased to a tab ──► answered
                   ▲        │
                   └─ free ◄┘  (the tab is gone)

Each image is leased to one tab of one session; with `overlap`, to one tab of each session.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from odkeras.annotation import Task

GONE_AFTER_S = 20.0
"""Seconds without a connection or request after which a tab's leases expire. A reload takes a second or two. A phone
may sleep for longer: its answers are accepted all the same."""


@dataclass(frozen=True)
class Tab:
    """One open page of a session. Sessions may have several tabs."""

    session: str
    name: str


@dataclass(frozen=True)
class Assignment:
    """The reply to a request for tasks.

    Args:
        tasks: tasks to show, in this order.
        done: True if no image is left for this session.
        waiting: reason for an empty reply that is not final; "" if there are tasks or all is done.
    """

    tasks: tuple[Task, ...] = ()
    done: bool = False
    waiting: str = ""


@dataclass
class _Presence:
    seen_at: float
    connections: int = 0


@dataclass
class AudienceQueue:
    """The queue of an audience, the sessions that share tasks: all sessions, or with `overlap` one."""

    audience: str | None
    answered: set[str]
    free: deque[str] = field(default_factory=deque)
    held: dict[str, Tab] = field(default_factory=dict)
    claimed: dict[str, Tab] = field(default_factory=dict)  # by tabs that got them before a restart
    position: int = 0  # index of the next task in `_order`, the tasks in stream order


class TaskQueue:
    """The task queue. Thread-safe.

    Args:
        stream: the tasks, with image paths instead of bytes, because open tasks stay in memory.
        answered: returns the ids of the images that a session has answered, or of all sessions for None; called once
            per queue.
        overlap: every session annotates every image.
        refresh: returns given tasks with the newest model's suggestions, in the same order.
        is_fresh: whether a task's suggestions are from the newest model.
        on_free: callback for tasks that were taken back.
        clock: monotonic clock, replaced in tests.

    Attributes:
        has_begun: whether the stream has given a task, or has ended.
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
        self._earlier: dict[str, dict[int | None, Task]] = {}  # by image and version: suggestions shown earlier
        self._order: list[str] = []
        self._exhausted = self.has_begun = False
        self._queues: dict[str | None, AudienceQueue] = {}
        self._tabs: dict[Tab, _Presence] = {}

    def next_tasks(self, tab: Tab, count: int, have: Collection[str] = ()) -> Assignment:
        """Lease up to `count` tasks that the tab does not have yet: first its own open ones (after a reload), then
        freed ones, then new ones. May take as long as a prediction."""
        self.touch(tab)
        queue = self._session_queue(tab.session)
        self._claim(queue, tab, have)
        tasks = self._open_tasks(queue, tab, have, count)
        if len(tasks) < count:
            tasks += self._up_to_date(self._take_free(queue, tab, count - len(tasks)))
        while len(tasks) < count:
            task = self._pull(queue, tab, have)
            if task is None:
                break
            tasks.append(task)
        return Assignment(tuple(tasks)) if tasks else self._nothing(queue, tab)

    def take(self, tab: Tab, image_id: str, load: Callable[[], Task]) -> Task | None:
        """Lease a given image out of order; None if another tab holds it or it is answered. May take as long as a
        prediction.

        Args:
            load: builds the task of an image that has not come out of the stream yet; its exceptions propagate.
        """
        self.touch(tab)
        queue = self._session_queue(tab.session)
        with self._lock:
            if image_id in queue.answered or queue.held.get(image_id, tab) != tab:
                return None
            task = self._tasks.get(image_id)
        task = task or load()
        with self._lock:
            if image_id in queue.answered or queue.held.get(image_id, tab) != tab:
                return None  # lost the race against another tab
            if image_id in queue.free:
                queue.free.remove(image_id)
            queue.claimed.pop(image_id, None)
            queue.held[image_id] = tab
            task = self._tasks.setdefault(image_id, task)
        return self._up_to_date([task])[0]

    def holder(self, session: str, image_id: str) -> Tab | None:
        """The tab that holds the lease of an image in the session's queue; None if it is not leased."""
        return self._holders(self._session_queue(session)).get(image_id)

    def open_tasks(self, session: str) -> list[Task]:
        """The leased and freed tasks of the session's queue."""
        queue = self._session_queue(session)
        held = self._holders(queue)
        with self._lock:
            return [self._tasks[image_id] for image_id in [*held, *queue.free] if image_id in self._tasks]

    def suggest_again(self, tab: Tab, image_ids: Sequence[str]) -> list[Task]:
        """Those of the tab's open tasks for which a newer model has suggestions, with the new suggestions."""
        self.touch(tab)
        queue = self._session_queue(tab.session)
        held = self._holders(queue)
        with self._lock:
            mine = [self._tasks[id] for id in image_ids if held.get(id) == tab and id in self._tasks]
        fresh = self._up_to_date(mine)
        changed = [(old, new) for old, new in zip(mine, fresh, strict=True) if new is not old]
        with self._lock:
            for old, _ in changed:  # the annotator may be correcting the old suggestions right now
                if old.image_id in self._tasks:
                    self._earlier.setdefault(old.image_id, {})[old.version] = old
        return [new for _, new in changed]

    def task(self, image_id: str, version: Any = None) -> Task | None:
        """A task that is open or reopened, or (with `overlap`) answered. It has the suggestions of `version` if it had
        them earlier, else the newest. None if the image is unknown."""
        with self._lock:
            newest = self._tasks.get(image_id)
            if newest is None or newest.version == version:
                return newest
            earlier = self._earlier.get(image_id, {}).get(version) if isinstance(version, int) else None
            return earlier or newest

    def note_answered(self, session: str, image_id: str) -> None:
        """Remove an image from the queue, because an answer is stored."""
        queue = self._session_queue(session)
        with self._lock:
            queue.answered.add(image_id)
            queue.claimed.pop(image_id, None)
            queue.held.pop(image_id, None)
            if image_id in queue.free:
                queue.free.remove(image_id)
            self._forget(image_id)

    def reopen(self, tab: Tab, image_id: str, task: Task) -> None:
        """Keep the task of an answered image in memory while a tab shows it again."""
        self.touch(tab)
        if self._overlap:
            return  # the task goes to other sessions too, which must not see this answer
        queue = self._session_queue(tab.session)
        with self._lock:
            if image_id not in queue.held:
                self._tasks.setdefault(image_id, task)

    def relabel(self, current: Callable[[str], str | None]) -> None:
        """Change the labels of the tasks that are in memory; see `Task.with_labels`."""
        with self._lock:
            self._tasks = {image_id: task.with_labels(current) for image_id, task in self._tasks.items()}
            for versions in self._earlier.values():
                versions.update({version: task.with_labels(current) for version, task in versions.items()})

    def touch(self, tab: Tab) -> None:
        """Record that the tab is alive."""
        with self._lock:
            self._tabs.setdefault(tab, _Presence(0.0)).seen_at = self._clock()

    def connect(self, tab: Tab) -> None:
        """Record an event stream of the tab. Its leases do not expire until `disconnect`."""
        self.touch(tab)
        with self._lock:
            self._tabs[tab].connections += 1

    def disconnect(self, tab: Tab) -> None:
        self.touch(tab)
        with self._lock:
            self._tabs[tab].connections -= 1

    def release_gone(self) -> int:
        """Free the tasks of tabs that are gone; returns how many. To be called periodically."""
        with self._lock:
            gone = {tab for tab, presence in self._tabs.items() if self._is_gone(presence)}
            freed = sum(_release(queue, gone) for queue in self._queues.values())
            for tab in gone:
                del self._tabs[tab]
        if freed:
            self._on_free()
        return freed

    def sessions_here(self) -> set[str]:
        """Names of the sessions with a live tab."""
        with self._lock:
            return {tab.session for tab, presence in self._tabs.items() if not self._is_gone(presence)}

    def all_answered(self) -> bool:
        """Whether no image is left for any session seen so far. False until the end of the stream has been read."""
        with self._lock:
            if not self._exhausted:
                return False
            return not any(queue.held or queue.free or self._is_behind(queue) for queue in self._queues.values())

    def _holders(self, queue: AudienceQueue) -> Mapping[str, Tab]:
        """The tabs that have images now, by image id."""
        with self._lock:
            return dict(queue.held)

    def _is_gone(self, presence: _Presence) -> bool:
        return presence.connections <= 0 and self._clock() - presence.seen_at > GONE_AFTER_S

    def _session_queue(self, session: str) -> AudienceQueue:
        audience = session if self._overlap else None
        queue = self._queues.get(audience)
        if queue is None:
            answered = self._answered_before(audience)  # a database query, so not under the lock
            with self._lock:
                queue = self._queues.setdefault(audience, AudienceQueue(audience, answered))
        return queue

    def _claim(self, queue: AudienceQueue, tab: Tab, have: Collection[str]) -> None:
        """Lease again the tasks that a returning tab still shows, unless they were reassigned. Images that it got
        before a restart are reserved for it until they come out of the stream."""
        with self._lock:
            for image_id in have:
                if image_id in queue.free:
                    queue.free.remove(image_id)
                    queue.held[image_id] = tab
                elif image_id not in queue.held and image_id not in queue.answered:
                    queue.claimed[image_id] = tab

    def _open_tasks(self, queue: AudienceQueue, tab: Tab, have: Collection[str], count: int) -> list[Task]:
        with self._lock:
            mine = [image_id for image_id, holder in queue.held.items() if holder == tab and image_id not in have]
            return [self._tasks[image_id] for image_id in mine[:count]]

    def _take_free(self, queue: AudienceQueue, tab: Tab, count: int) -> list[Task]:
        taken: list[Task] = []
        with self._lock:
            while queue.free and len(taken) < count:
                image_id = queue.free.popleft()
                queue.held[image_id] = tab
                taken.append(self._tasks[image_id])
        return taken

    def _pull(self, queue: AudienceQueue, tab: Tab, have: Collection[str]) -> Task | None:
        """The next task that no tab of the queue has had; None at the end of the stream."""
        while True:
            if (task := self._from_order(queue, tab, have)) is not None:
                return self._up_to_date([task])[0]
            with self._pulling:
                if queue.position < len(self._order):
                    continue  # another thread has pulled it in the meantime
                task = next(self._stream, None)
                self.has_begun = True
                if task is None:
                    self._exhausted = True
                    return None
                self._admit(task)

    def _from_order(self, queue: AudienceQueue, tab: Tab, have: Collection[str]) -> Task | None:
        """The next task among those that have already come out of the stream."""
        with self._lock:
            while queue.position < len(self._order):
                image_id = self._order[queue.position]
                queue.position += 1
                if image_id in queue.answered:
                    self._forget(image_id)
                    continue
                if image_id in queue.held or image_id in queue.free:
                    continue  # the source has the same picture twice
                claimant = queue.claimed.pop(image_id, tab)
                queue.held[image_id] = claimant
                if claimant != tab or image_id in have:
                    continue
                return self._tasks[image_id]
        return None

    def _admit(self, task: Task) -> None:
        with self._lock:
            if not self._overlap:  # the only queue is past these; with overlap, a new session would need them
                for queue in self._queues.values():
                    del self._order[: queue.position]
                    queue.position = 0
            self._tasks.setdefault(task.image_id, task)
            self._order.append(task.image_id)

    def _is_behind(self, queue: AudienceQueue) -> bool:
        """Whether tasks have come out of the stream that the queue has neither leased nor answered."""
        return any(image_id not in queue.answered for image_id in self._order[queue.position :])

    def _forget(self, image_id: str) -> None:
        if not self._overlap:  # other sessions may still need the task
            self._tasks.pop(image_id, None)
            self._earlier.pop(image_id, None)

    def _up_to_date(self, tasks: list[Task]) -> list[Task]:
        """Refresh stale suggestions. Refreshed tasks are new objects; the others are returned as they are."""
        stale = [task for task in tasks if not self._is_fresh(task)]
        if not stale:
            return tasks
        again = {task.image_id: task for task in self._refresh(stale)}
        fresh = [again.get(task.image_id, task) for task in tasks]
        with self._lock:
            for task in fresh:
                if task.image_id in self._tasks:
                    self._tasks[task.image_id] = task
        return fresh

    def _nothing(self, queue: AudienceQueue, tab: Tab) -> Assignment:
        others = sum(holder != tab for holder in self._holders(queue).values())
        if others:
            images = "1 image is" if others == 1 else f"{others} images are"
            return Assignment(waiting=f"{images} open in other annotators' pages; you get those that they release")
        return Assignment(done=self._exhausted, waiting="" if self._exhausted else "no images yet")


def _release(queue: AudienceQueue, gone: Collection[Tab]) -> int:
    back = [image_id for image_id, holder in queue.held.items() if holder in gone]
    for image_id in back:
        del queue.held[image_id]
    for image_id in [id for id, claimant in queue.claimed.items() if claimant in gone]:
        del queue.claimed[image_id]
    queue.free.extend(back)
    return len(back)
