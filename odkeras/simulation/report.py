"""The learning curve of a simulation: `curve.json`, `curve.png`, and the table and status line on the terminal."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from odkeras.annotation import EditCounts
from odkeras.config.cost import CostModel
from odkeras.errors import RecordError
from odkeras.project import write_atomically
from odkeras.work import Work


@dataclass(frozen=True)
class CurvePoint:
    """One round of the curve.

    Args:
        annotations: images answered so far; 0 for the model before any answer.
        mAP: COCO mAP (IoU 0.5 to 0.95) on the held-out images, 0..1, of the version trained on these answers.
        mAP50: the same at IoU 0.5.
        edits: edits that the suggestions shown in this round needed.
        train_s: seconds of training.
        publish_s: seconds between submitting the answers and serving their version, without `train_s`.
        version: the measured version.
    """

    annotations: int
    mAP: float
    mAP50: float
    edits: EditCounts = field(default_factory=EditCounts)
    train_s: float = 0.0
    publish_s: float = 0.0
    version: int = 0

    @property
    def saved_s(self) -> float:
        """Estimated seconds that the suggestions of this round save an annotator; see `work.CostModel`."""
        return self._work.seconds_saved(CostModel())

    @property
    def saved_share(self) -> float | None:
        """`saved_s` divided by the estimated time to draw every box of the round; None if it has no objects."""
        drawing_s = self._work.seconds_without(CostModel())
        return self.saved_s / drawing_s if drawing_s else None

    @property
    def _work(self) -> Work:
        return Work(1, self.edits)


def write_curve(path: Path, points: Sequence[CurvePoint]) -> None:
    """Write `curve.json` atomically: a reader sees either the old curve or the new one."""
    rows = [{name: _rounded(value) for name, value in _row(point).items()} for point in points]
    write_atomically(path, json.dumps(rows, indent=1) + "\n")


def read_curve(path: Path) -> list[CurvePoint]:
    """The points of a `curve.json`; none if there is no file.

    Raises:
        RecordError: the file is not a curve.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return [_point(row) for row in rows]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise RecordError(
            f"{path} is not a learning curve ({error}); move it away or choose another report directory"
        ) from error


def _row(point: CurvePoint) -> dict[str, Any]:
    """Edit counts are flattened into the row, beside the other values."""
    row = asdict(point)
    return row | row.pop("edits")


def _point(row: dict[str, Any]) -> CurvePoint:
    names = {column.name for column in fields(CurvePoint)} - {"edits"}
    return CurvePoint(**{name: value for name, value in row.items() if name in names}, edits=EditCounts.from_json(row))


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


# A colour-blind safe palette, validated in this order. Text has the ink colours; only the marks are coloured.
_INK, _QUIET, _GRID = "#1f2328", "#656d76", "#e6e8eb"
_LINES = (("mAP50", "mAP at IoU 0.5", "#2a78d6"), ("mAP", "mAP (IoU 0.5 to 0.95)", "#eb6834"))
_ABOVE = (
    ("kept", "kept (IoU ≥ 0.9)", "#1baf7a"),
    ("adjusted", "adjusted (IoU 0.5 to 0.9)", "#eda100"),
    ("relabelled", "relabelled", "#8c6bb1"),
    ("added", "added by hand", "#4a3aa7"),
)
_BELOW = ("deleted", "deleted", "#e34948")
_MAX_TICKS = 14


def draw_curve(points: Sequence[CurvePoint], path: Path, *, title: str = "") -> None:
    """Draw the curve as a PNG with three plots: model quality, annotation effort, estimated time saved."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(8.6, 10.2), dpi=150, layout=ConstrainedLayoutEngine(h_pad=0.12), facecolor="white")
    FigureCanvasAgg(figure)
    quality, work, saved = figure.subplots(3, 1, sharex=True, height_ratios=(1.15, 1, 0.7))
    _draw_quality(quality, points)
    _draw_work(work, points)
    _draw_saved(saved, points)
    if title:
        figure.suptitle(title, x=0.01, ha="left", color=_INK, fontsize=13, fontweight="bold")
    data = io.BytesIO()
    figure.savefig(data, format="png")
    write_atomically(path, data.getvalue())


def _draw_quality(axes: Any, points: Sequence[CurvePoint]) -> None:
    _style(axes, "Model quality: mAP on held-out images", points)
    xs = [point.annotations for point in points]
    for name, label, colour in _LINES:
        ys = [getattr(point, name) for point in points]
        axes.plot(xs, ys, color=colour, linewidth=2, marker="o", markersize=5, label=label, clip_on=False, zorder=3)
        if points:
            near = points[-1].mAP50 - points[-1].mAP < 0.05
            lift = (6 if name == "mAP50" else -6) if near else 0
            axes.annotate(
                f"{ys[-1]:.2f}", (xs[-1], ys[-1]), (9, lift), textcoords="offset points", va="center", color=_INK
            )
    axes.set_ylim(0, 1)
    _legend(axes, columns=2)


def _draw_work(axes: Any, points: Sequence[CurvePoint]) -> None:
    """Bars in percent of the round's objects, so that rounds of different sizes are comparable."""
    _style(axes, "Remaining work of the annotator: % of the objects in the round", points)
    rounds = [point for point in points if point.annotations > 0]
    xs = [point.annotations for point in rounds]
    totals = [max(1, point.edits.objects) for point in rounds]
    width = 0.62 * min((b - a for a, b in zip([0, *xs], xs, strict=False)), default=10)
    bottom = [0.0] * len(rounds)
    for name, label, colour in _ABOVE:
        heights = [100 * getattr(point.edits, name) / total for point, total in zip(rounds, totals, strict=True)]
        axes.bar(xs, heights, width, bottom, color=colour, edgecolor="white", linewidth=1, label=label, zorder=3)
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    name, label, colour = _BELOW
    depths = [-100 * getattr(point.edits, name) / total for point, total in zip(rounds, totals, strict=True)]
    axes.bar(xs, depths, width, color=colour, edgecolor="white", linewidth=1, label=label, zorder=3)
    axes.axhline(0, color=_QUIET, linewidth=1, zorder=4)
    axes.set_ylim(1.1 * min([-18, *depths]), 104)
    axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):.0f}")
    if rounds:
        _legend(axes, columns=5)


