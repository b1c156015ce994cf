"""JSON to tensors and back, row by row as TensorFlow Serving has it."""

from __future__ import annotations

import json
import math
from base64 import b64decode
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from odkeras.errors import RequestError
from odkeras.serving.json_tensors import decode_inputs, encode_outputs, parse_document, signature_name_of
from odkeras.serving.json_values import decode_base64
from odkeras.serving.protocol import TensorSpec

HELLO, WORLD = {"b64": "aGVsbG8="}, {"b64": "d29ybGQ="}


def decode(body: str | bytes, **dtypes: str | TensorSpec) -> tuple[dict[str, Any], bool]:
    """Inputs of a request, for a signature whose inputs have these types (of any shape)."""
    specs = {
        name: TensorSpec(f"DT_{dtype.upper()}", None) if isinstance(dtype, str) else dtype
        for name, dtype in dtypes.items()
    }
    data = body.encode() if isinstance(body, str) else body
    return decode_inputs(parse_document(data), specs, data)


def refusal(body: str | bytes, **dtypes: str | TensorSpec) -> tuple[int, str]:
    with pytest.raises(RequestError) as refused:
        decode(body, **dtypes)
    return refused.value.status, refused.value.message


@pytest.mark.parametrize(
    ("dtype", "instances", "expected"),
    [
        ("int32", "[[1,2],[3,4],[5,6]]", np.array([[1, 2], [3, 4], [5, 6]], np.int32)),
        ("int32", "[1]", np.array([1], np.int32)),
        ("int32", "[[],[]]", np.zeros((2, 0), np.int32)),  # rows without elements
        ("float", "[1, 2.0, 3, 4, 5.003, 0.007, 0.0]", np.array([1, 2, 3, 4, 5.003, 0.007, 0], np.float32)),
        ("double", "[1.0, 2, 0.662]", np.array([1, 2, 0.662])),
        ("float", "[1e3, -2.5E-2]", np.array([1000, -0.025], np.float32)),
        ("float", "[NaN, Infinity, -Infinity]", np.array([np.nan, np.inf, -np.inf], np.float32)),
        ("double", "[NaN, Infinity]", np.array([np.nan, np.inf])),
        ("float", "[16777215]", np.array([16777215], np.float32)),  # the last of the whole numbers it has all
        ("float", "[16777217.0]", np.array([16777216], np.float32)),  # decimal numbers are rounded
        ("float", "[18446744073709551616]", np.array([2.0**64], np.float32)),  # longer than 64 bits: read as decimal
        ("float", "[3.4028234e38]", np.array([3.4028234e38], np.float32)),
        ("float", "[1e-60]", np.array([0], np.float32)),
        ("uint8", "[[[0, 255, 7]]]", np.array([[[0, 255, 7]]], np.uint8)),
        ("int8", "[-128, 127]", np.array([-128, 127], np.int8)),
        ("int16", "[-32768]", np.array([-32768], np.int16)),
        ("int64", "[-9223372036854775808, 9223372036854775807]", np.array([-(2**63), 2**63 - 1], np.int64)),
        ("uint32", "[4294967295]", np.array([2**32 - 1], np.uint32)),
        ("uint64", "[18446744073709551615]", np.array([2**64 - 1], np.uint64)),
        ("bool", "[true, false]", np.array([True, False])),
        ("string", '["foo", "b\\u00e4r"]', np.array([b"foo", "bär".encode()], object)),
        ("string", '[{"b64": "aGVsbG8="}, {"b64": "d29ybGQ="}]', np.array([b"hello", b"world"], object)),
        ("string", '[[{"b64": "aGVsbG8="}], [{"b64": "d29ybGQ="}]]', np.array([[b"hello"], [b"world"]], object)),
        ("string", '[{"b64": "aGVsbG8="}, "plain"]', np.array([b"hello", b"plain"], object)),
        ("string", '[{"b64": "aGVs\\nbG8"}]', np.array([b"hello"], object)),  # line break, no padding
        ("string", '[{"b64": ""}]', np.array([b""], object)),
        ("string", '[{"b64": "/+8="}]', np.array([b"\xff\xef"], object)),
        ("string", '[{"x": [{"b64": "aGVsbG8="}, "d"]}]', np.array([[b"hello", b"d"]], object)),  # named
        ("int32", '[{"x": [1, 2]}, {"x": [3, 4]}]', np.array([[1, 2], [3, 4]], np.int32)),
    ],
)
def test_rows_become_one_tensor(dtype: str, instances: str, expected: npt.NDArray[Any]) -> None:
    inputs, row_format = decode(f'{{"instances": {instances}}}', x=dtype)
    assert row_format
    assert inputs["x"].dtype == expected.dtype
    np.testing.assert_array_equal(inputs["x"], expected)


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [
        ("int32", "[[[1,2],[3,4],[5,6]]]", np.array([[[1, 2], [3, 4], [5, 6]]], np.int32)),
        ("int32", '{"x": [[1,2]]}', np.array([[1, 2]], np.int32)),
        ("int32", '{"x": [[1,2]], "unknown": "left alone"}', np.array([[1, 2]], np.int32)),
        ("float", "2.5", np.array(2.5, np.float32)),  # a scalar
        ("float", '{"x": 2}', np.array(2, np.float32)),
        ("string", '{"b64": "aGVsbG8="}', np.array(b"hello", object)),
        ("string", '["foo", "bar"]', np.array([b"foo", b"bar"], object)),
        ("float", "[]", np.zeros(0, np.float32)),
        ("int32", "[]", np.zeros(0, np.int32)),
    ],
)
def test_columns_become_tensors(dtype: str, value: str, expected: npt.NDArray[Any]) -> None:
    inputs, row_format = decode(f'{{"inputs": {value}}}', x=dtype)
    assert not row_format
    assert inputs["x"].dtype == expected.dtype
    assert inputs["x"].shape == expected.shape
    np.testing.assert_array_equal(inputs["x"], expected)


