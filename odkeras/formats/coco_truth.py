"""Reads known boxes, masks and keypoints from COCO's detection and keypoint JSON (cocodataset.org, "Data format").

truth = read_coco("person_keypoints.json", label_map)
for image in truth.images:
    objects, problems = truth.objects_of(image)
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from odkeras import boxes as box_ops
from odkeras.boxes import FloatArray, Groundtruth
from odkeras.errors import LabelMapError, RecordError
from odkeras.formats.coco_document import check_bbox, decode_row, draw_segmentation, read_lists, size_hw
from odkeras.labels import LabelMap
from odkeras.numeric import is_number
from odkeras.polygons import BoolArray, draw_mask

_IDS = {"images": ("id", "file_name"), "categories": ("id", "name"), "annotations": ("image_id", "category_id")}


@dataclass(frozen=True)
class CocoImage:
    """An image of the file.

    Args:
        file_name: its path, relative to the directory of the images.
        size_hw: height and width in pixels that its annotations refer to; None if the file does not say.
        annotations: its annotations, as in the file.
    """

    file_name: str
    size_hw: tuple[int, int] | None = None
    annotations: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, eq=False)
class CocoObjects:
    """The objects of one image.

    Args:
        groundtruth: boxes, classes and, if the label map names keypoints, keypoints.
        crowds: bool (N,): whether a box holds many objects.
        masks: a mask of the image's size for each object, bool (H, W); None if they were not asked for.
    """

    groundtruth: Groundtruth
    crowds: BoolArray
    masks: list[BoolArray] | None = None


@dataclass
class CocoTruth:
    """A COCO file, whose classes have been found in the label map.

    Args:
        images: in the order of the file.
        label_map: gives the class ids, and the ids of the keypoints.
        left_out: number of objects by category, for categories that the label map lacks.
    """

    images: list[CocoImage]
    label_map: LabelMap
    left_out: Counter[str]
    _classes: dict[Any, int] = field(default_factory=dict)
    _keypoints: dict[Any, list[int]] = field(default_factory=dict)

    def objects_of(
        self, image: CocoImage, image_size_hw: tuple[int, int], *, masks: bool = False
    ) -> tuple[CocoObjects, list[str]]:
        """The objects of an image, and why others cannot be used.

        Args:
            image_size_hw: height and width in pixels of the upright image.
            masks: also draw their masks. An object without one gets its box, filled.
        """
        rows, problems = [], []
        for annotation in image.annotations:
            if annotation["category_id"] in self._classes:
                try:
                    rows.append(self._read(annotation, image_size_hw, masks))
                except ValueError as error:
                    problems.append(f"annotation {annotation.get('id', 'without an id')}: {error}")
        boxes = np.array([box for box, *_ in rows], np.float32).reshape(-1, 4)
        classes = np.array([self._classes[annotation["category_id"]] for _, annotation, *_ in rows], np.int32)
        keypoints = np.array([points for *_, points, _ in rows], np.float32) if self.label_map.num_keypoints else None
        if keypoints is not None and not rows:
            keypoints = np.zeros((0, self.label_map.num_keypoints, 3), np.float32)
        crowds = np.array([bool(annotation.get("iscrowd")) for _, annotation, *_ in rows], bool)
        drawn = [mask for *_, mask in rows if mask is not None] if masks else None
        return CocoObjects(Groundtruth(boxes, classes, keypoints), crowds, drawn), problems

    def _read(
        self, annotation: Mapping[str, Any], size_hw: tuple[int, int], masks: bool
    ) -> tuple[FloatArray, Mapping[str, Any], FloatArray, BoolArray | None]:
        box = _read_box(annotation.get("bbox"), size_hw)
        points = self._read_keypoints(annotation, size_hw)
        return box, annotation, points, _read_mask(annotation, box, size_hw) if masks else None

    def _read_keypoints(self, annotation: Mapping[str, Any], size_hw: tuple[int, int]) -> FloatArray:
        """float32 (K, 3) [y, x, visibility] in the order of the label map; zeros for those that are not labelled."""
        points = np.zeros((self.label_map.num_keypoints, 3), np.float32)
        ids = self._keypoints.get(annotation["category_id"], [])
        values = annotation.get("keypoints")
        if not ids or values is None or (values == [] and annotation.get("iscrowd")):
            return points
        if not isinstance(values, list) or len(values) != 3 * len(ids):
            got = f"{len(values)} numbers" if isinstance(values, list) else repr(values)
            raise ValueError(f"keypoints: {len(ids)} keypoints need {3 * len(ids)} numbers; got {got}")
        for id, x, y, visibility in zip(ids, values[::3], values[1::3], values[2::3], strict=True):
            if visibility not in (0, 1, 2) or not (is_number(x) and is_number(y)):
                raise ValueError(f"keypoints: {[x, y, visibility]} is not [x, y, 0, 1 or 2]")
            if visibility:
                points[id] = (y / size_hw[0], x / size_hw[1], visibility)
        return points


def read_coco(path: Path | str, label_map: LabelMap) -> CocoTruth:
    """Read a COCO file.

    A category is found in the label map by its name, and its keypoints by theirs. Objects of categories that the label
    map lacks are left out and counted.

    Raises:
        RecordError: the file cannot be read, or is not COCO's JSON.
        LabelMapError: the label map has none of the categories, or a keypoint of one of them is not in it.
    """
    document = _read_document(Path(path))
    classes: dict[Any, int] = {}
    keypoints: dict[Any, list[int]] = {}
    names: dict[Any, str] = {}
    for category in document["categories"]:
        name = names[category["id"]] = str(category.get("name"))
        class_id = label_map.find_id(name)
        if class_id is not None:
            classes[category["id"]] = class_id
            keypoints[category["id"]] = _keypoint_ids(category.get("keypoints") or [], class_id, label_map)
    if not classes:
        raise LabelMapError(
            f"{path}: none of its categories ({', '.join(names.values()) or 'it has none'}) is in the label map "
            f"({', '.join(label_map.names)})"
        )
    by_image: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
    left_out: Counter[str] = Counter()
    for annotation in document["annotations"]:
        category = annotation["category_id"]
        if category not in names:
            raise RecordError(f"{path}: annotation {annotation.get('id', '')} has the unknown category_id {category!r}")
        if category not in classes:
            left_out[names[category]] += 1
        by_image[annotation["image_id"]].append(annotation)
    images = [
        CocoImage(str(row.get("file_name")), size_hw(row), tuple(by_image.pop(row["id"], ())))
        for row in document["images"]
    ]
    if by_image:
        first = next(iter(by_image))
        raise RecordError(f"{path}: annotations of the image {first!r}, which is not in its list of images")
    return CocoTruth(images, label_map, left_out, classes, keypoints)


def _read_document(path: Path) -> Mapping[str, list[Mapping[str, Any]]]:
    document: dict[str, list[Mapping[str, Any]]] = {}
    for name, rows in read_lists(path).items():
        try:
            document[name] = [decode_row(row) for row in rows]
        except ValueError as error:
            raise RecordError(f"{path} is not COCO's JSON: it needs the lists of objects {', '.join(_IDS)}") from error
    for name, keys in _IDS.items():
        for number, row in enumerate(document[name]):
            if not all(isinstance(row.get(key), (int, str)) for key in keys):
                raise RecordError(f"{path} is not COCO's JSON: {name}[{number}] needs {' and '.join(keys)}; got {row}")
    return document


def _keypoint_ids(names: Sequence[str], class_id: int, label_map: LabelMap) -> list[int]:
    """The label map's ids of a category's keypoints, in the order of the category. [] if the class has none there."""
    label = next(label for label in label_map.labels if label.id == class_id)
    ids = {name: id for id, name in label.keypoints}
    unknown = [str(name) for name in names if name not in ids]
    if ids and unknown:
        raise LabelMapError(
            f"the keypoints {', '.join(unknown)} of {label.name!r} are not in the label map (known: {', '.join(ids)}); "
            "add them to its item, or remove all of its keypoints to leave them out"
        )
    return [ids[name] for name in names] if ids else []


def _read_box(bbox: Any, size_hw: tuple[int, int]) -> FloatArray:
    x, y, width, height = check_bbox(bbox)
    box = box_ops.clip(box_ops.from_xyxy_px([[x, y, x + width, y + height]], size_hw))
    if not box_ops.area(box)[0] > 0:
        raise ValueError(f"bbox: {bbox} has no area inside the image of {size_hw[1]} x {size_hw[0]}")
    return np.asarray(box[0], np.float32)


def _read_mask(annotation: Mapping[str, Any], box: FloatArray, size_hw: tuple[int, int]) -> BoolArray:
    """The mask of an object: its polygons or its run lengths, else its box, filled."""
    shape = annotation.get("segmentation")
    mask = draw_segmentation(shape, size_hw) if shape else None
    return mask if mask is not None and mask.any() else draw_mask(box, None, size_hw)
