"""Masks and shapes of several parts as one polygon, because a span has one.

Parts and holes are joined by bridges: lines that are drawn to and fro and have no area. What is filled by the nonzero
winding rule (`polygons.fill`) is the same: parts go round one way, holes the other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from odkeras.polygons import BoolArray

Points = npt.NDArray[np.float64]
_TOLERANCE_PX = 1.0
"""The corners of the stairs that a slanted edge of a mask has are nearly this far from a straight line."""
_EXACT = 8  # corners of a ring that is kept as it is


def trace_mask(mask: BoolArray, tolerance_px: float = _TOLERANCE_PX) -> list[Points]:
    """The outlines of a mask along the borders of its pixels: float64 (K, 2) [x, y] in pixels for each part and hole.

    Parts go round clockwise (as seen on the screen), holes counterclockwise. Pixels that touch at a corner only are
    apart.

    Args:
        tolerance_px: rings of more than eight corners are simplified and stay this near to the border; 0 keeps all
            corners.
    """
    following = _border_edges(mask)
    rings = []
    while following:
        start = next(iter(following))
        ring, at, came = [start], start, (0, 0)
        while True:
            options = following[at]
            step = options[0] if len(options) == 1 else max(options, key=lambda move: _turn(came, move))
            options.remove(step)
            if not options:
                del following[at]
            at, came = (at[0] + step[0], at[1] + step[1]), step
            if at == start:
                break
            ring.append(at)
        corners = _corners(np.array(ring, np.float64))
        rings.append(corners if len(corners) <= _EXACT else _simplified(corners, tolerance_px))
    return rings


def join_rings(rings: Sequence[Points], *, same_way: bool = False) -> Points:
    """One polygon, float64 (K, 2), that fills what the rings fill.

    Args:
        rings: each float64 (K, 2), K >= 3.
        same_way: all rings are parts, none is a hole, whichever way they go round.
    """
    ways = [ring if not same_way or _area(ring) >= 0 else ring[::-1] for ring in rings]
    joined, *others = sorted(ways, key=lambda ring: -abs(_area(ring)))
    for ring in others:
        here, there = _nearest(joined, ring)
        tour = np.concatenate([ring[there:], ring[: there + 1]])
        joined = np.concatenate([joined[: here + 1], tour, joined[here:]])
    return joined


def _border_edges(mask: BoolArray) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """From each corner (x, y) of the border, the steps (dx, dy) along it; the mask is on the right-hand side."""
    padded = np.pad(mask, 1)
    following: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    above, below = padded[:-1, 1:-1], padded[1:, 1:-1]
    left, right = padded[1:-1, :-1], padded[1:-1, 1:]
    for borders, (from_x, from_y), step in (
        (below & ~above, (0, 0), (1, 0)),
        (above & ~below, (1, 0), (-1, 0)),
        (left & ~right, (0, 0), (0, 1)),
        (right & ~left, (0, 1), (0, -1)),
    ):
        for y, x in np.argwhere(borders).tolist():
            following[x + from_x, y + from_y].append(step)
    return following


def _turn(came: tuple[int, int], step: tuple[int, int]) -> int:
    """1 for a turn to the right, -1 for one to the left (y points down)."""
    return came[0] * step[1] - came[1] * step[0]


def _corners(ring: Points) -> Points:
    """Without the points on straight lines."""
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    return ring[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]


def _simplified(ring: Points, tolerance_px: float) -> Points:
    """Source: Douglas and Peucker, 1973; the ring is cut at its first point and the one farthest from it."""
    farthest = int(np.hypot(*(ring - ring[0]).T).argmax())
    closed = np.concatenate([ring, ring[:1]])
    keep = np.zeros(len(closed), bool)
    keep[[0, farthest, len(ring)]] = True
    waiting = [(0, farthest), (farthest, len(ring))]
    while waiting:
        first, last = waiting.pop()
        between = closed[first + 1 : last]
        if not len(between):
            continue
        distances = _distances(between, closed[first], closed[last])
        middle = int(distances.argmax())
        if distances[middle] > tolerance_px:
            at = first + 1 + middle
            keep[at] = True
            waiting += [(first, at), (at, last)]
    simple = closed[keep][:-1]
    return simple if len(simple) >= 3 else ring


def _distances(points: Points, start: Points, end: Points) -> npt.NDArray[Any]:
    along = end - start
    length = np.hypot(*along)
    offsets = points - start
    if not length:
        return np.hypot(*offsets.T)
    return np.abs(offsets[:, 0] * along[1] - offsets[:, 1] * along[0]) / length


def _area(ring: Points) -> float:
    """Positive for a ring that goes round clockwise on the screen."""
    x, y = ring.T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def _nearest(one: Points, other: Points) -> tuple[int, int]:
    distances = np.abs(one[:, None] - other[None]).sum(axis=2)
    here, there = np.unravel_index(int(distances.argmin()), distances.shape)
    return int(here), int(there)
