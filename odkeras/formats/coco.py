"""Converts accepted answers to COCO's detection JSON (cocodataset.org, "Data format").

    export = to_coco(database.iter_latest("shapes", decision="accept"))
    json.dumps(export.to_json())

Boxes are clipped to the image. Unusable images and boxes are skipped and reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from odkeras import boxes as box_ops
from odkeras.annotation import Span
from odkeras.boxes import FloatArray
from odkeras.errors import AnswerError, ImageError, error_reason
from odkeras.formats.coco_files import ImagePlace, common_folder, file_names
from odkeras.formats.prodigy import Record, convert_spans, read_task
from odkeras.formats.spans import DECIMALS, keypoints_of_span
from odkeras.image_ref import ImageRef
from odkeras.keypoints import Keypoint
from odkeras.labels import LabelMap

SizeHw = tuple[int, int]


@dataclass
class CocoExport:
    """COCO's detection JSON, and a list of what was skipped.

    Args:
        skipped: (file, reason) for each image or box.
        images_dir: base directory of the images' file names; None if no image has a file.
    """

    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    categories: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    images_dir: Path | None = None

    @property
    def negatives(self) -> int:
        """Number of images without boxes."""
        return len(self.images) - len({annotation["image_id"] for annotation in self.annotations})

    def to_json(self, description: str = "") -> dict[str, Any]:
        return {
            "info": {"description": description},
            "licenses": [],
            "images": self.images,
            "annotations": self.annotations,
            "categories": self.categories,
        }


class _Object(NamedTuple):
    """A span: its label, its geometry, and its keypoints, by name."""

    label: str
    outline: Outline
    keypoints: dict[str, Keypoint]


class Outline(NamedTuple):
    """The geometry of a COCO annotation, in pixels.

    Args:
        bbox: [x, y, width, height].
        area: area of the polygon if there is one, else of the box.
        polygon: [x, y, x, y, ...]; None for a rectangle.
    """

    bbox: list[float]
    area: float
    polygon: list[float] | None


def to_coco(
    answers: Iterable[tuple[str, Record]], label_map: LabelMap | None = None, images_dir: Path | None = None
) -> CocoExport:
    """Convert accepted answers, one per image, to COCO images, annotations and categories; ids count from 1.

    An answer without spans becomes an image without annotations. An answer whose spans are all unusable is skipped,
    because its objects are unknown.

    Args:
        answers: pairs (image_id, example).
        label_map: defines categories and ids; when None, the categories are the labels in the answers, sorted, from 1.
        images_dir: base directory of the file names; when None, the deepest directory that contains all image files.
    """
    export = CocoExport()
    places: list[ImagePlace] = []
    for image_id, example in answers:
        where = image_id
        try:
            place = ImagePlace.of(image_id, example)
            where = place.where
            height, width = size_hw = image_size(example)
            to_object = partial(_to_object, size_hw=size_hw, label_map=label_map)
            objects, problems = convert_spans(example, to_object)
        except Exception as error:  # whatever it is, the other answers can be exported
            export.skipped.append((where, error_reason(error)))
            continue
        export.skipped += [(where, problem) for problem in problems]
        export.images.append({"id": len(export.images) + 1, "file_name": "", "width": width, "height": height})
        places.append(place)
        for item in objects:
            export.annotations.append(_annotation(len(export.annotations) + 1, len(export.images), item))
    keypoint_names = _keypoint_names(export, label_map)
    _number_keypoints(export, keypoint_names)
    _number_categories(export, label_map, keypoint_names)
    export.images_dir = common_folder(places) if images_dir is None else images_dir.absolute()
    for image, place, name in zip(export.images, places, file_names(places, export.images_dir), strict=True):
        image |= {"file_name": name} if place.url is None else {"file_name": name, "coco_url": place.url}
    return export


def to_outline(span: Span, size_hw: SizeHw) -> Outline:
    """A span's box or polygon, clipped to the image.

    Raises:
        AnswerError: it has no area inside the image.
    """
    (left, top, right, bottom), polygon = _clipped(span, size_hw)
    bbox = [left, top, round(right - left, DECIMALS), round(bottom - top, DECIMALS)]
    if bbox[2] <= 0 or bbox[3] <= 0:
        raise AnswerError("no area inside the image")
    if polygon is None:
        return Outline(bbox, round(bbox[2] * bbox[3], DECIMALS), None)
    xy_px = np.round(polygon[:, ::-1].astype(np.float64) * size_hw[::-1], DECIMALS)
    x, y = xy_px.T
    area = abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2  # the shoelace formula
    return Outline(bbox, round(area, DECIMALS), xy_px.ravel().tolist())


def _clipped(span: Span, size_hw: SizeHw) -> tuple[tuple[float, ...], FloatArray | None]:
    """The box in pixels, and the normalised polygon if there is one, inside the image."""
    if not span.is_polygon:
        height, width = size_hw
        sides = zip(span.xyxy_px, (width, height, width, height), strict=True)
        return tuple(round(float(min(max(side, 0), limit)), DECIMALS) for side, limit in sides), None
    box, polygon = span.outline(size_hw)
    return tuple(np.round(box_ops.to_xyxy_px(box[None], size_hw)[0].astype(np.float64), DECIMALS).tolist()), polygon


def _to_object(span: Span, size_hw: SizeHw, label_map: LabelMap | None) -> _Object:
    label = span.label if label_map is None else label_map.name_of(label_map.id_of(span.label))
    if label_map is not None:
        keypoints_of_span(span, label_map, size_hw)  # refuses wrong ones
    return _Object(label, to_outline(span, size_hw), {point.name: point for point in span.keypoints})


def to_annotation(id: int, image_id: int, category: int | str, outline: Outline) -> dict[str, Any]:
    """An object of COCO's `annotations`, without keypoints."""
    shape = {} if outline.polygon is None else {"segmentation": [outline.polygon]}
    return {
        "id": id,
        "image_id": image_id,
        "category_id": category,
        "bbox": outline.bbox,
        "area": outline.area,
        "iscrowd": 0,
        **shape,
    }


