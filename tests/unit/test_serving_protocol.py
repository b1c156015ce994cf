"""Paths, status codes and documents, as in TensorFlow Serving's REST API."""

from __future__ import annotations

import json

import pytest

from odkeras.errors import RequestError
from odkeras.serving.protocol import (
    ApiRequest,
    Signature,
    TensorSpec,
    VersionStatus,
    canonical_error,
    metadata_document,
    status_document,
)


@pytest.mark.parametrize(
    ("method", "path", "request_"),
    [
        ("GET", "/v1/models/raccoon", ApiRequest("status", "raccoon")),
        ("GET", "/v1/models/raccoon/versions/12", ApiRequest("status", "raccoon", 12)),
        ("GET", "/v1/models/raccoon/versions/007", ApiRequest("status", "raccoon", 7)),
        ("GET", "/v1/models/raccoon/metadata", ApiRequest("metadata", "raccoon")),
        ("GET", "/v1/models/raccoon/versions/12/metadata", ApiRequest("metadata", "raccoon", 12)),
        ("GET", "/V1/Models/Raccoon", ApiRequest("status", "Raccoon")),  # fixed parts in any case, names as they are
        ("GET", "/v1/models/my%20model", ApiRequest("status", "my model")),
        ("GET", "/v1/models/a%2Fb", ApiRequest("status", "a/b")),  # decoded after the path is split
        ("GET", "/v1/models/metadata", ApiRequest("status", "metadata")),  # a model may have this name
        ("GET", "/v1/models/raccoon/versions/9223372036854775807", ApiRequest("status", "raccoon", 2**63 - 1)),
        ("POST", "/v1/models/raccoon:predict", ApiRequest("predict", "raccoon")),
        ("POST", "/v1/models/raccoon/versions/12:predict", ApiRequest("predict", "raccoon", 12)),
    ],
)
def test_paths_are_parsed(method: str, path: str, request_: ApiRequest) -> None:
    assert ApiRequest.parse(method, path) == request_


@pytest.mark.parametrize(
    ("method", "path", "message"),
    [
        ("GET", "/v1/foo", "no such request: GET /v1/foo; there are GET /v1/models/NAME, "),
        ("GET", "/v1/models", "no such request"),
        ("GET", "/v1/models/foo/bar", "no such request"),
        ("GET", "/v1/models/foo:predict", "no such request"),
        ("POST", "/v1/models/foo/metadata", "no such request"),
        ("POST", "/v1/models/foo:explain", "no such request"),
        ("PUT", "/v1/models/foo:predict", "no such request: PUT /v1/models/foo:predict"),
        ("POST", "/v1/models/foo:classify", ":classify is not supported; send the request to :predict"),
        ("POST", "/v1/models/foo/versions/12:regress", ":regress is not supported"),
        ("GET", "/v1/models/foo/labels/stable", "version labels are not supported; select a version by its number"),
        ("POST", "/v1/models/foo/labels/a%20b:predict", "version labels are not supported"),
        ("POST", "/v1/models/foo/versions/HELLO:predict", "a version is a whole number from 0 to 92233720368547758"),
        ("POST", "/v1/models/foo/versions/٣:predict", "a version is a whole number"),  # a digit, but not ASCII
        ("GET", "/v1/models/foo/versions/9223372036854775808", "a version is a whole number"),
        ("GET", "/v1/models/foo/versions/" + "9" * 5000, "a version is a whole number"),  # int() refuses it, too
    ],
)
def test_other_requests_are_refused_with_400(method: str, path: str, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        ApiRequest.parse(method, path)
    assert caught.value.status == 400
    assert caught.value.message.startswith(message)
    assert len(caught.value.message) < 400


class _TensorFlowError(Exception):
    def __init__(self, error_code: int) -> None:
        super().__init__("words")
        self.error_code = error_code


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (_TensorFlowError(3), ("INVALID_ARGUMENT", "words")),
        (_TensorFlowError(15), ("DATA_LOSS", "words")),
        (_TensorFlowError(99), ("UNKNOWN", "words")),
        (FileNotFoundError("no file"), ("NOT_FOUND", "no file")),
        (MemoryError(), ("RESOURCE_EXHAUSTED", "out of memory")),
        (ValueError("odd"), ("UNKNOWN", "odd")),
        (KeyError(), ("UNKNOWN", "KeyError")),  # never an empty message
    ],
)
def test_exceptions_have_canonical_codes(error: Exception, expected: tuple[str, str]) -> None:
    assert canonical_error(error) == expected


def test_the_status_document_has_versions_as_strings() -> None:
    document = status_document([VersionStatus(1795418219, "LOADING"), VersionStatus(3, "END", "NOT_FOUND", "no file")])
    assert json.loads(document) == {
        "model_version_status": [
            {"version": "1795418219", "state": "LOADING", "status": {"error_code": "OK", "error_message": ""}},
            {"version": "3", "state": "END", "status": {"error_code": "NOT_FOUND", "error_message": "no file"}},
        ]
    }


SIGNATURES = {
    "serving_default": Signature(
        inputs={"x": TensorSpec("DT_FLOAT", (-1, 1), "x:0")}, outputs={"y": TensorSpec("DT_FLOAT", None, "y:0")}
    ),
    "__saved_model_init_op": Signature({}, {}, ""),
}


def test_the_metadata_document_lists_signatures() -> None:
    document = json.loads(metadata_document("raccoon", 123, {"serving_default": SIGNATURES["serving_default"]}))
    x = {
        "dtype": "DT_FLOAT",
        "tensor_shape": {"dim": [{"size": "-1", "name": ""}, {"size": "1", "name": ""}], "unknown_rank": False},
        "name": "x:0",
    }
    y = {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [], "unknown_rank": True}, "name": "y:0"}
    signature = {"inputs": {"x": x}, "outputs": {"y": y}, "method_name": "tensorflow/serving/predict", "defaults": {}}
    assert document == {
        "model_spec": {"name": "raccoon", "signature_name": "", "version": "123"},
        "metadata": {"signature_def": {"signature_def": {"serving_default": signature}}},
    }
