"""The trainer process (`odkeras trainer`): polls the inbox and runs rounds until it is stopped."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import tensorflow as tf

from odkeras.control import Control
from odkeras.errors import ConfigError, OdkerasError, SetupError
from odkeras.model.setup import Setup, prepare_setup, save_resolved
from odkeras.pipeline import Overrides, check_pipeline, raise_for_problems
from odkeras.process import stop_on_signals, stop_with_parent
from odkeras.project import Project
from odkeras.training.checkpoints import lock_model_dir
from odkeras.training.rounds import RoundOptions, open_rounds
from odkeras.training.status import StatusFile
from odkeras.training.strategy import grow_gpu_memory, make_strategy

_log = logging.getLogger(__name__)

_POLL_S = 0.1
_POLLS_PER_HEARTBEAT = 20
_NICENESS = 10


@dataclass(frozen=True)
class TrainerOptions:
    """Options of the trainer process.

    Args:
        config: path of the pipeline.config.
        directories: data, model and export directory.
        rounds: options of the rounds.
        overrides: changes to the config from the command line.
        strategy: "none" or "mirrored"; "multi-worker" is refused.
        once: exit when no answers wait to be trained on.
        stop_on_stdin_eof: exit when standard input closes, as it does when the parent process dies.
        give_way: lower the CPU priority, so that the host and the model server respond quickly during training.
        live_version: callback that returns the version being served, which is never deleted; None if unknown.
    """

    config: Path
    directories: Project
    rounds: RoundOptions = field(default_factory=RoundOptions)
    overrides: Overrides = field(default_factory=Overrides)
    strategy: str = "none"
    once: bool = False
    stop_on_stdin_eof: bool = False
    give_way: bool = False
    live_version: Callable[[], int | None] = lambda: None


def run_trainer(options: TrainerOptions) -> None:
    """Train on the answers in the inbox until SIGTERM, SIGINT or, with `stop_on_stdin_eof`, end-of-file on stdin.

    Raises:
        ConfigError: `once` is set, but training is paused or stopped.
        OdkerasError: it cannot start or continue; status.json has the reason, too.
    """
    stop = threading.Event()
    if options.give_way:
        _lower_priority()
    if options.stop_on_stdin_eof:
        stop_with_parent(stop.set, sys.stdin.fileno())
    options.directories.create()
    with stop_on_signals(stop.set):
        if options.once:
            _check_training_runs(options)
        try:
            setup, strategy = _prepare(options)
        except OdkerasError as error:
            # If another trainer holds the lock, status.json is that trainer's.
            with suppress(SetupError, OSError), lock_model_dir(options.directories.model_dir, wait_s=0.0):
                StatusFile(options.directories.status_path).update(state="failed", reason=str(error))
            raise
        with open_rounds(
            setup.config,
            setup.label_map,
            options.directories,
            options=options.rounds,
            strategy=strategy,
            live_version=options.live_version,
            should_stop=stop.is_set,
        ) as rounds:
            save_resolved(setup, options.directories.model_dir)
            polls = 0
            while not stop.is_set():
                if rounds.run_pending():
                    continue
                if options.once:
                    break
                polls += 1
                if polls % _POLLS_PER_HEARTBEAT == 0:
                    rounds.heartbeat()
                stop.wait(_POLL_S)
        if options.once and not stop.is_set():
            _check_training_runs(options)  # a pause during the run ends it, too, with answers left in the inbox


def _check_training_runs(options: TrainerOptions) -> None:
    control = Control(options.directories.control_path)
    control.check_running(options.config.parent, "--once would end while answers wait")


def _prepare(options: TrainerOptions) -> tuple[Setup, tf.distribute.Strategy | None]:
    if options.strategy == "multi-worker":
        raise ConfigError(
            "--strategy multi-worker is for `odkeras train`; the loop trains on one machine (none or mirrored)"
        )
    grow_gpu_memory()
    model_dir, export_dir = options.directories.model_dir, options.directories.export_dir
    setup = prepare_setup(options.config, model_dir, options.overrides, "loop", export_dir=export_dir)
    if options.rounds.evaluates and not options.rounds.eval_split:
        problems = check_pipeline(setup.config, label_map=setup.label_map, purpose="eval")
        option = "--run-eval" if options.rounds.run_eval else "--publish-if-better"
        raise_for_problems(problems, source=f"{options.config}, with {option}")
    return setup, make_strategy(options.strategy)


def _lower_priority() -> None:
    """Lower the priority of this process, and of its session where Linux schedules by session (autogroup).

    With autogroup, nice values count only within a session, and a host starts the trainer in a session of its own.
    """
    with suppress(OSError):
        os.nice(_NICENESS)
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(_NICENESS), encoding="ascii")
