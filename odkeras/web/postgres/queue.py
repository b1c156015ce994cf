"""The task queue of a page that is one of several: the leases are in the database.

Each process lists the source and reads its images itself. Before it gives one to a tab, it leases the image in the
database. An image that another process has is passed over: once its lease has expired, the database gives it to anyone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from odkeras.annotation import Task
from odkeras.errors import DatabaseError
from odkeras.web.postgres.leases import Leases
from odkeras.web.queue import Assignment, AudienceQueue, Tab, TaskQueue

RENEW_EVERY_S = 4.0


class SharedTaskQueue(TaskQueue):
    """See `TaskQueue`.

    Args:
        leases: of the dataset.
        open_task: returns a task that any process has stored; None if there is none.
        on_end: callback, once, when this process has found no image that is left.
    """

    def __init__(
        self,
        stream: Any,
        leases: Leases,
        open_task: Callable[[str], Task | None],
        on_end: Callable[[], None],
        **options: Any,
    ) -> None:
        super().__init__(stream, **options)
        self._leases = leases
        self._open_task = open_task
        self._on_end = on_end
        self.has_ended = False
        self._elsewhere: set[str] = set()
        self._renewed_at = float("-inf")
        self._expired = 0
        self._sessions: set[str] = set()

    def next_tasks(self, tab: Tab, count: int, have: Collection[str] = ()) -> Assignment:
        self.touch(tab)
        queue, audience = self._session_queue(tab.session), self._audience(tab)
        mine = self._leases.held(audience, tab)
        self._leases.claim(audience, tab, [image_id for image_id in have if image_id not in mine])
        tasks = self._loaded(image_id for image_id in mine[: count + len(have)] if image_id not in have)[:count]
        if len(tasks) < count:
            tasks += self._up_to_date(self._loaded(self._leases.take_expired(audience, tab, count - len(tasks))))
        while len(tasks) < count:
            task = self._pull(queue, tab, have)
            if task is None:
                break
            tasks.append(task)
        if tasks:
            return Assignment(tuple(tasks))
        nothing = self._nothing(queue, tab)
        if nothing.done and not self.has_ended:
            self.has_ended = True
            self._on_end()
        return nothing

    def take(self, tab: Tab, image_id: str, load: Callable[[], Task]) -> Task | None:
        self.touch(tab)
        queue = self._session_queue(tab.session)
        with self._lock:
            task = self._tasks.get(image_id)
        task = task or load()
        if image_id in queue.answered or not self._leases.acquire(self._audience(tab), tab, task, again=True):
            return None
        with self._lock:
            task = self._tasks.setdefault(image_id, task)
        return self._up_to_date([task])[0]

    def suggest_again(self, tab: Tab, image_ids: Sequence[str]) -> list[Task]:
        self._loaded(image_ids)
        return super().suggest_again(tab, image_ids)

    def release_gone(self) -> int:
        """Renews the leases of the tabs that are here. Those of the others expire."""
        with self._lock:
            for tab in [tab for tab, presence in self._tabs.items() if self._is_gone(presence)]:
                del self._tabs[tab]
            if self._clock() - self._renewed_at < RENEW_EVERY_S:
                return 0
            self._renewed_at = self._clock()
            tabs = list(self._tabs)
        self._leases.renew(tabs)
        self._sessions = self._leases.sessions()
        before, self._expired = self._expired, self._leases.count_expired()
        if self._expired > before:
            self._on_free()
        return max(0, self._expired - before)

    def sessions_here(self) -> set[str]:
        """Those of the other pages, too, if they have images."""
        return super().sessions_here() | self._sessions

    def all_answered(self) -> bool:
        with self._lock:
            if any(self._is_behind(queue) for queue in self._queues.values()):
                return False
            if not (self._exhausted or self.has_ended):
                return False
        with suppress(DatabaseError):
            return not self._leases.leased()
        return False

    def is_taken(self, image_id: str) -> bool:
        """Whether the image is known to be another process's, so that it need not be predicted here."""
        return image_id in self._elsewhere

    def note_leased(self, image_ids: Iterable[str]) -> None:
        """Other processes have leased these images. With overlap, the sessions of this one need them all the same."""
        if not self._overlap:
            self._elsewhere.update(image_ids)

    def note_answered(self, session: str, image_id: str) -> None:
        super().note_answered(session, image_id)
        if not self._overlap:
            self._elsewhere.add(image_id)

    def look_up_again(self) -> dict[str | None, set[str]]:
        """Read again what messages of other processes would have said. Returns the answered images by audience."""
        self.note_leased(self._leases.leased().difference(self._tasks))
        queues = list(self._queues.values())
        for queue in queues:
            queue.answered = self._answered_before(queue.audience)
        return {queue.audience: queue.answered for queue in queues}

    def _holders(self, queue: AudienceQueue) -> Mapping[str, Tab]:
        return self._leases.holders(queue.audience or "")

    def _audience(self, tab: Tab) -> str:
        return tab.session if self._overlap else ""

    def _loaded(self, image_ids: Iterable[str]) -> list[Task]:
        """The tasks of images: those in memory, else as another process stored them."""
        tasks = []
        for image_id in image_ids:
            with self._lock:
                task = self._tasks.get(image_id)
            if task is None and (task := self._open_task(image_id)) is not None:
                with self._lock:
                    task = self._tasks.setdefault(image_id, task)
            if task is not None:
                tasks.append(task)
        return tasks

    def _from_order(self, queue: AudienceQueue, tab: Tab, have: Collection[str]) -> Task | None:
        while True:
            with self._lock:
                if queue.free:
                    image_id = queue.free.popleft()
                elif queue.position < len(self._order):
                    image_id = self._order[queue.position]
                    queue.position += 1
                else:
                    return None
                task = self._tasks.get(image_id)
                if image_id in queue.answered:
                    self._forget(image_id)
                    continue
            if task is None:
                continue  # answered elsewhere
            try:
                is_mine = self._leases.acquire(self._audience(tab), tab, task)
            except BaseException:
                with self._lock:
                    queue.free.append(image_id)  # for another attempt
                raise
            if is_mine and image_id not in have:
                return task
            if not is_mine:
                with self._lock:
                    self._forget(image_id)
