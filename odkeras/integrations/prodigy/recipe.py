"""What both recipes have in common: the stream, the callbacks `on_load` and `on_exit`, and logging."""

from __future__ import annotations

import os
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from odkeras.annotation import Task
from odkeras.formats.prodigy import Record, write_task
from odkeras.integrations.prodigy.api import ProdigyApi, exit_on_error
from odkeras.integrations.prodigy.source import AnsweredImages
from odkeras.session.events import Event, Listener
from odkeras.session.stream import TaskStream
from odkeras.text import say

PRODIGY_BATCH_SIZE = 5
"""Tasks per request of the browser. Smaller batches mean fresher suggestions and earlier training on the answers."""

Components = dict[str, Any]


class Recipe(ABC, Listener):
    """A recipe's callbacks, as Prodigy calls them; iterating gives the tasks.

    Prodigy versions differ in whether they read the stream before they call `on_load`, so the first of both calls opens
    the stream, which may start processes.

    Args:
        prodigy: the installed Prodigy.
        labels: labels that the annotator can choose from.
        dataset: dataset in which Prodigy stores the answers.
        exclude: datasets whose images are skipped.
    """

    name = ""

    def __init__(
        self, prodigy: ProdigyApi, *, labels: Sequence[str], dataset: str, exclude: Sequence[str] = ()
    ) -> None:
        self._prodigy = prodigy
        self._labels = list(labels)
        self._dataset = dataset
        self._exclude = list(exclude)
        self._answered = AnsweredImages(prodigy)
        self._stream: TaskStream | None = None
        self._lock = threading.Lock()

    @abstractmethod
    def _open(self) -> TaskStream:
        """Start what the recipe needs, and open the stream. Called once."""

    @abstractmethod
    def close(self) -> None:
        """Release resources. Idempotent."""

    def components(self) -> Components:
        """The components that the recipe returns to Prodigy."""
        return {
            "dataset": self._dataset,
            "view_id": "image_manual",
            "stream": self,
            "exclude": self._exclude or None,
            "on_load": self.on_load,
            "on_exit": self.on_exit,
            "config": {
                "label": ", ".join(self._labels),
                "labels": self._labels,
                "batch_size": PRODIGY_BATCH_SIZE,
                "exclude_by": "input",
                "feed_overlap": False,
                "auto_count_stream": False,  # counting would run predictions for the whole stream
            },
        }

    def __iter__(self) -> Iterator[Record]:
        return self

    def __next__(self) -> Record:
        return write_task(_without_suggested_keypoints(next(self._opened())))

    def on_load(self, ctrl: Any) -> None:
        """Callback for Prodigy's start: load the answered images and open the stream."""
        with exit_on_error(self.name):
            self._load_answered(ctrl)
        self._opened()

    def on_exit(self, ctrl: Any = None) -> None:
        """Callback for Prodigy's exit."""
        self.close()

    def event(self, event: Event) -> None:
        if event.urgent:
            self.warn(f"{event.line}\n{event.details}" if isinstance(event.details, str) else event.line)
        else:
            self.log(event.line, event.details)

    def skipped(self, name: str, reason: str) -> None:
        self.warn(f"skipped {name}: {reason}")

    def suggested(self, task: Task, seconds: float) -> None:
        suggestions = task.suggestions
        assert suggestions is not None
        text = f"{len(task.spans)} suggestions of version {suggestions.version} for {task.file}"
        details = [f"{span.label} {span.score}" for span in suggestions.spans]
        self.log(f"{text} (threshold {suggestions.threshold:g}, {1000 * seconds:.0f} ms)", details)

    def log(self, text: str, details: Any = None) -> None:
        """Log one step for PRODIGY_LOGGING=basic; `details` are shown with verbose. Never raises."""
        with suppress(Exception):  # a closed terminal must not end the stream
            self._prodigy.log(f"RECIPE: {text}", details)

    def warn(self, text: str) -> None:
        """Report a problem; printed without PRODIGY_LOGGING too. Never raises."""
        with suppress(Exception):
            if os.environ.get("PRODIGY_LOGGING") not in ("basic", "verbose"):  # these already show the log line
                say(f"odkeras: {text}", file=sys.stderr, flush=True)
        first, _, rest = text.partition("\n")
        self.log(first, rest or None)

    def _opened(self) -> TaskStream:
        with self._lock:
            if self._stream is None:
                with exit_on_error(self.name):
                    self._stream = self._open()
            return self._stream

    def _prepare(self, task: Task) -> Task | None:
        if self._answered.has_elsewhere(task):
            return None
        return replace(task, other={**task.other, **self._prodigy.hashes(task.image_id)})

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
                self.log(f"{len(self._answered)} images of {', '.join(names)} are answered and skipped")
        except Exception as error:  # no database, or one with a different interface
            self.log(f"Prodigy excludes answered images: {type(error).__name__}: {error}")


def _without_suggested_keypoints(task: Task) -> Task:
    """The task without the model's keypoints: Prodigy does not show them, so no annotator could correct them."""
    spans = tuple(span if span.score is None else replace(span, keypoints=()) for span in task.spans)
    return replace(task, spans=spans)
