"""Whether a page is the only one of its dataset."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Any

from odkeras.annotation import Task
from odkeras.locks import locked
from odkeras.project import Project
from odkeras.session.session import AnnotationSession
from odkeras.web.deliveries import Deliveries
from odkeras.web.outbox import DeliveryRules, Outbox
from odkeras.web.queue import TaskQueue

if TYPE_CHECKING:
    from odkeras.web.service import PageService

LOCK_WAIT_S = 5.0


class OnlyPage:
    """The page is the only one: it has its leases in memory, delivers the answers, and runs the trainer and the server.

    Use it as a context manager around the session, and call `start` when the page is ready.

    Args:
        project: its data directory is locked.

    Raises:
        InUseError: on entering, if another page has the data directory.
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self._stack = ExitStack()

    def __enter__(self) -> OnlyPage:
        self._stack.enter_context(lock_data_directory(self._project))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def leads(self) -> bool:
        """Whether this process has the trainer and the server."""
        return True

    def make_queue(self, stream: Iterator[Task], **options: Any) -> TaskQueue:
        return TaskQueue(stream, **options)

    def make_outbox(
        self, deliveries: Deliveries, session: AnnotationSession, rules: DeliveryRules, **callbacks: Any
    ) -> Outbox:
        return Outbox(deliveries, session, rules, **callbacks)

    def start(self, service: PageService) -> None:
        """Called when the threads of the service run."""

    def stop(self) -> None:
        """Called before they end."""


def lock_data_directory(project: Project, wait_s: float | None = None) -> AbstractContextManager[None]:
    """Lock the data directory: a second page with the same one would lease every image again and start a second
    trainer.

    Args:
        wait_s: seconds to wait for another page that is being stopped; None = `LOCK_WAIT_S`.
    """
    taken = (
        f"another `odkeras annotate` is using {project.data_dir}; open its page (for another annotator with "
        "?session=NAME), stop it, or name another --data-dir"
    )
    return locked(project.data_dir / "annotate.lock", taken=taken, wait_s=LOCK_WAIT_S if wait_s is None else wait_s)
