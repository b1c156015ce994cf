"""Converts between JSON and tensors in the formats of TensorFlow Serving's REST API. No I/O, no TensorFlow.

    request = PredictRequest.parse(b'{"instances": [{"b64": "/9j/4AAQ..."}]}')
    inputs = request.decode(signature.inputs)
    body = encode_outputs(outputs, request.row_format)

The row format has `instances` and `predictions`, one item per image; the column format has `inputs` and `outputs`, one
value per tensor. Binary strings are `{"b64": "..."}`. `NaN`, `Infinity` and `-Infinity` are numbers.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from binascii import a2b_base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from odkeras.errors import RequestError
from odkeras.serving.protocol import TensorSpec, request_error

Array = npt.NDArray[Any]

_WHOLE_NUMBERS: set[type] = {int}  # excludes bool, because values are compared by `type`, not `isinstance`
_NUMBERS: set[type] = {int, float}
# The numpy type of each TensorFlow type that JSON can carry, and the Python types of its JSON values.
_TYPES: dict[str, tuple[Any, set[type]]] = {
    "DT_FLOAT": (np.float32, _NUMBERS),
    "DT_DOUBLE": (np.float64, _NUMBERS),
    "DT_INT8": (np.int8, _WHOLE_NUMBERS),
    "DT_INT16": (np.int16, _WHOLE_NUMBERS),
    "DT_INT32": (np.int32, _WHOLE_NUMBERS),
    "DT_INT64": (np.int64, _WHOLE_NUMBERS),
    "DT_UINT8": (np.uint8, _WHOLE_NUMBERS),
    "DT_UINT32": (np.uint32, _WHOLE_NUMBERS),
    "DT_UINT64": (np.uint64, _WHOLE_NUMBERS),
    "DT_BOOL": (np.bool_, {bool}),
    "DT_STRING": (np.object_, {str, dict}),
}
# A float cannot represent every larger integer exactly, so TensorFlow Serving refuses them.
_WHOLE_RANGES = {"DT_FLOAT": (1 - 2**24, 2**24 - 1), "DT_DOUBLE": (1 - 2**53, 2**53 - 1)}
_MAX_QUOTED_CHARACTERS = 80


@dataclass(frozen=True)
class PredictRequest:
    """The parsed body of a predict request.

    Args:
        signature_name: "" for the default signature.
        row_format: True for `instances`, False for `inputs`.
        values: the value of that key, not validated yet.
        has_infinity: whether one of the numbers is the literal `Infinity` or `-Infinity`.
    """

    signature_name: str
    row_format: bool
    values: Any
    has_infinity: bool = False

    @classmethod
    def parse(cls, body: bytes) -> PredictRequest:
        """Parse the body. The values are validated later, by `decode`.

        Raises:
            RequestError: 400, the body is not JSON, or not a predict request.
        """
        constants: list[float] = []  # Python parses 1e400 as infinity too, but calls `parse_constant` only for literals

        def read_constant(name: str) -> float:
            constants.append(float(name))
            return constants[-1]

        try:
            document = json.loads(body, parse_constant=read_constant)
        except (ValueError, RecursionError) as error:
            raise _invalid(f"the request body is not valid JSON: {error}") from None
        if not isinstance(document, dict):
            raise _invalid(f"the request body must be a JSON object; got {_quote(document)}")
        name = document.get("signature_name", "")
        if not isinstance(name, str):
            raise _invalid(f"'signature_name' must be a string; got {_quote(name)}")
        if ("instances" in document) == ("inputs" in document):
            raise _invalid("a predict request must have either 'instances' or 'inputs'")
        row_format = "instances" in document
        values = document["instances" if row_format else "inputs"]
        if row_format and not (isinstance(values, list) and values):
            raise _invalid(f"'instances' must be a list of at least one item; got {_quote(values)}")
        return cls(name, row_format, values, any(map(np.isinf, constants)))

    def decode(self, specs: Mapping[str, TensorSpec]) -> dict[str, Array]:
        """The input tensors, for a signature whose inputs are `specs`.

        Raises:
            RequestError: 400, the values do not fit the signature; 501, JSON cannot carry one of its types.
        """
        columns = _named_rows(self.values, specs) if self.row_format else _named_columns(self.values, specs)
        return {name: self._tensor(name, column, specs[name]) for name, column in columns.items()}

    def _tensor(self, name: str, value: Any, spec: TensorSpec) -> Array:
        array = _to_array(name, value, spec.dtype)
        if not self.has_infinity and array.dtype.kind == "f" and np.isinf(array).any():
            raise _invalid(f"input {name!r} has a number that is too large for {spec.dtype}")
        if spec.shape is not None and not _matches(array.shape, spec.shape):
            shapes = f"has shape {_shape_text(array.shape)}, but the signature expects {_shape_text(spec.shape)}"
            raise _invalid(f"input {name!r} {shapes} (-1: any size)")
        return array


def encode_outputs(outputs: Mapping[str, Array], row_format: bool) -> bytes:
    """Encode the response to a predict request.

    Args:
        outputs: the output tensors, by name. A single tensor is encoded without its name.
        row_format: True encodes `predictions`, with one item per row; False encodes `outputs`, one value per tensor.

    Raises:
        RequestError: 400, the tensors cannot be split into rows, or JSON cannot carry one of their types.
    """
    if not outputs:
        raise _invalid("the signature has no outputs")
    if not row_format:
        return f'{{"outputs":{_named_text(outputs)}}}'.encode()
    lengths = {array.shape[:1] for array in outputs.values()}
    if len(lengths) > 1 or lengths & {(), (0,)}:
        shapes = ", ".join(f"{name} {_shape_text(array.shape)}" for name, array in sorted(outputs.items()))
        raise _invalid(f"the outputs cannot be split into rows: {shapes}; send 'inputs' instead of 'instances'")
    ((length,),) = lengths
    rows = [_named_text({name: array[row, ...] for name, array in outputs.items()}) for row in range(length)]
    return f'{{"predictions":[{",".join(rows)}]}}'.encode()


def _named_rows(rows: Sequence[Any], specs: Mapping[str, TensorSpec]) -> dict[str, list[Any]]:
    """Convert rows to one list per input.

    Either all rows are values of the only input, or all rows are objects with one value per input.
    """
    if not any(map(_is_named, rows)):
        return {_only_input(specs): list(rows)}
    for index, row in enumerate(rows):
        if not _is_named(row) or row.keys() != specs.keys():
            wanted = f"an object with the keys {sorted(specs)}"
            raise _invalid(f"item {index} of 'instances' must be {wanted}; got {_quote(row)}")
    return {name: [row[name] for row in rows] for name in specs}


def _named_columns(value: Any, specs: Mapping[str, TensorSpec]) -> dict[str, Any]:
    if not _is_named(value):
        return {_only_input(specs): value}
    missing = sorted(specs.keys() - value.keys())
    if missing:
        raise _invalid(f"'inputs' lacks {missing}; the signature has the inputs {sorted(specs)}")
    return {name: value[name] for name in specs}


def _only_input(specs: Mapping[str, TensorSpec]) -> str:
    if len(specs) != 1:
        raise _invalid(f"the signature has the inputs {sorted(specs)}: send objects with a value for each of them")
    return next(iter(specs))


def _to_array(name: str, value: Any, dtype: str) -> Array:
    if dtype not in _TYPES:
        raise request_error("UNIMPLEMENTED", f"input {name!r} is of type {dtype}, which this server cannot read")
    numpy_type, python_types = _TYPES[dtype]
    # dtype object, because numpy would convert [1, true] to numbers and [1, "2"] to strings. Only the shape is inferred
    # here. Ragged lists, and lists nested deeper than numpy allows, remain as list objects in the array.
    array = np.array(value, object)
    items = array.ravel().tolist()
    types: set[type] = set(map(type, items))
    if list in types:
        raise _invalid(f"input {name!r} is not rectangular: its lists differ in length or depth")
    if not types <= python_types:
        wrong = next(item for item in items if type(item) not in python_types)
        raise _invalid(f"input {name!r} must be {dtype}; got {_quote(wrong)}")
    if dtype == "DT_STRING":
        strings = [_to_bytes(name, item) for item in items]
        return np.fromiter(strings, object, len(strings)).reshape(array.shape)
    if int in types:
        numbers = items if float not in types else [item for item in items if type(item) is int]
        smallest, largest = _WHOLE_RANGES.get(dtype) or (np.iinfo(numpy_type).min, np.iinfo(numpy_type).max)
        for number in (min(numbers), max(numbers)):
            if not smallest <= number <= largest:
                limits = f"whole numbers from {smallest} to {largest}"
                raise _invalid(f"input {name!r} is {dtype}, which holds {limits}; got {_quote(number)}")
    with np.errstate(over="ignore"):  # overflow to infinity is detected by the caller
        return array.astype(numpy_type)


def _to_bytes(name: str, value: str | dict[str, Any]) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", errors="surrogatepass")
    if not _is_base64(value):
        raise _invalid(f'input {name!r} must be strings, or binary data as {{"b64": "..."}}; got {_quote(value)}')
    try:
        return _decode_base64(value["b64"])
    except ValueError as error:
        raise _invalid(f"input {name!r} is not valid base64: {error}") from None


def _decode_base64(text: str) -> bytes:
    """Decode base64 (RFC 4648, section 4). As in TensorFlow Serving, white space is ignored and padding is optional.

    Raises:
        ValueError: any other character, or an impossible length.
    """
    try:
        # Strict mode takes 1.7 times as long, which costs 0.3 ms for a photograph. The default mode skips invalid
        # characters, which the length check below detects.
        data = a2b_base64(text)
        if len(text) == 4 * ((len(data) + 2) // 3):
            return data
    except ValueError:
        pass
    compact = "".join(text.split()).rstrip("=")
    return b64decode(compact + "=" * (-len(compact) % 4), validate=True)


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not _is_base64(value)


def _named_text(tensors: Mapping[str, Array]) -> str:
    """JSON of an object with the tensors by name, or of the tensor itself if there is only one."""
    texts = {name: _tensor_text(name, array) for name, array in sorted(tensors.items())}
    if len(texts) == 1:
        return next(iter(texts.values()))
    return f"{{{','.join(f'{json.dumps(name)}:{text}' for name, text in texts.items())}}}"


def _tensor_text(name: str, array: Array) -> str:
    if array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    if array.dtype.kind == "f":
        # numpy formats a float32 with the fewest digits, 0.1. json would write 0.10000000149011612 and take twice as
        # long.
        return _join(array.astype(str).tolist()).replace("nan", "NaN").replace("inf", "Infinity")
    if array.dtype.kind in "OS":
        encode = _encode_binary if name.endswith("_bytes") else _encode_text
        values = [encode(value) for value in array.ravel().tolist()]
        array = np.fromiter(values, object, len(values)).reshape(array.shape)
    elif array.dtype.kind not in "biu":
        raise _invalid(f"output {name!r} is of type {array.dtype.name}, which JSON cannot carry")
    return json.dumps(array.tolist(), separators=(",", ":"))


def _join(texts: Any) -> str:
    return texts if isinstance(texts, str) else f"[{','.join(map(_join, texts))}]"


def _encode_binary(value: bytes) -> dict[str, str]:
    return {"b64": b64encode(value).decode("ascii")}


def _encode_text(value: bytes) -> str:
    return value.decode("utf-8", errors="replace")


def _matches(shape: Sequence[int], expected: Sequence[int]) -> bool:
    return len(shape) == len(expected) and all(want in (-1, got) for got, want in zip(shape, expected, strict=True))


def _shape_text(shape: Sequence[int]) -> str:
    return f"[{','.join(map(str, shape))}]"


def _invalid(message: str) -> RequestError:
    return request_error("INVALID_ARGUMENT", message)


def _quote(value: Any) -> str:
    """The value as JSON, truncated to `_MAX_QUOTED_CHARACTERS`."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (RecursionError, ValueError):  # nested too deeply, or an integer with thousands of digits
        return f"a {type(value).__name__}"
    return text if len(text) <= _MAX_QUOTED_CHARACTERS else f"{text[:_MAX_QUOTED_CHARACTERS]}..."
