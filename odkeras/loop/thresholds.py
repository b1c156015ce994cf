"""The lowest score of a suggestion: one that was given, or one that is learnt from the answers for each class.

A suggestion is worth showing when it is more often kept, or worth correcting, than deleted. Which scores are, differs
from class to class and from version to version, and nobody knows it beforehand. So everything that a model finds is
noted beside the suggestions that are shown (`candidates`), and judged by what the person then accepted.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from odkeras import boxes as box_ops
from odkeras.boxes import Detections
from odkeras.errors import AnswerError
from odkeras.formats.prodigy import Task, readable_spans
from odkeras.labels import LabelMap
from odkeras.project import write_atomically
from odkeras.work import CostModel

AUTO = "auto"
FIRST_THRESHOLD = 0.5
LEAST_JUDGED = 8
"""Below so many judged candidates of a class its threshold stays what it was at the beginning."""
MOST_JUDGED = 80
"""Of a class; what was judged longer ago was found by a model that is not there any more."""
HIDDEN = 1.01
_LEAST_SCORE = 0.05
_MOST_CANDIDATES = 30
_KEPT_IOU, _MATCH_IOU = 0.9, 0.5
_OUTCOMES = ("kept", "adjusted", "deleted")

_log = logging.getLogger(__name__)
Judged = tuple[float, str]


def read_threshold(text: str | float) -> float | str:
    """A score, or "auto", from a command line.

    Raises:
        ValueError: neither.
    """
    if isinstance(text, str) and text.strip().lower() == AUTO:
        return AUTO
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"a threshold must be a number from 0 to 1, or auto; got {text!r}") from None


class Threshold(Protocol):
    """What the suggester asks."""

    learns: bool

    def of(self, class_id: int) -> float: ...

    def note(self, answers: Iterable[Task]) -> None: ...


class FixedThreshold:
    """The same for every class."""

    learns = False

    def __init__(self, value: float) -> None:
        self._value = value

    def of(self, class_id: int) -> float:
        return self._value

    def note(self, answers: Iterable[Task]) -> None:
        """Nothing is learnt."""


class AutoThreshold:
    """Chosen for each class on the answers so far; may be used by several threads.

    Args:
        label_map: names of the classes.
        path: where what was judged is kept, so that a restart goes on.
        cost: what showing a suggestion costs and saves.
    """

    learns = True

    def __init__(self, label_map: LabelMap, path: Path, cost: CostModel | None = None) -> None:
        self._label_map = label_map
        self._path = path
        self._cost = cost or CostModel()
        self._lock = threading.Lock()
        self._judged: dict[int, deque[Judged]] = {}
        self._chosen: dict[int, float] = {}
        self._load()

    def of(self, class_id: int) -> float:
        """The lowest score to show; above 1 while suggestions of this class cost more than they save."""
        with self._lock:
            return self._chosen.get(class_id, FIRST_THRESHOLD)

    def note(self, answers: Iterable[Task]) -> None:
        """Judge what was found in accepted images. Never raises."""
        changed = False
        for answer in answers:
            try:
                found = judge(answer, self._label_map)
            except (AnswerError, ValueError, TypeError, KeyError, AttributeError) as error:
                _log.warning("an answer's candidates cannot be judged: %s", error)
                continue
            with self._lock:
                for class_id, judged in found.items():
                    self._judged.setdefault(class_id, deque(maxlen=MOST_JUDGED)).extend(judged)
                    self._chosen[class_id] = choose_threshold(list(self._judged[class_id]), self._cost)
                    changed = True
        if changed:
            self._save()

    def _save(self) -> None:
        with self._lock:
            kept = {str(class_id): list(judged) for class_id, judged in self._judged.items()}
        with suppress(OSError):  # the next start begins at FIRST_THRESHOLD again
            write_atomically(self._path, json.dumps(kept))

    def _load(self) -> None:
        try:
            kept = json.loads(self._path.read_text(encoding="utf-8"))
            for class_id, judged in kept.items():
                rows = [(float(score), str(outcome)) for score, outcome in judged if outcome in _OUTCOMES]
                self._judged[int(class_id)] = deque(rows, maxlen=MOST_JUDGED)
                self._chosen[int(class_id)] = choose_threshold(rows, self._cost)
        except (OSError, ValueError, TypeError, AttributeError):
            return


def choose_threshold(judged: Sequence[Judged], cost: CostModel) -> float:
    """The score from which on showing saves most, by the cost model, while no more are deleted than not; `HIDDEN` if
    it saves nothing whatever the score.

    Args:
        judged: (score, "kept" | "adjusted" | "deleted") of candidates of one class.
    """
    if len(judged) < LEAST_JUDGED:
        return FIRST_THRESHOLD
    worth = {
        "kept": cost.draw_s - cost.verify_s,
        "adjusted": cost.draw_s - cost.verify_s - cost.adjust_s,
        "deleted": -cost.verify_s - cost.delete_s,
    }
    best, chosen, total, deleted = 0.0, HIDDEN, 0.0, 0
    ordered = sorted(judged, key=lambda row: -row[0])
    for number, (score, outcome) in enumerate(ordered, start=1):
        total += worth[outcome]
        deleted += outcome == "deleted"
        last_of_score = number == len(ordered) or ordered[number][0] < score
        if last_of_score and total > best and 2 * deleted <= number:
            best, chosen = total, score
    return chosen


def judge(answer: Task, label_map: LabelMap) -> dict[int, list[Judged]]:
    """What became of an accepted image's candidates, by class id: the best score gets the box it overlaps most."""
    made = answer.get("_suggestions")
    if answer.get("answer") != "accept" or not isinstance(made, Mapping) or not made.get("candidates"):
        return {}
    truth: dict[int, list[tuple[float, ...]]] = {}
    for span in readable_spans(answer.get("spans")):
        if (class_id := label_map.find_id(span.label)) is not None:
            truth.setdefault(class_id, []).append(span.xyxy_px)
    judged: dict[int, list[Judged]] = {}
    for label, score, box_xyxy_px in sorted(made["candidates"], key=lambda row: -row[1]):
        if (class_id := label_map.find_id(label)) is not None:
            outcome = _take(box_xyxy_px, truth.get(class_id, []))
            judged.setdefault(class_id, []).append((float(score), outcome))
    return judged


def _take(box_xyxy_px: Sequence[float], free: list[tuple[float, ...]]) -> str:
    """What becomes of a box; the true one that it belongs to is not free any more."""
    if not free:
        return "deleted"
    overlap = box_ops.iou(np.array(free, np.float32), np.array([box_xyxy_px], np.float32))[:, 0]
    best = int(np.argmax(overlap))
    if overlap[best] < _MATCH_IOU:
        return "deleted"
    del free[best]
    return "kept" if overlap[best] >= _KEPT_IOU else "adjusted"


def candidates_of(found: Detections, label_map: LabelMap, image_size_hw: tuple[int, int]) -> list[list[Any]]:
    """[label, score, [xmin, ymin, xmax, ymax] in pixels] of what a model found, the best first."""
    order = np.argsort(-found.scores, kind="stable")
    chosen = [
        index for index in order if found.scores[index] >= _LEAST_SCORE and int(found.classes[index]) in label_map.ids
    ]
    boxes = box_ops.to_xyxy_px(box_ops.clip(found.boxes), image_size_hw)
    return [
        [
            label_map.name_of(int(found.classes[index])),
            round(float(found.scores[index]), 4),
            [round(float(value), 1) for value in boxes[index]],
        ]
        for index in chosen[:_MOST_CANDIDATES]
        if np.isfinite(boxes[index]).all()
    ]