def test_several_named_inputs_in_rows() -> None:
    body = """{"instances": [
        {"i": [[1,2],[3,4],[5,6]], "s": ["foo", "bar"], "f": [1.0, NaN], "d": [NaN]},
        {"d": [2.0], "f": [2.0, Infinity], "s": ["baz", "bat"], "i": [[7,8],[9,0],[1,2]]}]}"""
    inputs, _ = decode(body, i="int32", s="string", f="float", d="double")
    np.testing.assert_array_equal(inputs["i"], np.array([[[1, 2], [3, 4], [5, 6]], [[7, 8], [9, 0], [1, 2]]], np.int32))
    assert inputs["s"].tolist() == [[b"foo", b"bar"], [b"baz", b"bat"]]
    np.testing.assert_array_equal(inputs["f"], np.array([[1, np.nan], [2, np.inf]], np.float32))
    np.testing.assert_array_equal(inputs["d"], [[np.nan], [2]])


def test_several_named_inputs_in_columns_need_not_have_the_same_length() -> None:
    body = '{"inputs": {"i": [[[1,2],[3,4]]], "s": ["foo", "bar"], "b": {"b64": "aGVsbG8="}}}'
    inputs, _ = decode(body, i="int32", s="string", b="string")
    assert inputs["i"].shape == (1, 2, 2)
    assert inputs["s"].tolist() == [b"foo", b"bar"]
    assert (inputs["b"].shape, inputs["b"].item()) == ((), b"hello")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "JSON Parse error: The document is empty"),
        (" \n ", "JSON Parse error: The document is empty"),
        ("instances = [1, 2]", "JSON Parse error: Invalid value. at offset: 0"),
        ('{"instances": [1, 2]} x', "JSON Parse error: The document root must not be followed by other values."),
        ("{instances: [1]}", "JSON Parse error: Missing a name for object member. at offset: 1"),
        ('{"instances" [1]}', "JSON Parse error: Missing a colon after a name of object member. at offset: 13"),
        ('{"instances": [1 2]}', "JSON Parse error: Missing a comma after an object member or array element."),
        ('{"instances": ["a]}', "JSON Parse error: Missing a closing quotation mark in string."),
        ('{"instances": ["\\x"]}', "JSON Parse error: Invalid escape character in string."),
        ('{"instances": ["\\u12"]}', "JSON Parse error: Incorrect hex digit after \\u escape in string."),
        ('{"instances": ["\n"]}', "JSON Parse error: Invalid encoding in string."),
        (b'{"instances": ["\xff"]}', "JSON Parse error: Invalid encoding in string. at offset: 16"),
        ('{"instances": [nan]}', "JSON Parse error: Invalid value."),
        ('{"instances": ' + "[" * 100_000, "JSON Parse error: nested too deeply"),
        ('{"instances": [1e400]}', "JSON Parse error: Number too big to be stored in double."),
        ('{"inputs": [' + "9" * 400 + "]}", "JSON Parse error: Number too big to be stored in double."),
        ('{"instances": [' + "9" * 5000 + "]}", "JSON Parse error: Number too big to be stored in double."),
        ("[1, 2]", "JSON Value: [1, 2] Is not object"),
        ('"text"', 'JSON Value: "text" Is not object'),
        ("{}", "Missing 'inputs' or 'instances' key"),
        ('{"signature_name": "x"}', "Missing 'inputs' or 'instances' key"),
        (
            '{"instances": [1], "inputs": [1]}',
            'JSON Value: {"instances": [1], "inputs": [1]} Not formatted correctly expecting only one of '
            "'inputs' or 'instances' keys to exist ",
        ),
        ('{"instances": 1}', "JSON Value: {\"instances\": 1} Excepting 'instances' to be an list/array"),
        ('{"instances": {"x": [1]}}', 'JSON Value: {"instances": {"x": [1]}} Excepting'),
        ('{"instances": null}', 'JSON Value: {"instances": null} Excepting'),
        ('{"instances": []}', "JSON Value: {\"instances\": []} No values in 'instances' array"),
    ],
)
def test_requests_that_are_no_requests(body: str | bytes, message: str) -> None:
    status, text = refusal(body, x="float")
    assert status == 400
    assert text.startswith(message)


