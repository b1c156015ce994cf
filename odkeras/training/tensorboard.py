"""TensorBoard events of a training. The step axis is the global step, continuous across restarts.

Directories and tags:

    train/  Loss/*, optimizer/*, speed/*        every few steps
            training_examples/*                 images, once a round; less often after many rounds
            pipeline.config, label_map, the layout of "Custom Scalars"
    eval/   the metrics by their own names, evaluation_examples/*, precision_recall/*
    loop/   round/*, seconds/*, speed/*, work/*, gate/*     once a round
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import tensorflow as tf
from object_detection.core import standard_fields
from PIL import Image
from tensorboard.compat.proto import summary_pb2
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import metadata as layout_metadata
from tensorboard.plugins.image import metadata as image_metadata
from tensorboard.plugins.pr_curve import summary as pr_summary
from tensorboard.util import tensor_util

from odkeras.labels import LabelMap
from odkeras.training.metrics import ABSENT
from odkeras.training.picture_budget import PictureBudget
from odkeras.training.pictures import BoxAnnotator, EvalVisualizations, encode_jpeg
from odkeras.training.precision_recall import THRESHOLDS, PrecisionRecallCurve
from odkeras.training.trainer import Batch, StepReport
from odkeras.work import round_scalars

_TRAINED = "as the model sees them, after augmentation"
_EVALUATED = "truth left, detections right; the same examples in every round"

ALL_RUNS = ("train", "eval", "loop")

_READER = r"(.+/)?"  # with more than one `eval_input_reader`, metric names start with the reader's name


@dataclass(frozen=True)
class Chart:
    """One chart; it draws a line for every matching tag.

    Args:
        title: shown above the chart. About forty characters fit.
        tags: a regular expression that tags must match.
        run: the event directory that the tags are in. Without it the chart would be empty.
    """

    title: str
    tags: str
    run: str


CATEGORIES: Mapping[str, Sequence[Chart]] = {
    "Is it learning?": (
        Chart("total loss", r"^Loss/total_loss$", "train"),
        Chart("mAP, and mAP at IoU 0.5", rf"^{_READER}\w+_Precision/mAP(@0?\.50?IOU)?$", "eval"),
        Chart("suggestions kept, and right (share)", r"^work/(kept|precision)$", "loop"),
    ),
    "Evaluation": (
        Chart(
            "average precision of each class, IoU 0.5",
            rf"^{_READER}\w+PerformanceByCategory/(mAP@\.50IOU|AP50|AP@.+)/.+$",
            "eval",
        ),
        Chart("mAP at IoU 0.75", rf"^{_READER}\w+_Precision/mAP@\.75IOU$", "eval"),
        Chart("average recall", rf"^{_READER}\w+_Recall/AR@\d+$", "eval"),
    ),
    "Losses": (
        Chart("losses but the total", r"^Loss/(?!total_loss$).+$", "train"),
        Chart("learning rate", r"^optimizer/learning_rate$", "train"),
        Chart("gradient norm, before clipping", r"^optimizer/gradient_norm$", "train"),
    ),
    "Speed": (
        Chart("images per second", r"^speed/images_per_s$", "train"),
        Chart("seconds of training, of waiting for data", r"^seconds/(train|input)_s$", "loop"),
        Chart("seconds of a round's other stages", r"^seconds/(?!(train|input)_s$).+$", "loop"),
        Chart("steps per second", r"^speed/steps_per_s$", "train"),
        Chart("images trained on", r"^round/examples$", "loop"),
    ),
    "Work saved": (
        Chart("what became of the suggestions (share)", r"^work/(kept|adjusted|relabelled|deleted)$", "loop"),
        Chart("precision and recall of suggestions", r"^work/(control_)?(precision|recall)$", "loop"),
        Chart("boxes per image, suggested and added", r"^work/(added|suggested)_per_image$", "loop"),
        Chart("seconds saved per image, estimated", r"^work/seconds_saved_per_image$", "loop"),
    ),
}
"""In display order: TensorBoard opens the first category. Custom Scalars draws no line for a tag with parentheses, such
as "mAP (small)"; those tags appear in the other dashboards."""


class TrainingSummaries:
    """Writes events to three directories: `train/` for steps, `eval/` for evaluations, `loop/` for rounds.

    An earlier process may have written events for later steps, which no checkpoint has. They are hidden from
    TensorBoard.

    Args:
        model_dir: parent of the three directories.
        label_map: label names and colours for images; None shows class ids.
        step: global step from which the training resumes.
        every_steps: write scalars at multiples of this step.
        write: False writes nothing, for workers other than the chief.
    """

    def __init__(
        self,
        model_dir: Path,
        label_map: LabelMap | None = None,
        *,
        step: int = 0,
        every_steps: int = 10,
        write: bool = True,
    ) -> None:
        self._every_steps = every_steps
        self._writes = write
        self._first_step = step
        self._annotator = BoxAnnotator(label_map)
        self._label_map = label_map
        self._batch_size = 0
        self._speed = _Speed()
        self._last_step = step
        self._writers = {
            name: tf.summary.create_file_writer(str(model_dir / name)) if write else tf.summary.create_noop_writer()
            for name in ("train", "eval", "loop")
        }
        self._pictures = {name: PictureBudget(model_dir / name) for name in ("train", "eval")}
        for name in self._writers:
            self._hide_events_after(name, step)

    def __enter__(self) -> TrainingSummaries:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Flush and close the event files."""
        for writer in self._writers.values():
            writer.close()

    def describe(self, config: Any, runs: Collection[str] = ALL_RUNS) -> None:
        """Write the config and the label map as text, and the layout of the "Custom Scalars" dashboard. From then on,
        keypoints in images are joined as `eval_config.keypoint_edge` says.

        Args:
            config: a resolved `TrainEvalPipelineConfig`.
            runs: the directories that will have events; charts of the others are left out.
        """
        if not self._writes:
            return
        self._batch_size = config.train_config.batch_size  # of all workers; a batch has the images of this one
        self._annotator.edges = tuple((edge.start, edge.end) for edge in config.eval_config.keypoint_edge)
        self.text("pipeline.config", _fenced(str(config)))
        if self._label_map is not None:
            self.text("label_map", _label_table(self._label_map))
        self._raw("train", layout_summary(runs), self._first_step)
        self._writers["train"].flush()

    def text(self, name: str, content: str) -> None:
        """Write a Markdown text under the tag `name`."""
        with self._writers["train"].as_default(step=self._first_step):
            tf.summary.text(name, content)

    def step(self, report: StepReport) -> None:
        """Write losses, learning rate, gradient norm and speed, if the step is a multiple of `every_steps`."""
        if report.step <= self._last_step:  # steps were undone, because the loss was not finite
            self._hide_events_after("train", report.step - 1)
        self._last_step = report.step
        self._speed.start(report.step)
        if report.step % self._every_steps:
            return
        values = {
            **report.losses,
            "optimizer/learning_rate": report.learning_rate,
            "optimizer/gradient_norm": report.gradient_norm,
        }
        steps_per_s = self._speed.since_last(report.step)
        if steps_per_s is not None:
            values |= self._speeds(steps_per_s)
        self._scalars("train", values, report.step)

    def watch(self, batches: Iterator[Batch], step: int) -> Iterator[Batch]:
        """Yields the same batches. Images of the first one are written with their boxes, after augmentation, as the
        budget allows."""
        self._speed = _Speed()
        for number, batch in enumerate(batches):
            if number == 0 and self._pictures["train"].is_due():
                self._write_batch(step, batch)
            yield batch

    def evaluation(
        self, step: int, metrics: Mapping[str, float], visualizations: EvalVisualizations | None = None
    ) -> None:
        """Write an evaluation: scalars and, as the budget allows, example images and PR curves. Metrics without
        groundtruth are left out."""
        known = {name: value for name, value in metrics.items() if math.isfinite(value) and value != ABSENT}
        self._scalars("eval", known, step)
        if self._writes and visualizations is not None and self._pictures["eval"].is_due():
            for number, example in enumerate(visualizations.examples, start=1):
                picture = self._annotator.draw_example(example)
                self._picture("eval", f"evaluation_examples/{number}", picture, step, _EVALUATED)
            for name, curve in visualizations.curves.items():
                self._curve(name, curve, step)
        self._writers["eval"].flush()

    def round(self, step: int, row: Mapping[str, Any]) -> None:
        """Write the scalars of a finished round, given its line in metrics.jsonl."""
        values: dict[str, Any] = {f"seconds/{name}": value for name, value in row.items() if name.endswith("_s")}
        values |= {f"round/{name}": row.get(name) for name in ("examples", "loss", "steps")}
        values["round/published"] = float(row.get("outcome", "published") == "published")
        if row.get("steps") and row.get("train_s"):
            values |= self._speeds(row["steps"] / row["train_s"])
        values |= {f"work/{name}": value for name, value in round_scalars(row.get("work") or {}).items()}
        gate = row.get("gate") or {}
        values |= {"gate/new_weights": gate.get("value"), "gate/served_version": gate.get("served_value")}
        self._scalars("loop", {name: value for name, value in values.items() if value is not None}, step)
        for writer in self._writers.values():
            writer.flush()

    def seconds(self, step: int, stage: str, value: float) -> None:
        """Write the duration of a stage that runs after the round's line was written."""
        self._scalars("loop", {f"seconds/{stage}": value}, step)
        self._writers["loop"].flush()

    def exclude_pause(self, seconds: float) -> None:
        """Exclude a pause from the speed: training was paused for this long since the last step."""
        self._speed.exclude_pause(seconds)

    def _speeds(self, steps_per_s: float) -> dict[str, float]:
        images = {"speed/images_per_s": steps_per_s * self._batch_size} if self._batch_size else {}
        return {"speed/steps_per_s": steps_per_s, **images}

    def _write_batch(self, step: int, batch: Batch) -> None:
        image = batch[0][standard_fields.InputDataFields.image]
        replicas = image.values if isinstance(image, tf.distribute.DistributedValues) else [image]
        self._batch_size = self._batch_size or sum(int(images.shape[0]) for images in replicas)
        if not self._writes:
            return
        features, labels = tf.nest.map_structure(
            lambda value: value.values[0] if isinstance(value, tf.distribute.DistributedValues) else value, batch
        )
        for number, picture in enumerate(self._annotator.draw_batch(features, labels), start=1):
            self._picture("train", f"training_examples/{number}", picture, step, _TRAINED)

    def _picture(self, writer: str, tag: str, picture: Image.Image, step: int, description: str) -> None:
        """Write an image as JPEG. `tf.summary.image` writes PNG, which is larger, and event files are never pruned."""
        about = image_metadata.create_summary_metadata(display_name=None, description=description)
        content = [str(picture.width).encode(), str(picture.height).encode(), encode_jpeg(picture)]
        self._pictures[writer].spend(len(content[-1]))
        with self._writers[writer].as_default(step=step):
            tf.summary.write(tag, tf.constant(content), metadata=about)

    def _curve(self, name: str, curve: PrecisionRecallCurve, step: int) -> None:
        title = name if "/" in name else f"precision_recall/{name}"
        summary = pr_summary.raw_data_pb(
            title,
            true_positive_counts=curve.true_positives,
            false_positive_counts=curve.false_positives,
            true_negative_counts=[0.0] * THRESHOLDS,  # detection has no true negatives that could be counted
            false_negative_counts=curve.false_negatives,
            precision=curve.precision,
            recall=curve.recall,
            num_thresholds=THRESHOLDS,
            description=f"{curve.objects} objects; a detection counts when it matches one with IoU 0.5 or more",
        )
        self._raw("eval", summary, step)

    def _scalars(self, writer: str, values: Mapping[str, Any], step: int) -> None:
        with self._writers[writer].as_default(step=step):
            for name, value in values.items():
                tf.summary.scalar(name, value)

    def _raw(self, writer: str, summary: Any, step: int) -> None:
        with self._writers[writer].as_default(step=step):
            tf.summary.experimental.write_raw_pb(summary.SerializeToString(), step=step)

    def _hide_events_after(self, name: str, step: int) -> None:
        """Make TensorBoard hide events after `step`: it does so at a session start event with an earlier step."""
        if self._writes:
            log = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
            event = tf.compat.v1.Event(wall_time=time.time(), step=step + 1, session_log=log)
            tf.raw_ops.ImportEvent(writer=self._writers[name]._resource, event=event.SerializeToString())


