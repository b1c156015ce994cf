"""Validates the parameters of the page's requests for the handlers of `odkeras.web.app`.

Every function raises BadRequestError, with the name of the parameter, if a value is invalid.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request

from odkeras.annotation import DECISIONS
from odkeras.web.gallery import GalleryFilter
from odkeras.web.queue import Tab

MAX_ANSWERS = 500
IMAGE_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)


class BadRequestError(Exception):
    """An invalid request, with the HTTP status and a message for the user."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


async def read_body(request: Request) -> dict[str, Any]:
    """The JSON object in the request's body."""
    try:
        body = json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise BadRequestError(400, f"not JSON: {error}") from error
    if not isinstance(body, dict):
        raise BadRequestError(400, f"the body must be a JSON object; got {type(body).__name__}")
    return body


def read_tab(body: Mapping[str, Any]) -> Tab:
    """The tab that sent the request: `session` and `tab` in its body or query."""
    return Tab(read_name(body.get("session"), "session"), read_name(body.get("tab"), "tab"))


def read_whole_number(query: Mapping[str, str], name: str, default: int, most: int) -> int:
    """An integer from 0 to `most`; `default` if the parameter is missing."""
    text = query.get(name, str(default))
    if not text.isascii() or not text.isdecimal() or len(text) > 10 or int(text) > most:
        raise BadRequestError(400, f"{name} must be a whole number of at most {most}; got {text[:80]!r}")
    return int(text)


def read_filter(query: Mapping[str, str]) -> GalleryFilter:
    """The filter for the gallery. Missing parameters do not restrict the result."""
    choices = {"state": ("all", "answered", "unanswered"), "decision": ("", *DECISIONS)}
    chosen = {name: query.get(name, allowed[0]) for name, allowed in choices.items()}
    for key, value in chosen.items():
        if value not in choices[key]:
            raise BadRequestError(400, f"{key} must be one of {', '.join(choices[key])}; got {value[:80]!r}")
    label, annotator, name = (query.get(key, "")[:500] for key in ("label", "annotator", "name"))
    return GalleryFilter(
        state=chosen["state"],
        label=label,
        decision=chosen["decision"],
        annotator=annotator,
        min_score=_score(query, "min_score"),
        max_score=_score(query, "max_score"),
        name=name,
    )


def _score(query: Mapping[str, str], name: str) -> float | None:
    text = query.get(name, "")
    try:
        value = float(text) if text else None
    except ValueError:
        value = float("nan")
    if value is not None and not 0 <= value <= 1:
        raise BadRequestError(400, f"{name} must be from 0 to 1; got {text[:80]!r}")
    return value


def read_name(given: Any, what: str) -> str:
    """The name of a session or tab: 1 to 64 of the characters A-Z, a-z, 0-9, `_`, `.`, `-`.

    Args:
        what: the parameter's name, for the error message.
    """
    if not isinstance(given, str) or not _NAME.fullmatch(given):
        raise BadRequestError(400, f"{what} must be 1 to 64 letters, digits or _.-; got {str(given)[:80]!r}")
    return given


def read_ids(body: Mapping[str, Any], key: str) -> Sequence[str]:
    """A list of at most `MAX_ANSWERS` image ids; empty if the key is missing."""
    ids = body.get(key) or []
    if not isinstance(ids, list) or len(ids) > MAX_ANSWERS:
        raise BadRequestError(400, f"{key} must be a list of image ids")
    for image_id in ids:
        if not isinstance(image_id, str) or not IMAGE_ID.fullmatch(image_id):
            raise BadRequestError(400, f"{key}: {str(image_id)[:80]!r} is no image id")
    return ids
