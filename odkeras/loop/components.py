"""What a host runs: the processes, the stream, the place for answers, the state of affairs.

    with Loop(LoopOptions(config=Path("project/pipeline.config")), say=print) as loop:
        for task in loop.stream("images"):      # suggestions of the newest model
            loop.update([answer_of(task)])      # durable when it returns; trained on in the background

A host is an adapter between this and whoever annotates.
"""

from __future__ import annotations

import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from odkeras.errors import ConfigError, OdkerasError, ServingError, TrainingError
from odkeras.inbox import put_batch
from odkeras.labels import LabelMap
from odkeras.loop.leash import leash_command
from odkeras.loop.options import LoopOptions
from odkeras.loop.stream import OnSkip, Source, Suggester, Task, TaskStream
from odkeras.loop.supervisor import ChildSpec, Say, Supervisor, bind_socket
from odkeras.pipeline import label_map_path_of, load_pipeline
from odkeras.project import read_status
from odkeras.serving.client import ServingClient
from odkeras.serving.launch import server_command

_VERSION_TIMEOUT_S = 2.0
_PREDICT_TIMEOUT_S = 30.0
_SERVER_POLL_S = 0.25

_log = logging.getLogger("odkeras.loop")


@dataclass(frozen=True)
class LoopStatus:
    """The state of affairs, for a host to show.

    Args:
        trainer: the trainer's status.json; None before it has written one.
        version: the version served now; None while the server is away or loading.
        failure: why the trainer or the server was given up, or cannot be talked to; None while all is well.
    """

    trainer: dict[str, Any] | None
    version: int | None
    failure: OdkerasError | None


class Loop:
    """Context manager: entering makes the directories and starts the processes, `close()` (twice is fine) ends them.

    Args:
        options: what to run.
        say: told what a person should know; may be called from another thread. Goes to the log `odkeras.loop` when
            None.

    Raises:
        ConfigError, LabelMapError, SetupError: on entering.
    """

    def __init__(self, options: LoopOptions, *, say: Say | None = None) -> None:
        self.options = options
        self.project = options.project
        self._say = say or _log.info
        self._stack = ExitStack()
        self._lock = threading.Lock()
        self._unsaved: list[Task] = []

    def __enter__(self) -> Loop:
        self._entered_at = time.time()
        with ExitStack() as stack:
            self.label_map = load_label_map(self.options)
            self.project.create()
            self.url, children = self._plan_children(stack)
            self.client = stack.enter_context(
                ServingClient(self.url, self.options.model_name, timeout_s=_PREDICT_TIMEOUT_S)
            )
            self._watch = stack.enter_context(
                ServingClient(self.url, self.options.model_name, timeout_s=_VERSION_TIMEOUT_S, retries=0)
            )
            self._supervisor = stack.enter_context(Supervisor(children, say=self._say))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stops the trainer and the server, after a last attempt to store what could not be stored before."""
        try:
            if self._unsaved:
                self.update([])
            if self._unsaved:
                self._say(f"{len(self._unsaved)} answers could not be stored for training and are lost to it")
                self._unsaved = []
        finally:
            self._stack.close()

    def stream(
        self,
        source: Source,
        *,
        exclude: Collection[str] = (),
        prepare: Callable[[Task], Task] | None = None,
        on_skip: OnSkip | None = None,
    ) -> TaskStream:
        """Tasks with the newest model's suggestions; see `loop.stream.TaskStream`."""
        suggest = Suggester(
            self.client,
            self.label_map,
            threshold=self.options.threshold,
            use_display_name=self.options.use_display_name,
            available_version=self.available_version,
            on_problem=self._report_suggestions,
        )
        return TaskStream(
            source,
            suggest,
            exclude=exclude,
            prepare=prepare,
            on_skip=on_skip or (lambda file, reason: self._say(f"skipped {file}: {reason}")),
            max_pixels=self.options.max_pixels,
        )

    def update(self, answers: Sequence[Task]) -> float | None:
        """Stores the answers for the trainer, returns the latest training loss if there is one. Never raises.

        Answers that cannot be stored (disk full) are reported, kept, and tried again with the next ones.
        """
        with self._lock:
            self._unsaved += answers
            try:
                if self._unsaved:
                    put_batch(self.project.inbox_dir, self._unsaved)
                self._unsaved = []
            except Exception as error:  # a host that lost its update callback would lose the answers too
                self._say(f"{len(self._unsaved)} answers wait to be stored for training: {error}")
        return _latest_loss(self.trainer_status())

    def submit(self, answers: Sequence[Task]) -> Path:
        """Stores the answers as one batch and returns its file, whose name is found again in `metrics.jsonl`.

        Raises:
            InboxError: they could not be stored.
        """
        return put_batch(self.project.inbox_dir, answers)

    def trainer_status(self) -> dict[str, Any] | None:
        """What the trainer says that it is doing; None when it has not said anything yet."""
        status = read_status(self.project.status_path)
        if status is None or self.options.external_trainer:
            return status
        return status if float(status.get("updated") or 0) >= self._entered_at else None  # else an earlier trainer's

    def available_version(self) -> int | None:
        """The version served now; None while the server is away or loading. Answers within two seconds.

        Raises:
            RequestError: something else than a model server answers there.
        """
        if not self.options.external_server and not self._supervisor.running("server"):
            return None  # its socket is open all the same: a connection would wait
        return self._watch.available_version()

    def status(self) -> LoopStatus:
        """Never raises: what is wrong is its `failure`."""
        try:
            return LoopStatus(self.trainer_status(), self.available_version(), self.failure())
        except ServingError as error:  # something else than a model server answers at that port
            return LoopStatus(self.trainer_status(), None, error)

    def failure(self) -> OdkerasError | None:
        """Why the trainer or the server was given up; None while all is well."""
        status = self.trainer_status() if self.options.external_trainer else None
        if status is not None and status.get("state") == "failed":
            return TrainingError(f"the trainer failed: {status.get('reason') or 'it gave no reason'}")
        return self._supervisor.failure()

    def _plan_children(self, stack: ExitStack) -> tuple[str, list[ChildSpec]]:
        options, logs = self.options, self.project.logs_dir
        port, children = options.port, []
        if not options.external_server:
            bound = stack.enter_context(closing(bind_socket(options.ip, options.port)))
            port = bound.getsockname()[1]
            children.append(server_child(options, logs / "server.log", bound))
        url = f"http://{_reachable(options.ip)}:{port}"
        if not options.external_trainer:
            command = tuple(trainer_command(options, url))
            children.insert(
                0, ChildSpec("trainer", command, logs / "trainer.log", env=_UNBUFFERED, error=TrainingError)
            )
        return url, children

    def _report_suggestions(self, problem: str) -> None:
        self._say(f"no suggestions for now: {problem}" if problem else "suggestions are back")


