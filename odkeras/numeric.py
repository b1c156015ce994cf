"""Validate numbers in JSON from other programs. `true` is not a number here, although bool is an int in Python."""

from __future__ import annotations

from typing import Any, TypeGuard

MAX_MAGNITUDE = 1e9
"""Limit for coordinates and scores. JSON integers may overflow a float; comparing them with this limit cannot."""


def is_number(value: Any, limit: float = MAX_MAGNITUDE) -> TypeGuard[float]:
    """Whether a JSON value is a number from -limit to limit. False for `true` and `NaN`."""
    kind = type(value)
    if kind is float or kind is int:  # in large files, most of the time would be spent on the general check
        return bool(-limit <= value <= limit)
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= limit


def is_whole(value: Any, low: int, high: int | None = None) -> TypeGuard[int]:
    """Whether a JSON value is an integer from `low` to `high` (None: no maximum). False for `true`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= low and (high is None or value <= high)
