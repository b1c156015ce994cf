"""The order in which images come: shuffled the same way every time, or by what a model is unsure about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tasks import FakeSuggester, bare_task

from odkeras.annotation import Suggestions, Task
from odkeras.boxes import Detections
from odkeras.session import order
from odkeras.session.order import LOOK_AHEAD, RANDOM_EVERY, Order, shuffled, uncertainty
from odkeras.session.sources import Item
from odkeras.session.stream import SuggestedTasks


def files(count: int) -> list[Item]:
    return [Item(str(number), Path(str(number))) for number in range(count)]


def seen(*scores: float) -> Detections:
    boxes = np.tile(np.array([0.1, 0.1, 0.5, 0.5], np.float32), (len(scores), 1))
    return Detections(boxes, np.array(scores, np.float32), np.ones(len(scores), np.int32))


class TestShuffled:
    def test_all_of_them_in_another_order_and_always_the_same(self) -> None:
        one, again = list(shuffled(files(50), 1)), list(shuffled(files(50), 1))
        assert one == again != files(50)
        assert sorted(one, key=lambda item: int(item.name)) == files(50)
        assert list(shuffled(files(50), 2)) != one

    def test_records_are_shuffled_in_a_window(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Their images may lie in them: not all have room in memory."""
        monkeypatch.setattr(order, "_MAX_RECORDS", 5)
        read = []

        def records() -> Any:
            for number in range(20):
                read.append(number)
                yield Item(str(number), record={"image": str(number)})

        stream = shuffled(records(), 0)
        next(stream)
        assert len(read) == 5
        assert Counter(item.name for item in stream).total() == 19

    def test_sequential_reads_nothing_ahead(self) -> None:
        assert list(Order("sequential").arrange(files(3))) == files(3)


class TestUncertainty:
    @pytest.mark.parametrize(
        ("scores", "expected"),
        [
            ((), 0.0),
            ((0.5,), 1.0),
            ((1.0,), 0.0),
            ((0.9,), 0.04),
            ((0.9, 0.7, 0.99), 0.36),  # the least certain box
            ((0.01, 0.04), 0.0),  # hardly seen
            ((float("nan"), 0.8), 0.16),
        ],
    )
    def test_of_an_image(self, scores: tuple[float, ...], expected: float) -> None:
        assert uncertainty(seen(*scores)) == pytest.approx(expected, abs=1e-6)


class TestUncertainFirst:
    def stream(self, worth: Sequence[float], versions: list[int] | None = None) -> tuple[SuggestedTasks, list[int]]:
        """Tasks with that uncertainty; (stream, how many were asked about at once)."""
        asked: list[int] = []

        def suggest(tasks: Sequence[Task]) -> list[Task]:
            asked.append(len(tasks))
            uncertain = [Suggestions(1, uncertainty=worth[int(task.image_id)]) for task in tasks]
            return [replace(task, suggestions=made) for task, made in zip(tasks, uncertain, strict=True)]

        ordering = Order("uncertain")
        tasks = (bare_task(str(number)) for number in range(len(worth)))
        fresh = (lambda task: True) if versions is None else (lambda task: versions.pop(0) == 1)
        suggester = FakeSuggester(suggest, fresh, batch_size=5)
        chosen = SuggestedTasks(tasks, suggester, look_ahead=ordering.look_ahead, choose=ordering.chooser())
        return chosen, asked

    def test_the_least_certain_of_the_window_comes_first(self) -> None:
        worth = [0.1] * 40
        worth[7], worth[13], worth[30] = 0.9, 0.8, 1.0
        stream, asked = self.stream(worth)
        assert [int(next(stream).image_id) for _ in range(2)] == [7, 13]  # 30 is beyond the window
        assert asked == [5, 5, 5, 5]
        assert LOOK_AHEAD == 20

    def test_every_fifth_is_taken_at_random(self) -> None:
        worth = [0.0, *np.linspace(0.1, 1, 39).tolist()]
        stream, _ = self.stream(worth)
        numbers = [int(next(stream).image_id) for _ in range(RANDOM_EVERY)]
        assert numbers[-1] == 0  # the first that came, whatever the model thinks of it
        assert 0 not in numbers[:-1]

    def test_all_come_out_once_and_the_window_is_filled_by_batches(self) -> None:
        stream, asked = self.stream([0.5] * 33)
        assert sorted(int(task.image_id) for task in stream) == list(range(33))
        assert set(asked) <= {5, 3}

    def test_a_newer_version_is_asked_about_the_whole_window(self) -> None:
        stream, asked = self.stream([0.5] * 40, versions=[0])
        next(stream)
        next(stream)
        assert asked == [5] * 8


def test_an_unknown_model_leaves_the_order_random() -> None:
    choose = Order("uncertain").chooser()
    assert choose([bare_task("0"), bare_task("1")]) == 0
