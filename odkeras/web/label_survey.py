"""What the labels of a dataset are, before any is written: writers must number the classes first."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from odkeras.annotation import Answer, Span
from odkeras.errors import AnswerError, LabelMapError
from odkeras.formats.coco import image_size, to_outline
from odkeras.formats.coco_files import ImagePlace
from odkeras.formats.label_files import SPLIT
from odkeras.formats.prodigy import Record, convert_spans, read_answer
from odkeras.formats.spans import DECIMALS, keypoints_of_span, readable_spans
from odkeras.keypoints import Keypoint
from odkeras.labels import Label, LabelMap
from odkeras.splits import own_split
from odkeras.text import is_utf8

_MAX_LISTED = 5


@dataclass
class Survey:
    """What a first pass over the accepted answers of a dataset found.

    Args:
        images: number of images.
        labels: number of objects of each label.
        first_seen: an image with each label, for messages.
        splits: the splits that images were imported with.
        keypoints: the names of the keypoints of the objects of each label, as they come.
        has_polygons: whether any object is a polygon.
        images_dir: the deepest folder with all image files; None if no image has a file.
        owners: the image of each file. The last one, if several answers were about one file that changed in between.
    """

    images: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    first_seen: dict[str, str] = field(default_factory=dict)
    splits: set[str] = field(default_factory=set)
    keypoints: dict[str, list[str]] = field(default_factory=dict)
    has_polygons: bool = False
    images_dir: Path | None = None
    owners: dict[Path, str] = field(default_factory=dict)

    @classmethod
    def of(cls, answers: Iterable[tuple[str, Record]], progress: Callable[[int], object] = lambda done: None) -> Survey:
        """The survey of accepted answers, pairs (image_id, example).

        Args:
            progress: callback with the number of answers done.
        """
        survey = cls()
        for image_id, example in answers:
            survey._add(image_id, example)
            progress(survey.images)
        return survey

    def _add(self, image_id: str, example: Record) -> None:
        self.images += 1
        place = ImagePlace.of(image_id, example)
        if (split := own_split(example.get(SPLIT))) is not None:
            self.splits.add(split)
        for span in readable_spans(example.get("spans")):
            self.labels[span.label] += 1
            self.first_seen.setdefault(span.label, place.url or place.where)
            self.has_polygons = self.has_polygons or span.is_polygon
            known = self.keypoints.setdefault(span.label, [])
            known += [point.name for point in span.keypoints if point.name not in known]
        if place.path is not None:
            self.owners[place.path] = image_id
            if place.path.parent != self.images_dir:
                self.images_dir = _common(self.images_dir, place.path.parent)

    def label_map(self, given: LabelMap | None) -> LabelMap | None:
        """The label map to use: the given one, else the labels in alphabetical order; None if there is no label."""
        if given is not None:
            return given
        names = sorted(name for name in self.labels if is_utf8(name))
        distinct = dict.fromkeys(point for name in names for point in self.keypoints[name])
        ids = {point: id for id, point in enumerate(distinct)}
        labels = [
            Label(id, name, keypoints=tuple((ids[point], point) for point in self.keypoints[name]))
            for id, name in enumerate(names, start=1)
        ]
        return LabelMap(tuple(labels)) if labels else None

    def check_labels(self, label_map: LabelMap, source: Path) -> None:
        """Raises: LabelMapError: the label map lacks a label of the dataset; says which, how often, and what to do."""
        unknown = {name: count for name, count in self.labels.most_common() if label_map.find_id(name) is None}
        if not unknown:
            return
        shown = [f"{name!r} ({count} objects, first in {self.first_seen[name]})" for name, count in unknown.items()]
        more = f" and {len(shown) - _MAX_LISTED} more" if len(shown) > _MAX_LISTED else ""
        raise LabelMapError(
            f"{source} lacks labels of the dataset: {', '.join(shown[:_MAX_LISTED])}{more}; it has "
            f"{', '.join(label_map.names[:12])}. Add them to it, or leave these objects out with --skip-other-labels"
        )


def read_usable(image_id: str, example: Record, label_map: LabelMap | None) -> tuple[Answer, tuple[str, ...]]:
    """The answer with the spans that can be exported, clipped to the image and with the names of the label map, and why
    each of the others is left out.

    Raises:
        AnswerError: it has spans, and none is usable.
        ImageError: the image's size is not known, and it cannot be read.
    """
    answer = read_answer({**example, "spans": []}, image_id)
    size_hw = answer.task.image_size_hw or image_size(example)
    spans, problems = convert_spans(example, lambda span: _usable(span, size_hw, label_map))
    task = replace(answer.task, spans=tuple(spans), image_size_hw=size_hw)
    return replace(answer, task=task), problems


def _usable(span: Span, size_hw: tuple[int, int], label_map: LabelMap | None) -> Span:
    if label_map is None:
        raise LabelMapError(f"label {span.label!r} is not valid text")
    label = label_map.name_of(label_map.id_of(span.label))
    try:
        (left, top, width, height), _, polygon = to_outline(span, size_hw)
    except AnswerError as error:
        raise AnswerError(f"{span.label!r} has {error}") from error
    keypoints_of_span(span, label_map, size_hw)  # refuses wrong ones
    span = replace(span, label=label, keypoints=tuple(_clipped(point, size_hw) for point in span.keypoints))
    if polygon is None:
        corners = ((left, top), (round(left + width, DECIMALS), round(top + height, DECIMALS)))
        return replace(span, points_xy_px=corners)
    return replace(span, points_xy_px=tuple(zip(polygon[::2], polygon[1::2], strict=True)))


def _clipped(point: Keypoint, size_hw: tuple[int, int]) -> Keypoint:
    height, width = size_hw
    return point._replace(x_px=min(max(point.x_px, 0.0), width), y_px=min(max(point.y_px, 0.0), height))


def _common(folder: Path | None, other: Path) -> Path:
    if folder is None:
        return other
    try:
        return Path(os.path.commonpath([folder, other]))
    except ValueError:  # on another Windows drive
        return folder
