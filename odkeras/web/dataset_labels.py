"""Finds the label map that belongs to a dataset's labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from odkeras.labels import LabelMap
from odkeras.web.database import AnswerDatabase

_NO_LABEL_MAP = (
    "no label map is known for this dataset, so the labels are numbered alphabetically; give --label-map to have the "
    "model's ids"
)


@dataclass(frozen=True)
class DatasetLabels:
    """The label map of a dataset and its origin.

    Args:
        label_map: None if none is known.
        origin: phrase for messages: which label map it is, or that there is none and what to do.
    """

    label_map: LabelMap | None
    origin: str


def labels_of_dataset(database: AnswerDatabase, dataset: str, given: Path | None = None) -> DatasetLabels:
    """The label map of a dataset: `given`, else the one that `annotate` used last for it, else `label_map.pbtxt` next
    to the database, which is in the project directory by default.

    Raises:
        LabelMapError: the label map that was chosen cannot be read.
    """
    if given is not None:
        return DatasetLabels(LabelMap.load(given), str(given))
    if (kept := database.label_map(dataset)) is not None:
        path, pbtxt = kept
        return DatasetLabels(LabelMap.from_pbtxt(pbtxt, source=str(path)), f"{path}, which `annotate` used last")
    place = database.path
    if isinstance(place, Path) and (beside := place.parent / "label_map.pbtxt").is_file():
        return DatasetLabels(LabelMap.load(beside), f"{beside}, which is beside the database")
    return DatasetLabels(None, _NO_LABEL_MAP)


def keep_label_map(database: AnswerDatabase, dataset: str, path: Path) -> None:
    """Store the current content of the label map that a dataset is annotated with, if it has labels.

    Raises:
        LabelMapError: the label map cannot be read.
        DatabaseError: it cannot be stored.
    """
    if len(label_map := LabelMap.load(path, may_be_empty=True)):
        database.keep_label_map(dataset, path, label_map.to_pbtxt())
