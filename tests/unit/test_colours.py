from __future__ import annotations

import itertools
import re

from odkeras.colours import COLOURS, colour_of, ink_on


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[at : at + 2], 16) for at in (1, 3, 5))


def distance(one: str, other: str) -> float:
    """Weighted RGB distance ("redmean"), 0 to 765."""
    (r1, g1, b1), (r2, g2, b2) = rgb(one), rgb(other)
    mean = (r1 + r2) / 2
    return float(
        ((2 + mean / 256) * (r1 - r2) ** 2 + 4 * (g1 - g2) ** 2 + (2 + (255 - mean) / 256) * (b1 - b2) ** 2) ** 0.5
    )


def test_the_first_labels_have_colours_for_the_colour_blind() -> None:
    assert [colour_of(number) for number in range(len(COLOURS))] == list(COLOURS)


def test_a_thousand_labels_have_a_thousand_colours() -> None:
    """Every twentieth label had the same colour."""
    colours = [colour_of(number) for number in range(1000)]
    assert len(set(colours)) > 980
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in colours)
    assert {ink_on(colour) for colour in colours} == {"#000000", "#ffffff"}


def test_neighbours_in_the_label_map_can_be_told_apart() -> None:
    for start in range(20, 980):
        near = [colour_of(number) for number in range(start, start + 8)]
        assert min(distance(one, other) for one, other in itertools.combinations(near, 2)) > 50
