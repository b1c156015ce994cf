"""The requests of the page: their types, and how they are validated.

`frontend/src/messages.ts` has the same types for the page; `python scripts/page_types.py` generates it. The description
of a field says which values are allowed, also in error messages.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from starlette.requests import Request

from odkeras.annotation import Decision
from odkeras.control import TrainingAction
from odkeras.pipeline.label_edits import MAX_NAME
from odkeras.web.replies import ProcessName

MAX_TASKS = 20
MAX_ANSWERS = 500
MAX_PAGE = 200
_MAX_TEXT = 500
_DAY_MS = 86_400_000

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}\Z", description="1 to 64 letters, digits or _.-")]
ImageId = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z", description="an image id, 32 hexadecimal digits")]
ImageIds = Annotated[
    list[ImageId], Meta(max_length=MAX_ANSWERS, description=f"a list of at most {MAX_ANSWERS} image ids")
]
SearchText = Annotated[str, Meta(max_length=_MAX_TEXT, description=f"a text of at most {_MAX_TEXT} characters")]
Score = Annotated[Annotated[float, Meta(ge=0, le=1)] | None, Meta(description="from 0 to 1")]
LabelAction = Literal["rename", "merge", "recolour", "retire"]
Message = TypeVar("Message", bound=Struct)


class Sender(Struct, frozen=True):
    """The session and the tab that send a request. Part of nearly all requests."""

    session: Name
    tab: Name


class TasksRequest(Sender, frozen=True):
    """POST /api/tasks. The reply is a `TasksReply`."""

    count: Annotated[int, Meta(ge=1, le=MAX_TASKS, description=f"1 to {MAX_TASKS}")] = 1
    have: ImageIds = []


class SuggestionsRequest(Sender, frozen=True):
    """POST /api/suggestions: newer suggestions for tasks that the tab holds. The reply is a `SuggestionsReply`."""

    image_ids: ImageIds


class AnswersRequest(Sender, frozen=True):
    """POST /api/answers. Each answer is validated on its own, so that an invalid one does not hold up the others. The
    reply is an `AnswersReply`."""

    answers: Annotated[
        list[Any],
        Meta(
            min_length=1,
            max_length=MAX_ANSWERS,
            description=f"a list of 1 to {MAX_ANSWERS} answers",
            extra_json_schema={"items": {"$ref": "#/$defs/SentAnswer"}},
        ),
    ]


class ReopenRequest(Sender, frozen=True):
    """POST /api/reopen: an answer, to be corrected. The reply is an `OpenedTask`."""

    image_id: ImageId


class OpenRequest(Sender, frozen=True):
    """POST /api/open: an image of the gallery. The reply is an `OpenedTask`."""

    key: ImageId


class TrainingRequest(Sender, frozen=True):
    """POST /api/training. The reply is a `TrainingReply`."""

    action: Annotated[TrainingAction, Meta(description="one of pause, resume, stop")]


class LabelRequest(Sender, frozen=True):
    """POST /api/labels: a label to add. The reply is a `Project`."""

    name: Annotated[str, Meta(min_length=1, max_length=MAX_NAME, description=f"1 to {MAX_NAME} characters")]


class LabelEdit(Sender, frozen=True):
    """POST /api/labels/edit: change a label of the project. The reply is a `Project`.

    `value`: the new name, the label that gets the objects, or #rrggbb; "" to retire.
    """

    action: Annotated[LabelAction, Meta(description="one of rename, merge, recolour, retire")]
    name: SearchText
    value: SearchText = ""


class EmptyRequest(Struct, frozen=True):
    """POST /api/tensorboard and /api/link. The replies are a `TensorBoardReply` and a `SharedLink`."""


class SessionQuery(Struct, frozen=True):
    """GET /api/project, /api/history and /api/labels. The replies are a `Project`, a `History` and a `LabelUse`."""

    session: Name


class BoxesQuery(Struct, frozen=True):
    """GET /api/boxes: the boxes of an answer, to be copied. The reply is a `BoxesReply`."""

    session: Name
    image_id: ImageId


class LogQuery(Struct, frozen=True):
    """GET /api/log. The reply is a `Log`."""

    process: Annotated[ProcessName, Meta(description="one of trainer, server")]


class GalleryFilter(Struct, frozen=True):
    """A part of the query of GET /api/images; the default matches all images.

    `label`: at least one box has this label. `annotator`: this session has answered. `min_score`, `max_score`: bounds
    for the lowest score of the suggested boxes. `name`: substring of the file name, not case-sensitive (ASCII letters).
    "" and null match everything.
    """

    state: Annotated[Literal["all", "answered", "unanswered"], Meta(description="one of all, answered, unanswered")] = (
        "all"
    )
    label: SearchText = ""
    decision: Annotated[
        Literal["", "accept", "reject", "ignore"], Meta(description="one of accept, reject, ignore")
    ] = ""
    annotator: SearchText = ""
    min_score: Score = None
    max_score: Score = None
    name: SearchText = ""


class ImagesQuery(Sender, frozen=True):
    """GET /api/images, with a `GalleryFilter`: the images from `offset` on. The reply is a `GalleryPage`."""

    offset: Annotated[int, Meta(ge=0, le=10**9, description="a whole number of at most 1000000000")] = 0
    limit: Annotated[int, Meta(ge=0, le=MAX_PAGE, description=f"a whole number of at most {MAX_PAGE}")] = 100


class SentAnswer(Struct, frozen=True):
    """An answer, as the page posts it. `incoming` validates the spans and ignores an age that is not valid."""

    answer_id: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=64,
            pattern=r"^[\x00-\x7f]*\Z",
            description="a string of 1 to 64 ASCII characters",
        ),
    ]
    image_id: Annotated[str, Meta(description="an image id")]
    answer: Annotated[Decision, Meta(description="one of accept, reject, ignore")]
    spans: Annotated[Any, Meta(extra_json_schema={"type": "array", "items": {"$ref": "#/$defs/Span"}})]
    age_ms: Annotated[
        Any, Meta(description="milliseconds since the person answered", extra_json_schema={"type": "number"})
    ]
    version: Annotated[
        int | UnsetType | None, Meta(description="the model version whose suggestions were shown; null for none")
    ] = UNSET
    active_ms: Annotated[
        Annotated[int, Meta(ge=0, le=_DAY_MS)] | UnsetType,
        Meta(description=f"milliseconds of work for this answer, 0 to {_DAY_MS}"),
    ] = UNSET


class BadRequestError(Exception):
    """An invalid request, with the HTTP status and a message for the user."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


