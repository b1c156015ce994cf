"""State of a simulation in its report directory, from which a later run resumes."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from odkeras.annotation import Answer, EditCounts
from odkeras.config.settings import SessionSettings
from odkeras.errors import ConfigError
from odkeras.formats.prodigy import write_answer
from odkeras.project import append_jsonl, find_round, read_jsonl, write_atomically
from odkeras.simulation.report import CurvePoint, draw_curve, read_curve, write_curve
from odkeras.simulation.truth import LabeledImage, LabeledImages


@dataclass(frozen=True)
class AnsweredBatch:
    """A line of `answered.jsonl`: a submitted batch, its images, and the edits that its suggestions needed."""

    batch: str
    image_ids: tuple[str, ...]
    edits: EditCounts


def _answered_batch(row: dict[str, Any]) -> AnsweredBatch:
    edits = row["edits"] if "edits" in row else row["effort"]  # odkeras 0.1.0 wrote the key "effort"
    return AnsweredBatch(row["batch"], tuple(row["image_ids"]), EditCounts.from_json(edits))


class SimulationState:
    """The answered batches and measured points of a simulation, stored in `report_dir`."""

    def __init__(self, report_dir: Path) -> None:
        self.report_dir = report_dir
        self.curve_json = report_dir / "curve.json"
        self.curve_png = report_dir / "curve.png"
        self.points: list[CurvePoint] = []
        self.answered: list[AnsweredBatch] = []
        self.answers_path = report_dir / "answers.jsonl"
        self._answered_path = report_dir / "answered.jsonl"
        self._about_path = report_dir / "simulation.json"
        self._title = ""

    def open(self, images: LabeledImages, options: SessionSettings) -> None:
        """Load what an earlier run left and check that it belongs to this simulation.

        Raises:
            ConfigError: the curve was measured on other held-out images or with another threshold, or the data and
                model directories do not contain the last answered batch.
            RecordError: `curve.json` is not a curve.
        """
        self.report_dir.mkdir(parents=True, exist_ok=True)
        self.points = read_curve(self.curve_json)
        self.answered = [_answered_batch(row) for row in read_jsonl(self._answered_path)]
        self._check_same({"held_out": images.held_out_id, "threshold": options.threshold})
        if self.answered and not _has_seen(self.answered[-1].batch, options):
            raise ConfigError(
                f"{self.report_dir} records {self.annotations} annotations that are missing in "
                f"{options.project.data_dir} and {options.project.model_dir}; restore these directories, or "
                "choose another report directory"
            )
        self._title = f"{options.config.parent.resolve().name}: {len(images.held_out)} held-out images"

    def _check_same(self, about: dict[str, Any]) -> None:
        try:
            before = json.loads(self._about_path.read_text(encoding="utf-8"))
            before = before if isinstance(before, dict) else about
        except (OSError, ValueError, RecursionError):
            before = about
        changed = [name for name, value in about.items() if before.get(name) != value]
        if changed:
            reasons = {"held_out": "other held-out images", "threshold": f"threshold {before.get('threshold')}"}
            changes = " and ".join(reasons[name] for name in changed)
            raise ConfigError(
                f"{self.report_dir} holds a curve measured with {changes}; choose another report directory"
            )
        write_atomically(self._about_path, json.dumps(about) + "\n")

    @property
    def annotations(self) -> int:
        """Number of images answered so far."""
        return sum(len(batch.image_ids) for batch in self.answered)

    @property
    def image_ids(self) -> set[str]:
        """Ids of the images answered so far."""
        return {image_id for batch in self.answered for image_id in batch.image_ids}

    def pending(self) -> AnsweredBatch | None:
        """The last answered batch if the version trained on it has not been measured yet, else None."""
        measured = {point.annotations for point in self.points}
        return self.answered[-1] if self.answered and self.annotations not in measured else None

    def batches_left(self, images: Sequence[LabeledImage], batch_size: int) -> Iterator[list[LabeledImage]]:
        done = self.image_ids
        left = iter([image for image in images if image.image_id not in done])
        while batch := list(islice(left, batch_size)):
            yield batch

    def add_answered(self, batch: AnsweredBatch, answers: Sequence[Answer] = ()) -> None:
        """Append a submitted batch, and its answers with the suggestions and the paths of their images. SIGINT is
        deferred until both files are written."""
        located = (replace(each, task=replace(each.task, image=each.task.path or "")) for each in answers)
        with _interrupts_later():
            append_jsonl(self.answers_path, [{"batch": batch.batch, **write_answer(answer)} for answer in located])
            append_jsonl(self._answered_path, [asdict(batch)])
            self.answered.append(batch)

    def add_point(self, point: CurvePoint) -> None:
        """Append a point, save the curve and redraw it. SIGINT is deferred until the files are written."""
        with _interrupts_later():
            self.points.append(point)
            write_curve(self.curve_json, self.points)
            draw_curve(self.points, self.curve_png, title=self._title)

    def what_is_kept(self) -> str:
        """The message shown after Ctrl-C: what is stored and how to resume."""
        lines = [f"stopped; saved: {self.annotations} annotations, {len(self.points)} rows of {self.curve_json}"]
        if pending := self.pending():
            lines.append(f"the round of the last {len(pending.image_ids)} resumes from its checkpoint next time")
        return "; ".join([*lines, "the same command continues from here"])


def _has_seen(batch: str, options: SessionSettings) -> bool:
    """Whether the data and model directories contain the batch: in the inbox, in a finished round, or, if there are
    training records, presumably in one of those."""
    project = options.project
    if (project.inbox_dir / batch).exists() or project.train_records():
        return True
    return find_round(read_jsonl(project.metrics_path), batch) is not None


@contextmanager
def _interrupts_later() -> Iterator[None]:
    """Defer SIGINT to the end of the block; no effect outside the main thread. matplotlib runs weakref callbacks while
    it draws, and Python swallows exceptions raised there, so a KeyboardInterrupt in one would be lost."""
    before = signal.getsignal(signal.SIGINT)
    if before is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    seen: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _frame: seen.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if seen:
            signal.raise_signal(signal.SIGINT)
