"""JSON text is that of `json`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from odkeras.json_text import encode_json, encode_sorted_json

COORDINATES = st.floats(-1e6, 1e6).map(lambda value: round(value, 2))
NUMBERS = COORDINATES | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(VALUES)
@example({"b": 1e16, "a": [1e-5, 0.0001, -0.0, 5e-324, 10**30]})
@example({"name": "Käse \U0001f9c0 \x7f", "other": "\ud800", "null": None})
@example({"\udcff": 1})
def test_it_is_the_text_of_json(value: Any) -> None:
    assert encode_sorted_json(value) == json.dumps(value, sort_keys=True, separators=(",", ":"))
    assert json.loads(encode_json(value).encode()) == value


@pytest.mark.parametrize("value", [float("nan"), {"x": [float("inf")]}])
def test_what_is_no_json(value: Any) -> None:
    for encode in (encode_json, encode_sorted_json):
        with pytest.raises(ValueError, match="not JSON compliant"):
            encode(value)