async def read_body(request: Request, kind: type[Message]) -> Message:
    """Read the JSON object in the request's body.

    Raises:
        BadRequestError: it is not valid.
    """
    try:
        body = json.loads(await request.body())  # unlike msgspec, accepts lone surrogates: only their field is refused
    except (ValueError, RecursionError) as error:
        raise BadRequestError(400, f"not JSON: {error}") from error
    if not isinstance(body, dict):
        raise BadRequestError(400, f"the body must be a JSON object; got {type(body).__name__}")
    return _read(kind, body, strict=True)


def read_query(request: Request, kind: type[Message]) -> Message:
    """Read the query of the request's URL. Empty parameters count as missing.

    Raises:
        BadRequestError: it is not valid.
    """
    return _read(kind, {name: text for name, text in request.query_params.items() if text}, strict=False)


def _read(kind: type[Message], values: Mapping[str, Any], *, strict: bool) -> Message:
    try:
        return read_fields(kind, values, strict=strict)
    except ValueError as error:
        raise BadRequestError(400, str(error)) from error


def read_fields(kind: type[Message], values: Mapping[str, Any], *, strict: bool = True) -> Message:
    """Convert the values of JSON to a struct. Unknown keys are ignored.

    Args:
        strict: False converts strings to numbers, too.

    Raises:
        ValueError: a value is missing or not allowed; with its name, what is allowed, and the value.
    """
    fields = {}
    for name, (type_, required) in _fields(kind).items():
        if name not in values and not required:
            continue
        value = values.get(name)
        try:
            fields[name] = msgspec.convert(value, type_, strict=strict)
        except (msgspec.ValidationError, UnicodeEncodeError) as error:  # the latter for a lone surrogate
            allowed = next((meta.description for meta in getattr(type_, "__metadata__", ())), None)
            raise ValueError(f"{name} must be {allowed or error}; got {reprlib.repr(value)}") from error
    return kind(**fields)


@cache
def _fields(kind: type[Struct]) -> dict[str, tuple[Any, bool]]:
    """The type of each field, and whether it is required."""
    return {field.name: (field.type, field.required) for field in msgspec.structs.fields(kind)}
