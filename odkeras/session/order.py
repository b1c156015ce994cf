"""The order in which images are annotated.

sequential  the order of the source.
random      shuffled by a fixed seed, so that a restart continues in the same order.
uncertain   margin sampling over a look-ahead window of shuffled images (active learning; Brust, Käding, Denzler,
            "Active Learning for Deep Object Detection", VISAPP 2019). The detectors give one score s per box, so the
            margin between the two most likely outcomes, object or background, is |2s - 1|. The uncertainty of a box is
            (1 - margin) squared. That of an image is the maximum over its boxes; the paper's "sum" prefers crowded
            images, which take longer to annotate. Every `RANDOM_EVERY`th image is a random one, because a model is
            never uncertain about objects that it misses.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from odkeras.annotation import Task
from odkeras.boxes import Detections
from odkeras.session.sources import Item

LOOK_AHEAD = 20
RANDOM_EVERY = 5
_MAX_FILES, _MAX_RECORDS = 100_000, 500
_MIN_SCORE = 0.05


@dataclass(frozen=True)
class Order:
    """How to order the images of a stream.

    Args:
        name: one of `ORDERS`.
        seed: random seed of the shuffle.
    """

    name: str = "sequential"
    seed: int = 0

    def arrange(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yields the items in the order in which to read them."""
        return iter(items) if self.name == "sequential" else shuffled(items, self.seed)

    @property
    def look_ahead(self) -> int:
        """Number of tasks to predict before one is selected; 0 if the order does not depend on predictions."""
        return LOOK_AHEAD if self.name == "uncertain" else 0

    def chooser(self) -> Callable[[Sequence[Task]], int]:
        """A function that returns the index of the next task, given the predicted ones."""
        return _UncertainFirst() if self.name == "uncertain" else lambda tasks: 0


class _UncertainFirst:
    def __init__(self) -> None:
        self._chosen = 0

    def __call__(self, tasks: Sequence[Task]) -> int:
        self._chosen += 1
        if self._chosen % RANDOM_EVERY == 0:
            return 0  # a random one, because the tasks are shuffled
        worth = [0.0 if task.suggestions is None else task.suggestions.uncertainty for task in tasks]
        return int(np.argmax(worth))


def uncertainty(detections: Detections) -> float:
    """Uncertainty of a model about an image, 0 to 1: the maximum over its boxes; 0 without boxes.

    Boxes with a score below `_MIN_SCORE` do not count.
    """
    scores = detections.scores[np.isfinite(detections.scores) & (detections.scores >= _MIN_SCORE)].astype(np.float64)
    return float(np.max((1 - np.abs(2 * scores - 1)) ** 2, initial=0.0))


def shuffled(items: Iterable[Item], seed: int) -> Iterator[Item]:
    """Yields all items in a random order, which depends on the seed alone.

    Memory is bounded by a shuffle window of `_MAX_FILES` items, or of `_MAX_RECORDS` if items are records, which may
    contain their images.
    """
    chance = random.Random(seed)
    window: list[Item] = []
    for item in items:
        window.append(item)
        if len(window) >= (_MAX_FILES if item.record is None else _MAX_RECORDS):
            yield _take(window, chance)
    while window:
        yield _take(window, chance)


def _take(window: list[Item], chance: random.Random) -> Item:
    index = chance.randrange(len(window))
    window[index], window[-1] = window[-1], window[index]
    return window.pop()
