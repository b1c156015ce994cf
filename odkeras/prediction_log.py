"""The warm-up requests of a SavedModel: a TFRecord of `PredictionLog` messages in `assets.extra/`.

TensorFlow Serving replays them before it marks a version AVAILABLE, so that the first request is not slow.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

WARMUP_FILE = Path("assets.extra", "tf_serving_warmup_requests")

# Only the fields that we use, with the field numbers of TensorFlow Serving's public apis/ (prediction_log.proto,
# predict.proto, model.proto). The package with the original protos, tensorflow-serving-api, requires gRPC and
# TensorFlow. The map field and the nested TensorProto are declared by their equivalent wire formats: a repeated
# key/value message, and bytes.
_PROTO = """
name: "odkeras/prediction_log.proto" package: "odkeras.serving" syntax: "proto3"
message_type {
  name: "PredictionLog"
  field { name: "predict_log" number: 6 type_name: "PredictLog" }
}
message_type {
  name: "PredictLog"
  field { name: "request" number: 1 type_name: "PredictRequest" }
}
message_type {
  name: "PredictRequest"
  field { name: "model_spec" number: 1 type_name: "ModelSpec" }
  field { name: "inputs" number: 2 type_name: "Input" label: LABEL_REPEATED }
}
message_type {
  name: "ModelSpec"
  field { name: "signature_name" number: 3 type: TYPE_STRING }
}
message_type {
  name: "Input"
  field { name: "key" number: 1 type: TYPE_STRING }
  field { name: "value" number: 2 type: TYPE_BYTES }
}
"""


@functools.cache
def prediction_log_class() -> Any:
    """The message class. It has its own descriptor pool, so that it cannot conflict with an installed
    tensorflow-serving-api."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(text_format.Parse(_PROTO, descriptor_pb2.FileDescriptorProto()).SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("odkeras.serving.PredictionLog"))
