"""The trainer process: rounds until it is told to stop."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from odkeras.errors import ConfigError, OdkerasError
from odkeras.model.setup import prepare_setup, save_resolved
from odkeras.pipeline import Overrides
from odkeras.project import Project
from odkeras.training.rounds import RoundOptions, Rounds, open_rounds
from odkeras.training.status import StatusFile
from odkeras.training.strategy import grow_gpu_memory, make_strategy

_log = logging.getLogger(__name__)

_POLL_S = 0.1
_BEAT_EVERY = 20


@dataclass(frozen=True)
class TrainerOptions:
    """What `odkeras trainer` was asked to do.

    Args:
        config: path of the pipeline.config.
        directories: data, model and export directory.
        rounds: how rounds go.
        overrides: what the command line changes in the config.
        strategy: "none", "mirrored" or "multi-worker".
        once: end when nothing waits to be trained.
        stop_on_stdin_eof: end when standard input is closed, as it is when the parent process dies.
        live_version: tells which version is being served.
    """

    config: Path
    directories: Project
    rounds: RoundOptions = field(default_factory=RoundOptions)
    overrides: Overrides = field(default_factory=Overrides)
    strategy: str = "none"
    once: bool = False
    stop_on_stdin_eof: bool = False
    live_version: Callable[[], int | None] = lambda: None


def run_trainer(options: TrainerOptions) -> None:
    """Train whatever comes into the inbox until SIGTERM, Ctrl-C or (if asked for) the end of standard input.

    Raises:
        OdkerasError: it cannot start; status.json says the same.
    """
    stop = threading.Event()
    _stop_on_signals(stop)
    if options.stop_on_stdin_eof:
        threading.Thread(target=_stop_at_end_of_file, args=(stop,), daemon=True).start()
    options.directories.create()
    try:
        _run(options, stop)
    except OdkerasError as error:
        with suppress(OSError):
            StatusFile(options.directories.status_path).update(state="failed", reason=str(error))
        raise


def _run(options: TrainerOptions, stop: threading.Event) -> None:
    if options.strategy == "multi-worker":
        raise ConfigError(
            "--strategy multi-worker is for `odkeras train`; the loop trains on one machine (none or mirrored)"
        )
    grow_gpu_memory()
    setup = prepare_setup(options.config, options.directories.model_dir, options.overrides, "loop")
    with open_rounds(
        setup.config,
        setup.label_map,
        options.directories,
        options=options.rounds,
        strategy=make_strategy(options.strategy),
        live_version=options.live_version,
        should_stop=stop.is_set,
    ) as rounds:
        save_resolved(setup, options.directories.model_dir)
        rounds.start()
        _serve_rounds(rounds, stop, once=options.once)


def _serve_rounds(rounds: Rounds, stop: threading.Event, *, once: bool) -> None:
    idle = 0
    while not stop.is_set():
        if rounds.run_pending():
            continue
        if once:
            return
        idle += 1
        if idle % _BEAT_EVERY == 0:
            rounds.beat()
        stop.wait(_POLL_S)


def _stop_on_signals(stop: threading.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())


def _stop_at_end_of_file(stop: threading.Event) -> None:
    with suppress(OSError, ValueError):
        while os.read(sys.stdin.fileno(), 1024):
            pass
    stop.set()
