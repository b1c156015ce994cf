"""One colour for each label, the same on the page and in TensorBoard."""

from __future__ import annotations

COLOURS = (
    *("#e69f00", "#0a7fd1", "#009e73", "#d55e00", "#cc79a7", "#7b61d9", "#56b4e9", "#b8860b", "#c2185b", "#00897b"),
    *("#8d6e63", "#5c7cfa", "#e8590c", "#2f9e44", "#ae3ec9", "#1098ad", "#f03e3e", "#74b816", "#845ef7", "#868e96"),
)
"""The first ones, by Okabe and Ito, can be told apart by the colour-blind too (jfly.uni-koeln.de/color)."""


def colour_of(number: int) -> str:
    """Of the label at this place of the label map, from 0."""
    return COLOURS[number % len(COLOURS)]


def ink_on(colour: str) -> str:
    """Black or white, whichever can be read better on the colour (relative luminance as WCAG has it)."""
    red, green, blue = (_linear(int(colour[at : at + 2], 16) / 255) for at in (1, 3, 5))
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return "#000000" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "#ffffff"


def _linear(value: float) -> float:
    return float(value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4)
