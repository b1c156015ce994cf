"""Drawing of what suggestions and candidates save, as `bench_work.py` measures it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from quality_curves import INK, QUIET, make_figure, save, style

Curves = Sequence[Sequence[float]]
"""For each order of the images, the share of the drawing time that was saved up to each image, in percent."""

_STYLES = {  # colour and label in the legend
    "shown": (QUIET, "suggestions from a score of 0.5 on"),
    "auto-picked": ("#2a78d6", "learned thresholds, and candidates to pick (the default)"),
}


def draw(curves_of: Mapping[str, Mapping[str, Curves]], path: Path) -> None:
    """Draw a PNG with a panel per data set: the median and the range over the orders.

    Args:
        curves_of: the curves of each policy, by data set.
    """
    figure, panels = make_figure(-(-len(curves_of) // 2))
    flat = [axes for row in panels for axes in row]
    for axes in flat[len(curves_of) :]:
        axes.set_visible(False)
    for axes, (data, by_policy) in zip(flat, curves_of.items(), strict=False):
        axes.set_title(f"{data}: % of the drawing time saved so far", loc="left", color=INK, fontweight="bold", pad=12)
        for policy, (colour, label) in _STYLES.items():
            columns = list(zip(*by_policy[policy], strict=True))
            xs, middle = range(1, len(columns) + 1), [statistics.median(column) for column in columns]
            axes.fill_between(
                xs, list(map(min, columns)), list(map(max, columns)), color=colour, alpha=0.12, linewidth=0
            )
            axes.plot(xs, middle, color=colour, linewidth=2, label=label)
            axes.annotate(f"{middle[-1]:.0f} %", (xs[-1], middle[-1]), (6, 0), textcoords="offset points", color=INK)
        axes.axhline(0, color=QUIET, linewidth=0.8)
        axes.set_xlabel("annotated pictures", color=INK)
        style(axes, -20, 50)
    save(figure, panels, path)
