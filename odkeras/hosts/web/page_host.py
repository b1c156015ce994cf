"""The recipe's host, with a web page and a database of our own in Prodigy's place."""

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
from odkeras.hosts.prodigy.api import INPUT_HASH, TASK_HASH, ProdigyApi
from odkeras.hosts.prodigy.training_host import TrainingHost
from odkeras.hosts.web.database import AnswerDatabase
from odkeras.hosts.web.next_steps import NextStep, next_steps
from odkeras.hosts.web.panel import Panel
from odkeras.hosts.web.stored import input_hash_of
from odkeras.loop.components import label_map_path
from odkeras.loop.remaining import Remaining
from odkeras.loop.sources import Item
from odkeras.loop.stream import TaskStream
from odkeras.loop.watch import Look, News
from odkeras.pipeline import load_pipeline, starts_from_random_weights
from odkeras.project import Project

_NO_HASH = -1


class Journal:
    """One line per event on the terminal, and in the page once there is a panel."""

    def __init__(self) -> None:
        self.panel: Panel | None = None
        self._lock = threading.Lock()

    def tell(self, news: News) -> None:
        """Never raises: a closed terminal must not end what is told of."""
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
    """What recipes use of Prodigy, played by the page's own database."""

    database: AnswerDatabase

    @classmethod
    def of(cls, database: AnswerDatabase) -> PageApi:
        return cls(log=lambda message, details=None: None, set_hashes=_set_hashes, database=database)

    def input_hash(self, task: Task) -> int:
        """No other recipe's hashes are in the database: `odkeras db in` finds out the image's id."""
        return _NO_HASH

    def open_api(self, source: Any, api: str) -> Any:
        raise ConfigError(f"--api {api}: API loaders are Prodigy's own; give a directory or a .jsonl file")

    def connect(self) -> AnswerDatabase:
        return self.database


def _set_hashes(task: Task, **options: Any) -> Task:
    value = input_hash_of(str(task.get("image_id")))
    return {**task, INPUT_HASH: value, TASK_HASH: value}


class PageHost(TrainingHost):
    """`odkeras annotate`: the recipe's components, and what the page shows beside them.

    Attributes:
        journal: told of every event; to be set before `on_load`.
    """

    recipe = "odkeras annotate"
    journal = Journal()

    def log(self, text: str, details: Any = None) -> None:
        self.journal.say(text)

    def warn(self, text: str) -> None:
        self.journal.warn(text)

    @property
    def project(self) -> Project:
        """The three directories."""
        return self._options.project

    @property
    def config(self) -> Path:
        """The pipeline.config."""
        return self._options.config

    @property
    def handed_on_before(self) -> int:
        """How many images' answers of the dataset the data directory has got, from whichever database."""
        return len(self._ledger)

    def next_steps(self, db: Path) -> list[NextStep]:
        """What to do once all images are answered; the answers are in `db`."""
        return next_steps(self._options, self._dataset, db)

    def starts_from_random_weights(self) -> bool:
        """Whether the config names no weights to start from. False where it cannot be read: the trainer says why."""
        try:
            return starts_from_random_weights(load_pipeline(self._options.config))
        except OdkerasError:
            return False

    @property
    def label_map_path(self) -> Path:
        """The label map that the answers' labels are of."""
        return label_map_path(self._options)

    @property
    def failure_to_store(self) -> bool:
        """Whether answers wait because they could not be stored for the trainer."""
        return self._loop is not None and self._loop.unsaved > 0

    def light_tasks(self) -> Iterator[Task]:
        """The tasks, with the paths of their images: they are kept for as long as somebody looks at them."""
        return map(self._without_base64, self)  # no generator: that would end with the first exception

    def suggest_again(self, tasks: Sequence[Task]) -> list[Task]:
        """Tasks with their images, with the newest model's suggestions, if there is a model."""
        return self._started().suggest_again(tasks)

    @property
    def stream(self) -> TaskStream:
        """What the images come from."""
        return self._started()

    def read_task(self, item: Item) -> Task:
        """The task of one image of the source out of its turn, without its image; see `TaskStream.read`."""
        return self._without_base64(self.stream.read(item))

    @property
    def total(self) -> int | None:
        """Images in the source; None if that cannot be told."""
        return self._started().total

    @property
    def remaining(self) -> Remaining:
        """Which of them are left."""
        return self._started().remaining

    def look_up(self, files: Collection[str], *, stop: Callable[[], bool]) -> None:
        """See `TaskStream.look_up`."""
        self._started().look_up(files, stop=stop)

    def _recover(self, db: AnswerDatabase) -> None:
        """The handover gives the trainer all that the database knows to be missing."""
        db.mark_missing(self._dataset, self._ledger.missing(db.get_input_hashes(self._dataset)))

    def _suggested(self, task: Task, seconds: float) -> None:
        """The page shows them."""

    def _tell(self, item: News) -> None:
        self.journal.tell(item)

    def _looked(self, look: Look) -> None:
        if self.journal.panel is not None:
            self.journal.panel.looked(look)

    def _skipped(self, name: str, reason: str) -> None:
        super()._skipped(name, reason)
        if self.journal.panel is not None:
            self.journal.panel.skipped(name, reason)