class _Speed:
    """Steps per second within a round, measured from its first step on. That excludes idle time and tracing."""

    def __init__(self) -> None:
        self._step: int | None = None
        self._at = 0.0

    def start(self, step: int) -> None:
        if self._step is None or step < self._step:
            self._step, self._at = step, time.monotonic()

    def exclude_pause(self, seconds: float) -> None:
        self._at += seconds

    def since_last(self, step: int) -> float | None:
        """Steps per second since the last call; None at the first step of a round."""
        now, last = time.monotonic(), self._step
        if last is None or step <= last or now <= self._at:
            return None
        speed = (step - last) / (now - self._at)
        self._step, self._at = step, now
        return speed


def layout(runs: Collection[str] = ALL_RUNS) -> Any:
    """The `layout_pb2.Layout` of the charts whose event directory is in `runs`. Empty categories are left out."""
    categories = []
    for title, charts in CATEGORIES.items():
        protos = [
            layout_pb2.Chart(title=chart.title, multiline=layout_pb2.MultilineChartContent(tag=[chart.tags]))
            for chart in charts
            if chart.run in runs
        ]
        if protos:
            categories.append(layout_pb2.Category(title=title, chart=protos))
    return layout_pb2.Layout(category=categories)


def layout_summary(runs: Collection[str] = ALL_RUNS) -> Any:
    """The layout as a `summary_pb2.Summary`.

    TensorBoard's own `custom_scalar.summary.pb` does not set `data_class`, and TensorBoard's fast loader drops
    summaries without one.
    """
    about = layout_metadata.create_summary_metadata()
    about.data_class = summary_pb2.DATA_CLASS_TENSOR
    tensor = tensor_util.make_tensor_proto(layout(runs).SerializeToString())
    value = summary_pb2.Summary.Value(tag=layout_metadata.CONFIG_SUMMARY_TAG, metadata=about, tensor=tensor)
    return summary_pb2.Summary(value=[value])


def _fenced(text: str) -> str:
    return f"```\n{text}\n```"


def _label_table(label_map: LabelMap) -> str:
    rows = [f"| {id} | {label_map.name_of(id)} | {label_map.display_name_of(id)} |" for id in label_map.ids]
    table = "\n".join(["| id | label | shown as |", "| --- | --- | --- |", *rows])
    return f"{table}\n\n{_fenced(label_map.to_pbtxt())}"
