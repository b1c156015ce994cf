"""Pictures for TensorBoard: training examples with their boxes, evaluated examples with their detections."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf
from object_detection.core import standard_fields
from object_detection.utils import ops
from PIL import Image, ImageDraw, ImageFont

from odkeras.boxes import Detections, FloatArray, Groundtruth, to_xyxy_px
from odkeras.colours import colour_of
from odkeras.drawing import LabelledBox, draw_boxes
from odkeras.errors import LabelMapError
from odkeras.keypoints import MIN_SCORE as MIN_KEYPOINT_SCORE
from odkeras.keypoints import VISIBLE, DrawnKeypoint, to_draw
from odkeras.labels import LabelMap
from odkeras.training.precision_recall import PrecisionRecallCurve

MAX_SIDE_PX = 480
"""Maximum longer side of an image. Every round adds several images to the event files, which are never pruned."""

MIN_SIDE_PX = 320
"""Minimum longer side; smaller images are scaled up."""

MAX_EXAMPLES = 4
MIN_SCORE = 0.5
_MAX_TRAINING_EXAMPLES = 3
_BEST = 3
_BAND_PX, _GAP_PX, _LINE_PX, _FONT_PX = 24, 8, 3, 14
_BACKGROUND, _TEXT = "#ffffff", "#1f2328"
_QUALITY = 88
_FONT = ImageFont.load_default(size=_FONT_PX)


@dataclass(frozen=True, eq=False)
class EvaluatedExample:
    """One evaluated example.

    Args:
        image: uint8 (H, W, 3), resized by `resize_to_fit`.
        groundtruth: groundtruth boxes.
        detections: all detections, of any score.
    """

    image: Any
    groundtruth: Groundtruth
    detections: Detections

    @classmethod
    def from_eval_dict(cls, eval_dict: Mapping[str, Any]) -> EvaluatedExample:
        """Convert the result of `model_lib_v2.prepare_eval_dict`, whose boxes are in pixels of the original image."""
        height, width = (int(value) for value in np.array(eval_dict["original_image_spatial_shape"])[0][:2])
        size = np.array([height, width, height, width], np.float32)
        image = to_uint8(np.array(eval_dict["original_image"])[0][:height, :width])
        count = int(np.array(eval_dict["num_detections"])[0])
        boxes, scores, classes = (
            np.array(eval_dict[f"detection_{name}"])[0][:count] for name in ("boxes", "scores", "classes")
        )
        groundtruth = Groundtruth(
            np.array(eval_dict["groundtruth_boxes"])[0] / size,
            np.array(eval_dict["groundtruth_classes"])[0],
            _keypoints(eval_dict, "groundtruth_keypoints", "groundtruth_keypoint_visibilities", size[:2]),
        )
        points = _keypoints(eval_dict, "detection_keypoints", "detection_keypoint_scores", size[:2])
        keypoints = None if points is None else points[:count]
        detections = Detections(boxes / size, scores, classes, keypoints)
        return cls(np.asarray(resize_to_fit(image)), groundtruth, detections)


@dataclass(frozen=True)
class EvalVisualizations:
    """What an evaluation shows in TensorBoard, besides its metrics.

    Args:
        examples: examples of the first reader, the same ones in every evaluation of the same examples.
        curves: precision-recall curves by metric name, such as "precision_recall/all classes".
    """

    examples: tuple[EvaluatedExample, ...] = ()
    curves: Mapping[str, PrecisionRecallCurve] = field(default_factory=dict)


class ExampleSelection:
    """Keeps the first `MAX_EXAMPLES` examples with objects, filled up with the first ones without objects."""

    def __init__(self) -> None:
        self._with_objects: list[EvaluatedExample] = []
        self._without: list[EvaluatedExample] = []

    def add(self, eval_dict: Mapping[str, Any]) -> None:
        """Add one example, in the form that `model_lib_v2.prepare_eval_dict` returns."""
        has_objects = eval_dict["groundtruth_boxes"].shape[1] > 0
        kept = self._with_objects if has_objects else self._without
        if len(self._with_objects) < MAX_EXAMPLES and len(kept) < MAX_EXAMPLES:
            kept.append(EvaluatedExample.from_eval_dict(eval_dict))

    def examples(self) -> tuple[EvaluatedExample, ...]:
        """At most `MAX_EXAMPLES`, those with objects first."""
        return tuple([*self._with_objects, *self._without][:MAX_EXAMPLES])


class BoxAnnotator:
    """Draws boxes with their labels.

    Args:
        label_map: gives names and colours. None labels boxes with their class ids.

    Attributes:
        edges: pairs of keypoint ids between which lines are drawn.
    """

    def __init__(self, label_map: LabelMap | None = None) -> None:
        self._label_map = label_map
        self.edges: tuple[tuple[int, int], ...] = ()

    def draw(self, image: Any, boxes: Groundtruth | Detections) -> Image.Image:
        """Draw boxes on an image, uint8 (H, W, 3), resized by `resize_to_fit`. Detections get their scores, too.

        Boxes that are not finite, or that end before they begin, are skipped.
        """
        picture = resize_to_fit(image)
        scores = boxes.scores.tolist() if isinstance(boxes, Detections) else [None] * len(boxes)
        size_hw = (picture.height, picture.width)
        corners = to_xyxy_px(boxes.boxes, size_hw)
        filled_from = MIN_KEYPOINT_SCORE if isinstance(boxes, Detections) else VISIBLE
        keypoints = np.zeros((len(boxes), 0, 3), np.float32) if boxes.keypoints is None else boxes.keypoints
        labelled = [
            self._label(box, int(class_id), score, to_draw(points, size_hw, filled_from=filled_from))
            for box, class_id, score, points in zip(corners.tolist(), boxes.classes, scores, keypoints, strict=True)
            if np.isfinite(box).all() and box[0] <= box[2] and box[1] <= box[3]
        ]
        draw_boxes(picture, labelled, line_px=_LINE_PX, font_px=_FONT_PX, edges=self.edges)
        return picture

    def _label(
        self, box: list[float], class_id: int, score: float | None, keypoints: Sequence[DrawnKeypoint | None]
    ) -> LabelledBox:
        name, ids = str(class_id), self._label_map.ids if self._label_map else ()
        if self._label_map:
            with contextlib.suppress(LabelMapError):  # a class that the label map lacks is shown by its id
                name = self._label_map.display_name_of(class_id)
        # The colour belongs to the position in the label map, as on the page.
        colour = colour_of(ids.index(class_id) if class_id in ids else class_id - 1)
        return LabelledBox(box, name if score is None else f"{name} {score:.2f}", colour, keypoints)

    def draw_example(self, example: EvaluatedExample) -> Image.Image:
        """Groundtruth on the left, detections on the right.

        Shows the detections with a score of at least `MIN_SCORE`; if there are none, the best few.
        """
        groundtruth, detections = example.groundtruth, example.detections.above(MIN_SCORE)
        heading = f"detections, score at least {MIN_SCORE:g}"
        if not len(detections):
            detections = best(example.detections)
            count = len(detections)
            heading = f"the best {count}, none has {MIN_SCORE:g}" if count else "no detections"
        left, right = self.draw(example.image, groundtruth), self.draw(example.image, detections)
        panel = Image.new("RGB", (left.width + _GAP_PX + right.width, left.height + _BAND_PX), _BACKGROUND)
        draw = ImageDraw.Draw(panel)
        for picture, x, text in ((left, 0, f"truth: {len(groundtruth)}"), (right, left.width + _GAP_PX, heading)):
            panel.paste(picture, (x, _BAND_PX))
            draw.text((x + 4, _BAND_PX / 2), text, fill=_TEXT, font=_FONT, anchor="lm")
        return panel

    def draw_batch(self, features: Mapping[str, tf.Tensor], labels: Mapping[str, tf.Tensor]) -> list[Image.Image]:
        """The first images of a batch of `inputs.training_dataset`, with their groundtruth boxes."""
        fields = standard_fields.InputDataFields
        labels = ops.bfloat16_to_float32_nested(dict(labels))
        pictures = []
        for number, count in enumerate(labels[fields.num_groundtruth_boxes][:_MAX_TRAINING_EXAMPLES].numpy().tolist()):
            image = to_uint8(tf.cast(features[fields.image][number], tf.float32).numpy())
            boxes = labels[fields.groundtruth_boxes][number, :count].numpy()
            # The indices of one-hot vectors start at 0, label-map ids at 1.
            classes = tf.argmax(labels[fields.groundtruth_classes][number, :count], axis=-1).numpy() + 1
            points = _batch_keypoints(labels, number, count)
            pictures.append(self.draw(image, Groundtruth(boxes, classes, points)))
        return pictures


def _keypoints(eval_dict: Mapping[str, Any], points: str, values: str, size_hw: Any) -> FloatArray | None:
    """The keypoints of the image in an eval_dict, float32 (N, K, 3), from pixels; None if there are none.

    Args:
        points, values: the names of the coordinates, and of the visibilities or scores.
    """
    if points not in eval_dict:
        return None
    coordinates = np.array(eval_dict[points])[0] / size_hw
    weights = np.array(eval_dict[values])[0]
    if weights.dtype == bool:  # the API's decoder tells only whether a keypoint is labelled
        weights = weights * VISIBLE
    return _finite(coordinates, weights)


def _batch_keypoints(labels: Mapping[str, tf.Tensor], number: int, count: int) -> FloatArray | None:
    """The keypoints of the first `count` objects of an image in a batch; None if there are none."""
    fields = standard_fields.InputDataFields
    if fields.groundtruth_keypoints not in labels:
        return None
    coordinates = labels[fields.groundtruth_keypoints][number, :count].numpy()
    return _finite(coordinates, np.full(coordinates.shape[:2], VISIBLE))


def _finite(coordinates: Any, weights: Any) -> FloatArray:
    """Keypoints without those that are not labelled, whose coordinates the API makes NaN."""
    there = np.isfinite(coordinates).all(axis=-1, keepdims=True)
    return np.where(there, np.concatenate([coordinates, weights[..., None]], axis=-1), 0).astype(np.float32)


def best(detections: Detections, count: int = _BEST) -> Detections:
    """The `count` detections with the highest scores, best first. A NaN score comes last."""
    order = np.argsort(-np.nan_to_num(detections.scores, nan=-1.0), kind="stable")[:count]
    return detections.take(order)


def resize_to_fit(image: Any) -> Image.Image:
    """Resize an image, uint8 (H, W, 3), so that its longer side is between `MIN_SIDE_PX` and `MAX_SIDE_PX`."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    longer = max(picture.size)
    target = min(max(longer, MIN_SIDE_PX), MAX_SIDE_PX)
    if target == longer:
        return picture
    width, height = (max(1, round(side * target / longer)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.BICUBIC)


def to_uint8(image: Any) -> Any:
    """Convert an image, (H, W, 3) or (H, W, 1), to uint8 (H, W, 3).

    Other dtypes are the result of a model's preprocessing, whose range differs between models: their own minimum and
    maximum are stretched to 0 and 255.
    """
    if image.ndim == 3 and image.shape[-1] == 1:
        image = np.repeat(image, 3, axis=-1)
    if image.dtype == np.uint8:
        return image
    image = np.nan_to_num(np.asarray(image, np.float32))
    low, high = float(image.min()), float(image.max())
    return ((image - low) / max(high - low, 1e-6) * 255).astype(np.uint8)


def encode_jpeg(picture: Image.Image) -> bytes:
    """Encode as JPEG, without chroma subsampling, which would blur the coloured lines of boxes."""
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=_QUALITY, subsampling=0)
    return data.getvalue()
