"""The annotation loop as one object: child processes, task stream, answers and status.

    with Loop(LoopOptions(config=Path("project/pipeline.config")), say=print) as loop:
        for task in loop.stream("images"):      # suggestions of the newest model
            loop.update([answer_of(task)])      # durable when it returns; trained on in the background

A host is an adapter between `Loop` and an annotation front end.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from odkeras.errors import ConfigError, OdkerasError, ServingError, TrainingError
from odkeras.export.info import read_export_info
from odkeras.formats.prodigy import Task
from odkeras.image_store import ImageStore
from odkeras.inbox import images_dir
from odkeras.labels import LabelMap
from odkeras.pipeline import (
    check_trained_classes,
    check_training_continues,
    has_checkpoints,
    label_map_path_of,
    load_pipeline,
)
from odkeras.project import read_status, version_dir
from odkeras.serving.client import ServingClient
from odkeras.session.answers import AnswerWriter
from odkeras.session.children import server_child, server_url, trainer_child
from odkeras.session.image_ids import ImageIds
from odkeras.session.options import LoopOptions
from odkeras.session.order import Order
from odkeras.session.sources import OnSkip, Source
from odkeras.session.stream import Prepare, TaskStream
from odkeras.session.suggester import Suggester
from odkeras.session.supervisor import ChildSpec, Say, Supervisor, bind_socket
from odkeras.session.thresholds import AutoThreshold, FixedThreshold, Threshold
from odkeras.session.waiting import BatchWait
from odkeras.session.watch import Look, News, Watch
from odkeras.session.web_images import WebImages

VERSION_TIMEOUT_S = 2.0
_PREDICT_TIMEOUT_S = 30.0

T = TypeVar("T")

_log = logging.getLogger("odkeras.session")


@dataclass(frozen=True)
class LoopStatus:
    """The status of the trainer and the server, for a host to display.

    Args:
        trainer: content of the trainer's status.json; None before it has written one.
        version: the version being served; None while the server is down or loading.
        failure: why the trainer or the server was given up, or that something other than a model server responds at
            the port; None without a failure.
        failed: "trainer" or "server", whichever was given up; "" if neither.
    """

    trainer: dict[str, Any] | None
    version: int | None
    failure: OdkerasError | None
    failed: str = ""


class Loop:
    """Context manager: entering creates the directories and starts the processes; `close()` ends them, idempotently.

    Args:
        options: what to run.
        say: callback for messages to the user, called from any thread; None = the logger `odkeras.session`.
        warn: callback for problems; None = `say`, or the logger.
        watch: callback for each event of the trainer and the server, called from another thread; None = no events.
        on_look: with `watch`, callback for the polled status, a few times a second.
        on_suggested: callback for every task with its suggestions, and the seconds that its prediction took.

    Attributes:
        label_map, url, client: the label map, the server's base URL and its client; set on entering.

    Raises:
        ConfigError, LabelMapError, CheckpointError, SetupError: on entering.
    """

    def __init__(
        self,
        options: LoopOptions,
        *,
        say: Say | None = None,
        warn: Say | None = None,
        watch: Callable[[News], None] | None = None,
        on_look: Callable[[Look], None] | None = None,
        on_suggested: Callable[[Task, float], None] | None = None,
    ) -> None:
        self.options = options
        self.project = options.project
        self._say = _unfailing(say or _log.info)
        self._warn = _unfailing(warn or say or _log.warning)
        self._tell = _unfailing(watch) if watch is not None else None
        self._on_look = _unfailing(on_look) if on_look is not None else None
        self._on_suggested = on_suggested
        self._stack = ExitStack()
        self._image_ids = ImageIds(self.project.image_ids_path)
        self._store = ImageStore(images_dir(self.project.inbox_dir))
        self._answers = AnswerWriter(self.project.inbox_dir, self._store, warn=self._warn)

    def __enter__(self) -> Loop:
        self._entered_at = time.time()
        with ExitStack() as stack:
            self.label_map = load_label_map(self.options)
            check_model_fits(self.options, self.label_map)
            self.project.create()
            self._threshold = self._make_threshold()
            self.url, children = self._plan_children(stack)
            self.client = stack.enter_context(
                ServingClient(self.url, self.options.model_name, timeout_s=_PREDICT_TIMEOUT_S)
            )
            # For the version alone, which is polled: with the other client's timeout and retries, a server that hangs
            # would block the status and every task.
            self._quick = stack.enter_context(
                ServingClient(self.url, self.options.model_name, timeout_s=VERSION_TIMEOUT_S, retries=0)
            )
            self._web = stack.enter_context(WebImages())
            self._supervisor = stack.enter_context(Supervisor(children, say=self._say, warn=self._warn))
            if self._tell is not None:
                stack.enter_context(Watch(self.look, self.project, self._tell, on_look=self._on_look))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the trainer and the server, after a last attempt to store the answers of failed calls. Idempotent."""
        try:
            if lost := self._answers.give_up():
                self._warn(f"{lost} answers could not be stored for training and are lost to it")
        finally:
            self._stack.close()

    def stream(
        self,
        source: Source,
        *,
        classes: Collection[int] | None = None,
        exclude: Collection[str] = (),
        prepare: Prepare | None = None,
        on_skip: OnSkip | None = None,
    ) -> TaskStream:
        """Tasks with the newest model's suggestions.

        Args:
            source: see `sources.open_source`.
            classes: ids of the classes to suggest; None = all of the label map.
            exclude, prepare, on_skip: see `loop.stream.TaskStream`; without `on_skip`, skipped images go to `say`.

        Raises:
            ConfigError: see `sources.open_source`.
        """
        suggest = Suggester(
            self.client,
            self.label_map,
            threshold=self._threshold,
            control=self.options.control,
            use_display_name=self.options.use_display_name,
            classes=classes,
            has_learned=self._has_learned,
            available_version=self.available_version,
            on_problem=self._report_suggestions,
            on_suggested=self._on_suggested,
            warn=self._warn,
        )
        return TaskStream(
            source,
            suggest,
            is_fresh=suggest.is_fresh,
            exclude=exclude,
            prepare=prepare,
            on_skip=on_skip or (lambda file, reason: self._say(f"skipped {file}: {reason}")),
            fetch=self._web.fetch,
            store=self._store,
            ids=self._image_ids,
            max_pixels=self.options.max_pixels,
            together=self.options.predict_batch_size,
            order=Order(self.options.order, self.options.order_seed),
        )

    def update(self, answers: Sequence[Task]) -> float | None:
        """Store the answers for the trainer. Never raises.

        Answers that cannot be stored (disk full) are reported to `warn`, kept, and retried with the next call.
        Duplicates are dropped.

        Returns:
            The latest training loss; None if there is none.
        """
        self.store(answers)
        return self.latest_loss()

    def store(self, answers: Sequence[Task]) -> Path | None:
        """`update`, but returns the batch's file; None if nothing was new, or nothing could be stored.

        Works after `close()`, too: the next run trains on the batch.
        """
        self._threshold.note(answers)
        return self._answers.try_write(answers)

    def submit(self, answers: Sequence[Task]) -> Path | None:
        """Store the answers as one batch and return its file; None if all of them are duplicates.

        The round that trains on the batch has the file's name in its line in metrics.jsonl.

        Raises:
            InboxError: the batch cannot be written. Its answers are kept and retried with the next call.
        """
        self._threshold.note(answers)
        return self._answers.write(answers)

    @property
    def unsaved(self) -> int:
        """Number of answers that could not be stored yet."""
        return self._answers.waiting

    def latest_loss(self) -> float | None:
        """The training loss that the trainer reported last; None if it has not reported any."""
        return _loss_of(self.trainer_status())

    def wait_until_served(self, batch: Path, *, stop: Callable[[], bool] = lambda: False) -> float | None:
        """Block until a version trained on `batch` is being served, or until its round was held back.

        Args:
            batch: the file that `submit` returned.
            stop: polled; True ends the wait.

        Returns:
            The round's loss. None if the batch has nothing to train on, the round failed, the trainer or the server
            does not respond, or `stop` returned True.
        """
        row = BatchWait(self, batch, stop=stop, warn=self._warn).run()
        return _loss_of(row)

    def trainer_status(self) -> dict[str, Any] | None:
        """Content of the trainer's status.json; None before this trainer has written it."""
        status = read_status(self.project.status_path)
        if status is None or self.options.external_trainer:
            return status
        return status if float(status.get("updated") or 0) >= self._entered_at else None  # else an earlier trainer's

    def available_version(self) -> int | None:
        """The version being served; None while the server is down or loading. Returns within two seconds.

        Raises:
            RequestError: something other than a model server responds at that port.
        """
        if not self.options.external_server and not self._supervisor.running("server"):
            return None  # the socket is open even without a server process, so a request would time out
        return self._quick.available_version()

    def status(self) -> LoopStatus:
        """The status of the trainer and the server. Never raises; problems are its `failure`."""
        version: int | None = None
        stranger: ServingError | None = None
        try:
            version = self.available_version()
        except ServingError as error:  # something other than a model server responds at that port
            stranger = error
        trainer, failure = self.trainer_status(), self.failure()  # last, because the request above may take 2 s
        failed = "" if failure is None else self._supervisor.failed() or "trainer"
        return LoopStatus(trainer, version, stranger or failure, "" if stranger else failed)

    def look(self) -> Look:
        """`status` in the form that `Watch` polls. The failure is split into a sentence and the end of the log."""
        status = self.status()
        sentence, _, log = str(status.failure or "").partition("\n")
        return Look(status.trainer, status.version, sentence, log, status.failed)

    def failure(self) -> OdkerasError | None:
        """Why the trainer or the server was given up, or why an external trainer failed; None if neither."""
        status = self.trainer_status() if self.options.external_trainer else None
        if status is not None and status.get("state") == "failed":
            return TrainingError(f"the trainer failed: {status.get('reason') or 'it gave no reason'}")
        return self._supervisor.failure()

    def _make_threshold(self) -> Threshold:
        given = self.options.threshold
        if isinstance(given, str):
            return AutoThreshold(self.label_map, self.project.data_dir / "thresholds.json")
        return FixedThreshold(given)

    def _plan_children(self, stack: ExitStack) -> tuple[str, list[ChildSpec]]:
        options, logs = self.options, self.project.logs_dir
        port, children = options.port, []
        if not options.external_server:
            bound = stack.enter_context(closing(bind_socket(options.ip, options.port)))
            port = bound.getsockname()[1]
            children.append(server_child(options, logs / "server.log", bound))
        url = server_url(options.ip, port)
        if not options.external_trainer:
            children.insert(0, trainer_child(options, logs / "trainer.log", url))
        return url, children

    def _has_learned(self, version: int) -> bool:
        info = read_export_info(version_dir(self.project.export_dir, version))
        return info is None or info.learned

    def _report_suggestions(self, problem: str) -> None:
        self._say(f"no suggestions for now: {problem}" if problem else "suggestions are back")


