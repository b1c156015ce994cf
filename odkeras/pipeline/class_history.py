"""What happened to the classes of a project: when they were added, renamed or retired.

An image that was answered before a class was added is not judged for it: that it has no box of the class does not mean
that it shows no such object.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from odkeras.errors import SetupError
from odkeras.inbox import list_batches
from odkeras.labels import LabelMap
from odkeras.numeric import is_number
from odkeras.pipeline.trained_classes import LABEL_MAP_NAME, classes_of_newest_version, has_checkpoints
from odkeras.project import Project, write_atomically

_MAX_TIME_S = 1e12


@dataclass(frozen=True)
class ClassHistory:
    """What happened to the classes of a project.

    Args:
        added_s: name -> when the class was added, in seconds since the epoch; 0 for a class that the project began
            with.
        renamed: an earlier name -> the name of the class today; None for a class that was retired. An earlier name that
            the label map has (again) is a name of today.
        retired: ids that are not used again, because the model has learned another class with them.
        colours: name -> "#rrggbb", of classes whose colour was chosen.
    """

    added_s: Mapping[str, float] = field(default_factory=dict)
    renamed: Mapping[str, str | None] = field(default_factory=dict)
    retired: frozenset[int] = frozenset()
    colours: Mapping[str, str] = field(default_factory=dict)

    def unjudged(self, answered_s: float, names: Collection[str] = ()) -> frozenset[str]:
        """The classes that were added after an answer.

        Args:
            answered_s: when the image was answered, in seconds since the epoch; 0 if that is unknown.
            names: names of the classes in the answer, which are judged.
        """
        return frozenset(name for name, added in self.added_s.items() if added > answered_s and name not in names)

    def with_earlier_names(self, label_map: LabelMap) -> LabelMap:
        """The label map, which also finds the ids of earlier names."""
        names = {old: new for old, new in self.renamed.items() if new is not None and new in label_map.names}
        return replace(label_map, earlier_names=names)

    def current(self, name: str, known: Collection[str]) -> str | None:
        """The name of a class today; None if it was retired.

        Args:
            known: the names in the label map.
        """
        return name if name in known else self.renamed.get(name, name)


def history_path(project: Project) -> Path:
    """The file of the history."""
    return project.data_dir / "classes.json"


def read_class_history(project: Project) -> ClassHistory | None:
    """The history in the data directory; None if there is none, or if it cannot be read."""
    try:
        row = json.loads(history_path(project).read_text(encoding="utf-8"))
        return ClassHistory(
            {str(name): float(at) for name, at in row["added_s"].items() if is_number(at, _MAX_TIME_S)},
            {str(old): None if new is None else str(new) for old, new in row.get("renamed", {}).items()},
            frozenset(int(id) for id in row.get("retired", [])),
            {str(name): str(colour) for name, colour in row.get("colours", {}).items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write_class_history(project: Project, history: ClassHistory) -> None:
    """Write the history to the data directory, atomically.

    Raises:
        SetupError: it cannot be written.
    """
    row = {
        "added_s": dict(history.added_s),
        "renamed": dict(history.renamed),
        "retired": sorted(history.retired),
        "colours": dict(history.colours),
    }
    try:
        project.data_dir.mkdir(parents=True, exist_ok=True)
        write_atomically(history_path(project), json.dumps(row, indent=1))
    except OSError as error:
        raise SetupError(f"cannot write {history_path(project)}: {error.strerror}") from error


def note_classes(project: Project, label_map: LabelMap, clock: Callable[[], float] = time.time) -> ClassHistory:
    """Note the classes of the label map that the history lacks as added now, and return the history.

    Without a history, a project begins with the classes that its model was trained with, if it has a model and answers,
    else with all.

    Raises:
        SetupError: the history cannot be written.
    """
    read = read_class_history(project)
    history = read or ClassHistory()
    known = history.added_s or dict.fromkeys(_first_names(project, label_map), 0.0)
    new = {name: clock() for name in label_map.names if name not in known}
    history = replace(history, added_s={**known, **new})
    if history != read:
        write_class_history(project, history)
    return history


def _first_names(project: Project, label_map: LabelMap) -> Collection[str]:
    has_answers = project.replay_record.exists() or project.train_records() or list_batches(project.inbox_dir)
    return (_trained_names(project) if has_answers else None) or label_map.names


def _trained_names(project: Project) -> Collection[str] | None:
    path: Path = project.model_dir / LABEL_MAP_NAME
    if has_checkpoints(project.model_dir) and path.is_file():
        return LabelMap.load(path).names
    served = classes_of_newest_version(project.export_dir)
    return tuple(served.labels.values()) if served is not None else None
