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
from odkeras.pipeline.class_history import note_classes, read_class_history
from odkeras.process import open_listener
from odkeras.project import Project, read_status
from odkeras.session.answers import write_answers
from odkeras.session.children import external_trainer_command, server_child, trainer_child
from odkeras.session.events import Event, Listener, SessionStatus, StatusWatcher, UnfailingListener
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

_NO_SERVER = "http://127.0.0.1:1"
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
        model: the served model.
        downloads: fetches images at URLs.
        listener: receives events.

    Attributes:
        setup, options, project, label_map, model: as given.
    """

    def __init__(
        self,
        setup: SessionSetup,
        model: RemoteModel,
        downloads: WebImages,
        listener: Listener,
    ) -> None:
        self.setup = setup
        self.options = setup.options
        self.project = setup.project
        self.label_map = setup.label_map
        self.model = model
        self._processes = Supervisor([])
        self._own_processes = ExitStack()
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
        history = read_class_history(self.project)
        retired = history.retired if history is not None else frozenset()
        options = self.options
        rules = SuggestionRules(self._threshold, options.control, options.use_display_name, setup.classes, retired)
        self._suggester = Suggester(model, self.label_map, rules, listener, batch_size=self.options.predict_batch_size)

    @classmethod
    def start(
        cls,
        setup: SessionSetup,
        listener: Listener | None = None,
        *,
        report_events: bool = True,
        leads: bool = True,
    ) -> AnnotationSession:
        """Create the directories and start the trainer and the model server, unless they are external.

        Args:
            listener: receives events, the status and each skipped image; None = `LogListener`.
            report_events: whether to poll the trainer and the server for events and status; without, the listener gets
                only what the session itself does.
            leads: without, another session has the trainer and the server; see `lead` and `follow`.

        Raises:
            ConfigError, SetupError: a directory or the trainer's configuration cannot be written, or no port is free.
        """
        listener = UnfailingListener(listener or LogListener())
        setup.project.create()
        note_classes(setup.project, setup.label_map)  # before the first answer, which is judged for all of them
        with ExitStack() as stack:
            model = RemoteModel(
                setup.options.server_url if setup.options.external_server else _NO_SERVER,
                setup.options.model_name,
                is_running=lambda: setup.options.external_server,
                has_learned=lambda version: _has_learned(setup.project, version),
            )
            stack.callback(model.close)
            web = stack.enter_context(WebImages(allow_private_urls=setup.options.allow_private_urls))
            session = cls(setup, model, web, listener)
            stack.callback(lambda: session._own_processes.close())
            if leads:
                session.lead()
            if report_events:
                if leads:
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

    def lead(self) -> None:
        """Start the trainer and the server, unless they are external, and get suggestions from this server.

        Raises:
            ConfigError, SetupError: see `start`.
        """
        setup = self.setup
        with ExitStack() as stack:
            url, children = _plan_children(setup, stack)
            processes = Supervisor(
                children,
                hold=() if len(setup.label_map) else ("trainer",),  # until there is a class to learn
                say=lambda text: self._listener.event(Event(text)),
                warn=self._warn,
            )
            own_server = not setup.options.external_server
            self.model.use(url, lambda: not own_server or processes.running("server"))
            if not setup.options.external_trainer:
                stack.callback(_forget_drawn_images, setup.project)
            stack.enter_context(processes)
            self._processes, self._own_processes = processes, stack.pop_all()

    def follow(self, url: str) -> None:
        """End the trainer and the server, because another session has them, and get suggestions from that server.

        Args:
            url: of the server; "" if this process cannot reach it. An external server is used all the same.
        """
        self._own_processes.close()
        if not self.setup.options.external_server:
            self.model.use(url or _NO_SERVER, lambda: bool(url))

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
                limit = self.options.max_pixels
                image = recall_image(data, task.image_id, source=source, max_pixels=limit) or encode_image(
                    data, source=source, max_pixels=limit
                )
            kept = str(self._kept_images.put(image).absolute())
        except (OSError, ImageError) as error:  # a task with a large image is better than a lost image
            self._warn(f"{source}: the image stays in the task: {error}")
            return task
        return replace(task, image=kept, path=path if path is not None and is_url(path) else kept)

    def use_setup(self, setup: SessionSetup) -> None:
        """Continue with a setup that has other classes. The trainer is started again, and extends the model.

        Raises:
            SetupError: the data directory cannot be written.
        """
        history = note_classes(setup.project, setup.label_map)
        self.setup, self.label_map = setup, setup.label_map
        if isinstance(self._threshold, AutoThreshold):
            self._threshold.label_map = setup.label_map
        self._suggester.use_label_map(setup.label_map, setup.classes, history.retired)
        if self.options.external_trainer:
            self._warn(
                "the label map has changed; start the trainer again on its machine, so that it extends the model"
            )
        else:
            self._processes.restart("trainer")

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


def _forget_drawn_images(project: Project) -> None:
    """The trainer did not die by itself if it was killed because it did not end in time; see `training.deaths`."""
    with suppress(OSError):
        project.drawn_path.unlink(missing_ok=True)


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
