"""In which order images are asked about.

sequential  as they lie in the source.
random      shuffled, always in the same way, so that a restart goes on where it was.
uncertain   of a window of shuffled images, first those that the newest model is least sure about: active learning by
            margin sampling (Brust, Käding, Denzler, "Active Learning for Deep Object Detection", VISAPP 2019). A
            detector of ours gives one score s for each box, so the margin between the two likeliest answers, an object
            or none, is |2s - 1|; a box is worth (1 - margin) squared, an image as much as its least certain box (their
            "maximum"; their "sum" prefers crowded images, which take longer to label). Every `RANDOM_EVERY`th image is
            taken at random all the same: a model cannot be unsure about what it does not see.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from odkeras.boxes import Detections
from odkeras.formats.prodigy import Task
from odkeras.loop.sources import Item

ORDERS = ("sequential", "random", "uncertain")
LOOK_AHEAD = 20
RANDOM_EVERY = 5
_MOST_FILES, _MOST_RECORDS = 100_000, 500
_LEAST_SCORE = 0.05


@dataclass(frozen=True)
class Order:
    """How to order the images of a stream.

    Args:
        name: one of `ORDERS`.
        seed: another one gives another shuffle.
    """

    name: str = "sequential"
    seed: int = 0

    def arrange(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items in the order in which they are read."""
        return iter(items) if self.name == "sequential" else shuffled(items, self.seed)

    @property
    def look_ahead(self) -> int:
        """How many tasks are predicted before one is chosen; 0 if none is chosen."""
        return LOOK_AHEAD if self.name == "uncertain" else 0

    def chooser(self) -> Callable[[Sequence[Task]], int]:
        """Which of the predicted tasks comes next."""
        return _UncertainFirst() if self.name == "uncertain" else lambda tasks: 0


class _UncertainFirst:
    def __init__(self) -> None:
        self._chosen = 0

    def __call__(self, tasks: Sequence[Task]) -> int:
        self._chosen += 1
        if self._chosen % RANDOM_EVERY == 0:
            return 0  # they come in a random order
        worth = [float((task.get("_suggestions") or {}).get("uncertainty") or 0.0) for task in tasks]
        return int(np.argmax(worth))


def uncertainty(found: Detections) -> float:
    """How unsure a model is about an image, 0 to 1: that of its least certain box; 0 if it sees nothing."""
    scores = found.scores[np.isfinite(found.scores) & (found.scores >= _LEAST_SCORE)].astype(np.float64)
    return float(np.max((1 - np.abs(2 * scores - 1)) ** 2, initial=0.0))


def shuffled(items: Iterable[Item], seed: int) -> Iterator[Item]:
    """All items in a random order. Of a very long source, and of one whose images lie in its records, a window of the
    next ones is shuffled: not all of it has room in memory."""
    chance = random.Random(seed)
    window: list[Item] = []
    for item in items:
        window.append(item)
        if len(window) >= (_MOST_FILES if item.record is None else _MOST_RECORDS):
            yield _take(window, chance)
    while window:
        yield _take(window, chance)


def _take(window: list[Item], chance: random.Random) -> Item:
    index = chance.randrange(len(window))
    window[index], window[-1] = window[-1], window[index]
    return window.pop()
