"""Simulates an annotator from ground truth, to measure how fast a model learns.

It uses the same stream, inbox and processes as the other front ends. Each round fetches a batch of tasks, counts the
edits that an annotator would have made to their suggestions, submits the true boxes as answers, waits until the version
trained on them is served, and measures that version on the held-out images.

With `seconds_per_image`, the annotator works while the trainer trains, as with the page: a task is fetched when it is
shown, with the suggestions of the newest version, and a round is only waited for when the next batch is complete.

`report_dir` gets `curve.json` and `curve.png`, both rewritten after every round, `answers.jsonl` with the suggestions
and the true boxes of each image, and `answered.jsonl` and `simulation.json`, from which the next run with the same
directories resumes.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from odkeras.annotation import EditCounts, Task
from odkeras.boxes import Detections
from odkeras.config.simulation import SimulationSettings
from odkeras.control import Control
from odkeras.errors import ImageError, ServerUnavailableError, TrainingError
from odkeras.formats.prodigy import write_answer
from odkeras.images import read_image
from odkeras.metrics import coco_map
from odkeras.project import JsonlTail, find_round
from odkeras.session.events import Event, Listener, gate_text
from odkeras.session.session import AnnotationSession
from odkeras.session.setup import SessionSetup
from odkeras.session.stream import TaskStream
from odkeras.simulation.report import ConsoleDisplay, CurvePoint, Display, status_text
from odkeras.simulation.state import AnsweredBatch, SimulationState
from odkeras.simulation.truth import (
    LabeledImage,
    LabeledImages,
    answer_task,
    count_task_edits,
    read_labeled_images,
    split_held_out,
)
from odkeras.splits import is_held_out

PREDICT_BATCH_SIZE = 8
MAX_ATTEMPTS = 5
_POLL_S = 0.2
_LOST_AFTER_S = 10.0


@dataclass(frozen=True)
class SimulationResult:
    """The learning curve and the paths of its files."""

    points: tuple[CurvePoint, ...]
    curve_json: Path
    curve_png: Path


def simulate(
    truth_csv: Path,
    settings: SimulationSettings,
    images_dir: Path | None = None,
    *,
    report_dir: Path | None = None,
    test_csv: Path | None = None,
    display: Display | None = None,
) -> SimulationResult:
    """Answer `annotations` images in batches and measure the model after each; resumes where an earlier run stopped.

    Args:
        truth_csv: true boxes; a CSV file, or labels of another tool, see `known_labels.read_known_labels`.
        settings: suggestions below the threshold are not shown, but mAP counts all detections.
        images_dir: base of the images' paths; None: beside and below the labels.
        report_dir: `report` in the directory of the config when None.
        test_csv: images to measure on; when None, a fifth of `truth_csv`, chosen by image content.
        display: progress callbacks; the terminal when None.

    Raises:
        ConfigError, LabelMapError, RecordError, SetupError: before anything is started.
        TrainingError, ServingError: the trainer or the server failed permanently; with the end of its log.
        KeyboardInterrupt: Ctrl-C, raised after all processes were stopped and the stored results were reported.
    """
    folder = settings.config.parent
    Control(settings.project.control_path).check_running(folder, "simulate would wait forever")
    setup = SessionSetup.of(settings, can_pick=True)
    with ExitStack() as stack:
        show = display or stack.enter_context(ConsoleDisplay())
        images = read_labeled_images(
            truth_csv,
            images_dir,
            setup.label_map,
            test_csv=test_csv,
            on_skip=lambda file, reason: show.say(f"skipped {file}: {reason}"),
            max_pixels=settings.max_pixels,
        )
        if settings.eval_split:
            images = _apart_from_eval_split(images, own_test=test_csv is not None)
        state = SimulationState(report_dir or folder / "report")
        state.open(images, settings)
        return _run(setup, images, state, show, settings)


def _apart_from_eval_split(labeled: LabeledImages, *, own_test: bool) -> LabeledImages:
    """Choose order and held-out images so that they do not coincide with the trainer's hold-out split, which takes the
    images with the lowest ids (see `splits.is_held_out`). In id order, the first batches would consist of held-out
    images alone. Without a test file, the lowest ids would also be the measured images, so the highest are used."""
    images, held_out = labeled.annotate, labeled.held_out
    if not own_test:
        images = tuple(sorted([*images, *held_out], key=lambda image: image.image_id))
        count = len(split_held_out(images))
        images, held_out = images[:-count], images[-count:]
    return LabeledImages(tuple(sorted(images, key=lambda image: image.image_id[::-1])), held_out)


def _run(
    setup: SessionSetup, images: LabeledImages, state: SimulationState, show: Display, settings: SimulationSettings
) -> SimulationResult:
    annotations = settings.annotations
    show.say(f"{len(images.annotate)} images to annotate, {len(images.held_out)} held out to measure on")
    if annotations > len(images.annotate):
        show.say(f"only {len(images.annotate)} images can be annotated, not {annotations}")
    try:
        with AnnotationSession.start(setup, _Messages(show), report_events=False) as session:
            simulation = _Simulation(session, images, state, show, settings.seconds_per_image)
            simulation.start()
            for tasks in simulation.batches(annotations, settings.images_per_round):
                simulation.play_round(tasks)
            simulation.finish()
            show.progress("stopping")
    except KeyboardInterrupt:
        show.say(state.what_is_kept())
        raise
    return SimulationResult(tuple(state.points), state.curve_json, state.curve_png)


class _Messages(Listener):
    """Shows what the session says."""

    def __init__(self, show: Display) -> None:
        self._show = show

    def event(self, event: Event) -> None:
        self._show.say(f"{event.line}\n{event.details}" if isinstance(event.details, str) else event.line)

    def skipped(self, name: str, reason: str) -> None:
        self._show.say(f"skipped {name}: {reason}")


class _Simulation:
    """Plays rounds in a running session."""

    def __init__(
        self,
        session: AnnotationSession,
        images: LabeledImages,
        state: SimulationState,
        show: Display,
        seconds_per_image: float = 0.0,
    ) -> None:
        self._session = session
        self._seconds_per_image = seconds_per_image
        self._known = images
        self._by_id = {image.image_id: image for image in images.annotate}
        self._state = state
        self._show = show
        self._open_round: tuple[AnsweredBatch, float] | None = None  # submitted at this time, not measured yet

    def start(self) -> None:
        """Wait for the first version, then measure it, or finish the round that an earlier run left unmeasured."""
        version = self._wait_for_version(1, "before the first annotation")
        if not self._state.points and not self._state.answered:
            scores = self._measure("before the first annotation")
            self._add(CurvePoint(0, scores["mAP"], scores["mAP50"], version=version))
        if pending := self._state.pending():
            self._show.say(
                f"continuing with the last {len(pending.image_ids)} of {self._state.annotations} annotations"
            )
            self._finish_round(pending, put_at=None)
        elif self._state.answered:
            self._show.say(f"continuing after {self._state.annotations} annotations")

    def batches(self, annotations: int, batch_size: int) -> Iterator[Iterable[Task]]:
        """The tasks of each round, fetched lazily: all at once, or one by one if the annotator takes time."""
        images, at_once = self._known.annotate, 1 if self._seconds_per_image else batch_size
        if self._session.options.order == "sequential":  # ordered by content: the same images in every run
            for batch in self._state.batches_left(images[:annotations], batch_size):
                starts = range(0, len(batch), at_once)
                yield chain.from_iterable(self._fetch(batch[start : start + at_once]) for start in starts)
            return
        stream = self._session.stream([image.path for image in images], exclude=self._state.image_ids)
        while (left := annotations - self._state.annotations) > 0:
            size = min(left, batch_size)
            chunks = (self._fetch_next(stream, min(at_once, size - start)) for start in range(0, size, at_once))
            if not (first := next(chunks)):
                return
            yield chain(first, chain.from_iterable(chunks))

    def _fetch_next(self, stream: TaskStream, count: int) -> list[Task]:
        self._show.progress(f"{self._after()}: fetching {count} tasks")
        self._wait_for_version(1, self._after())
        tasks = [task for task in islice(stream, count) if task.image_id in self._by_id]
        for _ in range(MAX_ATTEMPTS):
            if all(task.suggestions is not None for task in tasks):
                break
            time.sleep(1.0)
            self._wait_for_version(1, self._after())
            tasks = stream.suggest_again(tasks)
        return tasks

    def play_round(self, tasks: Iterable[Task]) -> None:
        label_map = self._session.label_map
        work, answers = EditCounts(), []
        for task in tasks:
            image = self._by_id[task.image_id]
            work += count_task_edits(task, image.groundtruth, label_map)
            self._take_time()
            answers.append(answer_task(task, image, label_map))
        self.finish()
        put_at = time.monotonic()
        path = self._session.submit([write_answer(answer) for answer in answers])
        assert path is not None, "each image is answered once"
        answered = AnsweredBatch(path.name, tuple(answer.task.image_id for answer in answers), work)
        self._state.add_answered(answered, answers)
        self._open_round = (answered, put_at)
        if not self._seconds_per_image:
            self.finish()

    def finish(self) -> None:
        """Wait for the round of the last batch and measure it, if that was not done yet."""
        if self._open_round is not None:
            self._finish_round(*self._open_round)
            self._open_round = None

    def _take_time(self) -> None:
        """Wait as long as an annotator would work on an image."""
        ends_at = time.monotonic() + self._seconds_per_image
        while time.monotonic() < ends_at:
            self._tick(f"{self._after()}: annotating")

    def _fetch(self, batch: Sequence[LabeledImage]) -> list[Task]:
        """The batch's tasks with suggestions. Retries: without suggestions, a server that is down for a moment would be
        counted as a useless model."""
        for _ in range(MAX_ATTEMPTS):
            self._show.progress(f"{self._after()}: fetching {len(batch)} tasks")
            tasks = list(self._session.stream([image.path for image in batch]))
            if all(task.suggestions is not None for task in tasks):
                break
            time.sleep(1.0)
            self._wait_for_version(1, self._after())
        tasks = [task for task in tasks if task.image_id in self._by_id]
        if not tasks:
            raise ImageError("none of the round's images can be read any more", str(batch[0].path))
        return tasks

    def _finish_round(self, answered: AnsweredBatch, put_at: float | None) -> None:
        row = self._wait_for_round(answered.batch, answered.image_ids)
        if row.get("failed"):
            self._show.say(f"the round after {self._after()} failed: {row['failed']}")
        if row.get("outcome") == "held back":
            self._show.say(f"the round after {self._after()} was held back: {gate_text(row.get('gate') or {})}")
            version = self._wait_for_version(1, self._after())  # any version
        else:
            version = self._wait_for_version(int(row.get("version") or 1), self._after())
        served_at = time.monotonic()
        train_s = float(row.get("train_s") or 0.0)
        if put_at is None:  # submitted by an earlier run: use the trainer's own measurements
            publish_s = sum(float(row.get(name) or 0.0) for name in ("records_s", "checkpoint_s", "publish_s"))
        else:
            publish_s = max(0.0, served_at - put_at - train_s)
        scores = self._measure(self._after())
        point = CurvePoint(
            annotations=self._state.annotations,
            mAP=scores["mAP"],
            mAP50=scores["mAP50"],
            edits=answered.edits,
            train_s=train_s,
            publish_s=publish_s,
            version=version,
        )
        self._add(point)

    def _wait_for_round(self, batch: str, image_ids: Sequence[str]) -> dict[str, Any]:
        """Block until the trainer has trained on the batch; returns its row of `metrics.jsonl`, or an empty dict if all
        of the batch's images are in the hold-out split.

        Raises:
            TrainingError: the trainer has consumed the batch and is idle, without a round for it.
        """
        path = self._session.project.inbox_dir / batch
        metrics = JsonlTail(self._session.project.metrics_path)
        idle_since: float | None = None
        while (row := find_round(metrics.read(), batch)) is None:
            status = self._tick(self._after())
            idle = status is not None and status.get("state") == "waiting" and not path.exists()
            idle_since = (idle_since or time.monotonic()) if idle else None
            if idle_since is not None and time.monotonic() - idle_since > _LOST_AFTER_S:
                if all(is_held_out(name, self._session.options.eval_split) for name in image_ids):
                    return {}
                raise TrainingError(
                    f"the trainer took batch {batch} but did not train on it: {(status or {}).get('reason')}"
                )
        return row

    def _wait_for_version(self, at_least: int, when: str) -> int:
        while (version := self._session.available_version()) is None or version < at_least:
            self._tick(when, waiting_for="waiting for the model server")
        return version

    def _tick(self, when: str, waiting_for: str = "") -> dict[str, Any] | None:
        """One poll: show the trainer's status, raise if trainer or server failed permanently, sleep."""
        if failure := self._session.failure():
            raise failure
        status = self._session.trainer_status()
        idle = status is not None and status.get("state") == "waiting"
        self._show.progress(f"{when}: {waiting_for if idle and waiting_for else status_text(status)}")
        time.sleep(_POLL_S)
        return status

    def _measure(self, when: str) -> dict[str, float]:
        """mAP of the served version on the held-out images, without a score threshold."""
        held_out = self._known.held_out
        detections: list[Detections] = []
        while len(detections) < len(held_out):
            self._show.progress(f"{when}: measuring, image {len(detections)}/{len(held_out)}")
            chunk = held_out[len(detections) : len(detections) + PREDICT_BATCH_SIZE]
            data = [read_image(image.path, max_pixels=self._session.options.max_pixels).data for image in chunk]
            try:
                detections += self._session.model.client.predict(data)
            except ServerUnavailableError:
                self._tick(when, waiting_for="waiting for the model server")
        sizes_hw = [image.image_size_hw for image in held_out]
        return coco_map([image.groundtruth for image in held_out], detections, sizes_hw)

    def _after(self) -> str:
        return f"{self._state.annotations} annotations"

    def _add(self, point: CurvePoint) -> None:
        self._state.add_point(point)
        self._show.point(point)
