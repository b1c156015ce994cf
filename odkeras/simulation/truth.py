"""Ground truth for the simulated annotator: images with true boxes, a hold-out split, answers in Prodigy's format."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from odkeras import boxes as box_ops
from odkeras.annotation import Answer, Decision, EditCounts, Span, Task, detections_from_spans
from odkeras.boxes import Groundtruth
from odkeras.errors import ConfigError, ImageError, LabelMapError, RecordError
from odkeras.groundtruth_csv import GroundtruthImage, exists
from odkeras.images import DEFAULT_MAX_PIXELS, read_image
from odkeras.known_labels import OnSkip, read_known_labels
from odkeras.labels import LabelMap
from odkeras.metrics import can_be_picked, count_edits

HELD_OUT_SHARE = 0.2
_MAX_NAMES = 3


@dataclass(frozen=True, eq=False)
class LabeledImage:
    """A readable image and its true boxes."""

    path: Path
    image_id: str
    image_size_hw: tuple[int, int]
    groundtruth: Groundtruth


@dataclass(frozen=True, eq=False)
class LabeledImages:
    """The images of a simulation.

    Args:
        annotate: images to answer, in this order. The order depends on the images' content only, not on file names or
            on the order of the CSV.
        held_out: images that are never answered; the model is measured on them.
    """

    annotate: tuple[LabeledImage, ...]
    held_out: tuple[LabeledImage, ...]

    @property
    def held_out_id(self) -> str:
        """Fingerprint of the held-out set. Two curves are comparable only if theirs are equal."""
        return hashlib.sha256("".join(image.image_id for image in self.held_out).encode()).hexdigest()[:16]


def read_labeled_images(
    truth_csv: Path,
    images_dir: Path | None,
    label_map: LabelMap,
    *,
    test_csv: Path | None = None,
    on_skip: OnSkip,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> LabeledImages:
    """Read the ground truth; without `test_csv`, hold out a fifth of the images, chosen by their content.

    Args:
        truth_csv, test_csv: see `known_labels.read_known_labels`.
        images_dir: base of the images' paths; None: beside and below the labels.
        on_skip: called with (file, reason) for images that cannot be read.

    Raises:
        RecordError: a CSV file cannot be read.
        LabelMapError: a label is not in the label map.
        ConfigError: there is nothing to annotate or nothing to measure on.
    """
    images = _read_images(truth_csv, images_dir, label_map, on_skip, max_pixels)
    if test_csv is None:
        held_out = {known_image.image_id for known_image in split_held_out(images)}
        tested = [known_image for known_image in images if known_image.image_id in held_out]
    else:
        tested = _read_images(test_csv, images_dir, label_map, on_skip, max_pixels)
        held_out = {known_image.image_id for known_image in tested}
    annotate = [known_image for known_image in images if known_image.image_id not in held_out]
    if not annotate:
        raise ConfigError(
            f"no image of {truth_csv} is left to annotate ({len(images)} readable, {len(tested)} held out)"
        )
    if not any(len(known_image.groundtruth) for known_image in tested):
        raise ConfigError(
            f"the {len(tested)} held-out images have no boxes to measure on; give a --test CSV that has some"
        )
    return LabeledImages(tuple(annotate), tuple(tested))


def split_held_out(images: Sequence[LabeledImage], share: float = HELD_OUT_SHARE) -> list[LabeledImage]:
    """The hold-out split: images whose id, read as a number, is in the lowest `share` of all ids; at least one image.

    Whether an image is held out does not depend on the other images, except that the image with the lowest id is held
    out if no id is in that share.
    """
    ordered = sorted(images, key=lambda known_image: known_image.image_id)
    count = sum(int(known_image.image_id[:8], 16) < share * 16**8 for known_image in ordered)
    return ordered[: max(1, count)]


def _read_images(
    csv_path: Path, images_dir: Path | None, label_map: LabelMap, on_skip: OnSkip, max_pixels: int
) -> list[LabeledImage]:
    """One entry per image content, sorted by image id."""
    images: dict[str, LabeledImage] = {}
    truths = read_known_labels(csv_path, images_dir, on_skip=on_skip)
    missing = [truth.path for truth in truths if not exists(truth.path)]
    if len(missing) > _MAX_NAMES:  # one message instead of one per file
        names = f"{', '.join(path.name for path in missing[:_MAX_NAMES])} and {len(missing) - _MAX_NAMES} more"
        on_skip(f"{len(missing)} of the {len(truths)} images of {csv_path}", f"no such file: {names}")
        truths = [truth for truth in truths if exists(truth.path)]
    for truth in truths:
        try:
            image = read_image(truth.path, max_pixels=max_pixels)
            groundtruth = _groundtruth(truth, image.image_size_hw, label_map, csv_path)
        except ImageError as error:
            on_skip(str(truth.path), error.reason)
            continue
        except RecordError as error:
            on_skip(str(truth.path), str(error))
            continue
        images[image.image_id] = LabeledImage(truth.path, image.image_id, image.image_size_hw, groundtruth)
    return [images[image_id] for image_id in sorted(images)]


def _groundtruth(
    truth: GroundtruthImage, image_size_hw: tuple[int, int], label_map: LabelMap, csv_path: Path
) -> Groundtruth:
    try:
        classes = np.array([label_map.id_of(label) for label in truth.labels], np.int32)
    except LabelMapError as error:
        raise LabelMapError(f"{csv_path}, image {truth.path.name}: {error}") from error
    boxes = truth.boxes(image_size_hw)
    visible = box_ops.area(boxes) > 0
    return Groundtruth(boxes[visible], classes[visible])


def answer_task(task: Task, image: LabeledImage, label_map: LabelMap) -> Answer:
    """The answer of an annotator who makes no mistakes: accepted, with the true boxes."""
    boxes_xyxy_px = box_ops.to_xyxy_px(image.groundtruth.boxes, image.image_size_hw).astype(float).tolist()
    spans = tuple(
        Span(label_map.name_of(int(class_id)), ((left, top), (right, bottom)), id=_span_id(image, number))
        for number, ((left, top, right, bottom), class_id) in enumerate(
            zip(boxes_xyxy_px, image.groundtruth.classes, strict=True)
        )
    )
    return Answer(replace(task, spans=spans), Decision.ACCEPT, answered_at=time.time())


def count_task_edits(task: Task, truth: Groundtruth, label_map: LabelMap) -> EditCounts:
    """The edits of an annotator who turns the task's suggestions into the true boxes.

    A missing box is picked if a candidate is as good as a box that people leave as it is (`metrics.KEEP_IOU`), else
    drawn.
    """
    suggestions = task.suggestions
    candidates = () if suggestions is None or suggestions.hidden else suggestions.candidates
    return count_edits(
        truth,
        detections_from_spans(task.spans, label_map, task.size_hw),
        can_be_picked(truth, detections_from_spans(candidates, label_map, task.size_hw)),
    )


def _span_id(image: LabeledImage, number: int) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{image.image_id}/{number}"))
