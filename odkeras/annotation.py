"""The annotation model, independent of any file format.

    Task ──► Answer ──► Annotation
     │                      what the model is trained on: an image and its ground truth
     └ an image to annotate, with `Span`s and the `Suggestions` of a model

Each file format has one module that reads and writes these values, for example `odkeras.formats.prodigy`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from enum import Enum
from typing import Any, NamedTuple

import numpy as np

from odkeras import boxes as box_ops
from odkeras import polygons as polygon_ops
from odkeras.boxes import Detections, FloatArray, Groundtruth
from odkeras.images import EncodedImage
from odkeras.keypoints import Keypoint
from odkeras.labels import LabelMap


class Decision(str, Enum):
    """An annotator's decision about an image. Only accepted images are trained on."""

    ACCEPT = "accept"
    REJECT = "reject"
    IGNORE = "ignore"


DECISIONS: tuple[str, ...] = tuple(decision.value for decision in Decision)


class Outline(NamedTuple):
    """The shape of a span inside its image.

    Args:
        box: float32 (4,) [ymin, xmin, ymax, xmax], normalised.
        polygon: float32 (K, 2) [y, x], normalised; None for a rectangle.
    """

    box: FloatArray
    polygon: FloatArray | None


@dataclass(frozen=True)
class Span:
    """A labelled object, in pixels of the upright image with the origin at the top left.

    Args:
        label: name of the class, as the annotator saw it.
        points_xy_px: two opposite corners of a rectangle, or the vertices of a polygon in drawing order.
        score: the model's score, 0..1; None for a span that no model suggested.
        id: unique among the spans of one image; "" if it has none.
        picked: the annotator picked it from the model's candidates.
        other: what else the span's record has, as JSON; carried along unchanged.
        keypoints: named points of the object; () without.

    Raises:
        ValueError: there are no points.
    """

    label: str
    points_xy_px: tuple[tuple[float, float], ...]
    score: float | None = None
    id: str = ""
    picked: bool = False
    other: Mapping[str, Any] = field(default_factory=dict, compare=False)
    keypoints: tuple[Keypoint, ...] = ()

    def __post_init__(self) -> None:
        if not self.points_xy_px:
            raise ValueError("a span needs points; got none")

    @property
    def xyxy_px(self) -> tuple[float, float, float, float]:
        """The bounding box (xmin, ymin, xmax, ymax)."""
        if len(self.points_xy_px) == 2:  # in a large import, most of the time would be spent on the general form
            (x1, y1), (x2, y2) = self.points_xy_px
            return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)
        x_px, y_px = zip(*self.points_xy_px, strict=True)
        return min(x_px), min(y_px), max(x_px), max(y_px)

    @property
    def is_polygon(self) -> bool:
        """Whether the points form any shape other than an axis-aligned rectangle."""
        return len(self.points_xy_px) > 2 and not polygon_ops.is_rectangle(self.points_xy_px)

    def outline(self, image_size_hw: tuple[float, float]) -> Outline:
        """The shape, normalised and clipped to the image. A polygon without area becomes its bounding box."""
        if self.is_polygon:
            polygon = polygon_ops.from_xy_px(self.points_xy_px, image_size_hw)
            if not polygon_ops.is_flat(polygon):
                clipped = polygon_ops.clip(polygon)
                return Outline(polygon_ops.bounds(clipped), clipped)
        return Outline(box_ops.clip(box_ops.from_xyxy_px([self.xyxy_px], image_size_hw))[0], None)


def detections_from_spans(spans: Iterable[Span], label_map: LabelMap, image_size_hw: tuple[int, int]) -> Detections:
    """Spans as detections; those with a label that the map lacks are left out. A missing score is 0."""
    with_ids = [(span, label_map.find_id(span.label)) for span in spans]
    rows = [(span.xyxy_px, span.score or 0.0, class_id) for span, class_id in with_ids if class_id is not None]
    return Detections(
        box_ops.from_xyxy_px([box for box, _, _ in rows], image_size_hw),
        np.array([score for _, score, _ in rows], np.float32),
        np.array([class_id for _, _, class_id in rows], np.int32),
    )


