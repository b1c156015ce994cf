"""How long training rests between two steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from odkeras.config.settings import TrainingSettings
from odkeras.errors import ConfigError
from odkeras.training.limits import LoadLimits


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def train(limits: LoadLimits, clock: Clock, steps: int, step_s: float) -> None:
    """Take steps, each as soon as the limits allow it."""
    limits.begin()
    for _ in range(steps):
        clock.now = limits.next_step_at()
        limits.step_starts()
        clock.now += step_s


def test_no_limits() -> None:
    clock = Clock()
    train(LoadLimits(clock=clock), clock, steps=10, step_s=0.5)
    assert clock.now == pytest.approx(105)


@pytest.mark.parametrize("share", [0.01, 0.25, 0.5, 0.9, 1.0])
def test_steps_take_their_share_of_the_time(share: float) -> None:
    clock = Clock()
    train(LoadLimits(share, clock=clock), clock, steps=100, step_s=0.5)
    assert 100 * 0.5 / (clock.now - 100.0) == pytest.approx(share, abs=0.01)


def test_the_time_before_training_is_not_the_time_of_a_step() -> None:
    clock = Clock()
    limits = LoadLimits(0.5, clock=clock)
    train(limits, clock, steps=1, step_s=1.0)
    clock.now += 1000.0  # no answers
    limits.begin()
    assert limits.next_step_at() == clock.now


def test_steps_per_hour_count_across_rounds() -> None:
    clock = Clock()
    limits = LoadLimits(steps_per_hour=60, clock=clock)
    for _ in range(3):
        train(limits, clock, steps=2, step_s=0.5)
    assert clock.now == pytest.approx(100 + 5 * 60 + 0.5)


def test_the_stricter_limit_counts() -> None:
    clock = Clock()
    train(LoadLimits(0.5, 3600, clock), clock, steps=11, step_s=0.1)
    assert clock.now == pytest.approx(100 + 10 * 1.0 + 0.1)
    clock.now = 100.0
    train(LoadLimits(0.5, 36_000, clock), clock, steps=11, step_s=0.1)
    assert clock.now == pytest.approx(100 + 10 * 0.2 + 0.1)


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        (LoadLimits(), ""),
        (LoadLimits(0.5), "; at most 50% of the time"),
        (LoadLimits(1.0, 200), "; at most 200 steps per hour"),
        (LoadLimits(0.25, 200), "; at most 25% of the time; at most 200 steps per hour"),
    ],
)
def test_the_limits_in_words(limits: LoadLimits, text: str) -> None:
    assert limits.add_to("training", "") == f"training{text}"


@pytest.mark.parametrize("wrong", [{"training_share": 0.0}, {"training_share": 1.5}, {"steps_per_hour": -1}])
def test_wrong_limits(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong)).replace("_", "[-_]")):
        TrainingSettings(config=Path("pipeline.config"), **wrong)
