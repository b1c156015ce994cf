"""Tasks, and what adds suggestions to them, without a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from odkeras.annotation import Task
from odkeras.config.settings import PREDICT_BATCH_SIZE


def bare_task(image_id: str, **fields: Any) -> Task:
    """A task without an image."""
    return Task(image_id, **{"file": f"{image_id}.jpg", "image": "", "image_size_hw": (48, 64), **fields})


class FakeSuggester:
    """Calls functions for what `Suggester` does with a model."""

    def __init__(
        self,
        suggest: Callable[[Sequence[Task]], list[Task]] = list,
        is_fresh: Callable[[Task], bool] = lambda task: True,
        batch_size: int = PREDICT_BATCH_SIZE,
    ) -> None:
        self._suggest = suggest
        self._is_fresh = is_fresh
        self.batch_size = batch_size

    def __call__(self, tasks: Sequence[Task]) -> list[Task]:
        return self._suggest(tasks)

    def is_fresh(self, task: Task) -> bool:
        return self._is_fresh(task)
