"""The figures of an evaluation as a person reads them: overall first, then a row per class."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from odkeras.text import say

_CLASS_FIGURE = re.compile(r"(?P<group>.*PerformanceBy(?:Super)?Category)/(?:(?P<kind>[^/]+)/)?(?P<label>.+)")
_ALL_FIGURES_OF_COCO = re.compile(r"(?P<kind>.+) (?P<group>By(?:Super)?Category)/(?P<label>.+)")
_NOTHING = "-"

Metrics = Mapping[str, float | None]
Table = dict[str, dict[str, float | None]]
"""By label, then by kind of figure."""


def print_metrics(metrics: Metrics) -> None:
    """To standard output."""
    for line in metric_lines(metrics):
        say(line)


def metric_lines(metrics: Metrics) -> Iterator[str]:
    """A line per overall figure, then for each kind of figure per class a line per class.

    COCO's -1 and None, both for "no groundtruth of that", are shown as "-".
    """
    overall, classes = split_metrics(metrics)
    for name, value in overall.items():
        yield f"{_shown(value):>8}  {name}"
    for group, table in classes.items():
        yield ""
        yield group
        yield from _table_lines(table)


def split_metrics(metrics: Metrics) -> tuple[dict[str, float | None], dict[str, Table]]:
    """The overall figures by name, and those of classes by group.

    `DetectionBoxes_PerformanceByCategory/mAP/cat` is of the group `DetectionBoxes_PerformanceByCategory`, the label
    `cat` and the kind `mAP`.
    """
    overall: dict[str, float | None] = {}
    classes: dict[str, Table] = {}
    for name, value in metrics.items():
        match = _CLASS_FIGURE.fullmatch(name) or _ALL_FIGURES_OF_COCO.fullmatch(name)
        if match is None:
            overall[name] = value
        else:
            classes.setdefault(match["group"], {}).setdefault(match["label"], {})[match["kind"] or "mAP"] = value
    return overall, classes


def _table_lines(table: Table) -> Iterator[str]:
    kinds = list(dict.fromkeys(kind for row in table.values() for kind in row))
    widths = [max(8, len(kind)) for kind in kinds]
    first = max(len(label) for label in table)
    yield "  ".join([" " * first, *(f"{kind:>{width}}" for kind, width in zip(kinds, widths, strict=True))])
    for label, row in table.items():
        values = (f"{_shown(row.get(kind)):>{width}}" for kind, width in zip(kinds, widths, strict=True))
        yield "  ".join([f"{label:<{first}}", *values])


def _shown(value: float | None) -> str:
    return _NOTHING if value is None or value < 0 else f"{value:.4f}"
