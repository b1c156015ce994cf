"""The recipe's host with the web page and our own database in place of Prodigy."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from odkeras.errors import ConfigError, OdkerasError
from odkeras.formats.prodigy import Task
from odkeras.integrations.prodigy.api import INPUT_HASH, TASK_HASH, ProdigyApi
from odkeras.integrations.prodigy.training_host import TrainingHost
from odkeras.pipeline import load_pipeline, starts_from_random_weights
from odkeras.project import Project
from odkeras.session.components import label_map_path
from odkeras.session.remaining import Remaining
from odkeras.session.sources import Item
from odkeras.session.stream import TaskStream
from odkeras.session.watch import Look, News
from odkeras.web.database import AnswerDatabase
from odkeras.web.next_steps import NextStep, next_steps
from odkeras.web.panel import Panel
from odkeras.web.stored import input_hash_of

_NO_HASH = -1


class Journal:
    """The event log: prints one line per event to the terminal and, once it is set, forwards it to the page's panel."""

    def __init__(self) -> None:
        self.panel: Panel | None = None
        self._lock = threading.Lock()

    def tell(self, news: News) -> None:
        """Log an event. Never raises: a closed terminal must not stop the caller."""
        details = f"\n{news.details}" if news.urgent and isinstance(news.details, str) else ""
        with suppress(Exception), self._lock:
            print(f"{news.line}{details}", file=sys.stderr if news.urgent else sys.stdout, flush=True)
        if self.panel is not None:
            self.panel.told(news)

    def say(self, text: str) -> None:
        self.tell(News(text))

    def warn(self, text: str) -> None:
        self.tell(News(text, urgent=True))


@dataclass(frozen=True)
class PageApi(ProdigyApi):
    """The Prodigy API that the recipes use, implemented with the page's own database."""

    database: AnswerDatabase

    @classmethod
    def of(cls, database: AnswerDatabase) -> PageApi:
        return cls(log=lambda message, details=None: None, set_hashes=_set_hashes, database=database)

    def input_hash(self, task: Task) -> int:
        """Always a hash that never matches: other recipes' hashes are not in this database, because `odkeras db in`
        determines the image id of every example."""
        return _NO_HASH

    def open_api(self, source: Any, api: str) -> Any:
        raise ConfigError(f"--api {api}: API loaders are Prodigy's own; give a directory or a .jsonl file")

    def connect(self) -> AnswerDatabase:
        return self.database


def _set_hashes(task: Task, **options: Any) -> Task:
    value = input_hash_of(str(task.get("image_id")))
    return {**task, INPUT_HASH: value, TASK_HASH: value}


class PageHost(TrainingHost):
    """`odkeras annotate`: the recipe's components, and what the page needs beyond them.

    Attributes:
        journal: the event log; set it before `on_load`.
    """

    recipe = "odkeras annotate"
    journal = Journal()

    def log(self, text: str, details: Any = None) -> None:
        self.journal.say(text)

    def warn(self, text: str) -> None:
        self.journal.warn(text)

    @property
    def project(self) -> Project:
        """The data, model and export directories."""
        return self._options.project

    @property
    def config(self) -> Path:
        """Path of the pipeline.config."""
        return self._options.config

    @property
    def handed_on_before(self) -> int:
        """Number of images whose answers reached the data directory for this dataset, from any database."""
        return len(self._ledger)

    def next_steps(self, db: Path) -> list[NextStep]:
        """The commands to suggest once all images are answered; `db` is the answer database."""
        return next_steps(self._options, self._dataset, db)

    def starts_from_random_weights(self) -> bool:
        """Whether the config names no weights to start from. False if it cannot be read; the trainer reports that."""
        try:
            return starts_from_random_weights(load_pipeline(self._options.config))
        except OdkerasError:
            return False

    @property
    def label_map_path(self) -> Path:
        """Path of the label map that defines the answers' labels."""
        return label_map_path(self._options)

    @property
    def failure_to_store(self) -> bool:
        """Whether answers are pending in memory because they could not be stored for the trainer."""
        return self._loop is not None and self._loop.unsaved > 0

    def light_tasks(self) -> Iterator[Task]:
        """The tasks with image paths instead of image data, because open tasks stay in memory."""
        return map(self._without_base64, self)  # not a generator, which would end at the first exception

    def suggest_again(self, tasks: Sequence[Task]) -> list[Task]:
        """The tasks with the newest model's suggestions if a model is served. The tasks must contain their images."""
        return self._started().suggest_again(tasks)

    @property
    def stream(self) -> TaskStream:
        """The task stream; the first access starts everything."""
        return self._started()

    def read_task(self, item: Item) -> Task:
        """Read one image of the source out of order, as a task without image data; see `TaskStream.read`."""
        return self._without_base64(self.stream.read(item))

    @property
    def total(self) -> int | None:
        """Number of images in the source; None if unknown."""
        return self._started().total

    @property
    def remaining(self) -> Remaining:
        """The count of images that are left to answer."""
        return self._started().remaining

    def look_up(self, files: Collection[str], *, stop: Callable[[], bool]) -> None:
        """See `TaskStream.look_up`."""
        self._started().look_up(files, stop=stop)

    def _recover(self, db: AnswerDatabase) -> None:
        """Mark missing answers in the database; the handover submits them."""
        db.mark_missing(self._dataset, self._ledger.missing(db.get_input_hashes(self._dataset)))

    def _suggested(self, task: Task, seconds: float) -> None:
        """Nothing to log: the page shows the suggestions."""

    def _tell(self, item: News) -> None:
        self.journal.tell(item)

    def _looked(self, look: Look) -> None:
        if self.journal.panel is not None:
            self.journal.panel.looked(look)

    def _skipped(self, name: str, reason: str) -> None:
        super()._skipped(name, reason)
        if self.journal.panel is not None:
            self.journal.panel.skipped(name, reason)
