"""Tensors as JSON, as TensorFlow Serving reads and writes them. Pure: no I/O, no TensorFlow.

Numbers must fit the tensor's type (no 1.0 for an int, no 2**24 for a float32), lists must be rectangular, `NaN`,
`Infinity` and `-Infinity` are numbers, and binary strings are `{"b64": "..."}`. Well-formed input takes a fast way;
anything else is walked value by value, so that the refusal names the first one that is wrong.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from odkeras.errors import RequestError
from odkeras.serving.json_values import (
    LARGEST_WHOLE,
    NUMPY_TYPES,
    format_error,
    in_decimal_range,
    in_range,
    is_base64,
    leaf,
    quoted,
    string,
    too_big_error,
    type_name,
)
from odkeras.serving.protocol import TensorSpec, refusal

Array = npt.NDArray[Any]

# Python's words for a syntax error (its message's beginning), and those of the parser in TensorFlow Serving.
_SYNTAX = (
    ("Extra data", "The document root must not be followed by other values."),
    ("Expecting property name", "Missing a name for object member."),
    ("Illegal trailing comma before end of object", "Missing a name for object member."),
    ("Expecting ':'", "Missing a colon after a name of object member."),
    ("Expecting ','", "Missing a comma after an object member or array element."),
    ("Unterminated string", "Missing a closing quotation mark in string."),
    ("Invalid \\u", "Incorrect hex digit after \\u escape in string."),
    ("Invalid \\", "Invalid escape character in string."),
    ("Invalid control character", "Invalid encoding in string."),
)


def parse_document(body: bytes) -> dict[str, Any]:
    """The JSON object in a request's body.

    Raises:
        RequestError: 400, not JSON, or not an object.
    """
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _syntax_error("Invalid encoding in string.", error.start) from None
    if not text.strip():
        raise refusal("INVALID_ARGUMENT", "JSON Parse error: The document is empty")
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        words = next((theirs for ours, theirs in _SYNTAX if error.msg.startswith(ours)), "Invalid value.")
        raise _syntax_error(words, error.pos) from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError:  # a whole number of thousands of digits
        raise too_big_error() from None
    if not isinstance(document, dict):
        raise format_error(document, "Is not object")
    return document


def signature_name_of(document: Mapping[str, Any]) -> str:
    """The signature asked for, "" for the default one.

    Raises:
        RequestError: 400, it is not a string.
    """
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise format_error(document, "not formatted correctly. 'signature_name' key must be a string value.")
    return name


def decode_inputs(
    document: Mapping[str, Any], specs: Mapping[str, TensorSpec], body: bytes
) -> tuple[dict[str, Array], bool]:
    """The input tensors of a predict request, and whether it came in row format (`instances`).

    Args:
        document: what `parse_document(body)` gave.
        specs: the signature's inputs.
        body: the bytes, where an `Infinity` is told from a number that is too big.

    Raises:
        RequestError: 400, values that do not fit; 501, a type that JSON cannot carry.
    """
    row_format = "instances" in document
    try:
        if row_format:
            inputs = _from_instances(_checked_instances(document), specs)
        elif "inputs" in document:
            inputs = _from_columns(document["inputs"], specs)
        else:
            raise refusal("INVALID_ARGUMENT", "Missing 'inputs' or 'instances' key")
    except RecursionError:
        raise _too_deep() from None
    if any(array.dtype.kind == "f" and np.isinf(array).any() for array in inputs.values()) and b"Infinity" not in body:
        raise too_big_error()
    check_shapes(inputs, specs)
    return inputs, row_format


def check_shapes(inputs: Mapping[str, Array], specs: Mapping[str, TensorSpec]) -> None:
    """See that there is one tensor per input, of its shape.

    Raises:
        RequestError: 400.
    """
    if len(inputs) != len(specs):
        given, wanted = sorted(inputs), sorted(specs)
        missing = ",".join(name for name in wanted if name not in inputs)
        extra = ",".join(name for name in given if name not in specs)
        sizes = f"{len(given)}!={len(wanted)} len({{{','.join(given)}}}) != len({{{','.join(wanted)}}})"
        found = f"Sent extra: {{{extra}}}. Missing but required: {{{missing}}}."
        raise refusal("INVALID_ARGUMENT", f"input size does not match signature: {sizes}. {found}")
    for name, array in inputs.items():
        shape = specs[name].shape
        if shape is not None and not _fits(array.shape, shape):
            found = f"has shape {_shape_text(array.shape)}, but the signature expects {_shape_text(shape)}"
            raise refusal("INVALID_ARGUMENT", f"input {name!r} {found} (-1: any size)")


def _fits(shape: Sequence[int], expected: Sequence[int]) -> bool:
    return len(shape) == len(expected) and all(want in (-1, got) for got, want in zip(shape, expected, strict=True))


def encode_outputs(outputs: Mapping[str, Array], row_format: bool) -> bytes:
    """JSON of a prediction: `predictions`, an item per row, or `outputs`, one per tensor; named if there are several.

    Raises:
        RequestError: 400, a tensor without a batch dimension in row format, or of a type that JSON cannot carry.
    """
    if not outputs:
        raise refusal("INVALID_ARGUMENT", "Cannot convert empty tensor map to JSON")
    if row_format:
        _check_batch(outputs)
        length = len(next(iter(outputs.values())))
        rows = [_named_texts({name: array[row, ...] for name, array in outputs.items()}) for row in range(length)]
        return f'{{"predictions":[{",".join(rows)}]}}'.encode()
    return f'{{"outputs":{_named_texts(outputs)}}}'.encode()


def _named_texts(tensors: Mapping[str, Array]) -> str:
    """JSON of an object with the tensors by name; of a single one, the tensor itself."""
    texts = {name: _tensor_text(name, tensors[name]) for name in sorted(tensors)}
    if len(texts) == 1:
        return next(iter(texts.values()))
    return f"{{{','.join(f'{json.dumps(name)}:{text}' for name, text in texts.items())}}}"


def _tensor_text(name: str, array: Array) -> str:
    """A float32 goes by its shortest text: 0.1, not 0.10000000149011612."""
    if array.dtype == np.float32 and np.isfinite(array).all():
        return _joined(array.astype(str).tolist())  # half the time of what follows
    return json.dumps(_to_plain(name, array), separators=(",", ":"))


def _joined(texts: Any) -> str:
    return texts if isinstance(texts, str) else f"[{','.join(map(_joined, texts))}]"


def _check_batch(outputs: Mapping[str, Array]) -> None:
    batch_size = 0
    for name, array in sorted(outputs.items()):
        if array.ndim == 0:
            raise refusal("INVALID_ARGUMENT", f"Tensor name: {name} has no shape information ")
        if len(array) < 1:
            raise refusal("INVALID_ARGUMENT", f"Tensor name: {name} has invalid batch size: {len(array)}")
        if batch_size not in (0, len(array)):
            problem = f"has inconsistent batch size: {len(array)} expecting: {batch_size}"
            raise refusal("INVALID_ARGUMENT", f"Tensor name: {name} {problem}")
        batch_size = len(array)


def _to_plain(name: str, array: Array) -> Any:
    """Nested lists of what json writes."""
    if array.dtype.name in ("float16", "bfloat16"):
        array = array.astype(np.float32)
    if array.dtype == np.float32:
        return array.astype(str).astype(np.float64).tolist()
    if array.dtype.kind in "biuf":
        return array.tolist()
    if array.dtype.kind in "OS":
        write = _binary if name.endswith("_bytes") else _text
        return np.array([write(value) for value in array.ravel().tolist()], object).reshape(array.shape).tolist()
    raise refusal("INVALID_ARGUMENT", f"Failed to write JSON value for tensor type: {array.dtype.name}")


def _binary(value: bytes) -> Any:
    return {"b64": b64encode(value).decode("ascii")}


def _text(value: bytes) -> Any:
    return value.decode("utf-8", errors="replace")


def _checked_instances(document: Mapping[str, Any]) -> list[Any]:
    instances = document["instances"]
    if "inputs" in document:
        words = "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist "
        raise format_error(document, words)
    if not isinstance(instances, list):
        raise format_error(document, "Excepting 'instances' to be an list/array")
    if not instances:
        raise format_error(document, "No values in 'instances' array")
    return instances


def _from_instances(instances: list[Any], specs: Mapping[str, TensorSpec]) -> dict[str, Array]:
    if len(specs) > 1 and not isinstance(instances[0], dict):
        raise _names_needed("instances is a plain list, but expecting list of objects")
    columns = _as_columns(instances, specs)
    arrays = {name: _dense(column, specs[name].dtype) for name, column in columns.items()} if columns else {}
    dense = {name: array for name, array in arrays.items() if array is not None}
    return dense if columns and len(dense) == len(columns) else _walk_instances(instances, specs)


def _as_columns(instances: list[Any], specs: Mapping[str, TensorSpec]) -> dict[str, list[Any]] | None:
    """One list per input, or None if the instances are not all alike."""
    named = [_is_named(instance) for instance in instances]
    if not any(named):
        return {next(iter(specs)): instances}
    if not all(named) or any(instance.keys() != specs.keys() for instance in instances):
        return None
    return {name: [instance[name] for instance in instances] for name in specs}


def _from_columns(value: Any, specs: Mapping[str, TensorSpec]) -> dict[str, Array]:
    if not _is_named(value):
        if len(specs) > 1:
            raise _names_needed("inputs is a plain value/list, but expecting an object")
        return {name: _tensor(value, spec.dtype) for name, spec in specs.items()}
    inputs = {}
    for name, spec in specs.items():
        if name not in value:
            raise refusal("INVALID_ARGUMENT", f"Missing named input: {name} in 'inputs' object.")
        inputs[name] = _tensor(value[name], spec.dtype)
    return inputs


def _names_needed(words: str) -> RequestError:
    return refusal("INVALID_ARGUMENT", f"{words} as multiple input tensors required as per tensorinfo_map")


def _tensor(value: Any, dtype: str) -> Array:
    array = _dense(value, dtype)
    return _walk(value, dtype) if array is None else array


def _dense(value: Any, dtype: str) -> Array | None:
    """The fast way: one pass per level of nesting. None if anything is unusual, for `_walk` to see what."""
    shape: list[int] = []
    level = [value]
    while level and isinstance(level[0], list):
        size = len(level[0])
        if any(type(item) is not list or len(item) != size for item in level):
            return None
        shape.append(size)
        level = list(chain.from_iterable(level))
    leaves = _plain_leaves(level, dtype)
    return None if leaves is None else _as_array(leaves, dtype, shape)


def _plain_leaves(leaves: list[Any], dtype: str) -> list[Any] | None:
    """What numpy turns into `dtype` without loss, or None if it may not."""
    kinds = set(map(type, leaves))
    if dtype == "DT_STRING":
        return _strings(leaves) if kinds <= {dict, str} else None
    if dtype == "DT_BOOL":
        fits = kinds <= {bool}
    elif dtype in LARGEST_WHOLE:
        fits = kinds <= {int, float} and _is_lossless(leaves, dtype)
    else:
        fits = dtype in NUMPY_TYPES and kinds == {int} and in_range(min(leaves), max(leaves), dtype)
    return leaves if fits else None


def _strings(leaves: list[Any]) -> list[bytes] | None:
    try:
        return [string(value) for value in leaves]
    except RequestError:
        return None


def _is_lossless(leaves: list[Any], dtype: str) -> bool:
    if any(type(value) is int and abs(value) > LARGEST_WHOLE[dtype] for value in leaves):
        return False
    return in_decimal_range(np.array(leaves, np.float64), dtype)


def _as_array(leaves: list[Any], dtype: str, shape: Sequence[int]) -> Array:
    if dtype not in NUMPY_TYPES:  # an empty list, so that no value was refused
        raise refusal("UNIMPLEMENTED", f"Conversion of JSON to type: {type_name(dtype)}")
    array = np.empty(len(leaves), NUMPY_TYPES[dtype])
    array[:] = leaves
    try:
        return array.reshape(shape)
    except ValueError:
        raise refusal("INVALID_ARGUMENT", f"lists are nested {len(shape)} deep, more than a tensor can be") from None


def _walk_instances(instances: list[Any], specs: Mapping[str, TensorSpec]) -> dict[str, Array]:
    """The slow way: value by value, to refuse the first that is wrong."""
    named = _is_named(instances[0])
    columns: dict[str, list[Array]] = {}
    for index, instance in enumerate(instances):
        where = f"Failed to process element: {index}"
        if _is_named(instance) != named:
            words = "object but got list" if named else "value/list but got object"
            raise refusal("INVALID_ARGUMENT", f"Expecting {words} at item {index} of input list")
        if not named:
            _append(columns, next(iter(specs)), instance, specs, where)
            continue
        for name, value in instance.items():
            _append(columns, name, value, specs, f"{where} key: {name}")
        if instance.keys() != specs.keys():
            keys = f"keys must be equal to: {','.join(sorted(specs))}"
            raise refusal("INVALID_ARGUMENT", f"{where} of 'instances' list. JSON object: {quoted(instance)} {keys}")
    return {name: np.stack(arrays) for name, arrays in columns.items()}


def _append(
    columns: dict[str, list[Array]], name: str, value: Any, specs: Mapping[str, TensorSpec], where: str
) -> None:
    try:
        if name not in specs:
            raise refusal("INVALID_ARGUMENT", f"JSON object: does not have named input: {name}")
        array = _walk(value, specs[name].dtype)
        _check_alike(columns.get(name, [array])[0], array)
    except RequestError as error:
        code = "UNIMPLEMENTED" if error.status == 501 else "INVALID_ARGUMENT"
        words = f"{where} of 'instances' list. Error: {code}: {error.message}"
        raise refusal("INVALID_ARGUMENT", words) from None
    columns.setdefault(name, []).append(array)


def _check_alike(first: Array, array: Array) -> None:
    if array.size != first.size:
        raise refusal("INVALID_ARGUMENT", f"Expecting tensor size: {first.size} but got: {array.size}")
    if array.shape != first.shape:
        shapes = f"{_shape_text(first.shape)} but got: {_shape_text(array.shape)}"
        raise refusal("INVALID_ARGUMENT", f"Expecting shape {shapes}")


def _walk(value: Any, dtype: str) -> Array:
    shape: list[int] = []
    first = value
    while isinstance(first, list):
        shape.append(len(first))
        first = first[0] if first else None
    leaves: list[Any] = []
    _collect(value, 0, shape, dtype, leaves)
    return _as_array(leaves, dtype, shape)


def _collect(value: Any, level: int, shape: Sequence[int], dtype: str, leaves: list[Any]) -> None:
    if not isinstance(value, list):
        if level != len(shape):
            found = f"found at incorrect level: {level + 1} in the JSON DOM. Expected at level: {len(shape)}"
            raise format_error(value, found)
        leaves.append(leaf(value, dtype))
        return
    if level >= len(shape):
        raise refusal("INVALID_ARGUMENT", f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        found = f"unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
        raise refusal("INVALID_ARGUMENT", f"Encountered list at {found}")
    for item in value:
        _collect(item, level + 1, shape, dtype, leaves)


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not is_base64(value)


def _syntax_error(words: str, offset: int) -> RequestError:
    return refusal("INVALID_ARGUMENT", f"JSON Parse error: {words} at offset: {offset}")


def _too_deep() -> RequestError:
    return refusal("INVALID_ARGUMENT", "JSON Parse error: nested too deeply")


def _shape_text(shape: Sequence[int]) -> str:
    return f"[{','.join(map(str, shape))}]"
