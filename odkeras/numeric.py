"""What counts as a number in JSON that other programs wrote. `true` is none, although Python calls it an int."""

from __future__ import annotations

from typing import Any, TypeGuard

MAX_MAGNITUDE = 1e9
"""Of coordinates and scores. Whole numbers in JSON may be too large for a float; comparing them is safe."""


def is_number(value: Any, limit: float = MAX_MAGNITUDE) -> TypeGuard[float]:
    """Whether a JSON value is a number of at most `limit`, either sign. `true` and `NaN` are not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= limit


def is_whole(value: Any, low: int, high: int | None = None) -> TypeGuard[int]:
    """Whether a JSON value is a whole number from `low` to `high`; `true` is not."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= low and (high is None or value <= high)
