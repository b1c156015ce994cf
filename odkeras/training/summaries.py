"""TensorBoard events of a training, on one axis of global steps across restarts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import tensorflow as tf
from object_detection.core import standard_fields
from object_detection.utils import ops

from odkeras.training.trainer import Batch, StepReport

_MAX_IMAGES = 3


class TrainingSummaries:
    """Writes below one model directory: `train/` for steps, `eval/` for evaluations, `loop/` for rounds.

    Args:
        model_dir: parent of the three.
        every_steps: write the scalars of every n-th step.
        write: False for a worker that is not the chief, which writes nothing.
    """

    def __init__(self, model_dir: Path, every_steps: int = 10, *, write: bool = True) -> None:
        self._every_steps = every_steps
        self._writers = {
            name: tf.summary.create_file_writer(str(model_dir / name)) if write else tf.summary.create_noop_writer()
            for name in ("train", "eval", "loop")
        }

    def __enter__(self) -> TrainingSummaries:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()

    def step(self, report: StepReport) -> None:
        """Losses, learning rate and gradient norm of one step."""
        if report.step % self._every_steps:
            return
        self._scalars(
            "train",
            {**report.losses, "learning_rate": report.learning_rate, "gradient_norm": report.gradient_norm},
            report.step,
        )

    def rate(self, step: int, steps_per_s: float, batch_size: int) -> None:
        """Speed of a round."""
        self._scalars("train", {"steps_per_s": steps_per_s, "images_per_s": steps_per_s * batch_size}, step)

    def watch(self, batches: Iterator[Batch], step: int) -> Iterator[Batch]:
        """The same batches; images of the first one are written, with their boxes, as the model sees them after
        augmentation."""
        for number, batch in enumerate(batches):
            if number == 0:
                self._images(step, batch)
            yield batch

    def _images(self, step: int, batch: Batch) -> None:
        features, labels = tf.nest.map_structure(_of_first_replica, batch)
        with self._writers["train"].as_default(step=step):
            tf.summary.image("training_examples", draw_boxes(features, labels), max_outputs=_MAX_IMAGES)

    def evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        self._scalars("eval", metrics, step)
        self._writers["eval"].flush()

    def round(self, step: int, values: Mapping[str, Any]) -> None:
        """Seconds, loss and number of examples of a finished round, out of its line in metrics.jsonl."""
        shown = {name: value for name, value in values.items() if name.endswith("_s") or name in ("loss", "examples")}
        self._scalars("loop", {name: value for name, value in shown.items() if value is not None}, step)
        for writer in self._writers.values():
            writer.flush()

    def text(self, name: str, content: str) -> None:
        with self._writers["train"].as_default(step=0):
            tf.summary.text(name, f"```\n{content}\n```")

    def _scalars(self, writer: str, values: Mapping[str, Any], step: int) -> None:
        with self._writers[writer].as_default(step=step):
            for name, value in values.items():
                tf.summary.scalar(name, value)


def _of_first_replica(value: Any) -> tf.Tensor:
    return value.values[0] if isinstance(value, tf.distribute.DistributedValues) else value


def draw_boxes(features: Mapping[str, tf.Tensor], labels: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """The images of a batch, float32 (N, H, W, 3) in 0..1, with their groundtruth boxes drawn in green."""
    fields = standard_fields.InputDataFields
    images = tf.cast(features[fields.image][:_MAX_IMAGES], tf.float32)
    low = tf.reduce_min(images, axis=[1, 2, 3], keepdims=True)
    high = tf.reduce_max(images, axis=[1, 2, 3], keepdims=True)
    boxes = ops.bfloat16_to_float32_nested(labels[fields.groundtruth_boxes][:_MAX_IMAGES])
    return tf.image.draw_bounding_boxes((images - low) / tf.maximum(high - low, 1e-6), boxes, [[0.1, 1.0, 0.2]])
