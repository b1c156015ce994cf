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
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from odkeras.annotation import Task
from odkeras.data_uri import bytes_from_data_uri
from odkeras.errors import ImageError, OdkerasError, ServingError, TrainingError
from odkeras.export.info import read_export_info
from odkeras.formats.prodigy import Record
from odkeras.image_ref import is_data_uri, is_url
from odkeras.image_store import ImageStore
from odkeras.images import encode_image, is_image_file, recall_image
from odkeras.inbox import images_dir, new_batch_name
from odkeras.process import open_listener
from odkeras.project import Project, read_status
from odkeras.session.answers import write_answers
from odkeras.session.children import external_trainer_command, server_child, trainer_child
from odkeras.session.events import Event, Listener, SessionStatus, StatusWatcher
from odkeras.session.image_ids import ImageIds
from odkeras.session.order import Order
from odkeras.session.reader import ImageReader
from odkeras.session.remote_model import RemoteModel
from odkeras.session.setup import SessionSetup
from odkeras.session.sources import Source
from odkeras.session.stream import Prepare, TaskStream
from odkeras.session.suggester import Suggester, SuggestionRules
from odkeras.session.supervisor import ChildSpec, Supervisor
from odkeras.session.thresholds import AutoThreshold, FixedThreshold
from odkeras.session.waiting import BatchWait
from odkeras.session.web_images import WebImages
from odkeras.version_dirs import version_dir

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
        model: the served model.
        downloads: fetches images at URLs.
        listener: receives events.

    Attributes:
        setup, options, project, label_map, model: as given.
    """

    def __init__(
        self,
        setup: SessionSetup,
        processes: Supervisor,
        model: RemoteModel,
        downloads: WebImages,
        listener: Listener,
    ) -> None:
        self.setup = setup
        self.options = setup.options
        self.project = setup.project
        self.label_map = setup.label_map
        self.model = model
        self._processes = processes
        self._listener = listener
        self._started_at = time.time()
        self._stack = ExitStack()
        self._kept_images = ImageStore(self.project.kept_images_dir)
        self._reader = ImageReader(
            downloads.fetch,
            ImageStore(images_dir(self.project.inbox_dir)),
            ImageIds(self.project.image_ids_path),
            self.options.max_pixels,
        )
        threshold = self.options.threshold
        self._threshold = (
            AutoThreshold(self.label_map, self.project.data_dir / "thresholds.json", can_pick=setup.can_pick)
            if isinstance(threshold, str)
            else FixedThreshold(threshold)
        )
        rules = SuggestionRules(self._threshold, self.options.control, self.options.use_display_name, setup.classes)
        self._suggester = Suggester(model, self.label_map, rules, listener, batch_size=self.options.predict_batch_size)

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
            processes = Supervisor(
                children,
                say=lambda text: listener.event(Event(text)),
                warn=lambda text: listener.event(Event.problem(text)),
            )
            own_server = not setup.options.external_server
            model = RemoteModel(
                url,
                setup.options.model_name,
                is_running=lambda: not own_server or processes.running("server"),
                has_learned=lambda version: _has_learned(setup.project, version),
            )
            stack.callback(model.close)
            session = cls(setup, processes, model, stack.enter_context(WebImages()), listener)
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
        return self.model.client.base_url

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
            self._reader,
            exclude=exclude,
            prepare=prepare,
            on_skip=self._listener.skipped,
            order=Order(self.options.order, self.options.order_seed),
        )

    def submit(self, answers: Sequence[Record], *, batch: str | None = None) -> Path | None:
        """Write answers as one batch for the trainer; durable when this returns.

        The round that trains on the batch has the file's name in its line in metrics.jsonl.

        Args:
            answers: answers in Prodigy's format; see `formats.prodigy.write_answer`.
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
        """The task with its image's path in place of the image, for a front end that keeps many tasks.

        An image without a file is saved in the data directory. If that fails, the task is returned unchanged and the
        problem is reported.
        """
        image, path = task.image, task.path
        if isinstance(image, str) and not is_data_uri(image):
            return task
        if path is not None and is_image_file(path, task.image_id):
            return replace(task, image=path)
        source = path or task.image_id or "image"
        try:
            if isinstance(image, str):
                data = bytes_from_data_uri(image)
                image = recall_image(data, task.image_id, source=source) or encode_image(data, source=source)
            kept = str(self._kept_images.put(image).absolute())
        except (OSError, ImageError) as error:  # a task with a large image is better than a lost image
            self._warn(f"{source}: the image stays in the task: {error}")
            return task
        return replace(task, image=kept, path=path if path is not None and is_url(path) else kept)

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
        """See `RemoteModel.available_version`."""
        return self.model.available_version()

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


def _has_learned(project: Project, version: int) -> bool:
    info = read_export_info(version_dir(project.export_dir, version))
    return info is None or info.learned


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