def to_keypoints(points: Mapping[str, Keypoint], names: Sequence[str] | None) -> dict[str, Any]:
    """What an object of COCO's `annotations` has about its keypoints: [x, y, visibility] of all of its category.

    Args:
        points: the keypoints of the object, by name.
        names: those of the category; without any, there is nothing.
    """
    if not names:
        return {}
    labelled = [point if (point := points.get(name)) and point.visibility else None for name in names]
    rows = [
        (round(point.x_px, DECIMALS), round(point.y_px, DECIMALS), point.visibility) if point else (0, 0, 0)
        for point in labelled
    ]
    return {
        "keypoints": [value for row in rows for value in row],
        "num_keypoints": len(labelled) - labelled.count(None),
    }


def to_categories(ids: Mapping[str, int], keypoint_names: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """COCO's `categories`.

    Args:
        ids: the id of each label.
        keypoint_names: the keypoints of each label that has any.
    """
    return [
        {"id": id, "name": name, "supercategory": "", **_skeleton(keypoint_names.get(name))} for name, id in ids.items()
    ]


def _annotation(id: int, image_id: int, item: _Object) -> dict[str, Any]:
    # The label is replaced by its id in `_number_categories`, the keypoints by numbers in `_number_keypoints`.
    return {**to_annotation(id, image_id, item.label, item.outline), "keypoints": item.keypoints}


def _number_keypoints(export: CocoExport, names: Mapping[str, list[str]]) -> None:
    """Replace the keypoints of each annotation by [x, y, visibility] of all keypoints of its category."""
    for annotation in export.annotations:
        points = annotation.pop("keypoints")
        annotation |= to_keypoints(points, names.get(annotation["category_id"]))


def _keypoint_names(export: CocoExport, label_map: LabelMap | None) -> dict[str, list[str]]:
    """The names of the keypoints of each label: the label map's, else those of its objects, as they come."""
    if label_map is not None:
        return {label.name: [name for _, name in sorted(label.keypoints)] for label in label_map.labels}
    names: dict[str, list[str]] = {}
    for annotation in export.annotations:
        known = names.setdefault(annotation["category_id"], [])
        known += [name for name in annotation["keypoints"] if name not in known]
    return names


def _skeleton(names: Sequence[str] | None) -> dict[str, Any]:
    return {"keypoints": list(names), "skeleton": []} if names else {}


def _number_categories(export: CocoExport, label_map: LabelMap | None, keypoint_names: Mapping[str, list[str]]) -> None:
    if label_map is None:
        names = sorted({str(annotation["category_id"]) for annotation in export.annotations})
        ids = {name: id for id, name in enumerate(names, start=1)}
    else:
        ids = {label.name: label.id for label in label_map.labels}
    export.categories = to_categories(ids, keypoint_names)
    for annotation in export.annotations:
        annotation["category_id"] = ids[annotation["category_id"]]


def image_size(example: Record) -> SizeHw:
    """(height, width) in pixels that the spans refer to: the example's own, else read from the image.

    Raises:
        ImageError: neither is known.
    """
    if (size_hw := read_task(example).image_size_hw) is not None:
        return size_hw
    try:
        return ImageRef.of_record(example, name="data URI").read().image_size_hw
    except ImageError as error:
        raise ImageError(f"its width and height are not known, and its image cannot be used: {error.reason}") from error
