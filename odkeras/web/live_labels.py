"""The labels of a running page, which may change: an annotator edits them in the page, or someone runs
`odkeras labels`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from odkeras.annotation import Task
from odkeras.config.annotate import AnnotateSettings
from odkeras.errors import OdkerasError
from odkeras.labels import LabelMap
from odkeras.pipeline.class_history import ClassHistory, history_path, read_class_history
from odkeras.pipeline.label_edits import (
    LabelFiles,
    add_label,
    merge_label,
    recolour_label,
    rename_label,
    retire_label,
)
from odkeras.session.session import AnnotationSession
from odkeras.session.setup import SessionSetup
from odkeras.web.database import AnswerDatabase
from odkeras.web.dataset_labels import keep_label_map
from odkeras.web.journal import Journal
from odkeras.web.relabel import count_images, relabel
from odkeras.web.requests import LabelAction

Current: TypeAlias = Callable[[str], str | None]
_Stamp = tuple[tuple[int, int, int], ...]


class LiveLabels:
    """Follows the label map, the pipeline.config and the history of the classes, and takes changes over. Thread-safe.

    Args:
        settings: the settings of the command. With `--label`, labels that are added later can be chosen, too.
        session: the session to continue with more classes.
        database: keeps the label map of the dataset.
        journal: gets a line for each change, and why one is not taken over.

    Attributes:
        changed: called with `current` when labels got other names or were retired.
    """

    def __init__(
        self, settings: AnnotateSettings, session: AnnotationSession, database: AnswerDatabase, journal: Journal
    ) -> None:
        self._settings = settings
        self._session = session
        self._database = database
        self._journal = journal
        self._files = LabelFiles(settings.config, session.setup.label_map_path, session.project)
        self._first = session.label_map
        self._lock = threading.Lock()
        self._seen: _Stamp | None = None
        self._history = self._read_history()
        self._revision = 0
        self.changed: Callable[[Current], None] = lambda current: None

    def add(self, name: str) -> str:
        """Add a class to the project, and return its name.

        Raises:
            LabelMapError, ConfigError: see `add_label`.
        """
        label = add_label(self._files, name)
        self.look()
        return label.name

    def edit(self, action: LabelAction, name: str, value: str) -> None:
        """Rename, merge, recolour or retire a class of the project, in the answers of all datasets, too.

        Args:
            value: the new name, the class that gets the objects, or "#rrggbb"; unused for "retire".

        Raises:
            LabelMapError, ConfigError, SetupError: see `label_edits`.
            DatabaseError: the answers cannot be changed; repeat the call.
        """
        if action == "rename":
            rename_label(self._files, name, value, self._rename_in_answers)
        elif action == "merge":
            merge_label(self._files, name, value, self._rename_in_answers)
        elif action == "recolour":
            recolour_label(self._files, name, value)
        else:
            retire_label(self._files, name)
        self.look()

    @property
    def renamed(self) -> dict[str, str]:
        """Earlier names of labels, and the labels that they are now."""
        history, setup = self._history, self._session.setup
        renamed = {old: new for old, new in history.renamed.items() if old not in setup.label_map.texts}
        return {old: new for old, new in renamed.items() if new is not None and new in setup.labels}

    @property
    def earlier(self) -> dict[str, str]:
        """What becomes of a label that an answer may still have, because its page does not know of a change yet. The
        objects of a retired class stay in the answers."""
        texts = self._session.label_map.texts
        retired = {old: old for old, new in self._history.renamed.items() if new is None and old not in texts}
        return {**retired, **self.renamed}

    def current(self, label: str) -> str | None:
        """The label that one is now; None if its class was retired."""
        return self._history.current(label, self._session.label_map.texts)

    def translate(self, task: Task) -> Task:
        """The task with the labels of today, without boxes of retired classes."""
        return task.with_labels(self.current)

    def look(self) -> int:
        """Take over a change of the files. Returns a number that increases with every change."""
        with self._lock:
            paths = (self._files.label_map, self._files.config, history_path(self._files.project))
            stamp = tuple(map(_stamp, paths))
            if stamp != self._seen:
                self._seen = stamp
                try:
                    self._take_over()
                except OdkerasError as error:
                    self._journal.warn(f"the label map is not taken over: {error}")
            return self._revision

    def _take_over(self) -> None:
        label_map, before = self._files.load(), self._history
        self._history = self._read_history()
        if self._history.colours != before.colours:
            self._revision += 1
        if label_map == self._session.label_map:
            self._rename_answers()
            return
        setup = SessionSetup.of(self._settings, self._chosen(label_map), can_pick=True)
        self._session.use_setup(setup)
        keep_label_map(self._database, self._settings.dataset, setup.label_map_path)
        self._revision += 1
        self._journal.say(f"the labels are now {', '.join(setup.labels)}; the trainer is started again with them")
        self.changed(self.current)
        self._rename_answers()

    def _rename_answers(self) -> None:
        """Rename labels in answers that have come in since an edit, or from before one that was interrupted."""
        used = count_images(self._database)
        for old, new in self.renamed.items():
            if old in used:
                self._rename_in_answers(old, new)

    def _rename_in_answers(self, old: str, new: str) -> None:
        for dataset in self._database.datasets:
            relabel(self._database, dataset, old, new)

    def _read_history(self) -> ClassHistory:
        return read_class_history(self._files.project) or ClassHistory()

    def _chosen(self, label_map: LabelMap) -> list[str] | None:
        if not self._settings.label:
            return None
        kept = [name for name in self._settings.label if name in label_map]
        return [*kept, *(name for name in label_map.names if name not in self._first.names)]


def _stamp(path: Path) -> tuple[int, int, int]:
    """Changes with the file."""
    try:
        stat = path.stat()
    except OSError:
        return (0, 0, 0)
    return (stat.st_ino, stat.st_mtime_ns, stat.st_size)
