"""An annotator who answers over Prodigy's REST routes, and what her browser makes of tasks and spans.

Rectangles look as in public records: uuid, colour name, one decimal, corners from the top left anticlockwise. The
functions return changed copies.
"""

from __future__ import annotations

import base64
import copy
import io
import json
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from PIL import Image

Task = dict[str, Any]
Span = dict[str, Any]
TruthBox = tuple[Sequence[float], str]
COLOURS = (
    *("yellow", "cyan", "magenta", "springgreen", "tomato", "deepskyblue", "orange", "hotpink", "aquamarine", "gold"),
    *("peachpuff", "greenyellow"),
)
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Annotator:
    """Speaks the routes of old and of newer versions: whichever the server has.

    Args:
        url: of the server.
        session: a name; everybody without one shares the server's default session.
    """

    def __init__(self, url: str, session: str | None = None, *, timeout_s: float = 60) -> None:
        self._url = url.rstrip("/")
        self._session = session
        self._timeout_s = timeout_s
        self.config = self.call("/project")
        self.session_id = f"{self.config.get('dataset')}-{session}" if session else None
        self.total: int | None = None
        self.progress: float | None = None
        self._is_old = False

    def questions(self) -> list[Task]:
        """The next batch."""
        response = self._ask()
        self.total, self.progress = response["total"], response["progress"]
        return response["tasks"]

    def answer(self, tasks: Iterable[Task], decide: Callable[[Task], Task | None]) -> list[Task]:
        """Sends what `decide` makes of the tasks in one batch, and returns it; None leaves a task unanswered.

        Raises:
            urllib.error.HTTPError: the server failed.
        """
        answers = [self._stamped(answer) for task in tasks if (answer := decide(copy.deepcopy(task))) is not None]
        body = {"answers": answers} | ({"session_id": self.session_id} if self.session_id else {})
        self.progress = self.call("/give_answers", body)["progress"]
        return answers

    def call(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """POST when there is a body, else GET."""
        query = f"?session={self._session}" if self._session else ""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path + query, data, {"Content-Type": "application/json"})
        with _OPENER.open(request, timeout=self._timeout_s) as response:
            return json.load(response)

    def _ask(self) -> dict[str, Any]:
        if not self._is_old:
            try:
                return self.call("/get_session_questions", {"session_id": self.session_id})
            except urllib.error.HTTPError as error:
                if error.code not in (404, 405):
                    raise
                self._is_old = True
        return self.call("/get_questions")

    def _stamped(self, answer: Task) -> Task:
        if not self.session_id:
            return answer
        annotator = {} if self._is_old else {"_annotator_id": self.session_id}
        return {**answer, "_session_id": self.session_id, **annotator}


def ui_answer(
    task: Task,
    truth_boxes_xyxy_px: Iterable[TruthBox] | None,
    decision: str = "accept",
    *,
    era: str = "1.18",
    session_id: str | None = None,
    view_id: str = "image_manual",
) -> Task:
    """The task as the browser sends it back.

    Args:
        truth_boxes_xyxy_px: box and label of what she draws, after deleting what was suggested; None leaves the spans
            as they are. When there was nothing and she draws nothing, the answer has no `spans` at all.
        decision: accept, reject or ignore.
        era: the version of Prodigy: 1.9 and older write `points` and `label` alone.
    """
    answer = with_image_size(copy.deepcopy(task))
    if truth_boxes_xyxy_px is not None:
        suggested = answer.pop("spans", None)
        drawn = draw_spans(truth_boxes_xyxy_px, era=era)
        if suggested or drawn:
            answer["spans"] = drawn
    answer |= {"answer": decision, "_view_id": view_id, "_session_id": session_id}
    if not is_old(era):
        answer["_annotator_id"] = session_id
    if not is_old(era) and era != "1.10":
        answer |= {"_is_binary": False, "_timestamp": int(time.time())}
    return answer


def draw_spans(truth_boxes_xyxy_px: Iterable[TruthBox], *, era: str = "1.18") -> list[Span]:
    """A rectangle per box; every label has its colour."""
    boxes = list(truth_boxes_xyxy_px)
    labels = list(dict.fromkeys(label for _, label in boxes))
    return [draw_span(box, label, COLOURS[labels.index(label) % len(COLOURS)], era=era) for box, label in boxes]


def draw_span(box_xyxy_px: Sequence[float], label: str, colour: str = COLOURS[0], *, era: str = "1.18") -> Span:
    left, top, right, bottom = (round(float(value), 1) for value in box_xyxy_px)
    points = [[left, top], [left, bottom], [right, bottom], [right, top]]
    if is_old(era):
        return {"label": label, "points": points}
    width, height = round(right - left, 1), round(bottom - top, 1)
    center = [round(left + width / 2, 2), round(top + height / 2, 2)]
    place = {"x": left, "y": top, "height": height, "width": width, "center": center}
    return {"id": str(uuid.uuid4()), "label": label, "color": colour, **place, "type": "rect", "points": points}


def with_image_size(task: Task) -> Task:
    """The browser adds `width` and `height`, if it sees the image."""
    if ("width" in task and "height" in task) or not str(task.get("image", "")).startswith("data:"):
        return task
    data = base64.b64decode(task["image"].partition(",")[2])
    with Image.open(io.BytesIO(data)) as image:
        return {**task, "width": image.width, "height": image.height}


def is_old(era: str) -> bool:
    """Before the image interface of 1.10."""
    return tuple(int(part) for part in era.split(".")[:2]) < (1, 10)
