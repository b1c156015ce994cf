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
        ("int32", "[1]", np.array([1], np.int32)),
        ("int32", "[[],[]]", np.zeros((2, 0), np.int32)),  # rows without elements
        ("float", "[1, 2.0, 5.003, 0.0, 1e3, -2.5E-2]", np.array([1, 2, 5.003, 0, 1000, -0.025], np.float32)),
        ("double", "[1.0, 2, 0.662]", np.array([1, 2, 0.662])),
        ("float", "[NaN, Infinity, -Infinity]", np.array([np.nan, np.inf, -np.inf], np.float32)),
        ("float", "[16777215]", np.array([16777215], np.float32)),  # the largest whole number without a gap below it
        ("float", "[16777217.0]", np.array([16777216], np.float32)),  # decimal numbers are rounded
        ("float", "[3.4028234e38]", np.array([3.4028234e38], np.float32)),
        ("uint8", "[[[0, 255, 7]]]", np.array([[[0, 255, 7]]], np.uint8)),
        ("int8", "[-128, 127]", np.array([-128, 127], np.int8)),
        ("int64", "[-9223372036854775808, 9223372036854775807]", np.array([-(2**63), 2**63 - 1], np.int64)),
        ("uint64", "[18446744073709551615]", np.array([2**64 - 1], np.uint64)),
        ("bool", "[true, false]", np.array([True, False])),
        ("string", '["foo", "b\\u00e4r"]', np.array([b"foo", "bär".encode()], object)),
        ("string", '[{"b64": "aGVsbG8="}, "plain"]', np.array([b"hello", b"plain"], object)),
        ("string", '[[{"b64": "aGVsbG8="}], [{"b64": "/+8="}]]', np.array([[b"hello"], [b"\xff\xef"]], object)),
        ("string", '[{"b64": "aGVs\\nbG8"}, {"b64": ""}]', np.array([b"hello", b""], object)),  # no padding, line break
        ("string", '[{"x": [{"b64": "aGVsbG8="}, "d"]}]', np.array([[b"hello", b"d"]], object)),  # named
        ("int32", '[{"x": [1, 2]}, {"x": [3, 4]}]', np.array([[1, 2], [3, 4]], np.int32)),
    ],
)
def test_rows_become_one_tensor(dtype: str, instances: str, expected: npt.NDArray[Any]) -> None:
    x = decode(f'{{"instances": {instances}}}', x=dtype)["x"]
    assert x.dtype == expected.dtype
    np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [
        ("int32", "[[[1,2],[3,4],[5,6]]]", np.array([[[1, 2], [3, 4], [5, 6]]], np.int32)),
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


def test_several_named_inputs_in_rows() -> None:
    body = """{"instances": [
        {"i": [[1,2],[3,4],[5,6]], "s": ["foo", "bar"], "f": [1.0, NaN]},
        {"f": [2.0, Infinity], "s": ["baz", "bat"], "i": [[7,8],[9,0],[1,2]]}]}"""
    inputs = decode(body, i="int32", s="string", f="float")
    np.testing.assert_array_equal(inputs["i"], np.array([[[1, 2], [3, 4], [5, 6]], [[7, 8], [9, 0], [1, 2]]], np.int32))
    assert inputs["s"].tolist() == [[b"foo", b"bar"], [b"baz", b"bat"]]
    np.testing.assert_array_equal(inputs["f"], np.array([[1, np.nan], [2, np.inf]], np.float32))


def test_several_named_inputs_in_columns_need_not_have_the_same_length() -> None:
    inputs = decode('{"inputs": {"i": [[[1,2],[3,4]]], "s": {"b64": "aGVsbG8="}}}', i="int32", s="string")
    assert inputs["i"].shape == (1, 2, 2)
    assert (inputs["s"].shape, inputs["s"].item()) == ((), b"hello")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "the request body is not valid JSON: "),
        ('{"instances": [1, 2]} x', "the request body is not valid JSON: Extra data"),
        ('{"instances": ["a]}', "the request body is not valid JSON: Unterminated string"),
        (b'{"instances": ["\xff"]}', "the request body is not valid JSON: 'utf-8' codec"),
        ('{"instances": ' + "[" * 100_000, "the request body is not valid JSON: "),
        ('{"instances": [' + "9" * 5000 + "]}", "the request body is not valid JSON: "),
        ("[1, 2]", "the request body must be a JSON object; got [1, 2]"),
        ("{}", "a predict request must have either 'instances' or 'inputs'"),
        ('{"instances": [1], "inputs": [1]}', "a predict request must have either 'instances' or 'inputs'"),
        ('{"instances": {"x": [1]}}', "'instances' must be a list of at least one item; got {\"x\": [1]}"),
        ('{"instances": []}', "'instances' must be a list of at least one item; got []"),
        ('{"signature_name": 7, "instances": [1]}', "'signature_name' must be a string; got 7"),
    ],
)
def test_a_body_that_is_no_predict_request_is_refused(body: str | bytes, message: str) -> None:
    error = error_of(body, x="float")
    assert error.status == 400
    assert error.message.startswith(message)


