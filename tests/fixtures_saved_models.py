"""Tiny SavedModels with the signatures of an exported detection model; need TensorFlow, but no Object Detection API.

A model's answer tells its weights: image by image, two boxes whose scores are `value / 1000` and whose class is
`value` (each from a variable of its own, so that an answer from mixed weights is seen), and one row of padding.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from odkeras.export.warmup import prediction_log
from odkeras.prediction_log import WARMUP_FILE

BALLAST = 64


class TinyDetector(tf.Module):
    """`image_bytes` in, detections out; ymin of the first box is the image's mean brightness (0..1)."""

    def __init__(self, value: int, rows: int = 3) -> None:
        super().__init__()
        self.first = tf.Variable(float(value))
        self.ballast = [tf.Variable(tf.zeros([BALLAST, BALLAST])) for _ in range(8)]
        self.last = tf.Variable(float(value))
        self._rows = rows

    def set(self, value: int) -> None:
        self.first.assign(float(value))
        self.last.assign(float(value))

    def detect(self, brightness: tf.Tensor) -> dict[str, tf.Tensor]:
        ones = tf.ones([tf.shape(brightness)[0], self._rows])
        first = ones * self.first
        for ballast in self.ballast:  # time and weights between the first variable and the last
            first += tf.reduce_sum(tf.linalg.matmul(ballast, ballast))
        box = tf.stack([ones * brightness[:, None], ones * 0.2, ones * 0.9, ones * 0.75], axis=-1)
        return {
            "detection_boxes": box,
            "detection_scores": first / 1000.0,
            "detection_classes": ones * self.last,
            "num_detections": 2.0 * tf.ones([tf.shape(brightness)[0]]),
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "image_bytes")], autograph=False)
    def from_bytes(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return self.detect(tf.map_fn(_brightness, image_bytes, fn_output_signature=tf.float32))

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, "image")], autograph=False)
    def from_pixels(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        return self.detect(tf.reduce_mean(tf.cast(image, tf.float32), axis=[1, 2, 3]) / 255.0)


def _brightness(data: tf.Tensor) -> tf.Tensor:
    image = tf.io.decode_image(data, channels=3, expand_animations=False)
    return tf.reduce_mean(tf.cast(image, tf.float32)) / 255.0


class Publisher:
    """Writes versions: the first in full, others as `odkeras.export` does, with the same graph and new variables."""

    def __init__(self, export_dir: Path) -> None:
        self.export_dir = export_dir
        self._module = TinyDetector(0)
        self._checkpoint = tf.train.Checkpoint(self._module)
        self._template: Path | None = None

    def publish(
        self, version: int, value: int, *, same_graph: bool = True, warm: bool = False, name: str | None = None
    ) -> Path:
        """Add a version that answers `value`; it appears whole, by a rename, under `name` (default: its number)."""
        partial = self.export_dir / f".tmp-{version}"
        if same_graph and self._template is not None:
            self._module.set(value)
            shutil.copytree(self._template, partial, ignore=shutil.ignore_patterns("variables.*"))
            self._checkpoint.write(str(partial / "variables" / "variables"))
        elif same_graph:
            self._module.set(value)
            save(self._module, partial)
        else:
            save(TinyDetector(value, rows=3 + version % 7 + 1), partial)
        if warm:
            write_warmup(partial, "serving_default", {"image_bytes": np.array([png()], object)})
        final = self.export_dir / (name or str(version))
        partial.rename(final)
        if same_graph and self._template is None:
            self._template = final
        return final


def save(module: TinyDetector, directory: Path) -> None:
    signatures = {
        "serving_default": module.from_bytes.get_concrete_function(),
        "image_tensor": module.from_pixels.get_concrete_function(),
    }
    tf.saved_model.save(module, str(directory), signatures=signatures)


def write_warmup(directory: Path, signature_name: str, inputs: dict[str, Any]) -> None:
    path = directory / WARMUP_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(prediction_log(signature_name, inputs))


def png(level: int = 51, height: int = 48, width: int = 64) -> bytes:
    """An encoded image, all of one grey."""
    pixels: npt.NDArray[np.uint8] = np.full((height, width, 3), level, np.uint8)
    return bytes(tf.io.encode_png(pixels).numpy())
