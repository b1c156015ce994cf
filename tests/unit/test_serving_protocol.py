"""Paths, documents and errors, row by row as TensorFlow Serving has them."""

from __future__ import annotations

import json

import pytest

from odkeras.errors import RequestError
from odkeras.serving.protocol import (
    Call,
    Signature,
    TensorSpec,
    VersionStatus,
    check_label,
    error_document,
    error_of,
    metadata_document,
    parse_call,
    signature_for,
    status_document,
)


@pytest.mark.parametrize(
    ("method", "path", "call"),
    [
        ("GET", "/v1/models/raccoon", Call("status", "raccoon")),
        ("GET", "/v1/models/raccoon/versions/12", Call("status", "raccoon", 12)),
        ("GET", "/v1/models/raccoon/versions/007", Call("status", "raccoon", 7)),
        ("GET", "/v1/models/raccoon/labels/stable", Call("status", "raccoon", label="stable")),
        ("GET", "/v1/models/raccoon/metadata", Call("metadata", "raccoon")),
        ("GET", "/v1/models/raccoon/versions/12/metadata", Call("metadata", "raccoon", 12)),
        ("GET", "/v1/models/raccoon/labels/stable/metadata", Call("metadata", "raccoon", label="stable")),
        ("GET", "/V1/Models/raccoon", Call("status", "raccoon")),  # fixed parts in any case
        ("GET", "/v1/models/Raccoon", Call("status", "Raccoon")),  # names as they are
        ("GET", "/v1/models/my%20model", Call("status", "my model")),
        ("GET", "/v1/models/a%2Fb", Call("status", "a/b")),  # decoded after the path is cut
        ("GET", "/v1/models/metadata", Call("status", "metadata")),  # a model may be called so
        ("GET", "/v1/models/raccoon/versions/9223372036854775807", Call("status", "raccoon", 2**63 - 1)),
        ("POST", "/v1/models/raccoon:predict", Call("predict", "raccoon")),
        ("POST", "/v1/models/raccoon/versions/12:predict", Call("predict", "raccoon", 12)),
        ("POST", "/v1/models/raccoon/labels/a%20b:predict", Call("predict", "raccoon", label="a b")),
        ("POST", "/v1/models/raccoon:classify", Call("classify", "raccoon")),
        ("POST", "/v1/models/raccoon/versions/12:regress", Call("regress", "raccoon", 12)),
    ],
)
def test_paths_are_read(method: str, path: str, call: Call) -> None:
    assert parse_call(method, path) == call


@pytest.mark.parametrize(
    ("method", "path", "message"),
    [
        ("GET", "/v1/foo", "Malformed request: GET /v1/foo"),
        ("POST", "/v1/foo", "Malformed request: POST /v1/foo"),
        ("GET", "/v1/models", "Missing model name in request."),
        ("GET", "/v1/models/versions/5", "Missing model name in request."),
        ("GET", "/v1/models/", "Malformed request: GET /v1/models/"),
        ("GET", "/v1/models/debug/model_name", "Malformed request: GET /v1/models/debug/model_name"),
        ("POST", "/v1/models", "Malformed request: POST /v1/models"),
        ("GET", "/v1/models/foo:predict", "Malformed request: GET /v1/models/foo:predict"),  # a GET that predicts
        ("POST", "/v1/models/foo/version/50:regress", "Malformed request: POST /v1/models/foo/version/50:regress"),
        ("POST", "/v1/models/foo/versions/HELLO:regress", "Malformed request"),
        ("POST", "/v1/models/foo/versions/-1:predict", "Malformed request"),
        ("POST", "/v1/models/foo/versions/٣:predict", "Malformed request"),  # digits, but not ASCII
        ("POST", "/v1/models/foo/metadata", "Malformed request"),
        ("POST", "/v1/models/foo/label/some_label:regress", "Malformed request"),
        ("POST", "/v1/models/foo/versions/50/labels/some_label:regress", "Malformed request"),
        ("POST", "/v1/models/foo:explain", "Malformed request"),
        ("POST", "/v1/models/foo", "Malformed request"),
        ("PUT", "/v1/models/foo:predict", "Malformed request: PUT /v1/models/foo:predict"),
        ("DELETE", "/v1/models/foo", "Malformed request"),
        (
            "POST",
            "/v1/models/foo/versions/18446744073709551615:regress",
            "Failed to convert version: 18446744073709551615 to numeric.",
        ),
        ("GET", "/v1/models/foo/versions/9223372036854775808", "Failed to convert version"),
        ("GET", "/v1/models/foo/versions/" + "9" * 5000, "Failed to convert version"),  # too long for int(), too
    ],
)
def test_malformed_requests_are_refused_with_400(method: str, path: str, message: str) -> None:
    with pytest.raises(RequestError) as refused:
        parse_call(method, path)
    assert refused.value.status == 400
    assert refused.value.message.startswith(message)


