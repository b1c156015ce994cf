"""TensorFlow Serving's REST protocol: paths, status and metadata documents, errors. Pure: no I/O, no TensorFlow.

How tensors travel is in `json_tensors`. The paths:

    GET  /v1/models/NAME[/versions/V|/labels/L]             versions and their states
    GET  /v1/models/NAME[/versions/V|/labels/L]/metadata    signatures
    POST /v1/models/NAME[/versions/V|/labels/L]:predict     (or :classify, :regress)
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from odkeras.errors import RequestError

DEFAULT_SIGNATURE = "serving_default"

# Canonical error codes, by number, with the HTTP status that TensorFlow Serving gives each.
_CODES: tuple[tuple[str, int], ...] = (
    ("OK", 200),
    ("CANCELLED", 499),
    ("UNKNOWN", 500),
    ("INVALID_ARGUMENT", 400),
    ("DEADLINE_EXCEEDED", 504),
    ("NOT_FOUND", 404),
    ("ALREADY_EXISTS", 409),
    ("PERMISSION_DENIED", 403),
    ("RESOURCE_EXHAUSTED", 429),
    ("FAILED_PRECONDITION", 400),
    ("ABORTED", 409),
    ("OUT_OF_RANGE", 400),
    ("UNIMPLEMENTED", 501),
    ("INTERNAL", 500),
    ("UNAVAILABLE", 503),
    ("DATA_LOSS", 500),
    ("UNAUTHENTICATED", 401),
)
_HTTP_STATUS = dict(_CODES)

_MODEL = r"/v1/models/(?P<model>[^/:]+)"
_SELECTED = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_POST_PATH = re.compile(_MODEL + _SELECTED + r":(?P<verb>classify|regress|predict)", re.IGNORECASE | re.ASCII)
_GET_PATH = re.compile(_MODEL + _SELECTED + r"(?:/(?P<verb>metadata))?", re.IGNORECASE | re.ASCII)
_NO_MODEL_PATH = re.compile(r"/v1/models" + _SELECTED, re.IGNORECASE | re.ASCII)
_MAX_VERSION = 2**63 - 1


@dataclass(frozen=True)
class TensorSpec:
    """One named tensor of a signature. `shape` has -1 where any size goes, and is None where any rank does."""

    dtype: str
    shape: tuple[int, ...] | None
    name: str = ""


@dataclass(frozen=True)
class Signature:
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    method_name: str = "tensorflow/serving/predict"


@dataclass(frozen=True)
class VersionStatus:
    """`state` is START, LOADING, AVAILABLE, UNLOADING or END; with a code other than OK, END means that it failed."""

    version: int
    state: str
    error_code: str = "OK"
    error_message: str = ""


@dataclass(frozen=True)
class Call:
    """What a request asks for. `verb` is status, metadata, predict, classify or regress."""

    verb: str
    model_name: str
    version: int | None = None
    label: str | None = None

    def unloaded(self) -> RequestError:
        """The refusal when no version that is AVAILABLE fits."""
        wanted = (
            f"Latest({self.model_name})" if self.version is None else f"Specific({self.model_name}, {self.version})"
        )
        return refusal("NOT_FOUND", f"Servable not found for request: {wanted}")

    def unknown(self) -> RequestError:
        """The refusal when no version at all fits."""
        if self.version is None:
            return refusal("NOT_FOUND", f"Could not find any versions of model {self.model_name}")
        return refusal("NOT_FOUND", f"Could not find version {self.version} of model {self.model_name}")


def refusal(code: str, message: str) -> RequestError:
    return RequestError(_HTTP_STATUS[code], message)


def error_of(error: BaseException) -> tuple[str, str]:
    """The canonical code and a message for any exception (those of TensorFlow carry their code's number)."""
    message = str(error) or type(error).__name__
    number = getattr(error, "error_code", None)
    if isinstance(number, int) and 0 < number < len(_CODES):
        return _CODES[number][0], message
    if isinstance(error, FileNotFoundError):
        return "NOT_FOUND", message
    if isinstance(error, MemoryError):
        return "RESOURCE_EXHAUSTED", "out of memory"
    return "UNKNOWN", message


def parse_call(http_method: str, path: str) -> Call:
    """Read the method and the path (percent-encoded, without a query).

    Raises:
        RequestError: 400 for a path or method that the API does not have.
    """
    pattern = {"POST": _POST_PATH, "GET": _GET_PATH}.get(http_method)
    match = pattern.fullmatch(path) if pattern else None
    if match is None:
        if http_method == "GET" and _NO_MODEL_PATH.fullmatch(path):
            raise refusal("INVALID_ARGUMENT", "Missing model name in request.")
        raise refusal("INVALID_ARGUMENT", f"Malformed request: {http_method} {path}")
    label = match["label"]
    return Call(
        verb=(match["verb"] or "status").lower(),
        model_name=unquote(match["model"]),
        version=_version_number(match["version"]),
        label=None if label is None else unquote(label),
    )


def is_api_path(path: str) -> bool:
    return path.lower().startswith("/v1/")


def _version_number(digits: str | None) -> int | None:
    if digits is None:
        return None
    version = int(digits) if len(digits) <= 19 else _MAX_VERSION + 1
    if version > _MAX_VERSION:
        raise refusal("INVALID_ARGUMENT", f"Failed to convert version: {digits} to numeric.")
    return version


def check_label(call: Call) -> None:
    """Labels are given to versions in TensorFlow Serving's model config file, which the embedded server does not read.

    Raises:
        RequestError: 400 whenever a label is asked for.
    """
    if call.label is not None:
        raise refusal("INVALID_ARGUMENT", f"Unrecognized servable version label: {call.label}")


def error_document(message: str) -> bytes:
    return json.dumps({"error": message}).encode()


def status_document(statuses: Iterable[VersionStatus]) -> bytes:
    """JSON of the versions' states, in the order given; numbers of 64 bits are strings, as in protobuf's JSON."""
    rows = [
        {
            "version": str(status.version),
            "state": status.state,
            "status": {"error_code": status.error_code, "error_message": status.error_message},
        }
        for status in statuses
    ]
    return json.dumps({"model_version_status": rows}, indent=1).encode()


def metadata_document(model_name: str, version: int, signatures: Mapping[str, Signature]) -> bytes:
    """JSON of a version's signatures."""
    signature_def = {name: _signature_json(signature) for name, signature in sorted(signatures.items())}
    document = {
        "model_spec": {"name": model_name, "signature_name": "", "version": str(version)},
        "metadata": {"signature_def": {"signature_def": signature_def}},
    }
    return json.dumps(document, indent=1).encode()


def _signature_json(signature: Signature) -> dict[str, Any]:
    return {
        "inputs": {name: _tensor_json(spec) for name, spec in sorted(signature.inputs.items())},
        "outputs": {name: _tensor_json(spec) for name, spec in sorted(signature.outputs.items())},
        "method_name": signature.method_name,
        "defaults": {},
    }


def _tensor_json(spec: TensorSpec) -> dict[str, Any]:
    dims = [{"size": str(size), "name": ""} for size in spec.shape or ()]
    return {
        "dtype": spec.dtype,
        "tensor_shape": {"dim": dims, "unknown_rank": spec.shape is None},
        "name": spec.name,
    }


def signature_for(verb: str, signature_name: str, signatures: Mapping[str, Signature]) -> Signature:
    """The signature a request names ("" for the default one), if the verb may use it.

    Raises:
        RequestError: 400, there is no such signature, or it is not for this verb.
    """
    name = signature_name or DEFAULT_SIGNATURE
    signature = signatures.get(name)
    if verb == "predict":
        if signature is None:
            raise refusal("INVALID_ARGUMENT", f'Serving signature name: "{name}" not found in signature def')
        if not signature.inputs:
            raise refusal("INVALID_ARGUMENT", f"Failed to get input map for signature: {signature_name or 'DEFAULT'}")
        return signature
    if signature is None:
        raise refusal("INVALID_ARGUMENT", f"No signature was found with the name: {name}")
    kind = {"classify": "classification", "regress": "regression"}[verb]
    if signature.method_name != f"tensorflow/serving/{verb}":
        expected = f"Expected {kind} signature method_name to be tensorflow/serving/{verb}"
        raise refusal("INVALID_ARGUMENT", f"{expected}. Was: {signature.method_name}")
    raise refusal("UNIMPLEMENTED", f"this server only predicts; use :predict, or TensorFlow Serving itself to {verb}")
