"""The replies and events that the page receives.

`frontend/src/messages.ts` has the same types for the page; `python scripts/page_types.py` generates it. Lengths are in
pixels of the upright image.
"""

from __future__ import annotations

import json
from collections.abc import Container
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, to_builtins

from odkeras.annotation import Decision
from odkeras.control import TrainingState

ProcessName = Literal["trainer", "server"]
SpanType = Literal["rect", "polygon"]
Visibility = Literal[0, 1, 2]
"""COCO's: not labelled, hidden, visible."""
Point = tuple[float, float]


class Keypoint(Struct, frozen=True):
    """A named point of an object. Where the visibility is 0, the place is a proposal that is not trained."""

    name: str
    x: float
    y: float
    visibility: Visibility


class Span(Struct, frozen=True):
    """A box or polygon. `x` and `y` are its left and upper edge; polygons have `points`; `score` is the model's."""

    id: str
    label: str
    type: SpanType
    x: float
    y: float
    width: float
    height: float
    points: list[Point] | UnsetType = UNSET
    score: float | UnsetType = UNSET
    picked: Annotated[
        bool | UnsetType, Meta(description="whether the annotator picked it from the model's candidates")
    ] = UNSET
    keypoints: Annotated[list[Keypoint] | UnsetType, Meta(description="of labels that have keypoints")] = UNSET


class Candidate(Struct, frozen=True):
    """An object that the model detected and that is not shown. The annotator can pick it."""

    label: str
    rect: Annotated[
        tuple[float, float, float, float], Meta(description="[x, y, width, height], rounded to a tenth of a pixel")
    ]
    score: float
    keypoints: Annotated[list[Keypoint] | UnsetType, Meta(description="that the model detected")] = UNSET


class Task(Struct, frozen=True):
    """An image to annotate."""

    image_id: str
    image: Annotated[str, Meta(description="the path of its URL")]
    width: int
    height: int
    file: str
    spans: list[Span]
    candidates: Annotated[list[Candidate], Meta(description="best first; none for control images")]
    version: Annotated[int | None, Meta(description="the model version that suggested the boxes; null for none")]
    threshold: Annotated[float | None, Meta(description="the lowest score of a suggested box")]


class TasksReply(Struct, frozen=True):
    tasks: list[Task]
    done: Annotated[bool, Meta(description="whether no image is left for this session")]
    waiting: Annotated[str, Meta(description='why there are no tasks, if more follow; else ""')]


class SuggestionsReply(Struct, frozen=True):
    """The tasks that have newer suggestions."""

    tasks: list[Task]


class Refusal(Struct, frozen=True):
    answer_id: str
    reason: str


class AnswersReply(Struct, frozen=True):
    saved: Annotated[list[str], Meta(description="ids of the stored answers")]
    refused: list[Refusal]


class OpenedTask(Struct, frozen=True):
    task: Task
    answer: Annotated[Decision | None, Meta(description="null if the image is not answered")]


class BoxesReply(Struct, frozen=True):
    file: str
    spans: list[Span]


class SaveReply(Struct, frozen=True):
    """The reply to POST /api/save, whose body is a `Sender`."""

    delivered: Annotated[int, Meta(description="number of answers that were handed to the trainer")]
    resumed: Annotated[bool, Meta(description="whether training was paused or stopped before")]


class TrainingReply(Struct, frozen=True):
    training: TrainingState


class TensorBoardReply(Struct, frozen=True):
    url: str


class SharedLink(Struct, frozen=True):
    url: str
    works_elsewhere: Annotated[bool, Meta(description="whether the link works on other machines")]


class Label(Struct, frozen=True):
    name: str
    color: Annotated[str, Meta(description="#rrggbb")]
    keypoints: Annotated[list[str], Meta(description="the names of the keypoints that its objects have")]
    edges: Annotated[list[tuple[int, int]], Meta(description="pairs of keypoints that a line joins, by their place")]


class LabelUse(Struct, frozen=True):
    """The number of answered images that have boxes of each label."""

    images: dict[str, int]


class Project(Struct, frozen=True):
    """What does not change while the page is open, except for the labels."""

    dataset: str
    session: str
    labels: list[Label]
    renamed: Annotated[dict[str, str], Meta(description="earlier names of labels, and the labels that they are now")]
    source: Annotated[str, Meta(description="the name of the images' folder or file, without its path")]
    prefetch: Annotated[int, Meta(description="number of tasks that the page fetches ahead")]
    batch_size: Annotated[int, Meta(description="number of answers that start a training round")]
    answered: Annotated[int, Meta(description="number of answers of this session so far")]
    random_weights: Annotated[bool, Meta(description="whether the model was not initialised from a checkpoint")]
    threshold: float | str
    tensorboard: Annotated[bool, Meta(description="whether the page can open TensorBoard")]
    logdir: str
    odkeras: Annotated[str, Meta(description="the installed version of odkeras")]
    instance: Annotated[str, Meta(description="random for each run, to notice a restart")]


class PastAnswer(Struct, frozen=True):
    image_id: str
    file: str
    answer: Decision
    boxes: int
    answered_s_ago: float
    state: Annotated[str, Meta(description="sending, saved or delivered (to the trainer)")]


