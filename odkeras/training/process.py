"""The trainer process (`odkeras trainer`): polls the inbox and runs rounds until it is stopped."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import tensorflow as tf

from odkeras import project
from odkeras.config.parsing import AUTO
from odkeras.config.settings import TrainingSettings
from odkeras.control import Control
from odkeras.errors import OdkerasError, SetupError, error_reason
from odkeras.labels import LabelMap
from odkeras.model.setup import Setup, prepare_setup, save_resolved
from odkeras.pipeline import check_pipeline, raise_for_problems
from odkeras.process import exit_on_second_signal, exit_with_parent, stop_on_signals
from odkeras.training.checkpoints import lock_data_dir, lock_model_dir
from odkeras.training.cluster import Cluster, join_cluster
from odkeras.training.crew import check_batch_size, check_cluster
from odkeras.training.following import follow_chief
from odkeras.training.free_space import FreeSpace
from odkeras.training.rounds import Rounds
from odkeras.training.status import StatusFile
from odkeras.training.strategy import grow_gpu_memory, make_strategy

_log = logging.getLogger(__name__)

_POLL_S = 0.1
_POLLS_PER_HEARTBEAT = 20
_NICENESS = 10
_ORPHAN_S = 15.0
"""A trainer without a parent ends at the latest after this time. On a busy machine building the model takes minutes,
and it holds the lock of its directories for as long. Being killed at any time costs it nothing."""


def run_trainer(
    settings: TrainingSettings,
    *,
    once: bool = False,
    stop_on_stdin_eof: bool = False,
    give_way: bool = False,
    live_version: Callable[[], int | None] = lambda: None,
) -> None:
    """Train on the answers in the inbox until SIGTERM, SIGINT or, with `stop_on_stdin_eof`, end-of-file on stdin.

    Args:
        once: exit when no answers wait to be trained on.
        stop_on_stdin_eof: exit when standard input closes, as it does when the parent process dies.
        give_way: lower the CPU priority, so that the host and the model server respond quickly during training.
        live_version: callback that returns the version being served, which is never deleted; None if unknown.

    Raises:
        ConfigError: `once` is set, but training is paused or stopped.
        SetupError: `once` is set, but there is too little free space.
        OdkerasError: it cannot start or continue; status.json has the reason, too.
        ClusterError: another worker was lost.
    """
    stop = threading.Event()
    if give_way:
        _lower_priority()
    directories = settings.project
    directories.create()
    with_parent = exit_with_parent(stop.set, sys.stdin.fileno(), _ORPHAN_S) if stop_on_stdin_eof else nullcontext()
    with with_parent, stop_on_signals(stop.set), exit_on_second_signal():
        if once:
            _check_training_runs(settings)
        try:
            setup, strategy = prepare_training(settings)
            cluster = join_cluster(strategy, stop)
            if cluster is not None:
                check_cluster(cluster, setup.config, settings)
        except OdkerasError as error:
            # If another trainer holds the lock, status.json is that trainer's.
            with suppress(SetupError, OSError), lock_model_dir(directories.model_dir, wait_s=0.0):
                StatusFile(directories.status_path).update(state="failed", reason=str(error))
            raise
        if cluster is not None and strategy is not None and not cluster.is_chief:
            follow_chief(setup, settings, strategy, cluster)
            return
        with open_rounds(
            setup.config,
            setup.label_map,
            settings,
            strategy=strategy,
            cluster=cluster,
            live_version=live_version,
            should_stop=stop.is_set,
        ) as rounds:
            save_resolved(setup, directories.model_dir)
            _run_rounds(rounds, stop, once=once)
            rounds.dismiss_workers()
        if once and not stop.is_set():
            _check_training_runs(settings)  # a pause during the run ends it, too, with answers left in the inbox


def _run_rounds(rounds: Rounds, stop: threading.Event, *, once: bool) -> None:
    polls = 0
    while not stop.is_set():
        if rounds.run_pending():
            continue
        if once:
            return
        if rounds.train_further():
            continue
        polls += 1
        if polls % _POLLS_PER_HEARTBEAT == 0:
            rounds.heartbeat()
        stop.wait(_POLL_S)


def _check_training_runs(settings: TrainingSettings) -> None:
    control = Control(settings.project.control_path)
    control.check_running(settings.config.parent, "--once would end while answers wait")
    if problem := FreeSpace(settings.project, settings.min_free).problem():
        raise SetupError(problem)


def prepare_training(settings: TrainingSettings) -> tuple[Setup, tf.distribute.Strategy | None]:
    """Resolve and check the pipeline.config for the loop.

    Raises:
        ConfigError: it cannot be used, has no examples for an evaluation that is asked for, or its batches cannot be
            divided among the devices.
    """
    grow_gpu_memory()
    setup = prepare_setup(settings, "loop")
    if settings.evaluates and not settings.eval_split:
        problems = check_pipeline(setup.config, label_map=setup.label_map, purpose="eval")
        option = "--run-eval" if settings.run_eval else "--publish-if-better"
        raise_for_problems(problems, source=f"{settings.config}, with {option}")
    strategy = make_strategy(settings.strategy)
    if settings.batch_size != AUTO:
        check_batch_size(setup.config, strategy.num_replicas_in_sync if strategy is not None else 1)
    return setup, strategy


def _lower_priority() -> None:
    """Lower the priority of this process, and of its session where Linux schedules by session (autogroup).

    With autogroup, nice values count only within a session, and a host starts the trainer in a session of its own.
    """
    with suppress(OSError):
        os.nice(_NICENESS)
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(_NICENESS), encoding="ascii")


@contextlib.contextmanager
def open_rounds(config: Any, label_map: LabelMap, settings: TrainingSettings, **kwargs: Any) -> Iterator[Rounds]:
    """Create the directories, lock the model directory, and yield `Rounds(...)`. Errors are written to status.json.

    Raises:
        InUseError: another trainer holds the lock on the model directory, or on the data directory.
        OdkerasError: see `Rounds`.
    """
    directories = settings.project
    directories.create()
    with lock_model_dir(directories.model_dir), contextlib.ExitStack() as stack:
        stack.enter_context(lock_data_dir(directories.data_dir))
        for directory in (directories.export_dir, directories.data_dir, directories.inbox_dir, directories.model_dir):
            project.remove_stale_temporaries(directory)
        status = StatusFile(directories.status_path)
        cluster: Cluster | None = kwargs.get("cluster")
        try:
            with cluster.watching() if cluster is not None else nullcontext():
                rounds = Rounds(config, label_map, settings, status=status, **kwargs)
                stack.callback(rounds.close)
                yield rounds
        except Exception as error:
            status.update(state="failed", reason=error_reason(error))
            raise