NOT_RECTANGULAR = "input 'x' is not rectangular: its lists differ in length or depth"


@pytest.mark.parametrize(
    ("dtype", "instances", "message"),
    [
        ("int32", "[[1,2],[3,4],[5,6,7]]", NOT_RECTANGULAR),
        ("int32", "[[1,2],[3,4],[[5,6]]]", NOT_RECTANGULAR),
        ("int32", "[[[1],2]]", NOT_RECTANGULAR),
        ("int32", "[[], [1]]", NOT_RECTANGULAR),
        ("int32", "[" * 70 + "1" + "]" * 70, NOT_RECTANGULAR),  # deeper than a tensor can be
        ("int32", '[[1,2],["a", "b"]]', "input 'x' must be DT_INT32; got \"a\""),
        ("int32", "[1.0]", "input 'x' must be DT_INT32; got 1.0"),
        ("int32", "[1, true]", "input 'x' must be DT_INT32; got true"),
        ("int32", "[null]", "input 'x' must be DT_INT32; got null"),
        ("int32", '[{"b64": "aGVsbG8="}]', 'input \'x\' must be DT_INT32; got {"b64": "aGVsbG8="}'),
        ("uint8", "[[3, 256]]", "input 'x' is DT_UINT8, which holds whole numbers from 0 to 255; got 256"),
        ("uint8", "[-1]", "input 'x' is DT_UINT8, which holds whole numbers from 0 to 255; got -1"),
        ("int64", "[9223372036854775808]", "input 'x' is DT_INT64, which holds whole numbers from "),
        ("float", '["NaN"]', "input 'x' must be DT_FLOAT; got \"NaN\""),
        ("float", "[true]", "input 'x' must be DT_FLOAT; got true"),
        (
            "float",
            "[0.5, 16777217]",
            "input 'x' is DT_FLOAT, which holds whole numbers from -16777215 to 16777215; got",
        ),
        ("double", "[9007199254740993]", "input 'x' is DT_DOUBLE, which holds whole numbers from "),
        ("float", "[1e39]", "input 'x' has a number that is too large for DT_FLOAT"),
        ("double", "[1e400]", "input 'x' has a number that is too large for DT_DOUBLE"),
        ("bool", "[1]", "input 'x' must be DT_BOOL; got 1"),
        ("string", "[1]", "input 'x' must be DT_STRING; got 1"),
        ("string", '[{"b64": "?"}]', "input 'x' is not valid base64: "),
        ("string", '[{"b64": "a"}]', "input 'x' is not valid base64: "),  # a length that no data has
        ("string", '[{"b64": "aGVsbG8-"}]', "input 'x' is not valid base64: "),  # the alphabet of URLs
        ("string", '[[{"b64": 1}]]', 'input \'x\' must be strings, or binary data as {"b64": "..."}; got'),
        ("int32", '[[1], {"x": [1]}]', "item 0 of 'instances' must be an object with the keys ['x']; got [1]"),
        ("int32", '[{"x": 1}, {"x": 1, "y": 2}]', "item 1 of 'instances' must be an object with the keys ['x']; got"),
        ("int32", "[{}]", "item 0 of 'instances' must be an object with the keys ['x']; got {}"),
    ],
)
def test_rows_that_do_not_fit_the_signature_are_refused(dtype: str, instances: str, message: str) -> None:
    error = error_of(f'{{"instances": {instances}}}', x=dtype)
    assert error.status == 400
    assert error.message.startswith(message)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"inputs": [1, 2]}', "the signature has the inputs ['i', 's']: send objects with a value for each of them"),
        ('{"inputs": {"i": [1]}}', "'inputs' lacks ['s']; the signature has the inputs ['i', 's']"),
        ('{"inputs": {"i": {"j": 1}, "s": []}}', "input 'i' must be DT_INT32; got {\"j\": 1}"),
        (
            '{"instances": [1, 2]}',
            "the signature has the inputs ['i', 's']: send objects with a value for each of them",
        ),
        ('{"instances": [{"b64": "aGVsbG8="}]}', "the signature has the inputs ['i', 's']: send objects"),
        ('{"instances": [{"i": 1}]}', "item 0 of 'instances' must be an object with the keys ['i', 's']; got"),
        ('{"instances": [{"i": [1], "s": "a"}, {"i": 1, "s": "b"}]}', "input 'i' is not rectangular"),
    ],
)
def test_values_of_several_inputs_that_do_not_fit_are_refused(body: str, message: str) -> None:
    error = error_of(body, i="int32", s="string")
    assert error.status == 400
    assert error.message.startswith(message)