class History(Struct, frozen=True):
    """The session's latest answers, newest first."""

    answers: list[PastAnswer]


class NextStep(Struct, frozen=True):
    title: Annotated[str, Meta(description="what the command achieves")]
    command: Annotated[str, Meta(description="shell command to paste")]
    remark: Annotated[str, Meta(description='additional information; "" if there is none')] = ""


class NextSteps(Struct, frozen=True):
    """The reply to GET /api/next-steps: what to do once all images are answered."""

    steps: list[NextStep]


class Log(Struct, frozen=True):
    """The end of a process's log."""

    process: ProcessName
    path: str
    text: str


class Failure(Struct, frozen=True):
    """The body of every reply with an error status."""

    error: str


class GalleryBox(Struct, frozen=True):
    label: str
    rect: Annotated[
        tuple[float, float, float, float], Meta(description="left, top, width and height, as fractions of the image's")
    ]


class GalleryImage(Struct, frozen=True):
    key: str
    image_id: Annotated[str | None, Meta(description="null if the image has not been read yet")]
    file: str
    thumbnail: Annotated[str, Meta(description="the path of its URL")]
    decision: Annotated[Decision | None, Meta(description="null if the image is unanswered")]
    annotator: str | None
    score: float | None
    held: Annotated[Literal["", "here", "elsewhere"], Meta(description="which tab holds the unanswered image")]
    holder: Annotated[str | None, Meta(description="the session of that tab")]
    boxes: list[GalleryBox]


class GalleryPage(Struct, frozen=True):
    total: Annotated[int, Meta(description="number of images that match the filter")]
    offset: int
    images: list[GalleryImage]
    missing: Annotated[str, Meta(description='why the list may be incomplete; "" if it is complete')]


class News(Struct, frozen=True):
    """A "news" event: a line of the page's log."""

    text: str
    urgent: bool
    at: Annotated[float, Meta(description="seconds since the epoch")]
    version: int | None


class Trainer(Struct, frozen=True):
    """The trainer's status. `step` of `steps` are those of the round."""

    state: str
    reason: str
    round: int | None
    step: int | None
    steps: int | None
    loss: float | None


class Counts(Struct, frozen=True):
    """Number of answers."""

    accept: int
    reject: int
    ignore: int


class SkippedImage(Struct, frozen=True):
    file: str
    reason: str


class Annotator(Struct, frozen=True):
    name: str
    answers: int
    here: Annotated[bool, Meta(description="whether a page of this session is open")]


class VersionUse(Struct, frozen=True):
    """What became of the boxes that a model version suggested."""

    version: int
    images: int
    suggested: int
    kept: Annotated[int, Meta(description="with an IoU of at least 0.9")]
    kept_80: Annotated[int, Meta(description="with an IoU of at least 0.8; includes kept")]
    adjusted: Annotated[int, Meta(description="with an IoU of 0.5 to 0.9")]
    relabelled: int
    deleted: int
    added: int
    picked: Annotated[int, Meta(description="those of added that were picked from the candidates")]


class Round(Struct, frozen=True):
    """A training round."""

    round: int | None
    loss: float | None
    steps: int | None
    examples: int | None
    train_s: float | None
    version: Annotated[int | None, Meta(description="the version that it published")]
    failed: Annotated[str, Meta(description='the reason; "" for a success')]


class Evaluation(Struct, frozen=True):
    """An evaluation on held-out images."""

    round: int | None
    metrics: dict[str, float]
    failed: Annotated[str, Meta(description='the reason; "" for a success')]


class PanelState(Struct, frozen=True):
    """A "state" event: everything that the live panel shows."""

    trainer: Trainer | None
    failure: Annotated[str, Meta(description='why the trainer or the server was given up; "" if neither was')]
    failed: Annotated[Literal["", "trainer", "server"], Meta(description="which one was given up")]
    version: Annotated[int | None, Meta(description="the served version")]
    names: Annotated[dict[str, str], Meta(description="display names by version")]
    published_s_ago: float | None
    answers: Annotated[Counts, Meta(description="of all sessions")]
    mine: Annotated[Counts, Meta(description="of this session")]
    total: Annotated[int | None, Meta(description="number of images; null if unknown")]
    left: Annotated[int | None, Meta(description="number of unanswered images; null if unknown")]
    pending: Annotated[int, Meta(description="number of answers that the trainer does not have yet")]
    training: TrainingState
    labels: Annotated[int, Meta(description="increases when the labels change")]
    skipped: Annotated[list[SkippedImage], Meta(description="the latest images that cannot be used")]
    skipped_count: int
    sessions: list[Annotator]
    versions: list[VersionUse]
    first_loss: Annotated[float | None, Meta(description="loss of the first round, for comparison")]
    rounds: list[Round]
    evaluations: list[Evaluation]


def encode(document: Any, *, without: Container[str] = ()) -> str:
    """JSON in ASCII: strings from clients may contain surrogates, which UTF-8, and with it msgspec, cannot encode.

    Args:
        without: keys of the document to leave out.
    """
    plain = to_builtins(document)
    if without:
        plain = {key: value for key, value in plain.items() if key not in without}
    return json.dumps(plain, allow_nan=False)