@pytest.mark.parametrize(
    ("call", "unloaded", "unknown"),
    [
        (
            Call("predict", "foo"),
            "Servable not found for request: Latest(foo)",
            "Could not find any versions of model foo",
        ),
        (
            Call("predict", "foo", 50),
            "Servable not found for request: Specific(foo, 50)",
            "Could not find version 50 of model foo",
        ),
    ],
)
def test_what_is_not_there_is_refused_with_404(call: Call, unloaded: str, unknown: str) -> None:
    assert (call.unloaded().status, call.unloaded().message) == (404, unloaded)
    assert (call.unknown().status, call.unknown().message) == (404, unknown)


def test_labels_are_refused() -> None:
    check_label(Call("predict", "foo", 3))
    with pytest.raises(RequestError, match="Unrecognized servable version label: stable") as refused:
        check_label(Call("predict", "foo", label="stable"))
    assert refused.value.status == 400


class _Coded(Exception):
    def __init__(self, error_code: int) -> None:
        super().__init__("words")
        self.error_code = error_code


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (_Coded(3), ("INVALID_ARGUMENT", "words")),
        (_Coded(5), ("NOT_FOUND", "words")),
        (_Coded(15), ("DATA_LOSS", "words")),
        (_Coded(99), ("UNKNOWN", "words")),
        (FileNotFoundError("no file"), ("NOT_FOUND", "no file")),
        (MemoryError(), ("RESOURCE_EXHAUSTED", "out of memory")),
        (ValueError("odd"), ("UNKNOWN", "odd")),
        (KeyError(), ("UNKNOWN", "KeyError")),  # never an empty message
    ],
)
def test_exceptions_have_canonical_codes(error: Exception, expected: tuple[str, str]) -> None:
    assert error_of(error) == expected


def test_the_error_document_is_an_envelope() -> None:
    assert json.loads(error_document('a "quoted"\nword')) == {"error": 'a "quoted"\nword'}


def test_the_status_document_has_numbers_of_64_bits_as_strings() -> None:
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
    "examples": Signature({"e": TensorSpec("DT_STRING", (-1,))}, {}, "tensorflow/serving/regress"),
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


@pytest.mark.parametrize("name", ["", "serving_default"])
def test_the_default_signature_needs_no_name(name: str) -> None:
    assert signature_for("predict", name, SIGNATURES) is SIGNATURES["serving_default"]


@pytest.mark.parametrize(
    ("verb", "name", "status", "message"),
    [
        ("predict", "foo", 400, 'Serving signature name: "foo" not found in signature def'),
        (
            "predict",
            "__saved_model_init_op",
            400,
            "Failed to get input map for signature: __saved_model_init_op",
        ),
        ("classify", "foo", 400, "No signature was found with the name: foo"),
        (
            "classify",
            "",
            400,
            "Expected classification signature method_name to be tensorflow/serving/classify. "
            "Was: tensorflow/serving/predict",
        ),
        (
            "regress",
            "",
            400,
            "Expected regression signature method_name to be tensorflow/serving/regress. "
            "Was: tensorflow/serving/predict",
        ),
        (
            "regress",
            "examples",
            501,
            "this server only predicts; use :predict, or TensorFlow Serving itself to regress",
        ),
    ],
)
def test_signatures_that_are_not_there_or_for_another_verb(verb: str, name: str, status: int, message: str) -> None:
    with pytest.raises(RequestError) as refused:
        signature_for(verb, name, SIGNATURES)
    assert (refused.value.status, refused.value.message) == (status, message)