def _unfailing(tell: Callable[[T], None]) -> Callable[[T], None]:
    """Wrap a callback so that its exceptions (closed terminal, full disk) do not end the caller."""

    def told(what: T) -> None:
        with suppress(Exception):
            tell(what)

    return told


def load_label_map(options: LoopOptions) -> LabelMap:
    """Load the label map that the options name, else the one that the config names.

    Raises:
        ConfigError, LabelMapError: there is none, or it cannot be read.
    """
    return LabelMap.load(label_map_path(options))


def label_map_path(options: LoopOptions) -> Path:
    """Path of the label map that `load_label_map` loads.

    Raises:
        ConfigError: neither the options nor the config name one.
    """
    path = options.label_map or label_map_path_of(load_pipeline(options.config))
    if not path:
        raise ConfigError(f"{options.config} names no label map; give one with --label-map-path")
    return Path(path)


def check_model_fits(options: LoopOptions, label_map: LabelMap) -> None:
    """Check that the model trained so far has the classes of the label map. Runs before any process is started.

    Raises:
        ConfigError, CheckpointError: it has other classes, or its checkpoints are missing; the message says what to do.
    """
    directories, config = options.project, load_pipeline(options.config)
    check_trained_classes(config, label_map, model_dir=directories.model_dir, export_dir=directories.export_dir)
    if not options.external_trainer:  # an external trainer's checkpoints may not be visible on this machine
        known = has_checkpoints(directories.model_dir)
        check_training_continues(directories.model_dir, directories.export_dir, has_checkpoint=known)


def _loss_of(row: dict[str, Any] | None) -> float | None:
    loss = (row or {}).get("loss")
    return float(loss) if isinstance(loss, (int, float)) else None