FAILED = "Failed to process element: {} of 'instances' list. Error: INVALID_ARGUMENT: "
NOT_INT = "JSON Value: {} Type: {} is not of expected type: int32"


@pytest.mark.parametrize(
    ("dtype", "instances", "message"),
    [
        ("int32", "[[1,2],[3,4],[5,6,7]]", FAILED.format(2) + "Expecting tensor size: 2 but got: 3"),  # ragged
        ("int32", "[[1,2],[3,4],[[5,6]]]", FAILED.format(2) + "Expecting shape [2] but got: [1,2]"),
        ("int32", "[1, [1]]", FAILED.format(1) + "Expecting shape [] but got: [1]"),
        (
            "int32",
            "[[[1],[2,3]]]",
            FAILED.format(0) + "Encountered list at unexpected size: 2 at level: 1 expected size: 1",
        ),
        (
            "int32",
            "[[1,[2]]]",
            FAILED.format(0) + "Encountered list at unexpected level: 1 expected < 1",
        ),
        (
            "int32",
            "[[[1],2]]",
            FAILED.format(0) + "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2",
        ),
        ("int32", '[[1,2],["a", "b"]]', FAILED.format(1) + NOT_INT.format('"a"', "String")),
        ("int32", "[1.0]", FAILED.format(0) + NOT_INT.format("1.0", "Number")),  # a decimal number for a whole one
        ("int32", "[1, true]", FAILED.format(1) + NOT_INT.format("true", "True")),
        ("int32", "[false]", FAILED.format(0) + NOT_INT.format("false", "False")),
        ("int32", "[null]", FAILED.format(0) + NOT_INT.format("null", "Null")),
        ("int32", "[2147483648]", FAILED.format(0) + NOT_INT.format("2147483648", "Number")),  # overflow
        ("int32", '[{"b64": "aGVsbG8="}]', FAILED.format(0) + NOT_INT.format('{"b64": "aGVsbG8="}', "Object")),
        ("int32", "[NaN]", FAILED.format(0) + NOT_INT.format("NaN", "Number")),
        ("uint8", "[256]", FAILED.format(0) + "JSON Value: 256 Type: Number is not of expected type: uint8"),
        ("uint8", "[-1]", FAILED.format(0) + "JSON Value: -1 Type: Number is not of expected type: uint8"),
        ("int64", "[9223372036854775808]", FAILED.format(0) + "JSON Value: 9223372036854775808 Type: Number"),
        ("uint64", "[-1]", FAILED.format(0) + "JSON Value: -1 Type: Number is not of expected type: uint64"),
        ("float", '["x"]', FAILED.format(0) + 'JSON Value: "x" Type: String is not of expected type: float'),
        ("float", "[true]", FAILED.format(0) + "JSON Value: true Type: True is not of expected type: float"),
        ("float", '["NaN"]', FAILED.format(0) + 'JSON Value: "NaN" Type: String is not of expected type: float'),
        (
            "float",
            "[16777217]",
            FAILED.format(0) + "Cannot convert JSON value: 16777217 to float without loss of precision.",
        ),
        (
            "float",
            "[-16777217]",
            FAILED.format(0) + "Cannot convert JSON value: -16777217 to float without loss of precision.",
        ),
        (
            "float",
            "[1.7976931348623157e+308]",
            FAILED.format(0) + "Cannot convert JSON value: 1.7976931348623157e+308 to float",
        ),
        (
            "double",
            "[9007199254740993]",
            FAILED.format(0) + "Cannot convert JSON value: 9007199254740993 to double without loss of precision.",
        ),
        ("bool", "[1]", FAILED.format(0) + "JSON Value: 1 Type: Number is not of expected type: bool"),
        ("string", "[1]", FAILED.format(0) + "JSON Value: 1 Type: Number is not of expected type: string"),
        ("string", "[null]", FAILED.format(0) + "JSON Value: null Type: Null is not of expected type: string"),
        ("string", '[{"b64": "?"}]', FAILED.format(0) + "Unable to base64 decode"),
        ("string", '[{"b64": "a"}]', FAILED.format(0) + "Unable to base64 decode"),  # a length that no data has
        ("string", '[{"b64": "aGVsbG8-"}]', FAILED.format(0) + "Unable to base64 decode"),  # the alphabet of URLs
        (
            "string",
            '[[{"b64": 1}]]',
            FAILED.format(0) + 'JSON Value: {"b64": 1} not formatted correctly for base64 data',
        ),
        (
            "string",
            '[{"b64": "aGVsbG8=", "more": 1}]',
            "Failed to process element: 0 key: b64 of 'instances' list. Error: INVALID_ARGUMENT: "
            "JSON object: does not have named input: b64",
        ),
        ("half", "[1.0]", "Failed to process element: 0 of 'instances' list. Error: UNIMPLEMENTED: Conversion of JSON"),
        ("int32", '[[1], {"x": [1]}]', "Expecting value/list but got object at item 1 of input list"),
        ("int32", '[{"x": [1]}, [1]]', "Expecting object but got list at item 1 of input list"),
        (
            "int32",
            '[{"x": 1, "y": 2}]',
            "Failed to process element: 0 key: y of 'instances' list. Error: INVALID_ARGUMENT: "
            "JSON object: does not have named input: y",
        ),
        (
            "int32",
            "[{}]",
            "Failed to process element: 0 of 'instances' list. JSON object: {} keys must be equal to: x",
        ),
        (
            "int32",
            '[{"x": [1]}, {"x": ["a"]}]',
            "Failed to process element: 1 key: x of 'instances' list. Error: INVALID_ARGUMENT: "
            + NOT_INT.format('"a"', "String"),
        ),
        ("int32", "[" + "[" * 70 + "1" + "]" * 70 + "]", "lists are nested 71 deep"),
    ],
)
def test_rows_that_do_not_fit_name_the_first_wrong_value(dtype: str, instances: str, message: str) -> None:
    status, text = refusal(f'{{"instances": {instances}}}', x=dtype)
    assert status == 400
    assert text.startswith(message)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[1, 2]", "inputs is a plain value/list, but expecting an object as multiple input tensors required"),
        ('{"b64": "aGVsbG8="}', "inputs is a plain value/list"),
        ('{"i": [1]}', "Missing named input: s in 'inputs' object."),
        ('{"i": [1, [2]], "s": []}', "Encountered list at unexpected level: 1 expected < 1"),
        ('{"i": {"j": 1}, "s": []}', 'JSON Value: {"j": 1} Type: Object is not of expected type: int32'),
        ('{"i": [1], "s": {"a": 1}}', 'JSON Value: {"a": 1} not formatted correctly for base64 data'),
    ],
)
def test_columns_that_do_not_fit(value: str, message: str) -> None:
    status, text = refusal(f'{{"inputs": {value}}}', i="int32", s="string")
    assert status == 400
    assert text.startswith(message)


