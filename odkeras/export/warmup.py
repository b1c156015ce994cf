"""Write the warm-up requests of a version (see `odkeras.prediction_log`)."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from odkeras.prediction_log import WARMUP_FILE, prediction_log_class


def write_warmup_requests(version_dir: Path, image_size_hw: tuple[int, int] = (320, 320)) -> None:
    """Write a request with one grey JPEG to `version_dir/assets.extra/tf_serving_warmup_requests`.

    Args:
        image_size_hw: height and width of the JPEG in pixels.
    """
    height, width = image_size_hw
    jpeg = io.BytesIO()
    Image.new("RGB", (width, height), (127, 127, 127)).save(jpeg, "JPEG")
    path = version_dir / WARMUP_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(prediction_log("serving_default", {"image_bytes": np.array([jpeg.getvalue()], object)}))


def prediction_log(signature_name: str, inputs: dict[str, np.ndarray]) -> bytes:
    """A serialized `tensorflow.serving.PredictionLog` with one predict request.

    Args:
        signature_name: the signature to call.
        inputs: input name -> array.
    """
    log = prediction_log_class()()
    request = log.predict_log.request
    request.model_spec.signature_name = signature_name
    for name, array in inputs.items():
        request.inputs.add(key=name, value=tf.make_tensor_proto(array).SerializeToString())
    return bytes(log.SerializeToString())
