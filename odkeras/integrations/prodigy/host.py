"""Base class of both recipes' hosts: the stream and the callbacks that Prodigy calls, `on_load` and `on_exit`."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from typing import Any

from odkeras.formats.prodigy import Task
from odkeras.integrations.prodigy.api import ProdigyApi, exit_on_error
from odkeras.integrations.prodigy.source import AnsweredImages
from odkeras.session.sources import Source
from odkeras.session.stream import TaskStream

PRODIGY_BATCH_SIZE = 5
"""Tasks per request of the browser. Smaller batches mean fresher suggestions and earlier training on the answers."""

Components = dict[str, Any]


class Host:
    """Base class of both recipes' hosts: the stream without already answered images, and logging."""

    recipe = ""

    def __init__(
        self,
        prodigy: ProdigyApi,
        source: Source,
        *,
        labels: Sequence[str],
        dataset: str,
        exclude: Sequence[str],
        classes: Collection[int] | None,
    ) -> None:
        self._prodigy = prodigy
        self._source = source
        self._labels = list(labels)
        self._dataset = dataset
        self._exclude = list(exclude)
        self._classes = classes
        self._answered = AnsweredImages(prodigy)
        self._stream: TaskStream | None = None
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[Task]:
        return self

    def __next__(self) -> Task:
        with exit_on_error(self.recipe):
            stream = self._started()
        return next(stream)

    def on_load(self, ctrl: Any) -> None:
        """Callback for Prodigy's start: load the answered images and open the stream, which may start processes."""
        with exit_on_error(self.recipe):
            self._load_answered(ctrl)
            self._started()

    def on_exit(self, ctrl: Any = None) -> None:
        """Callback for Prodigy's exit."""
        self.close()

    def close(self) -> None:
        """Release resources. Idempotent."""

    def log(self, text: str, details: Any = None) -> None:
        """Log one step for PRODIGY_LOGGING=basic; `details` are shown with verbose. Never raises."""
        with suppress(Exception):  # a closed terminal must not end the stream
            self._prodigy.log(f"RECIPE: {text}", details)

    def warn(self, text: str) -> None:
        """Report a problem; printed without PRODIGY_LOGGING too. Never raises."""
        with suppress(Exception):
            if os.environ.get("PRODIGY_LOGGING") not in ("basic", "verbose"):  # these already show the log line
                print(f"odkeras: {text}", file=sys.stderr, flush=True)
        first, _, rest = text.partition("\n")
        self.log(first, rest or None)

    def _open(self) -> TaskStream:
        raise AssertionError("a host opens its stream")

    def _started(self) -> TaskStream:
        """The stream, opened by the first call from anywhere: Prodigy versions differ in whether they read the stream
        before they call `on_load`."""
        with self._lock:
            if self._stream is None:
                self._stream = self._open()
            return self._stream

    def _prepare(self, task: Task) -> Task | None:
        return None if self._answered.has_elsewhere(task) else self._prodigy.with_hashes(task)

    def _skipped(self, name: str, reason: str) -> None:
        self.warn(f"skipped {name}: {reason}")

    def _suggested(self, task: Task, seconds: float) -> None:
        made = task["_suggestions"]
        text = f"{len(made['spans'])} suggestions of version {made['version']} for {task['meta']['file']}"
        self.log(f"{text} (threshold {made['threshold']:g}, {1000 * seconds:.0f} ms)", made)

    def _problem(self, problem: str) -> None:
        self.log(f"no suggestions for now: {problem}" if problem else "suggestions are back")

    def _load_answered(self, ctrl: Any) -> None:
        """Load the answered images. Prodigy skips them too, but only after they were predicted. Never raises."""
        try:
            names = list(self._exclude)
            config = getattr(ctrl, "config", None) or {}
            if config.get("auto_exclude_current", True) and not config.get("feed_overlap", False):
                names.append(self._dataset)
            unknown = [name for name in self._exclude if name not in ctrl.db]
            if unknown:
                self.warn(f"--exclude: there is no dataset {', '.join(unknown)}")
            self._answered.load(ctrl.db, names)
            if len(self._answered):
                self.log(f"{len(self._answered)} images of {', '.join(names)} are answered and left out")
        except Exception as error:  # no database, or one with a different interface
            self.log(f"Prodigy leaves out what is answered: {type(error).__name__}: {error}")

    def _config(self) -> dict[str, Any]:
        return {
            "label": ", ".join(self._labels),
            "labels": self._labels,
            "batch_size": PRODIGY_BATCH_SIZE,
            "exclude_by": "input",
            "feed_overlap": False,
            "auto_count_stream": False,  # counting would run predictions for the whole stream
        }
