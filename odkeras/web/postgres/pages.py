"""One of several pages of a dataset, which share its answers in PostgreSQL.

Each process serves the page alone, with its own list of the source. What they must agree on is in the database: the
leases of images (`leases`), the answers, and which process leads (`leader`). Messages (`notifications`) tell what the
others did.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psycopg
from sqlalchemy.exc import SQLAlchemyError

from odkeras.annotation import Task
from odkeras.config.annotate import AnnotateSettings
from odkeras.connections import is_loopback
from odkeras.errors import ConfigError, DatabaseError
from odkeras.project import Project
from odkeras.session.session import AnnotationSession
from odkeras.web.data_directory import attach_data_directory
from odkeras.web.database import AnswerDatabase
from odkeras.web.deliveries import Deliveries
from odkeras.web.imports import SESSION
from odkeras.web.journal import Journal
from odkeras.web.outbox import DeliveryRules
from odkeras.web.pages import OnlyPage, lock_data_directory
from odkeras.web.postgres.engine import PostgresEngine, describe
from odkeras.web.postgres.leader import Leadership
from odkeras.web.postgres.leases import Leases
from odkeras.web.postgres.notifications import Notifications
from odkeras.web.postgres.outbox import SharedOutbox
from odkeras.web.postgres.queue import SharedTaskQueue

if TYPE_CHECKING:
    from odkeras.web.service import PageService

_TAKE_OVER_WAIT_S = 0.5
_LEAD = (
    "INSERT INTO leaders VALUES (?, ?, ?, ?) ON CONFLICT (dataset) DO UPDATE "
    "SET page = excluded.page, host = excluded.host, server_url = excluded.server_url"
)


class OneOfSeveralPages(OnlyPage):
    """See `OnlyPage`. The process that leads locks the data directory, too.

    Args:
        settings: of the command.
        database: must be in PostgreSQL.

    Raises:
        ConfigError: `--sync` is on, which works with one page only.
    """

    def __init__(
        self, settings: AnnotateSettings, project: Project, database: AnswerDatabase, journal: Journal
    ) -> None:
        super().__init__(project)
        if settings.sync:
            raise ConfigError("--sync works with a database in a file only; leave it out, or name a file with --db")
        assert isinstance(database.engine, PostgresEngine)
        self._settings, self._database, self._journal = settings, database, journal
        self._engine = database.engine
        self._dataset = settings.dataset
        self._leadership = Leadership(
            self._engine, self._dataset, lead=self._take_over, leading=self._took_over, follow=self._step_down
        )
        self._leases = Leases(self._engine, self._dataset, not_by=SESSION if settings.review else "")
        self._data_lock = ExitStack()
        self._was_lost = False

    @property
    def leads(self) -> bool:
        return self._leadership.leads

    def __enter__(self) -> OneOfSeveralPages:
        try:
            if self._leadership.try_lock():
                self._data_lock.enter_context(lock_data_directory(self._project))
        except (SQLAlchemyError, psycopg.Error) as error:
            raise DatabaseError(f"{self._database.path}: cannot be used: {describe(error)}") from error
        except BaseException:
            self._leadership.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._data_lock.close()
        self._leadership.close()

    def make_queue(self, stream: Iterator[Task], **options: Any) -> SharedTaskQueue:
        def open_task(image_id: str) -> Task | None:
            return self._database.open_task(self._dataset, image_id)

        self._queue = SharedTaskQueue(stream, self._leases, open_task, self._tell_end, **options)
        return self._queue

    def make_outbox(
        self, deliveries: Deliveries, session: AnnotationSession, rules: DeliveryRules, **callbacks: Any
    ) -> SharedOutbox:
        self._session = session
        self._outbox = SharedOutbox(deliveries, session, rules, self._send, lambda: self.leads, **callbacks)
        return self._outbox

    def start(self, service: PageService) -> None:
        self._service = service
        service.stream.is_taken = self._queue.is_taken
        self._notifications = Notifications(
            self._engine, received=self._received, connected=self._connected, lost=self._lost
        )
        if self.leads:
            self._publish()
        else:
            self._journal.say(
                "another page of this dataset delivers the answers and trains; this one takes over if it ends"
            )
            self._follow_leader()
        self._notifications.start()
        self._leadership.start()

    def stop(self) -> None:
        self._leadership.stop()
        self._notifications.close()

    def _take_over(self) -> None:
        with ExitStack() as stack:
            stack.enter_context(lock_data_directory(self._project, _TAKE_OVER_WAIT_S))
            attach_data_directory(Deliveries(self._database, self._dataset), self._dataset, self._project)
            self._session.lead()
            self._data_lock = stack.pop_all()
        self._publish()

    def _took_over(self) -> None:
        self._journal.say("this page delivers the answers and trains now")
        self._outbox.notify()

    def _step_down(self) -> None:
        self._journal.warn("another page of this dataset has taken over the training")
        try:
            self._follow_leader()
        finally:
            self._data_lock.close()

    def _publish(self) -> None:
        """Tell the other pages where the model server is."""
        row = (self._dataset, self._engine.instance, socket.gethostname(), self._session.url)
        with self._database.transaction("cannot store which page trains") as connection:
            connection.execute(_LEAD, row)
            connection.notify({"kind": "leader", "dataset": self._dataset})

    def _follow_leader(self) -> None:
        rows = self._engine.read("SELECT host, server_url FROM leaders WHERE dataset = ?", (self._dataset,))
        host, url = rows[0] if rows else ("", "")
        if url and host != socket.gethostname() and is_loopback(urlsplit(url).hostname or ""):
            self._journal.warn(
                f"the page that trains is on {host}, whose model server this machine cannot reach, so tasks have no "
                "suggestions here; start all pages with IP and PORT of a model server that all can reach"
            )
            url = ""
        self._session.follow(url)

    def _send(self, message: Mapping[str, Any]) -> None:
        with self._engine.short_transaction("cannot tell the other pages") as connection:
            connection.notify({"dataset": self._dataset, **message})

    def _received(self, message: Mapping[str, Any]) -> None:
        """A message of another page, or of a command that changes answers."""
        if message.get("dataset") != self._dataset:
            return
        kinds: dict[Any, Callable[[], None]] = {
            "answers": lambda: self._service.note_answers([(row[0], row[1]) for row in message["answers"]]),
            "much": self._look_up_again,
            "leased": lambda: self._queue.note_leased(message["images"]),
            "delivered": self._outbox.count_again,
            "train": lambda: self._outbox.deliver_if_leading(),
            "correcting": lambda: self._outbox.note_correction(message["session"], message["image"]),
            "leader": self._note_leader,
            "ended": self._note_end,
        }
        if (react := kinds.get(message.get("kind"))) is not None:
            react()

    def _note_leader(self) -> None:
        if not self.leads:
            self._follow_leader()
        if self._queue.has_ended:
            self._tell_end()

    def _tell_end(self) -> None:
        """No image is left: the page that leads need not wait for more answers."""
        self._send({"kind": "ended"})
        self._outbox.notify()

    def _note_end(self) -> None:
        self._queue.has_ended = True
        self._outbox.notify()

    def _connected(self) -> None:
        if self._was_lost:
            self._was_lost = False
            self._journal.say("the database can be reached again")
        self._look_up_again()
        if not self.leads:
            self._follow_leader()

    def _lost(self, reason: str) -> None:
        if not self._was_lost:
            self._journal.warn(
                f"the database cannot be reached; the pages keep their answers and send them again: {reason}"
            )
        self._was_lost = True

    def _look_up_again(self) -> None:
        for audience, answered in self._queue.look_up_again().items():
            self._service.stream.remaining.answered(audience, *answered)
        self._outbox.count_again()
        self._outbox.notify()
        self._service.panel.answered()
