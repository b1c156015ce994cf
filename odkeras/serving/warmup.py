"""A SavedModel's warm-up requests: `assets.extra/tf_serving_warmup_requests`, a TFRecord of PredictionLog messages.

TensorFlow Serving replays them before a version is AVAILABLE. They are read here from the wire format, by field number,
since the messages are defined in a package (tensorflow-serving-api) that a server has no other use for.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

WARMUP_FILE = Path("assets.extra") / "tf_serving_warmup_requests"
MAX_REQUESTS = 1000  # TensorFlow Serving's limit

# Field numbers: PredictionLog.predict_log, PredictLog.request, PredictRequest.model_spec and .inputs,
# ModelSpec.signature_name, and a map entry's key and value.
_PREDICT_LOG, _REQUEST, _MODEL_SPEC, _INPUTS, _SIGNATURE_NAME, _KEY, _VALUE = 6, 1, 1, 2, 3, 1, 2
_LENGTH_DELIMITED = 2
_FIXED_SIZES = {1: 8, 5: 4}


@dataclass(frozen=True)
class WarmupRequest:
    """`inputs` are serialized TensorProto messages; `signature_name` is "" for the default one."""

    signature_name: str = ""
    inputs: dict[str, bytes] = field(default_factory=dict)


def read_warmup_requests(version_dir: Path) -> list[WarmupRequest]:
    """The predict requests among the warm-up requests; [] if the version has no such file.

    Raises:
        ValueError: the file is cut short, or is something else.
    """
    try:
        data = (version_dir / WARMUP_FILE).read_bytes()
    except FileNotFoundError:
        return []
    try:
        return [request for record in _records(data) for request in _predict_requests(record)][:MAX_REQUESTS]
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"{WARMUP_FILE} is not a TFRecord file of PredictionLog messages ({error})") from None


def _records(data: bytes) -> Iterator[bytes]:
    """The records of a TFRecord file: length (8 bytes), its checksum (4), the record, its checksum (4)."""
    position = 0
    while position < len(data):
        (length,) = struct.unpack_from("<Q", data, position)
        record = data[position + 12 : position + 12 + length]
        if len(record) < length:
            raise ValueError(f"{WARMUP_FILE} is cut short: {len(record)} of {length} bytes of a record")
        yield record
        position += length + 16


def _predict_requests(prediction_log: bytes) -> Iterator[WarmupRequest]:
    for predict_log in _messages(prediction_log, _PREDICT_LOG):
        for request in _messages(predict_log, _REQUEST):
            names = [name for spec in _messages(request, _MODEL_SPEC) for name in _messages(spec, _SIGNATURE_NAME)]
            entries = [(_last(entry, _KEY).decode(), _last(entry, _VALUE)) for entry in _messages(request, _INPUTS)]
            yield WarmupRequest(names[-1].decode() if names else "", dict(entries))


def _last(message: bytes, number: int) -> bytes:
    return next(reversed([b"", *_messages(message, number)]))


def _messages(message: bytes, number: int) -> Iterator[bytes]:
    """The values of a length-delimited field (a message, a string, bytes), in order."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        kind = tag & 7
        if kind == _LENGTH_DELIMITED:
            length, position = _varint(message, position)
            if position + length > len(message):
                raise IndexError("a field is cut short")
            if tag >> 3 == number:
                yield message[position : position + length]
            position += length
        elif kind in _FIXED_SIZES:
            position += _FIXED_SIZES[kind]
        elif kind == 0:
            _, position = _varint(message, position)
        else:
            raise IndexError(f"no field has wire type {kind}")


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
