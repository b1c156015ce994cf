"""The minimum score of suggestions: a fixed one, or one per class that is learned from the answers.

A suggestion is worth showing if keeping or adjusting it saves more time than looking at it and deleting it costs. The
score at which that is so differs between classes and versions and is not known in advance. Therefore tasks contain all
detections as `candidates`, shown or not, and the accepted answer tells which of them were right. Until there is
evidence that showing a class saves time, it is hidden: the first versions are often wrong, and a person who can pick
candidates loses little without suggestions.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np

from odkeras import boxes as box_ops
from odkeras.annotation import Answer, Decision, Span
from odkeras.boxes import Detections
from odkeras.config.cost import CostModel
from odkeras.errors import AnswerError
from odkeras.formats.prodigy import Record, read_answer
from odkeras.formats.spans import DECIMALS
from odkeras.keypoints import Keypoint, from_array
from odkeras.labels import LabelMap
from odkeras.metrics import KEEP_IOU, MATCH_IOU
from odkeras.project import write_atomically

MIN_JUDGED = 8
"""Minimum judged candidates of a class; with fewer, it is hidden."""
MAX_JUDGED = 80
"""Number of newest judged candidates per class that count. Older ones are detections of models no longer in use."""
HIDDEN = 1.01
"""The threshold of a class that is not suggested: above any score."""
MAX_CANDIDATES = 100
_MIN_CANDIDATE_SCORE = 0.01
_MIN_SCORE, _MAX_PER_IMAGE = 0.05, 30
"""Thresholds are learned from the best candidates of an image; the others would never be shown."""
_OUTCOMES = ("kept", "adjusted", "deleted")

Judged = tuple[float, str]


class Threshold(Protocol):
    """The threshold that the suggester uses.

    `of` returns the minimum score of a class, given its id; above 1 hides the class. `note` learns from answers.
    """

    def of(self, class_id: int) -> float: ...

    def note(self, answers: Iterable[Record]) -> None: ...


class FixedThreshold:
    """The same threshold for every class."""

    def __init__(self, value: float) -> None:
        self._value = value

    def of(self, class_id: int) -> float:
        """The threshold, whatever the class."""
        return self._value

    def note(self, answers: Iterable[Record]) -> None:
        """Does nothing."""


class AutoThreshold:
    """A threshold per class, learned from the answers so far. Thread-safe.

    Args:
        label_map: names of the classes.
        path: JSON file of the judged candidates, so that a restart continues with them.
        can_pick: the annotator can pick candidates, so that a good suggestion saves a pick instead of a drawing.
        cost: the seconds that suggestions cost and save; None = the defaults.
    """

    def __init__(
        self, label_map: LabelMap, path: Path, *, can_pick: bool = False, cost: CostModel | None = None
    ) -> None:
        self.label_map = label_map
        self._path = path
        self._worth = worth_of_outcomes(cost or CostModel(), can_pick=can_pick)
        self._lock = threading.Lock()
        self._judged: dict[int, deque[Judged]] = {}
        self._chosen: dict[int, float] = {}
        self._load()

    def of(self, class_id: int) -> float:
        """The minimum score to show; `HIDDEN` while suggestions of this class cost more than they save."""
        with self._lock:
            return self._chosen.get(class_id, HIDDEN)

    def note(self, answers: Iterable[Record]) -> None:
        """Learn from the candidates of accepted answers. Malformed answers are skipped; the trainer reports them."""
        changed = False
        for answer in answers:
            try:
                judgements = judge(read_answer(answer), self.label_map)
            except (AnswerError, AttributeError):  # not a JSON object
                continue
            with self._lock:
                for class_id, judged in judgements.items():
                    self._judged.setdefault(class_id, deque(maxlen=MAX_JUDGED)).extend(judged)
                    self._chosen[class_id] = choose_threshold(list(self._judged[class_id]), self._worth)
                    changed = True
        if changed:
            self._save()

    def _save(self) -> None:
        with self._lock:
            kept = {str(class_id): list(judged) for class_id, judged in self._judged.items()}
        with suppress(OSError):  # disk full: only a restart loses what was learned
            write_atomically(self._path, json.dumps(kept))

    def _load(self) -> None:
        try:
            kept = json.loads(self._path.read_text(encoding="utf-8"))
            for class_id, judged in kept.items():
                rows = [(float(score), str(outcome)) for score, outcome in judged if outcome in _OUTCOMES]
                self._judged[int(class_id)] = deque(rows, maxlen=MAX_JUDGED)
                self._chosen[int(class_id)] = choose_threshold(rows, self._worth)
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):
            return


def worth_of_outcomes(cost: CostModel, *, can_pick: bool) -> dict[str, float]:
    """The seconds that showing a candidate saves, by its outcome; negative if hiding it would have been better."""
    return {
        "kept": (cost.pick_seconds if can_pick else cost.draw_seconds) - cost.verify_seconds,
        "adjusted": cost.draw_seconds - cost.verify_seconds - cost.adjust_seconds,
        "deleted": -cost.verify_seconds - cost.delete_seconds,
    }


def choose_threshold(judged: Sequence[Judged], worth: Mapping[str, float]) -> float:
    """The threshold that would have saved most time on the judged candidates of one class.

    At most half of the candidates at or above it may have been deleted.

    Args:
        judged: (score, "kept" | "adjusted" | "deleted") of each candidate.
        worth: see `worth_of_outcomes`.

    Returns:
        `HIDDEN` if no threshold saves time, or with fewer than `MIN_JUDGED` candidates.
    """
    if len(judged) < MIN_JUDGED:
        return HIDDEN
    best, chosen, total, deleted = 0.0, HIDDEN, 0.0, 0
    ordered = sorted(judged, key=lambda row: -row[0])
    for number, (score, outcome) in enumerate(ordered, start=1):
        total += worth[outcome]
        deleted += outcome == "deleted"
        last_of_score = number == len(ordered) or ordered[number][0] < score
        if last_of_score and total > best and 2 * deleted <= number:
            best, chosen = total, score
    return chosen


def judge(answer: Answer, label_map: LabelMap) -> dict[int, list[Judged]]:
    """Compare the candidates of an accepted answer with its boxes.

    Greedy matching within each class: in order of descending score, each candidate takes the free box with the highest
    IoU, if that is at least `metrics.MATCH_IOU`.

    Returns:
        (score, outcome) of each candidate, by class id. {} for an answer that is not accepted or has no candidates.
    """
    suggestions = answer.task.suggestions
    if answer.decision is not Decision.ACCEPT or suggestions is None:
        return {}
    truth: dict[int, list[tuple[float, ...]]] = {}
    for span in answer.task.spans:
        if (class_id := label_map.find_id(span.label)) is not None:
            truth.setdefault(class_id, []).append(span.xyxy_px)
    judged: dict[int, list[Judged]] = {}
    best = sorted(suggestions.candidates, key=lambda span: -(span.score or 0.0))[:_MAX_PER_IMAGE]
    for span in (span for span in best if (span.score or 0.0) >= _MIN_SCORE):
        if (class_id := label_map.find_id(span.label)) is not None:
            outcome = _take(span.xyxy_px, truth.get(class_id, []))
            judged.setdefault(class_id, []).append((span.score or 0.0, outcome))
    return judged


def _take(box_xyxy_px: Sequence[float], free: list[tuple[float, ...]]) -> str:
    """The outcome of a candidate. The box that it matches is removed from `free`."""
    if not free:
        return "deleted"
    overlap = box_ops.iou(np.array(free, np.float32), np.array([box_xyxy_px], np.float32))[:, 0]
    best = int(np.argmax(overlap))
    if overlap[best] < MATCH_IOU:
        return "deleted"
    del free[best]
    return "kept" if overlap[best] >= KEEP_IOU else "adjusted"


def list_candidates(detections: Detections, label_map: LabelMap, image_size_hw: tuple[int, int]) -> tuple[Span, ...]:
    """A model's detections as spans, best first, clipped to the image.

    At most `MAX_CANDIDATES`, of classes in the label map, with a score of at least `_MIN_CANDIDATE_SCORE` and with an
    area inside the image.
    """
    order = np.argsort(-detections.scores, kind="stable")
    chosen = [
        index
        for index in order
        if detections.scores[index] >= _MIN_CANDIDATE_SCORE and int(detections.classes[index]) in label_map.ids
    ]
    boxes = box_ops.to_xyxy_px(box_ops.clip(detections.boxes), image_size_hw)
    spans = []
    for index in chosen[:MAX_CANDIDATES]:
        left, top, right, bottom = map(float, boxes[index])
        if right > left and bottom > top:  # false for NaN
            name, score = label_map.name_of(int(detections.classes[index])), round(float(detections.scores[index]), 4)
            keypoints = detected_keypoints(detections, int(index), label_map, image_size_hw)
            spans.append(Span(name, ((left, top), (right, bottom)), score, keypoints=keypoints))
    return tuple(spans)


def detected_keypoints(
    detections: Detections, index: int, label_map: LabelMap, image_size_hw: tuple[int, int]
) -> tuple[Keypoint, ...]:
    """The keypoints of one detection. () if the model predicts none, or others than the label map names: it may be a
    version of another training."""
    points = detections.keypoints
    if points is None or points.shape[1] != label_map.num_keypoints:
        return ()
    named = label_map.keypoints_of(int(detections.classes[index]))
    return from_array(points[index], named, image_size_hw, DECIMALS)
