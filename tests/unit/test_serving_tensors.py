"""JSON to tensors and back: shapes, types and fields as in TensorFlow Serving, and a 4xx for everything else."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from odkeras.errors import RequestError
from odkeras.serving.json_tensors import PredictRequest, encode_outputs
from odkeras.serving.protocol import TensorSpec, error_document

UINT64_MAX = 2**64 - 1


def decode(body: str | bytes, **dtypes: str | TensorSpec) -> dict[str, Any]:
    """Inputs of a request, for a signature whose inputs have these types (of any shape)."""
    specs = {
        name: TensorSpec(f"DT_{dtype.upper()}", None) if isinstance(dtype, str) else dtype
        for name, dtype in dtypes.items()
    }
    return PredictRequest.parse(body.encode() if isinstance(body, str) else body).decode(specs)


def error_of(body: str | bytes, **dtypes: str | TensorSpec) -> RequestError:
    with pytest.raises(RequestError) as caught:
        decode(body, **dtypes)
    return caught.value


@pytest.mark.parametrize(
    ("dtype", "instances", "expected"),
    [
        ("int32", "[[1,2],[3,4],[5,6]]", np.array([[1, 2], [3, 4], [5, 6]], np.int32)),
        ("int32", "[[],[]]", np.zeros((2, 0), np.int32)),  # rows without elements
        ("float", "[1, 2.0, 5.003, -2.5E-2]", np.array([1, 2, 5.003, -0.025], np.float32)),
        ("float", "[NaN, Infinity, -Infinity]", np.array([np.nan, np.inf, -np.inf], np.float32)),
        ("float", "[16777217.0]", np.array([16777216], np.float32)),  # decimal numbers are rounded
        ("uint8", "[[[0, 255, 7]]]", np.array([[[0, 255, 7]]], np.uint8)),
        ("uint64", f"[{UINT64_MAX}]", np.array([UINT64_MAX], np.uint64)),
        ("bool", "[true, false]", np.array([True, False])),
        ("string", '[{"b64": "aGVsbG8="}, "b\\u00e4r"]', np.array([b"hello", "bär".encode()], object)),
        ("string", '[{"b64": "aGVs\\nbG8"}, {"b64": ""}]', np.array([b"hello", b""], object)),  # no padding, line break
        ("string", '[{"x": [{"b64": "aGVsbG8="}, "d"]}]', np.array([[b"hello", b"d"]], object)),  # named
    ],
)
def test_rows_become_one_tensor(dtype: str, instances: str, expected: npt.NDArray[Any]) -> None:
    x = decode(f'{{"instances": {instances}}}', x=dtype)["x"]
    assert x.dtype == expected.dtype
    np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [
        ("int32", '{"x": [[1,2]], "unknown": "ignored"}', np.array([[1, 2]], np.int32)),
        ("float", "2.5", np.array(2.5, np.float32)),  # a scalar
        ("string", '{"b64": "aGVsbG8="}', np.array(b"hello", object)),
        ("float", "[]", np.zeros(0, np.float32)),
    ],
)
def test_columns_become_tensors(dtype: str, value: str, expected: npt.NDArray[Any]) -> None:
    x = decode(f'{{"inputs": {value}}}', x=dtype)["x"]
    assert (x.dtype, x.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(x, expected)


def test_several_named_inputs() -> None:
    """In columns they need not have the same length."""
    rows = decode('{"instances": [{"i": [1, 2], "s": ["a"]}, {"s": ["b"], "i": [3, 4]}]}', i="int32", s="string")
    assert (rows["i"].tolist(), rows["s"].tolist()) == ([[1, 2], [3, 4]], [[b"a"], [b"b"]])
    columns = decode('{"inputs": {"i": [[[1,2],[3,4]]], "s": {"b64": "aGVsbG8="}}}', i="int32", s="string")
    assert (columns["i"].shape, columns["s"].shape, columns["s"].item()) == ((1, 2, 2), (), b"hello")


@pytest.mark.parametrize(
    "body",
    [
        "",
        '{"instances": [1, 2]} x',
        b'{"instances": ["\xff"]}',
        '{"instances": ' + "[" * 100_000,
        '{"instances": [' + "9" * 5000 + "]}",
        "[1, 2]",
        "{}",
        '{"instances": [1], "inputs": [1]}',
        '{"instances": {"x": [1]}}',
        '{"instances": []}',
        '{"signature_name": 7, "instances": [1]}',
    ],
)
def test_a_body_that_is_no_predict_request_is_refused(body: str | bytes) -> None:
    assert error_of(body, x="float").status == 400


@pytest.mark.parametrize(
    ("dtype", "instances"),
    [
        ("int32", "[[1,2],[3,4],[5,6,7]]"),
        ("int32", "[[], [1]]"),
        ("int32", "[" * 70 + "1" + "]" * 70),  # deeper than a tensor can be
        ("int32", "[1.0]"),
        ("int32", "[1, true]"),
        ("int32", "[null]"),
        ("int32", '[{"b64": "aGVsbG8="}]'),
        ("uint8", "[[3, 256]]"),
        ("uint8", "[-1]"),
        ("int64", "[9223372036854775808]"),
        ("float", '["NaN"]'),
        ("float", "[0.5, 16777217]"),  # a whole number that float32 does not have
        ("float", "[1e39]"),
        ("bool", "[1]"),
        ("string", "[1]"),
        ("string", '[{"b64": "?"}]'),
        ("string", '[{"b64": "aGVsbG8-"}]'),  # the alphabet of URLs
        ("string", '[[{"b64": 1}]]'),
        ("int32", '[[1], {"x": [1]}]'),
        ("int32", '[{"x": 1}, {"x": 1, "y": 2}]'),
    ],
)
def test_rows_that_do_not_fit_the_signature_are_refused(dtype: str, instances: str) -> None:
    error = error_of(f'{{"instances": {instances}}}', x=dtype)
    assert error.status == 400
    assert "input 'x'" in error.message or "of 'instances' must be an object" in error.message


@pytest.mark.parametrize(
    "body",
    [
        '{"inputs": [1, 2]}',
        '{"inputs": {"i": [1]}}',
        '{"instances": [1, 2]}',
        '{"instances": [{"i": 1}]}',
        '{"instances": [{"i": [1], "s": "a"}, {"i": 1, "s": "b"}]}',
    ],
)
def test_values_of_several_inputs_that_do_not_fit_are_refused(body: str) -> None:
    error = error_of(body, i="int32", s="string")
    assert error.status == 400 and "'i'" in error.message


def test_types_that_json_cannot_carry_are_not_implemented() -> None:
    assert error_of('{"inputs": [1.0]}', x="half").status == 501


@pytest.mark.parametrize(
    ("shape", "instances", "fits"),
    [
        ((-1, -1, -1, 3), "[[[[1, 2, 3], [4, 5, 6]]]]", True),
        ((-1, -1, -1, 3), "[[[[1, 2]]]]", False),
        ((-1, 2), "[1, 2]", False),
        ((1,), "[1, 2]", False),
        (None, "[1]", True),
    ],
)
def test_shapes_must_match_the_signature(shape: tuple[int, ...] | None, instances: str, fits: bool) -> None:
    spec = TensorSpec("DT_UINT8", shape)
    body = f'{{"instances": {instances}}}'
    if fits:
        assert decode(body, x=spec)
    else:
        error = error_of(body, x=spec)
        assert error.status == 400 and error.message.startswith("input 'x' has shape [")


def test_an_error_quotes_a_long_value_in_part() -> None:
    assert len(error_of(json.dumps({"instances": ["x" * 5000]}), x="float").message) < 200


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(10**300, 10**301)
    | st.floats()
    | st.text(max_size=5)
    | st.fixed_dictionaries({"b64": st.text("AYQ= -é", max_size=9)}),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.sampled_from(["i", "s", "b64", "z"]), values),
    max_leaves=12,
)
DTYPES = st.sampled_from(["FLOAT", "DOUBLE", "INT8", "INT64", "UINT64", "BOOL", "STRING", "HALF"])


@given(
    document=st.dictionaries(st.sampled_from(["instances", "inputs", "signature_name"]), JSON) | JSON,
    dtypes=st.dictionaries(st.sampled_from(["i", "s"]), DTYPES, min_size=1),
    cut=st.integers(0, 5),
)
def test_any_body_is_decoded_or_refused(document: Any, dtypes: dict[str, str], cut: int) -> None:
    """Any other exception would be a 500."""
    body = json.dumps(document).encode()
    try:
        inputs = decode(body[: len(body) - cut], **dtypes)
    except RequestError as error:
        assert error.status == 400 or (error.status == 501 and "HALF" in dtypes.values())
        assert json.loads(error_document(error.message)) == {"error": error.message}
    else:
        assert inputs.keys() == dtypes.keys()


BYTES_TENSOR = np.array([[b"hello", b"world"], [b"tf", b"serving"]], object)
B64 = [[{"b64": "aGVsbG8="}, {"b64": "d29ybGQ="}], [{"b64": "dGY="}, {"b64": "c2VydmluZw=="}]]


@pytest.mark.parametrize(
    ("name", "array", "expected"),
    [
        ("x", np.array([[[1, 2], [3, 4]]], np.int32), [[[1, 2], [3, 4]]]),
        ("x", np.array([UINT64_MAX], np.uint64), [UINT64_MAX]),
        ("x", np.array([0.5, 1.5], np.float16), [0.5, 1.5]),
        ("x", np.zeros((2, 0), np.float32), [[], []]),
        ("x_bytes", BYTES_TENSOR, B64),  # the suffix marks binary strings
        ("x", np.array(["bär".encode(), b"\xff"], object), ["bär", "\ufffd"]),
    ],
)
def test_a_single_output_has_no_name(name: str, array: npt.NDArray[Any], expected: object) -> None:
    assert json.loads(encode_outputs({name: array}, row_format=True)) == {"predictions": expected}
    assert json.loads(encode_outputs({name: array}, row_format=False)) == {"outputs": expected}


def test_several_outputs_have_names() -> None:
    outputs = {"f": np.array([[1], [2]], np.float32), "d": np.array([8.0, 9.0]), "s_bytes": BYTES_TENSOR}
    rows = [{"f": [1.0], "d": 8.0, "s_bytes": B64[0]}, {"f": [2.0], "d": 9.0, "s_bytes": B64[1]}]
    columns = {"f": [[1.0], [2.0]], "d": [8.0, 9.0], "s_bytes": B64}
    assert json.loads(encode_outputs(outputs, row_format=True)) == {"predictions": rows}
    assert json.loads(encode_outputs(outputs, row_format=False)) == {"outputs": columns}


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.array([0.1, 3, -0.0], np.float32), "[0.1,3.0,-0.0]"),  # not 0.10000000149011612
        (np.array([np.nan, np.inf, -np.inf]), "[NaN,Infinity,-Infinity]"),
    ],
)
def test_numbers_are_short_and_exact(array: npt.NDArray[Any], text: str) -> None:
    assert encode_outputs({"x": array}, row_format=False) == f'{{"outputs":{text}}}'.encode()


@given(st_numpy.arrays(np.float32, st_numpy.array_shapes(max_dims=3, max_side=4), elements=st.floats(width=32)))
def test_a_float32_survives_the_way_there_and_back(array: npt.NDArray[np.float32]) -> None:
    body = encode_outputs({"x": array}, row_format=False)
    inputs = decode(b'{"inputs":' + body.removeprefix(b'{"outputs":'), x="float")
    np.testing.assert_array_equal(inputs["x"], array)


@pytest.mark.parametrize(
    "outputs",
    [
        {},
        {"x": np.array([1j, 2j], np.complex64)},
        {"x": np.array(1)},
        {"x": np.zeros((0, 3))},
        {"a": np.zeros((2, 3), np.int32), "b": np.zeros((1, 3), np.int32)},
    ],
)
def test_outputs_that_rows_cannot_carry_are_refused(outputs: dict[str, npt.NDArray[Any]]) -> None:
    with pytest.raises(RequestError) as caught:
        encode_outputs(outputs, row_format=True)
    assert caught.value.status == 400
