from __future__ import annotations

import struct
from pathlib import Path

import pytest

from odkeras.prediction_log import WARMUP_FILE
from odkeras.serving.warmup import MAX_REQUESTS, WarmupRequest, read_warmup_requests


def varint(value: int) -> bytes:
    digits = []
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*digits, value])


def message(number: int, value: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(value)) + value


def record(data: bytes) -> bytes:
    return struct.pack("<Q", len(data)) + b"crc." + data + b"crc."


def prediction_log(signature_name: str, inputs: dict[str, bytes]) -> bytes:
    spec = (
        message(1, b"raccoon")
        + message(2, b"\x08\x07")
        + (message(3, signature_name.encode()) if signature_name else b"")
    )
    entries = b"".join(message(2, message(1, name.encode()) + message(2, value)) for name, value in inputs.items())
    metadata = message(1, b"\x0d\x00\x00\x80\x3f" + b"\x11" + b"\0" * 8 + b"\x18\x96\x01")  # fields of other wire types
    return metadata + message(
        6, message(1, message(1, spec) + entries + message(3, b"detection_boxes")) + message(2, b"")
    )


def write(version_dir: Path, data: bytes) -> Path:
    path = version_dir / WARMUP_FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    return version_dir


def test_a_version_without_the_file_has_none(tmp_path: Path) -> None:
    assert read_warmup_requests(tmp_path) == []
    assert read_warmup_requests(write(tmp_path, b"")) == []


def test_predict_requests_are_read_others_are_left_out(tmp_path: Path) -> None:
    regress = message(3, message(1, b""))
    data = record(prediction_log("", {"x": b"\x08\x01" * 100})) + record(regress)
    data += record(prediction_log("image_tensor", {"a": b"A", "b": b""}))
    assert read_warmup_requests(write(tmp_path, data)) == [
        WarmupRequest("", {"x": b"\x08\x01" * 100}),
        WarmupRequest("image_tensor", {"a": b"A", "b": b""}),
    ]


def test_there_is_a_limit(tmp_path: Path) -> None:
    data = record(prediction_log("", {"x": b"1"})) * (MAX_REQUESTS + 1)
    assert len(read_warmup_requests(write(tmp_path, data))) == MAX_REQUESTS


@pytest.mark.parametrize(
    "data",
    [
        b"not a TFRecord file",
        record(prediction_log("", {"x": b"1"}))[:-10],  # cut short
        b"\x01\x00",
        record(b"\x32\x7f"),  # a field longer than its message
        record(b"\x33"),  # a wire type that is not in use
        record(b"\x32"),  # a length is missing
    ],
)
def test_a_broken_file_is_an_error(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ValueError, match="tf_serving_warmup_requests is"):
        read_warmup_requests(write(tmp_path, data))
