"""Changes to the record of an answer that no reader expects; JSON can contain each of them."""

from __future__ import annotations

from typing import Any

BIG = int("9" * 400)
LABEL = "circle"
_SPAN = {"label": LABEL, "x": 1, "y": 1, "width": 9, "height": 9}

UNUSABLE: dict[str, dict[str, Any]] = {
    "broken IPv6 address": {"image": "file://[x].jpg"},
    "broken IPv6 address as path": {"image": None, "path": "file://[x].jpg"},
    "broken IPv6 URL": {"image": "http://[x/a.jpg"},
    "image id": {"image_id": "\ud800"},
    "rejected image id": {"image_id": "a\udcff", "answer": "reject"},
    "path": {"image": "\ud800.jpg"},
    "NUL": {"image": "a\0b.jpg"},
    "long path": {"image": "x" * 100_000},
    "directory": {"image": "/"},
    "text data URI": {"image": "data:,\ud800"},
    "base64 data URI": {"image": "data:image/png;base64,\ud800"},
    "data URI's type": {"image": "data:\ud800;base64,%ff\ud800"},
    "size below a pixel": {"width": 1e-300, "height": 1e-300},
    "coordinate": {"spans": [{**_SPAN, "x": BIG}]},
    "points": {"spans": [{"label": LABEL, "points": [[BIG, 1], [1, 1], [3, 4], [2, 2]]}]},
    "label": {"spans": [{**_SPAN, "label": "\ud800"}]},
    "label is a list": {"spans": [{**_SPAN, "label": [LABEL]}]},
    "decision is a list": {"answer": ["accept"]},
}
"""By kind: an answer with one of these changes cannot be trained on."""

HARMLESS: dict[str, dict[str, Any]] = {
    "size": {"width": BIG, "height": BIG},
    "times": {"_timestamp": BIG, "_active_s": BIG},
    "session": {"_session_id": "\ud800"},
    "file name": {"meta": {"file": "\ud800"}},
    "meta": {"meta": [1]},
    "suggestions": {
        "_suggestions": {"version": BIG, "threshold": BIG, "spans": [{"score": BIG}], "candidates": [["a", BIG]]}
    },
    "span": {"spans": [{**_SPAN, "id": "\ud800", "\ud800": BIG, "score": BIG}]},
    "key": {"\ud800": BIG},
}
"""By kind: training needs none of what these change."""

NOT_RECORDS = {
    "5000 digits": b'{"width": ' + b"9" * 5000 + b"}",
    "deep list": b"[" * 100_000,
    "deep object": b'{"a":' * 100_000,
    "a number": b"7",
    "not UTF-8": b"\xff",
    "half a line": b'{"image": "a.jp',
}
"""By kind: lines of a JSONL file that are no records."""
