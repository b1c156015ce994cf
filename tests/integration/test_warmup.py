from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto

from odkeras.export.publish import Publisher
from odkeras.export.warmup import prediction_log, write_warmup_requests
from odkeras.images import decode_rgb, encode_image
from odkeras.prediction_log import WARMUP_FILE
from odkeras.serving.warmup import read_warmup_requests
from tests.fixtures_training import LABEL_MAP

pytestmark = pytest.mark.integration


def field(number: int, value: bytes) -> bytes:
    """A length-delimited field of a protobuf message, by hand."""
    length, varint = len(value), b""
    while length >= 128:
        varint += bytes([length & 127 | 128])
        length >>= 7
    return bytes([number << 3 | 2]) + varint + bytes([length]) + value


def test_a_request_is_laid_out_as_tensorflow_serving_s_messages() -> None:
    """Field numbers as in its public apis/: prediction_log.proto, predict.proto, model.proto."""
    inputs = {"image": np.arange(300, dtype=np.uint8).reshape(1, 10, 10, 3)}
    tensor = tf.make_tensor_proto(inputs["image"]).SerializeToString()
    entry = field(1, b"image") + field(2, tensor)
    request = field(1, field(3, b"image_tensor")) + field(2, entry)
    assert prediction_log("image_tensor", inputs) == field(6, field(1, request))


def test_the_file_is_a_tfrecord_of_one_request(tmp_path: Path) -> None:
    write_warmup_requests(tmp_path, (48, 64))
    (record,) = tf.data.TFRecordDataset(str(tmp_path / WARMUP_FILE)).as_numpy_iterator()  # checks the checksums
    (request,) = read_warmup_requests(tmp_path)
    assert request.signature_name == "serving_default"
    (value,) = request.inputs.values()
    assert record == field(
        6, field(1, field(1, field(3, b"serving_default")) + field(2, field(1, b"image_bytes") + field(2, value)))
    )


def test_the_picture_is_grey_and_of_the_model_s_size(tmp_path: Path) -> None:
    write_warmup_requests(tmp_path, (48, 64))
    (request,) = read_warmup_requests(tmp_path)
    tensor = tf.make_ndarray(TensorProto.FromString(request.inputs["image_bytes"]))
    assert tensor.shape == (1,)
    image = encode_image(tensor[0], source="warm-up")
    assert (image.format, image.image_size_hw) == ("jpeg", (48, 64))
    assert np.ptp(decode_rgb(image)) == 0


def test_a_published_version_answers_its_own_request(inference: Any, tmp_path: Path) -> None:
    directory = tmp_path / str(Publisher(inference, tmp_path, LABEL_MAP).publish(0))
    model = tf.saved_model.load(str(directory))
    (request,) = read_warmup_requests(directory)
    inputs = {
        name: tf.constant(tf.make_ndarray(TensorProto.FromString(value))) for name, value in request.inputs.items()
    }
    found = model.signatures[request.signature_name](**inputs)
    assert found["detection_boxes"].shape == (1, 20, 4)
    image = encode_image(inputs["image_bytes"].numpy()[0], source="warm-up")
    assert image.image_size_hw == inference.static_size