@pytest.mark.parametrize(
    ("instances", "message"),
    [
        ("[1, 2]", "instances is a plain list, but expecting list of objects as multiple input tensors required"),
        (
            '[{"i": 1}]',
            "Failed to process element: 0 of 'instances' list. JSON object: {\"i\": 1} keys must be equal to: i,s",
        ),
        (
            '[{"i": [[1,2],[3,4],[5,6],[7,8]], "s": "a"}, {"i": [[7,8],[9,0],[1,2]], "s": "b"}]',
            "Failed to process element: 1 key: i of 'instances' list. Error: INVALID_ARGUMENT: "
            "Expecting tensor size: 8 but got: 6",
        ),
        (
            '[{"b64": "aGVsbG8="}]',  # binary, so it is a plain value, for the first input
            "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: JSON Value",
        ),
    ],
)
def test_rows_of_several_inputs_that_do_not_fit(instances: str, message: str) -> None:
    status, text = refusal(f'{{"instances": {instances}}}', i="int32", s="string")
    assert status == 400
    assert text.startswith(message)


def test_a_plain_binary_value_for_several_inputs_lacks_one() -> None:
    status, text = refusal('{"instances": [{"b64": "aGVsbG8="}]}', a="string", b="string")
    assert status == 400
    assert text == (
        "input size does not match signature: 1!=2 len({a}) != len({a,b}). Sent extra: {}. Missing but required: {b}."
    )