def _relabelled(spans: tuple[Span, ...], current: Callable[[str], str | None]) -> tuple[Span, ...]:
    """The spans with other labels; the same tuple if none changes."""
    labels = [current(span.label) for span in spans]
    if labels == [span.label for span in spans]:
        return spans
    return tuple(replace(span, label=label) for span, label in zip(spans, labels, strict=True) if label is not None)


@dataclass(frozen=True)
class Suggestions:
    """What one version of the model suggested for an image.

    Args:
        version: the version; None if it is not known.
        threshold: the lowest score of `spans`, 0 to 1.
        spans: the suggested objects, each with its score.
        hidden: the annotator does not see them, because the image is a control image.
        candidates: all detections, best first. The annotator can pick boxes from them, and a threshold is learned from
            them.
        uncertainty: of the model about the image, 0 to 1.
    """

    version: int | None
    threshold: float = 0.0
    spans: tuple[Span, ...] = ()
    hidden: bool = False
    candidates: tuple[Span, ...] = ()
    uncertainty: float = 0.0


@dataclass(frozen=True)
class Task:
    """An image to annotate.

    Args:
        image_id: the stable id of the image.
        file: file name, for people.
        image: the encoded image, or where it is: a path, a URL or a data URI; "" if that is not known.
        image_size_hw: height and width in pixels; None if they are not known, as for some imported answers.
        path: path or URL of the image's own file; None if it has none.
        spans: the objects that the annotator sees at first.
        suggestions: what the model suggested; None without a model.
        meta: facts that are shown with the image, as JSON.
        other: what else the task's record has, as JSON; carried along unchanged.
    """

    image_id: str
    file: str
    image: EncodedImage | str
    image_size_hw: tuple[int, int] | None
    path: str | None = None
    spans: tuple[Span, ...] = ()
    suggestions: Suggestions | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    other: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, image: EncodedImage, *, file: str, path: str | None = None) -> Task:
        """The task of an image, without spans."""
        return cls(image.image_id, file, image, image.image_size_hw, path)

    def with_labels(self, current: Callable[[str], str | None]) -> Task:
        """The task with other labels; itself if none changes.

        Args:
            current: returns the new label for a label; None to leave its spans out.
        """
        suggestions = self.suggestions
        if suggestions is not None:
            shown, candidates = _relabelled(suggestions.spans, current), _relabelled(suggestions.candidates, current)
            if shown is not suggestions.spans or candidates is not suggestions.candidates:
                suggestions = replace(suggestions, spans=shown, candidates=candidates)
        spans = _relabelled(self.spans, current)
        is_same = spans is self.spans and suggestions is self.suggestions
        return self if is_same else replace(self, spans=spans, suggestions=suggestions)

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width in pixels.

        Raises:
            ValueError: they are not known.
        """
        if self.image_size_hw is None:
            raise ValueError(f"{self.file}: the size of its image is not known")
        return self.image_size_hw

    @property
    def version(self) -> int | None:
        """The version of the model whose suggestions the task has; None if it has none."""
        return None if self.suggestions is None else self.suggestions.version


@dataclass(frozen=True)
class Answer:
    """An annotator's answer about an image.

    Args:
        task: the task, whose `spans` are now those of the annotator.
        decision: what the annotator decided.
        session: who answered; "" if unknown.
        answered_at: seconds since the epoch; None if unknown.
        active_s: seconds of work on the image, those for the answers that this one corrects included; None if they were
            not measured.
    """

    task: Task
    decision: Decision
    session: str = ""
    answered_at: float | None = None
    active_s: float | None = None


@dataclass(frozen=True, eq=False)
class Annotation:
    """An image and its ground truth boxes, as an annotator accepted them.

    Args:
        image: the encoded image that the model is trained on.
        groundtruth: the boxes.
        image_id: stable id of the image.
        file: file name, for messages.
        batch: name of the inbox file that it came in.
        polygons: one outline per box, in the order of the boxes: float32 (K, 2) [y, x], normalised; None for a
            rectangle. () if all boxes are rectangles.
        split: train, val or test, of an image that was imported with it; "" for any other. Images of val and test are
            never trained on.
        answered_s: when it was answered, in seconds since the epoch; None if that is unknown.

    Raises:
        ValueError: the number of polygons differs from the number of boxes, or a polygon is invalid.
    """

    image: EncodedImage
    groundtruth: Groundtruth
    image_id: str
    file: str
    batch: str = ""
    polygons: tuple[FloatArray | None, ...] = ()
    split: str = ""
    answered_s: float | None = None

    def __post_init__(self) -> None:
        polygons = tuple(None if polygon is None else polygon_ops.as_polygon(polygon) for polygon in self.polygons)
        if polygons and len(polygons) != len(self.groundtruth):
            raise ValueError(f"polygons must have {len(self.groundtruth)} entries, one per box; got {len(polygons)}")
        object.__setattr__(self, "polygons", polygons if any(polygon is not None for polygon in polygons) else ())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Annotation):
            return NotImplemented
        names = [field.name for field in fields(self) if field.name != "polygons"]
        return all(getattr(self, name) == getattr(other, name) for name in names) and _same_polygons(self, other)

    __hash__ = None  # type: ignore[assignment]  # contains arrays, which are not hashable


def _same_polygons(one: Annotation, other: Annotation) -> bool:
    pairs = zip(one.polygons, other.polygons, strict=False)
    return len(one.polygons) == len(other.polygons) and all(
        a is b if a is None or b is None else np.array_equal(a, b) for a, b in pairs
    )


_FORMER_NAMES = {"kept_90": "kept", "moved": "adjusted", "drawn": "added"}


@dataclass(frozen=True)
class EditCounts:
    """How an annotator edited the model's suggestions, in numbers of boxes. `sum(counts, EditCounts())` adds them up.

    Args:
        kept: suggestions that match an accepted box with IoU >= 0.9, which is as good as unchanged.
        kept_80: the same with IoU >= 0.8, at which people leave a box as it is: two people's boxes of one object agree
            no better than that. Includes `kept`.
        adjusted: suggestions that match an accepted box with 0.5 <= IoU < 0.9.
        relabelled: suggestions that match an accepted box of another class with IoU >= 0.5.
        deleted: suggestions that match no accepted box.
        added: accepted boxes that no suggestion matches.
        picked: those of `added` that the annotator picked from the model's candidates instead of drawing them.
    """

    kept: int = 0
    kept_80: int = 0
    adjusted: int = 0
    relabelled: int = 0
    deleted: int = 0
    added: int = 0
    picked: int = 0

    @classmethod
    def from_json(cls, row: Any) -> EditCounts:
        """Parse the output of `to_json`. Field names of earlier versions are accepted; missing counts are 0, and a
        missing `kept_80` is `kept`.

        Raises:
            ValueError, TypeError: a count is not a number.
        """
        named = {_FORMER_NAMES.get(name, name): value for name, value in row.items()}
        named.setdefault("kept_80", named.get("kept"))
        return cls(**{field.name: int(named.get(field.name) or 0) for field in fields(cls)})

    def to_json(self) -> dict[str, int]:
        return asdict(self)

    @property
    def suggested(self) -> int:
        """Number of suggestions."""
        return self.kept + self.adjusted + self.relabelled + self.deleted

    @property
    def objects(self) -> int:
        """Number of accepted boxes."""
        return self.kept + self.adjusted + self.relabelled + self.added

    def __add__(self, other: EditCounts) -> EditCounts:
        return EditCounts(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))


def is_list_of_pairs(points: Any) -> bool:
    """Whether a JSON value is a list of pairs. The types of x and y are not checked."""
    return isinstance(points, (list, tuple)) and all(
        isinstance(point, (list, tuple)) and len(point) == 2 for point in points
    )
