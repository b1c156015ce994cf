"""The classes that a detector was trained on, and which of a project's labels are among them."""

from __future__ import annotations

import logging
from pathlib import Path

from odkeras.errors import LabelMapError
from odkeras.labels import Label, LabelMap
from odkeras.pipeline import LABEL_MAP_NAME, load_pipeline, num_classes
from odkeras.project import CONFIG_NAME

_log = logging.getLogger(__name__)

_NAMES = """
    person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, -, stop sign,
    parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, -, backpack, umbrella, -,
    -, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard,
    surfboard, tennis racket, bottle, -, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange,
    broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, -, dining table, -, -, toilet, -,
    tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, -, book, clock,
    vase, scissors, teddy bear, hair drier, toothbrush
"""

COCO_LABEL_MAP = LabelMap(
    tuple(Label(id, name) for id, name in enumerate(" ".join(_NAMES.split()).split(", "), start=1) if name != "-")
)
"""The classes of COCO 2017, which the detectors of the model zoo are trained on. Ten of the ids up to 90 are unused."""


def trained_label_map(checkpoint: str, count: int | None = None) -> LabelMap | None:
    """The label map of the classes that a checkpoint was trained on: `label_map.pbtxt` beside it or in the folder
    above, or COCO's for the 90 classes of a checkpoint of the model zoo. None if they are unknown.

    Args:
        checkpoint: path prefix of the checkpoint.
        count: number of its classes; None if it is not known.
    """
    for folder in Path(checkpoint).parents[:2]:
        if (folder / LABEL_MAP_NAME).is_file():
            try:
                found = LabelMap.load(folder / LABEL_MAP_NAME)
            except LabelMapError as error:
                _log.warning("the classes of %s stay unknown: %s", checkpoint, error)
                return None
            return found if count is None or found.max_id <= count else None
    is_of_coco = "coco" in Path(checkpoint).absolute().as_posix().casefold()
    return COCO_LABEL_MAP if is_of_coco and count == COCO_LABEL_MAP.max_id else None


def explain_known_labels(checkpoint: str, label_map: LabelMap) -> str:
    """Which labels a detector's weights know before any training, in a line for people.

    Args:
        checkpoint: path prefix of the detector's checkpoint; its `pipeline.config` beside it or in the folder above
            says how many classes it has.
        label_map: the project's label map.
    """
    folders = [folder for folder in Path(checkpoint).parents[:2] if (folder / CONFIG_NAME).is_file()]
    known = trained_label_map(checkpoint, num_classes(load_pipeline(folders[0] / CONFIG_NAME)) if folders else None)
    if known is None:
        return f"it is not known which classes these weights were trained on: add a {LABEL_MAP_NAME} beside them"
    same = ids_by_name(label_map, known)
    suggested = ", ".join(label.name for label in label_map.labels if label.id in same)
    offered = ", ".join(label.name for label in label_map.labels if label.id not in same)
    parts = (
        f"known to these weights, and suggested from the first image on: {suggested}" if suggested else "",
        f"unknown to them, and offered for a click until they are trained: {offered}" if offered else "",
    )
    return "; ".join(filter(None, parts))


def ids_by_name(label_map: LabelMap, known: LabelMap) -> dict[int, int]:
    """The id of the detector's class that has a name of ours, by our id."""
    ids = {_folded(name): label.id for label in known.labels for name in _names(label)}
    return {
        label.id: ids[_folded(name)] for label in label_map.labels for name in _names(label) if _folded(name) in ids
    }


def _names(label: Label) -> list[str]:
    return [name for name in (label.display_name, label.name) if name]


def _folded(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())