def test_types_without_a_json_form_are_not_implemented() -> None:
    assert refusal('{"inputs": [1.0]}', x="half") == (501, "Conversion of JSON Value: 1.0 to type: half")
    assert refusal('{"inputs": []}', x="half") == (501, "Conversion of JSON to type: half")


@pytest.mark.parametrize(
    ("shape", "instances", "fits"),
    [
        ((-1, -1, -1, 3), "[[[[1, 2, 3], [4, 5, 6]]]]", True),
        ((-1, -1, -1, 3), "[[[[1, 2]]]]", False),
        ((-1, 2), "[1, 2]", False),
        ((1,), "[1, 2]", False),
        ((), "[1]", False),
        (None, "[1]", True),
    ],
)
def test_shapes_must_be_those_of_the_signature(shape: tuple[int, ...] | None, instances: str, fits: bool) -> None:
    spec = TensorSpec("DT_UINT8", shape)
    body = f'{{"instances": {instances}}}'
    if fits:
        assert decode(body, x=spec)
    else:
        status, text = refusal(body, x=spec)
        assert status == 400
        assert text.startswith("input 'x' has shape [")
        assert "but the signature expects [" in text


def test_long_values_are_quoted_in_part() -> None:
    _, text = refusal(json.dumps({"instances": ["x" * 5000]}), x="float")
    assert len(text) < 400


@pytest.mark.parametrize("name", [100, ["hello"], None])
def test_a_signature_name_must_be_a_string(name: object) -> None:
    with pytest.raises(RequestError, match="'signature_name' key must be a string value") as refused:
        signature_name_of({"signature_name": name})
    assert refused.value.status == 400


def test_a_signature_name_may_be_missing() -> None:
    assert signature_name_of({"instances": [1]}) == ""
    assert signature_name_of({"signature_name": "image_tensor"}) == "image_tensor"


def test_a_byte_order_mark_is_skipped() -> None:
    assert parse_document(b'\xef\xbb\xbf{"inputs": 1}') == {"inputs": 1}


def test_an_infinity_beside_a_long_text_with_that_word_is_taken_for_one() -> None:
    inputs, _ = decode('{"inputs": {"f": [1e400], "s": ["Infinity"]}}', f="float", s="string")
    assert np.isinf(inputs["f"]).all()


INT_TENSOR = np.array([[[1, 2], [3, 4], [5, 6]], [[7, 8], [9, 0], [1, 2]]], np.int32)
BYTES_TENSOR = np.array([[b"hello", b"world"], [b"tf", b"serving"]], object)
B64 = [[{"b64": "aGVsbG8="}, {"b64": "d29ybGQ="}], [{"b64": "dGY="}, {"b64": "c2VydmluZw=="}]]


@pytest.mark.parametrize(
    ("name", "array", "expected"),
    [
        ("x", INT_TENSOR, INT_TENSOR.tolist()),
        ("x", np.array([1, 2, 3, 4, 5], np.int64), [1, 2, 3, 4, 5]),
        ("x", np.array([True, False]), [True, False]),
        ("x", np.array([2**64 - 1], np.uint64), [2**64 - 1]),
        ("x", np.array([[7]], np.uint8), [[7]]),
        ("x", np.array([0.1, 3, 1e-5], np.float64), [0.1, 3.0, 1e-5]),
        ("x", np.array([0.5, 1.5], np.float16), [0.5, 1.5]),
        ("x", np.zeros((2, 0), np.float32), [[], []]),
        ("x_bytes", BYTES_TENSOR, B64),  # the suffix tells binary strings
        ("x", BYTES_TENSOR, [["hello", "world"], ["tf", "serving"]]),
        ("x", np.array(["bär".encode(), b"\xff"], object), ["bär", "\ufffd"]),
    ],
)
def test_one_output_goes_without_its_name(name: str, array: npt.NDArray[Any], expected: object) -> None:
    assert json.loads(encode_outputs({name: array}, row_format=True)) == {"predictions": expected}
    assert json.loads(encode_outputs({name: array}, row_format=False)) == {"outputs": expected}


