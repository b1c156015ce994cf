"""Which label map a dataset's labels belong to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from odkeras.hosts.web.database import AnswerDatabase
from odkeras.labels import LabelMap

_NO_LABEL_MAP = (
    "no label map is known for this dataset, so the labels are numbered alphabetically; give --label-map to have the "
    "model's ids"
)


@dataclass(frozen=True)
class DatasetLabels:
    """The label map of a dataset, and how it is known.

    Args:
        label_map: None if none is known.
        origin: a sentence part for a person: which label map it is, or that there is none and what to do.
    """

    label_map: LabelMap | None
    origin: str


def labels_of_dataset(database: AnswerDatabase, dataset: str, given: Path | None = None) -> DatasetLabels:
    """The label map that was given, else the one that `annotate` used last for this dataset, else the one beside the
    database, which is in the project's folder by default.

    Raises:
        LabelMapError: the label map that was given, or that of the project, cannot be read.
    """
    if given is not None:
        return DatasetLabels(LabelMap.load(given), str(given))
    if (kept := database.label_map(dataset)) is not None:
        path, pbtxt = kept
        return DatasetLabels(LabelMap.from_pbtxt(pbtxt, source=str(path)), f"{path}, which `annotate` used last")
    beside = database.path.parent / "label_map.pbtxt"
    if beside.is_file():
        return DatasetLabels(LabelMap.load(beside), f"{beside}, which is beside the database")
    return DatasetLabels(None, _NO_LABEL_MAP)


def keep_label_map(database: AnswerDatabase, dataset: str, path: Path) -> None:
    """Remember the label map that a dataset is annotated with, as it is now.

    Raises:
        LabelMapError: it cannot be read.
        DatabaseError: it cannot be stored.
    """
    database.keep_label_map(dataset, path, LabelMap.load(path).to_pbtxt())
