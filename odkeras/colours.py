"""One colour per label, shared by the annotation page, TensorBoard and drawn predictions."""

from __future__ import annotations

import colorsys

COLOURS = (
    *("#e69f00", "#0a7fd1", "#009e73", "#d55e00", "#cc79a7", "#7b61d9", "#56b4e9", "#b8860b", "#c2185b", "#00897b"),
    *("#8d6e63", "#5c7cfa", "#e8590c", "#2f9e44", "#ae3ec9", "#1098ad", "#f03e3e", "#74b816", "#845ef7", "#868e96"),
)
"""The first ones are the colour-blind-safe palette of Okabe and Ito (jfly.uni-koeln.de/color)."""


_GOLDEN_ANGLE = (3 - 5**0.5) / 2
"""Hue step, as a fraction of the hue circle. With this step each new hue falls into the largest remaining gap."""
_SHADES = ((0.40, 0.80), (0.62, 0.65), (0.50, 0.45), (0.32, 0.60), (0.72, 0.85))
"""(lightness, saturation) pairs, used in turn, so that labels with similar hues still differ. `colour_of` also varies
the lightness slightly: at equal lightness two close hues can round to the same 8-bit RGB value."""


def colour_of(number: int) -> str:
    """The colour `#rrggbb` of the label at this index of the label map, from 0. Distinct for thousands of labels."""
    if number < len(COLOURS):
        return COLOURS[number]
    beyond = number - len(COLOURS)
    lightness, saturation = _SHADES[beyond % len(_SHADES)]
    red, green, blue = colorsys.hls_to_rgb(beyond * _GOLDEN_ANGLE % 1.0, lightness + beyond % 97 / 2000, saturation)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


def ink_on(colour: str) -> str:
    """`#000000` or `#ffffff`, whichever has the higher contrast on `colour` (`#rrggbb`).

    Source: relative luminance and contrast ratio of WCAG 2.
    """
    red, green, blue = (_linear(int(colour[at : at + 2], 16) / 255) for at in (1, 3, 5))
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return "#000000" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "#ffffff"


def _linear(value: float) -> float:
    return float(value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4)