def test_types_that_json_cannot_carry_are_not_implemented() -> None:
    error = error_of('{"inputs": [1.0]}', x="half")
    assert (error.status, error.message) == (501, "input 'x' is of type DT_HALF, which this server cannot read")


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
def test_shapes_must_match_the_signature(shape: tuple[int, ...] | None, instances: str, fits: bool) -> None:
    spec = TensorSpec("DT_UINT8", shape)
    body = f'{{"instances": {instances}}}'
    if fits:
        assert decode(body, x=spec)
    else:
        error = error_of(body, x=spec)
        assert error.status == 400
        assert error.message.startswith("input 'x' has shape [")
        assert "but the signature expects [" in error.message


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


INT_TENSOR = np.array([[[1, 2], [3, 4], [5, 6]], [[7, 8], [9, 0], [1, 2]]], np.int32)
BYTES_TENSOR = np.array([[b"hello", b"world"], [b"tf", b"serving"]], object)
B64 = [[{"b64": "aGVsbG8="}, {"b64": "d29ybGQ="}], [{"b64": "dGY="}, {"b64": "c2VydmluZw=="}]]


@pytest.mark.parametrize(
    ("name", "array", "expected"),
    [
        ("x", INT_TENSOR, INT_TENSOR.tolist()),
        ("x", np.array([True, False]), [True, False]),
        ("x", np.array([2**64 - 1], np.uint64), [2**64 - 1]),
        ("x", np.array([0.1, 3, 1e-5], np.float64), [0.1, 3.0, 1e-5]),
        ("x", np.array([0.5, 1.5], np.float16), [0.5, 1.5]),
        ("x", np.zeros((2, 0), np.float32), [[], []]),
        ("x_bytes", BYTES_TENSOR, B64),  # the suffix marks binary strings
        ("x", BYTES_TENSOR, [["hello", "world"], ["tf", "serving"]]),
        ("x", np.array(["bär".encode(), b"\xff"], object), ["bär", "\ufffd"]),
    ],
)
def test_a_single_output_has_no_name(name: str, array: npt.NDArray[Any], expected: object) -> None:
    assert json.loads(encode_outputs({name: array}, row_format=True)) == {"predictions": expected}
    assert json.loads(encode_outputs({name: array}, row_format=False)) == {"outputs": expected}


def test_several_outputs_have_names() -> None:
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
        (np.array([3, -0.0], np.float32), "[3.0,-0.0]"),  # a decimal number stays one
        (np.array([np.nan, np.inf, -np.inf, 3], np.float32), "[NaN,Infinity,-Infinity,3.0]"),
        (np.array([np.nan, np.inf]), "[NaN,Infinity]"),
        (np.array(1.5, np.float32), "1.5"),
    ],
)
def test_numbers_are_short_and_exact(array: npt.NDArray[Any], text: str) -> None:
    assert encode_outputs({"x": array}, row_format=False) == f'{{"outputs":{text}}}'.encode()


@given(st_numpy.arrays(np.float32, st_numpy.array_shapes(max_dims=3, max_side=4), elements=st.floats(width=32)))
def test_a_float32_survives_the_way_there_and_back(array: npt.NDArray[np.float32]) -> None:
    body = encode_outputs({"x": array}, row_format=False)
    inputs = decode(b'{"inputs":' + body.removeprefix(b'{"outputs":'), x="float")
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
        ({}, "the signature has no outputs"),
        ({"x": np.array([1j, 2j], np.complex64)}, "output 'x' is of type complex64, which JSON cannot carry"),
        ({"x": np.array(1)}, "the outputs cannot be split into rows: x []; send 'inputs' instead"),
        ({"x": np.zeros((0, 3))}, "the outputs cannot be split into rows: x [0,3]"),
        (
            {"a": np.zeros((2, 3), np.int32), "b": np.zeros((1, 3), np.int32)},
            "the outputs cannot be split into rows: a [2,3], b [1,3]",
        ),
    ],
)
def test_outputs_that_rows_cannot_carry(outputs: dict[str, npt.NDArray[Any]], message: str) -> None:
    with pytest.raises(RequestError) as caught:
        encode_outputs(outputs, row_format=True)
    assert caught.value.status == 400
    assert caught.value.message.startswith(message)
