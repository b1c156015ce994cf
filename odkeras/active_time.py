"""Measured time: how long annotators worked on images with suggestions, and on control images without.

    measured = MeasuredTime.of(last_rows(rows))             # rows of work.jsonl
    print(measured.saved_per_image or measured.missing)

Control images are chosen at random, and their suggestions are hidden. So the difference between both groups is what the
suggestions saved, whichever boxes were edited. The page measures the time: see `frontend/src/active_time.ts`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odkeras.annotation import EditCounts

MIN_IMAGES = 5
"""Minimum number of images in a group for an interval: with fewer, the bootstrap interval is far too narrow."""
_RESAMPLES = 2_000
_PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True, eq=False)
class Mean:
    """A mean of seconds, or a difference of two.

    Args:
        value: the mean, in seconds.
        resampled: float64 (R,), the means of the bootstrap resamples; NaN for a resample without boxes. R is 0 if
            there are fewer than `MIN_IMAGES` images.
    """

    value: float
    resampled: NDArray[np.float64]

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % percentile bootstrap interval; None without resamples."""
        if not self.resampled.size:
            return None
        low, high = np.nanpercentile(self.resampled, _PERCENTILES)
        return float(low), float(high)

    def __sub__(self, other: Mean) -> Mean:
        return Mean(self.value - other.value, self.resampled - other.resampled)


@dataclass(frozen=True, eq=False)
class GroupTime:
    """The measured time of a group of images.

    Args:
        images: number of images, at least 1.
        boxes: number of accepted boxes.
        median_s: median of the images' seconds.
        per_image: seconds per image.
        per_box: seconds per box: all seconds divided by all boxes; None without boxes.
    """

    images: int
    boxes: int
    median_s: float
    per_image: Mean
    per_box: Mean | None


@dataclass(frozen=True)
class MeasuredTime:
    """The measured time of images with suggestions, and of control images; None for a group without measured images."""

    suggested: GroupTime | None
    control: GroupTime | None

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> MeasuredTime:
        """Rows of work.jsonl. Those without `active_s` are left out: they are not from the page, or from an older one.

        There must be one row for each image and session (`work.last_rows`). It has the seconds of the answers that it
        corrects, too.
        """
        timed = [row for row in rows if row.get("active_s") is not None]
        random = np.random.default_rng(0)
        suggested = _measure([row for row in timed if not row.get("control")], random)
        return cls(suggested, _measure([row for row in timed if row.get("control")], random))

    @property
    def saved_per_image(self) -> Mean | None:
        """Seconds per image that the suggestions saved; None with fewer than `MIN_IMAGES` images in a group."""
        if self.suggested is None or self.control is None or self.missing:
            return None
        return self.control.per_image - self.suggested.per_image

    @property
    def saved_per_box(self) -> Mean | None:
        """Seconds per box that the suggestions saved; None as for images, and without boxes in a group."""
        if self.suggested is None or self.control is None or self.missing:
            return None
        with_, without = self.suggested.per_box, self.control.per_box
        return None if with_ is None or without is None else without - with_

    @property
    def missing(self) -> str:
        """What is missing for a comparison of both groups, as a sentence; "" if nothing is."""
        suggested, control = (0 if group is None else group.images for group in (self.suggested, self.control))
        if not suggested and not control:
            return "no measured seconds: only answers from the page of odkeras annotate have them"
        if not control:
            return "no control images: --control 0.1 shows some images without suggestions, to compare"
        if min(suggested, control) < MIN_IMAGES:
            return (
                f"{suggested} images with suggestions and {control} control images were measured: "
                f"a comparison needs {MIN_IMAGES} of each"
            )
        return ""


def _measure(rows: list[Mapping[str, Any]], random: np.random.Generator) -> GroupTime | None:
    if not rows:
        return None
    seconds = np.array([row["active_s"] for row in rows], np.float64)
    boxes = np.array([EditCounts.from_json(row).objects for row in rows], np.int64)
    count, resamples = len(rows), _RESAMPLES if len(rows) >= MIN_IMAGES else 0
    # One resample at a time: all of them at once would take gigabytes for the answers of a large project.
    drawn = (random.integers(count, size=count) for _ in range(resamples))
    sums = np.array([(seconds[chosen].sum(), boxes[chosen].sum()) for chosen in drawn]).reshape(resamples, 2)
    per_box = None
    if boxes.any():
        box_sums = np.where(sums[:, 1] > 0, sums[:, 1], np.nan)
        per_box = Mean(float(seconds.sum() / boxes.sum()), sums[:, 0] / box_sums)
    per_image = Mean(float(seconds.mean()), sums[:, 0] / count)
    return GroupTime(count, int(boxes.sum()), float(np.median(seconds)), per_image, per_box)
