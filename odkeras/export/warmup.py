"""Warm-up requests: TensorFlow Serving replays them before it makes a version AVAILABLE, so that the first person
does not wait.

The file is a TFRecord of `PredictionLog` messages at `assets.extra/tf_serving_warmup_requests`. The messages are
public API of TensorFlow Serving (`apis/prediction_log.proto`, `predict.proto`, `model.proto`); declaring the few
fields used saves its client package.
"""

from __future__ import annotations

import functools
import io
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from PIL import Image

WARMUP_PATH = Path("assets.extra", "tf_serving_warmup_requests")

_FIELD = descriptor_pb2.FieldDescriptorProto


def write_warmup_requests(version_dir: Path, image_size_hw: tuple[int, int] = (320, 320)) -> None:
    """Write one prediction of one grey JPEG to `version_dir/assets.extra/tf_serving_warmup_requests`."""
    path = version_dir / WARMUP_PATH
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(prediction_log("serving_default", {"image_bytes": np.array([_grey_jpeg(image_size_hw)], object)}))


def prediction_log(signature_name: str, inputs: dict[str, np.ndarray]) -> bytes:
    """A serialized `tensorflow.serving.PredictionLog` that asks `signature_name` for a prediction."""
    log = _prediction_log_class()()
    request = log.predict_log.request
    request.model_spec.signature_name = signature_name
    for name, array in inputs.items():
        request.inputs.add(key=name, value=tf.make_tensor_proto(array).SerializeToString())
    return bytes(log.SerializeToString())


def _grey_jpeg(image_size_hw: tuple[int, int]) -> bytes:
    height, width = image_size_hw
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (127, 127, 127)).save(buffer, "JPEG")
    return buffer.getvalue()


@functools.cache
def _prediction_log_class() -> Any:
    """The message class, from a pool of its own so that an installed tensorflow-serving-api is not in the way.

    Map entries and the nested TensorProto are declared by their wire format: a repeated key/value message, and bytes.
    """
    file = descriptor_pb2.FileDescriptorProto(
        name="odkeras/prediction_log.proto", package="odkeras.serving", syntax="proto3"
    )
    _add_message(file, "ModelSpec", [("signature_name", 3, _FIELD.TYPE_STRING, "")])
    _add_message(file, "Input", [("key", 1, _FIELD.TYPE_STRING, ""), ("value", 2, _FIELD.TYPE_BYTES, "")])
    _add_message(
        file,
        "PredictRequest",
        [("model_spec", 1, _FIELD.TYPE_MESSAGE, "ModelSpec"), ("inputs", 2, _FIELD.TYPE_MESSAGE, "Input*")],
    )
    _add_message(file, "PredictLog", [("request", 1, _FIELD.TYPE_MESSAGE, "PredictRequest")])
    _add_message(file, "PredictionLog", [("predict_log", 6, _FIELD.TYPE_MESSAGE, "PredictLog")])
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("odkeras.serving.PredictionLog"))


def _add_message(file: descriptor_pb2.FileDescriptorProto, name: str, fields: list[tuple[str, int, int, str]]) -> None:
    message = file.message_type.add(name=name)
    for field_name, number, kind, type_name in fields:
        field = message.field.add(name=field_name, number=number, type=kind)
        field.label = _FIELD.LABEL_REPEATED if type_name.endswith("*") else _FIELD.LABEL_OPTIONAL
        if type_name:
            field.type_name = f".{file.package}.{type_name.rstrip('*')}"
