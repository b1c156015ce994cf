"""The learning curves of `bench_quality.py`, and their drawing; the figures of other benchmarks have the same style."""

from __future__ import annotations

import io
import statistics
from bisect import bisect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from odkeras.project import write_atomically

Run = dict[str, Any]
"""A line of the file of runs: the settings of the run, its points, its failures."""

# The same style as the learning curve of `odkeras simulate`.
INK, QUIET, _GRID = "#1f2328", "#656d76", "#e6e8eb"
_STYLES = {  # colour and label in the legend
    "replay": ("#2a78d6", "replay: all answers so far"),
    "newest": ("#eb6834", "newest answers only"),
    "zoo": ("#1baf7a", "replay with the model zoo's training"),
    "newest-zoo": ("#8c6bb1", "newest answers only, the zoo's training"),
}
_LABEL_HEIGHT = 0.06  # in units of the axis, which goes from 0 to 1


def runs_of(runs: Sequence[Run], data: str, policy: str = "") -> list[Run]:
    return [run for run in runs if run["data"] == data and policy in ("", run["policy"])]


def names_in(runs: Sequence[Run], key: str) -> list[str]:
    return list(dict.fromkeys(run[key] for run in runs))


def curve_of(run: Run) -> dict[str, list[float]]:
    points = run["points"]
    trained_s = [sum(point["train_s"] for point in points[: number + 1]) for number in range(len(points))]
    return {
        "annotations": [point["annotations"] for point in points],
        "train_s": trained_s,
        "mAP50": [point["mAP50"] for point in points],
        "mAP": [point["mAP"] for point in points],
    }


def draw(runs: Sequence[Run], path: Path) -> None:
    """Draw a PNG with two plots per data set: mAP50 over annotations and over seconds of training."""
    names = names_in(runs, "data")
    figure, panels = make_figure(len(names))
    for (left, right), data in zip(panels, names, strict=True):
        _draw_panel(left, runs_of(runs, data), "annotations", f"{data}: mAP at IoU 0.5 on held-out pictures")
        _draw_panel(right, runs_of(runs, data), "train_s", "the same, by time")
        left.set_xlabel("annotated pictures", color=INK)
        right.set_xlabel("seconds of training", color=INK)
    save(figure, panels, path)


def make_figure(rows: int) -> tuple[Any, Any]:
    """A figure of two panels in each row, and the panels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(h_pad=0.12, w_pad=0.1)
    figure = Figure(figsize=(10.4, 0.5 + 3.7 * rows), dpi=150, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, 2, sharey=True, squeeze=False)


def save(figure: Any, panels: Any, path: Path) -> None:
    """Write a PNG with the legend of the first panel."""
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=2, frameon=False, labelcolor=INK)
    image = io.BytesIO()
    figure.savefig(image, format="png")
    write_atomically(path, image.getvalue())


def _draw_panel(axes: Any, runs: Sequence[Run], by: str, title: str) -> None:
    axes.set_title(title, loc="left", color=INK, fontsize=11, fontweight="bold", pad=12)
    ends: list[tuple[float, float]] = []
    for policy in names_in(runs, "policy"):
        curves = [curve_of(run) for run in runs if run["policy"] == policy]
        columns = _by_annotations(curves)
        xs = [statistics.median(curve[by][index] for curve, index in column) for column in columns]
        values = [[curve["mAP50"][index] for curve, index in column] for column in columns]
        middle = [statistics.median(each) for each in values]
        colour, label = _STYLES.get(policy, (QUIET, policy))
        axes.fill_between(xs, list(map(min, values)), list(map(max, values)), color=colour, alpha=0.1, linewidth=0)
        axes.plot(xs, middle, color=colour, linewidth=2, marker="o", markersize=5, label=label, zorder=3)
        ends.append((xs[-1], middle[-1]))
    _label(axes, ends)
    style(axes)


def _label(axes: Any, ends: Sequence[tuple[float, float]]) -> None:
    """Write the last value of each curve beside its end, without overlaps."""
    place = -1.0
    for x, value in sorted(ends, key=lambda end: end[1]):
        place = max(value, place + _LABEL_HEIGHT)
        axes.annotate(f"{value:.2f}", (x, place), (8, 0), textcoords="offset points", va="center", color=INK)


def _by_annotations(curves: Sequence[dict[str, list[float]]]) -> list[list[tuple[dict[str, list[float]], int]]]:
    """For each number of annotations, each curve with the index of its last point at or before that number."""
    numbers = sorted({number for curve in curves for number in curve["annotations"]})
    return [[(curve, bisect(curve["annotations"], number) - 1) for curve in curves] for number in numbers]


def style(axes: Any, lowest: float = 0, highest: float = 1) -> None:
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=QUIET, length=0, labelleft=True)
    axes.set_ylim(lowest, highest)
    axes.margins(x=0.08)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(QUIET)
