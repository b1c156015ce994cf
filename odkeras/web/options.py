"""The page's options beyond those of the session."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from odkeras.errors import ConfigError

ANSWERS_PER_ROUND = 5
"""Smaller batches give fresher suggestions; with larger ones, the overhead of a round weighs less."""


@dataclass(frozen=True)
class WebOptions:
    """Options of `odkeras annotate` beyond those of the recipe.

    Args:
        db: the answer database, created if missing; found by `find_database` when None.
        overlap: every session annotates every image.
        tensorboard: whether the page may start TensorBoard.
        answers_per_round: number of answers that start a training round.

    Raises:
        ConfigError: `answers_per_round` is less than 1.
    """

    db: Path | None = None
    overlap: bool = False
    tensorboard: bool = True
    answers_per_round: int = ANSWERS_PER_ROUND

    def __post_init__(self) -> None:
        if self.answers_per_round < 1:
            raise ConfigError(f"--answers-per-round {self.answers_per_round}: it must be 1 or more")
