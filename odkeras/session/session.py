"""An annotation session: the trainer and server processes, the tasks with suggestions, the answers, and the status.

    with AnnotationSession.start(SessionSetup.of(SessionSettings(config=Path("project/pipeline.config")))) as session:
        for task in session.stream("images"):       # suggestions of the newest model
            session.submit([answer_of(task)])       # durable when it returns; trained on in the background

A front end (the web page, Prodigy, the simulated annotator) is an adapter between a session and its annotators.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from odkeras.errors import ImageError, OdkerasError, ServingError, TrainingError
from odkeras.export.info import read_export_info
from odkeras.formats.prodigy import Task
from odkeras.image_ref import is_data_uri
from odkeras.image_store import ImageStore
from odkeras.images import bytes_from_data_uri, encode_image, is_image_file, recall_image
from odkeras.inbox import images_dir, new_batch_name
from odkeras.process import open_listener
from odkeras.project import read_status, version_dir
from odkeras.serving.client import ServingClient
from odkeras.session.answers import write_answers
from odkeras.session.children import external_trainer_command, server_child, trainer_child
from odkeras.session.events import Event, Listener, SessionStatus, StatusWatcher
from odkeras.session.image_ids import ImageIds
from odkeras.session.order import Order
from odkeras.session.setup import SessionSetup
from odkeras.session.sources import Source
from odkeras.session.stream import Prepare, TaskStream
from odkeras.session.suggester import Suggester
from odkeras.session.supervisor import ChildSpec, Supervisor
from odkeras.session.thresholds import AutoThreshold, FixedThreshold
from odkeras.session.waiting import BatchWait
from odkeras.session.web_images import WebImages

VERSION_TIMEOUT_S = 2.0
_PREDICT_TIMEOUT_S = 30.0

_log = logging.getLogger("odkeras.session")


class LogListener(Listener):
    """Writes the events to the logger `odkeras.session`."""

    def event(self, event: Event) -> None:
        _log.log(logging.WARNING if event.urgent else logging.INFO, "%s", event.line)


class AnnotationSession:
    """A running session. Create it with `start`; use it as a context manager or call `close`, which is idempotent.

    Thread-safe. Answers may still be submitted after `close`: the next session trains on them.

    Args:
        setup: what the session is made of.
        processes: the trainer and the server.
        client: client of the model server, for predictions.
        version_client: client for the version alone, which is polled: with the timeout and the retries of `client`, a
            server that hangs would block the status and every task.
        downloads: fetches images at URLs.
        listener: receives events.

    Attributes:
        setup, options, project, label_map: as given.
        client: the client of the model server.
    """

    def __init__(
        self,
        setup: SessionSetup,
        processes: Supervisor,
        client: ServingClient,
        version_client: ServingClient,
        downloads: WebImages,
        listener: Listener,
    ) -> None:
        self.setup = setup
        self.options = setup.options
        self.project = setup.project
        self.label_map = setup.label_map
        self.client = client
        self._version_client = version_client
        self._processes = processes
        self._listener = listener
        self._started_at = time.time()
        self._stack = ExitStack()
        self._image_ids = ImageIds(self.project.image_ids_path)
        self._images = ImageStore(images_dir(self.project.inbox_dir))
        self._kept_images = ImageStore(self.project.kept_images_dir)
        self._downloads = downloads
        threshold = self.options.threshold
        self._threshold = (
            AutoThreshold(self.label_map, self.project.data_dir / "thresholds.json")
            if isinstance(threshold, str)
            else FixedThreshold(threshold)
        )
        self._suggester = Suggester(
            client,
            self.label_map,
            threshold=self._threshold,
            control=self.options.control,
            use_display_name=self.options.use_display_name,
            classes=setup.classes,
            has_learned=self._has_learned,
            available_version=self.available_version,
            on_problem=self._report_suggestions,
            on_suggested=listener.suggested,
            warn=self._warn,
        )

    @classmethod
    def start(
        cls, setup: SessionSetup, listener: Listener | None = None, *, report_events: bool = True
    ) -> AnnotationSession:
        """Create the directories and start the trainer and the model server, unless they are external.

        Args:
            listener: receives events, the status and each skipped image; None = `LogListener`.
            report_events: whether to poll the trainer and the server for events and status; without, the listener gets
                only what the session itself does.

        Raises:
            ConfigError, SetupError: a directory or the trainer's configuration cannot be written, or no port is free.
        """
        listener = _Unfailing(listener or LogListener())
        setup.project.create()
        with ExitStack() as stack:
            url, children = _plan_children(setup, stack)
            name = setup.options.model_name
            client = stack.enter_context(ServingClient(url, name, timeout_s=_PREDICT_TIMEOUT_S))
            version_client = stack.enter_context(ServingClient(url, name, timeout_s=VERSION_TIMEOUT_S, retries=0))
            processes = Supervisor(
                children,
                say=lambda text: listener.event(Event(text)),
                warn=lambda text: listener.event(Event.problem(text)),
            )
            downloads = stack.enter_context(WebImages())
            session = cls(setup, processes, client, version_client, downloads, listener)
            stack.enter_context(processes)
            if report_events:
                session._announce()
                stack.enter_context(StatusWatcher(session.status, setup.project, listener))
            session._stack = stack.pop_all()
        return session

    def __enter__(self) -> AnnotationSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the trainer and the server. Idempotent."""
        self._stack.close()

    @property
    def url(self) -> str:
        """Base URL of the model server."""
        return self.client.base_url

    def stream(self, source: Source, *, exclude: Collection[str] = (), prepare: Prepare | None = None) -> TaskStream:
        """Tasks with the newest model's suggestions.

        Args:
            source: see `sources.open_source`.
            exclude, prepare: see `TaskStream`.

        Raises:
            ConfigError: see `sources.open_source`.
        """
        return TaskStream(
            source,
            self._suggester,
            is_fresh=self._suggester.is_fresh,
            exclude=exclude,
            prepare=prepare,
            on_skip=self._listener.skipped,
            fetch=self._downloads.fetch,
            store=self._images,
            ids=self._image_ids,
            max_pixels=self.options.max_pixels,
            batch_size=self.options.predict_batch_size,
            order=Order(self.options.order, self.options.order_seed),
        )

    def submit(self, answers: Sequence[Task], *, batch: str | None = None) -> Path | None:
        """Write answers as one batch for the trainer; durable when this returns.

        The round that trains on the batch has the file's name in its line in metrics.jsonl.

        Args:
            batch: name of the batch, from `new_batch_name`; submitting a batch again under its name is idempotent.

        Returns:
            The batch's file; None without usable answers.

        Raises:
            InboxError: the batch cannot be written.
        """
        path = write_answers(self.project.inbox_dir, answers, name=batch, warn=self._warn)
        self._threshold.note(answers)
        return path

    def new_batch_name(self) -> str:
        """A name for the next batch.

        Raises:
            OSError: the inbox cannot be created.
        """
        return new_batch_name(self.project.inbox_dir)

    def with_image_path(self, task: Task) -> Task:
        """The task with its image's path in place of base64 data, for a front end that keeps many tasks.

        An image without a file is saved in the data directory. If that fails, the task is returned unchanged and the
        problem is reported.
        """
        image = task.get("image")
        if not isinstance(image, str) or not is_data_uri(image):
            return task
        path = task.get("path")
        if isinstance(path, str) and is_image_file(path, str(task.get("image_id"))):
            return {**task, "image": path}
        source = str(path or task.get("image_id") or "image")
        try:
            data = bytes_from_data_uri(image)
            encoded = recall_image(data, str(task.get("image_id")), source=source) or encode_image(data, source=source)
            kept = str(self._kept_images.put(encoded).absolute())
        except (OSError, ImageError) as error:  # a task with a large image is better than a lost image
            self._warn(f"{source}: the image stays in the task: {error}")
            return task
        return {**task, "image": kept, "path": path if isinstance(path, str) and "://" in path else kept}

    def latest_loss(self) -> float | None:
        """The training loss that the trainer reported last; None if it has not reported any."""
        return _read_loss(self.trainer_status())

    def wait_until_served(self, batch: Path, *, stop: Callable[[], bool] = lambda: False) -> float | None:
        """Block until a version trained on `batch` is being served, or until its round was held back.

        Args:
            batch: the file that `submit` returned.
            stop: polled; True ends the wait.

        Returns:
            The round's loss. None if the batch has nothing to train on, the round failed, the trainer or the server
            does not respond, or `stop` returned True.
        """
        return _read_loss(BatchWait(self, batch, stop=stop, warn=self._warn).run())

    def trainer_status(self) -> dict[str, Any] | None:
        """Content of the trainer's status.json; None before this trainer has written it."""
        status = read_status(self.project.status_path)
        if status is None or self.options.external_trainer:
            return status
        return status if float(status.get("updated") or 0) >= self._started_at else None  # else an earlier trainer's

    def available_version(self) -> int | None:
        """The version being served; None while the server is down or loading. Returns within two seconds.

        Raises:
            RequestError: something other than a model server responds at that port.
        """
        if not self.options.external_server and not self._processes.running("server"):
            return None  # the socket is open even without a server process, so a request would time out
        return self._version_client.available_version()

    def status(self) -> SessionStatus:
        """The status of the trainer and the server. Never raises; a problem is its `failure`."""
        version: int | None = None
        problem: OdkerasError | None = None
        try:
            version = self.available_version()
        except ServingError as error:  # something other than a model server responds at that port
            problem = error
        trainer, given_up = self.trainer_status(), self.failure()  # last, because the request above may take 2 s
        failed = "" if problem or given_up is None else self._processes.failed() or "trainer"
        sentence, _, log = str(problem or given_up or "").partition("\n")
        return SessionStatus(trainer, version, sentence, log, failed)

    def failure(self) -> OdkerasError | None:
        """Why the trainer or the server was given up, or why an external trainer failed; None if neither."""
        status = self.trainer_status() if self.options.external_trainer else None
        if status is not None and status.get("state") == "failed":
            return TrainingError(f"the trainer failed: {status.get('reason') or 'it gave no reason'}")
        return self._processes.failure()

    def _announce(self) -> None:
        """Report the addresses and, for an external trainer, the command that starts it."""
        texts = [
            f"model server at {self.url}, training in {self.project.model_dir}",
            f"watch the training with: tensorboard --logdir {self.project.model_dir}",
        ]
        if self.options.external_trainer:
            command = external_trainer_command(self.options, self.url)
            texts.append(f"start the trainer on its machine with: {command}")
        for text in texts:
            self._listener.event(Event(text))

    def _has_learned(self, version: int) -> bool:
        info = read_export_info(version_dir(self.project.export_dir, version))
        return info is None or info.learned

    def _report_suggestions(self, problem: str) -> None:
        self._listener.event(Event(f"no suggestions: {problem}" if problem else "suggestions are available again"))

    def _warn(self, text: str) -> None:
        self._listener.event(Event.problem(text))


class _Unfailing(Listener):
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


def _plan_children(setup: SessionSetup, stack: ExitStack) -> tuple[str, list[ChildSpec]]:
    """The server's base URL and the processes to start. The server's socket is bound here and closed by `stack`."""
    options, logs = setup.options, setup.project.logs_dir
    children = []
    url = options.server_url
    if not options.external_server:
        bound = stack.enter_context(closing(open_listener("127.0.0.1", 0)))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        children.append(server_child(options, logs / "server.log", bound))
    if not options.external_trainer:
        children.insert(0, trainer_child(options, logs / "trainer.log", url))
    return url, children


def _read_loss(row: dict[str, Any] | None) -> float | None:
    loss = (row or {}).get("loss")
    return float(loss) if isinstance(loss, (int, float)) else None
