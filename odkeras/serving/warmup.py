"""Reads a SavedModel's warm-up requests."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from odkeras.prediction_log import WARMUP_FILE, prediction_log_class
from odkeras.tfrecord import DamagedRecordError, iter_records

MAX_REQUESTS = 1000  # TensorFlow Serving's limit


@dataclass(frozen=True)
class WarmupRequest:
    """One warm-up request.

    Args:
        signature_name: "" for the default signature.
        inputs: serialized TensorProto messages, by input name.
    """

    signature_name: str = ""
    inputs: dict[str, bytes] = field(default_factory=dict)


def read_warmup_requests(version_dir: Path) -> list[WarmupRequest]:
    """Read the predict requests of a version's warm-up file, at most `MAX_REQUESTS`; [] if there is no such file.

    Raises:
        ValueError: the file is truncated or not a warm-up file.
    """
    from google.protobuf.message import DecodeError

    try:
        with (version_dir / WARMUP_FILE).open("rb") as file:
            logs = (prediction_log_class().FromString(data) for _, data in iter_records(file))
            requests = (log.predict_log.request for log in logs if log.predict_log.HasField("request"))
            return [
                WarmupRequest(request.model_spec.signature_name, {entry.key: entry.value for entry in request.inputs})
                for request in islice(requests, MAX_REQUESTS)
            ]
    except FileNotFoundError:
        return []
    except (DamagedRecordError, DecodeError) as error:
        raise ValueError(f"{WARMUP_FILE} is not a TFRecord file of PredictionLog messages ({error})") from None