def test_several_outputs_go_by_name() -> None:
    outputs = {
        "i": INT_TENSOR,
        "f": np.array([[1], [2]], np.float32),
        "d": np.array([8.0, 9.0]),
        "s_bytes": BYTES_TENSOR,
    }
    rows = [
        {"i": INT_TENSOR[0].tolist(), "f": [1.0], "d": 8.0, "s_bytes": B64[0]},
        {"i": INT_TENSOR[1].tolist(), "f": [2.0], "d": 9.0, "s_bytes": B64[1]},
    ]
    columns = {"i": INT_TENSOR.tolist(), "f": [[1.0], [2.0]], "d": [8.0, 9.0], "s_bytes": B64}
    assert json.loads(encode_outputs(outputs, row_format=True)) == {"predictions": rows}
    assert json.loads(encode_outputs(outputs, row_format=False)) == {"outputs": columns}


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.array([0.1, 0.2], np.float32), "[0.1,0.2]"),  # not 0.10000000149011612
        (np.array([3, -0.0], np.float32), "[3.0,-0.0]"),  # decimal numbers stay so
        (np.array([9000000, 0.00003], np.float32), "[9e+06,3e-05]"),
        (np.array([0.33333334, 16777216], np.float32), "[0.33333334,1.6777216e+07]"),
        (np.array([np.nan, np.inf, -np.inf, 3], np.float32), "[NaN,Infinity,-Infinity,3.0]"),
        (np.array([np.nan, np.inf]), "[NaN,Infinity]"),
    ],
)
def test_numbers_are_short_and_exact(array: npt.NDArray[Any], text: str) -> None:
    assert encode_outputs({"x": array}, row_format=False) == f'{{"outputs":{text}}}'.encode()


@given(st_numpy.arrays(np.float32, st_numpy.array_shapes(max_dims=3, max_side=4), elements=st.floats(width=32)))
def test_a_float32_survives_the_way_there_and_back(array: npt.NDArray[np.float32]) -> None:
    answer = encode_outputs({"x": array}, row_format=False)
    inputs, _ = decode(b'{"inputs":' + answer.removeprefix(b'{"outputs":'), x="float")
    np.testing.assert_array_equal(inputs["x"], array)


def test_a_hundred_boxes_take_less_than_ten_kilobytes() -> None:
    random = np.random.default_rng(0)
    outputs = {
        "detection_boxes": random.random((1, 100, 4), np.float32),
        "detection_scores": random.random((1, 100), np.float32),
        "detection_classes": np.ones((1, 100), np.float32),
        "num_detections": np.array([100], np.float32),
    }
    assert len(encode_outputs(outputs, row_format=True)) < 10_000


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({}, "Cannot convert empty tensor map to JSON"),
        ({"x": np.array([1j, 2j], np.complex64)}, "Failed to write JSON value for tensor type: complex64"),
        ({"x": np.array(1)}, "Tensor name: x has no shape information "),
        ({"x": np.zeros((0, 3))}, "Tensor name: x has invalid batch size: 0"),
        (
            {"a": np.zeros((2, 3), np.int32), "b": np.zeros((1, 3), np.int32)},
            "Tensor name: b has inconsistent batch size: 1 expecting: 2",
        ),
    ],
)
def test_outputs_that_rows_cannot_carry(outputs: dict[str, npt.NDArray[Any]], message: str) -> None:
    with pytest.raises(RequestError) as refused:
        encode_outputs(outputs, row_format=True)
    assert (refused.value.status, refused.value.message) == (400, message)


def test_a_scalar_output_goes_in_columns() -> None:
    assert math.isclose(json.loads(encode_outputs({"x": np.array(1.5)}, row_format=False))["outputs"], 1.5)


@given(st.text(alphabet="AYQ= -é", max_size=12))
def test_base64_is_read_as_the_standard_library_reads_it_strictly(text: str) -> None:
    compact = "".join(text.split()).rstrip("=")
    padded = compact + "=" * (-len(compact) % 4)
    try:
        expected: bytes | None = b64decode(padded, validate=True)
    except ValueError:
        expected = None
    try:
        assert decode_base64(text) == expected
    except ValueError:
        assert expected is None
