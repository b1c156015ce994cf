"""Paths, status codes and documents of TensorFlow Serving's REST API. No I/O, no TensorFlow.

    GET  /v1/models/NAME[/versions/V]             versions and their states
    GET  /v1/models/NAME[/versions/V]/metadata    signatures
    POST /v1/models/NAME[/versions/V]:predict     predictions (their tensors: see `json_tensors`)

Status codes, field names and shapes are those of TensorFlow Serving; the messages are our own. Classification,
regression and version labels are not offered: they answer with 400.
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
NOT_LOADED = "no loaded version"
"""Start of the 404 message that means "not loaded (yet)". Clients recognise it and may retry."""

# The canonical error codes in numeric order, with the HTTP status to which TensorFlow Serving maps each.
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

_PATH = re.compile(
    r"/v1/models/(?P<model>[^/:]+)(?:/(?P<kind>versions|labels)/(?P<selected>[^/:]+))?(?P<action>/metadata|:\w+)?",
    re.IGNORECASE | re.ASCII,
)
_ACTIONS = {("GET", None): "status", ("GET", "/metadata"): "metadata", ("POST", ":predict"): "predict"}
_MAX_VERSION = 2**63 - 1


@dataclass(frozen=True)
class TensorSpec:
    """One named tensor of a signature.

    Args:
        dtype: TensorFlow's name of the type: "DT_FLOAT".
        shape: -1 for a dimension of any size; None for any rank.
        name: name of the tensor in the graph.
    """

    dtype: str
    shape: tuple[int, ...] | None
    name: str = ""


@dataclass(frozen=True)
class Signature:
    """A signature of a SavedModel: its tensors by name."""

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    method_name: str = "tensorflow/serving/predict"


@dataclass(frozen=True)
class VersionStatus:
    """The state of one version.

    Args:
        version: its number.
        state: START, LOADING, AVAILABLE, UNLOADING or END. END with an error code other than OK means that it failed.
        error_code: a canonical error code.
        error_message: why it failed; "" if it did not.
    """

    version: int
    state: str
    error_code: str = "OK"
    error_message: str = ""


@dataclass(frozen=True)
class ApiRequest:
    """The parsed method and path of a request.

    Args:
        action: "status", "metadata" or "predict".
        model_name: name of the model, decoded.
        version: the selected version; None = the newest (for status: all).
    """

    action: str
    model_name: str
    version: int | None = None

    @classmethod
    def parse(cls, http_method: str, path: str) -> ApiRequest:
        """Parse the method and the path (percent-encoded, without a query).

        Raises:
            RequestError: 400, the API has no such path or method.
        """
        match = _PATH.fullmatch(path)
        if match is None:
            raise _unknown_path(http_method, path)
        if (match["kind"] or "").lower() == "labels":
            message = "version labels are not supported; select a version by its number: /versions/NUMBER"
            raise request_error("INVALID_ARGUMENT", message)
        suffix = match["action"] and match["action"].lower()
        if suffix in (":classify", ":regress"):
            raise request_error("INVALID_ARGUMENT", f"{suffix} is not supported; send the request to :predict")
        if (http_method, suffix) not in _ACTIONS:
            raise _unknown_path(http_method, path)
        version = None if match["selected"] is None else _parse_version(match["selected"])
        return cls(_ACTIONS[http_method, suffix], unquote(match["model"]), version)

    def not_loaded(self) -> RequestError:
        """The 404 error that says that no version which this request selects is loaded."""
        number = "" if self.version is None else f" {self.version}"
        return request_error("NOT_FOUND", f"{NOT_LOADED}{number} of model {self.model_name!r}")


def request_error(code: str, message: str) -> RequestError:
    """A `RequestError` with the HTTP status of a canonical code; for INVALID_ARGUMENT 400."""
    return RequestError(_HTTP_STATUS[code], message)


def canonical_error(error: BaseException) -> tuple[str, str]:
    """The canonical code and the message of any exception. TensorFlow's exceptions have the number as `error_code`."""
    message = str(error) or type(error).__name__
    number = getattr(error, "error_code", None)
    if isinstance(number, int) and 0 < number < len(_CODES):
        return _CODES[number][0], message
    if isinstance(error, FileNotFoundError):
        return "NOT_FOUND", message
    if isinstance(error, MemoryError):
        return "RESOURCE_EXHAUSTED", "out of memory"
    return "UNKNOWN", message


def find_signature(signatures: Mapping[str, Signature], name: str) -> Signature:
    """The signature of this name; "" is the default one.

    Raises:
        RequestError: 400, there is no such signature, or it takes no inputs.
    """
    name = name or DEFAULT_SIGNATURE
    signature = signatures.get(name)
    if signature is None or not signature.inputs:
        usable = ", ".join(sorted(name for name, signature in signatures.items() if signature.inputs)) or "none"
        raise request_error("INVALID_ARGUMENT", f"the model has no signature {name!r} with inputs; it has: {usable}")
    return signature


def error_document(message: str) -> bytes:
    """JSON of an error response."""
    return json.dumps({"error": message}).encode()


def status_document(statuses: Iterable[VersionStatus]) -> bytes:
    """JSON of the versions' states, in the order given."""
    rows = [
        {
            "version": str(status.version),  # protobuf's JSON format writes 64-bit integers as strings
            "state": status.state,
            "status": {"error_code": status.error_code, "error_message": status.error_message},
        }
        for status in statuses
    ]
    return json.dumps({"model_version_status": rows}, indent=1).encode()


def metadata_document(model_name: str, version: int, signatures: Mapping[str, Signature]) -> bytes:
    """JSON of a version's signatures."""
    signature_def = {
        name: {
            "inputs": {key: _tensor_info(spec) for key, spec in sorted(signature.inputs.items())},
            "outputs": {key: _tensor_info(spec) for key, spec in sorted(signature.outputs.items())},
            "method_name": signature.method_name,
            "defaults": {},
        }
        for name, signature in sorted(signatures.items())
    }
    document = {
        "model_spec": {"name": model_name, "signature_name": "", "version": str(version)},
        "metadata": {"signature_def": {"signature_def": signature_def}},
    }
    return json.dumps(document, indent=1).encode()


def _tensor_info(spec: TensorSpec) -> dict[str, Any]:
    dims = [{"size": str(size), "name": ""} for size in spec.shape or ()]
    return {
        "dtype": spec.dtype,
        "tensor_shape": {"dim": dims, "unknown_rank": spec.shape is None},
        "name": spec.name,
    }


def _parse_version(text: str) -> int:
    # Checks the length first, because int() raises ValueError for thousands of digits.
    if not re.fullmatch(r"[0-9]{1,19}", text) or int(text) > _MAX_VERSION:
        wanted = f"a version is a whole number from 0 to {_MAX_VERSION}"
        raise request_error("INVALID_ARGUMENT", f"{wanted}; got {text[:80]}")
    return int(text)


def _unknown_path(http_method: str, path: str) -> RequestError:
    methods = "GET /v1/models/NAME, GET /v1/models/NAME/metadata, POST /v1/models/NAME:predict"
    return request_error("INVALID_ARGUMENT", f"no such request: {http_method} {path[:200]}; there are {methods}")