def _draw_saved(axes: Any, points: Sequence[CurvePoint]) -> None:
    """Percent of the drawing time, so that rounds of different sizes are comparable; negative if suggestions cost more
    time than they save."""
    _style(axes, "Time saved by suggestions: % of the time to draw every box (estimate)", points, pad=12)
    axes.set_xlabel("annotated images", color=_INK)
    savings = [(point.annotations, point.saved_share) for point in points if point.saved_share is not None]
    xs, ys = [x for x, _ in savings], [100 * share for _, share in savings]
    axes.plot(xs, ys, color=_LINES[0][2], linewidth=2, marker="o", markersize=5, clip_on=False, zorder=3)
    axes.axhline(0, color=_QUIET, linewidth=1)
    axes.set_ylim(min([-20, *(1.1 * y for y in ys)]), max([60, *(1.1 * y for y in ys)]))
    if savings:
        axes.annotate(f"{ys[-1]:.0f} %", (xs[-1], ys[-1]), (9, 0), textcoords="offset points", va="center", color=_INK)


def _style(axes: Any, title: str, points: Sequence[CurvePoint], *, pad: float = 28) -> None:
    axes.set_title(title, loc="left", color=_INK, fontsize=11, fontweight="bold", pad=pad)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_QUIET, length=0, labelbottom=True)
    last = max([10, *(point.annotations for point in points)])
    axes.set_xlim(-0.04 * last, 1.08 * last)
    if 0 < len(points) <= _MAX_TICKS:
        axes.set_xticks([point.annotations for point in points])
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_QUIET)


def _legend(axes: Any, *, columns: int) -> None:
    """Place the legend between title and plot, where it cannot cover a line or bar."""
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.01, 1),
        ncols=columns,
        frameon=False,
        labelcolor=_INK,
        borderaxespad=0.1,
        handlelength=1.2,
        columnspacing=1.3,
        fontsize=9.5,
    )


class Display(Protocol):
    """Callbacks for the progress of a simulation."""

    def say(self, text: str) -> None:
        """Called with a line to keep. May be called from another thread."""

    def progress(self, text: str) -> None:
        """Called with the current activity; replaces the previous text."""

    def point(self, point: CurvePoint) -> None:
        """Called after each round, with its point of the curve."""


class ConsoleDisplay(AbstractContextManager["ConsoleDisplay"]):
    """Prints table rows and keeps a live status line below them. Without a terminal, prints only the rows."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        self._status: Status | None = None
        self._header_shown = False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def say(self, text: str) -> None:
        self._print(text)

    def progress(self, text: str) -> None:
        if not self._console.is_terminal:
            return
        if self._status is None:
            self._status = self._console.status("")
            self._status.start()
        self._status.update(escape(text))

    def point(self, point: CurvePoint) -> None:
        if not self._header_shown:
            self._print(TABLE_HEADER, style="bold")
            self._header_shown = True
        self._print(table_row(point))

    def _print(self, text: str, style: str | None = None) -> None:
        self._console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


_COLUMNS: tuple[tuple[str, int, Callable[[CurvePoint], str]], ...] = (
    ("annotations", 11, lambda point: str(point.annotations)),
    ("mAP", 6, lambda point: f"{point.mAP:.3f}"),
    ("mAP50", 6, lambda point: f"{point.mAP50:.3f}"),
    ("kept ≥.9", 9, lambda point: str(point.edits.kept)),
    ("kept ≥.8", 9, lambda point: str(point.edits.kept_80)),
    ("adjusted", 8, lambda point: str(point.edits.adjusted)),
    ("relabelled", 10, lambda point: str(point.edits.relabelled)),
    ("deleted", 8, lambda point: str(point.edits.deleted)),
    ("added", 6, lambda point: str(point.edits.added)),
    ("picked", 6, lambda point: str(point.edits.picked)),
    ("saved s", 8, lambda point: f"{point.saved_s:.0f}"),
    ("train s", 8, lambda point: f"{point.train_s:.1f}"),
    ("publish s", 10, lambda point: f"{point.publish_s:.1f}"),
)
TABLE_HEADER = " ".join(f"{name:>{width}}" for name, width, _ in _COLUMNS)


def table_row(point: CurvePoint) -> str:
    return " ".join(f"{text(point):>{width}}" for _, width, text in _COLUMNS)


_STATES = {
    "starting": "the trainer is starting",
    "building": "building the model",
    "publishing": "publishing",
    "waiting": "waiting for the trainer",
    "evaluating": "evaluating",
    "failed": "the trainer failed",
    "paused": "training is paused: `odkeras training resume`",
    "stopped": "training is stopped: `odkeras training resume`",
    "ended": "the trainer has ended",
}


def status_text(status: dict[str, Any] | None) -> str:
    """The trainer's status.json as text, for example `training step 40/100, loss 0.531`."""
    if status is None:
        return _STATES["starting"]
    state = str(status.get("state"))
    if state != "training":
        return _STATES.get(state, state)
    loss = status.get("loss")
    ending = f", loss {loss:.3f}" if isinstance(loss, (int, float)) else ""
    return f"training step {status.get('round_step', 0)}/{status.get('round_steps', '?')}{ending}"