_UNBUFFERED = {"PYTHONUNBUFFERED": "1"}


def server_child(options: LoopOptions, log_path: Path, bound: socket.socket) -> ChildSpec:
    """The model server on an open socket; TensorFlow Serving, which cannot inherit one, gets its port instead."""
    name, base_path = options.model_name, options.project.export_dir
    if options.tensorflow_serving:
        port = bound.getsockname()[1]
        bound.close()
        command = server_command(name, base_path, rest_api_port=port, poll_wait_s=1, tensorflow_serving=True)
        return ChildSpec("server", tuple(leash_command(command)), log_path, error=ServingError)
    command = server_command(
        name, base_path, socket_fd=bound.fileno(), poll_wait_s=_SERVER_POLL_S, stop_on_stdin_eof=True
    )
    return ChildSpec(
        "server", tuple(command), log_path, pass_fds=(bound.fileno(),), env=_UNBUFFERED, error=ServingError
    )


def trainer_command(options: LoopOptions, serving_url: str) -> list[str]:
    """Command line of the trainer process."""
    project = options.project
    command = [sys.executable, "-m", "odkeras", "trainer", str(options.config)]
    command += ["--data-dir", str(project.data_dir), "--model-dir", str(project.model_dir)]
    command += ["--export-dir", str(project.export_dir)]
    command += ["--serving-url", serving_url, "--model-name", options.model_name]
    command += ["--steps-per-epoch", str(options.steps_per_epoch), "--temp-files-num", str(options.temp_files_num)]
    command += ["--max-checkpoints-num", str(options.max_checkpoints_num), "--replay", options.replay]
    command += ["--strategy", options.strategy, "--tf-logging-level", str(options.tf_logging_level)]
    if options.label_map is not None:
        command += ["--label-map-path", str(options.label_map)]
    if options.run_eval:
        command += ["--run-eval"]
    if options.eval_steps is not None:
        command += ["--eval-steps", str(options.eval_steps)]
    return [*command, "--stop-on-stdin-eof"]


def load_label_map(options: LoopOptions) -> LabelMap:
    """The label map of the options, else the one that the config names.

    Raises:
        ConfigError, LabelMapError: there is none, or it cannot be read.
    """
    path = options.label_map or label_map_path_of(load_pipeline(options.config))
    if not path:
        raise ConfigError(f"{options.config} names no label map; give one with --label-map-path")
    return LabelMap.load(Path(path))


def _latest_loss(status: dict[str, Any] | None) -> float | None:
    loss = (status or {}).get("loss")
    return float(loss) if isinstance(loss, (int, float)) else None


def _reachable(ip: str) -> str:
    """An address to connect to for one to listen on."""
    if ip in ("0.0.0.0", "::"):
        return "127.0.0.1"
    return f"[{ip}]" if ":" in ip else ip
