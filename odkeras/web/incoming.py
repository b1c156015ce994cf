"""Parses and validates the answers that the page posts."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from msgspec import UNSET, UnsetType

from odkeras.annotation import Answer, Decision, Span, Task
from odkeras.formats.prodigy import HASHES, write_answer
from odkeras.numeric import is_number
from odkeras.web.requests import SentAnswer, read_fields
from odkeras.web.spans import read_spans
from odkeras.web.stored import StoredAnswer
from odkeras.work import shown_edits

_MAX_AGE_S = 365 * 86400.0
_FRESH_S = 10.0


def read_posted_answer(
    posted: Any,
    *,
    dataset: str,
    session: str,
    labels: Collection[str],
    keypoints: Mapping[str, Collection[str]],
    earlier: Mapping[str, str],
    task_of: Callable[[str, Any], Task | None],
    last_answered_at: Callable[[str], float | None],
    last_active_s: Callable[[str], float | None],
) -> StoredAnswer:
    """Parse an answer of the page and combine it with its task.

    Args:
        labels: the allowed labels of boxes.
        keypoints: the names of the keypoints of each label; labels without are left out.
        earlier: other labels that a page may still have, and what they become.
        task_of: returns the task for (image id, version), with the suggestions of that version if they are known; None
            for an image that was never leased.
        last_answered_at: returns when the session last answered the image, in seconds since the epoch; None if never.
        last_active_s: returns the seconds of work on the image until the answer that this one corrects: 0 if there is
            none, None if they were not measured.

    Raises:
        ValueError: the answer is invalid; with the reason.
    """
    if not isinstance(posted, Mapping):
        raise ValueError(f"an answer must be a JSON object; got {type(posted).__name__}")
    sent = read_fields(SentAnswer, posted)
    task = task_of(sent.image_id, None if sent.version is UNSET else sent.version)
    if task is None:
        raise ValueError(f"image {sent.image_id[:80]!r} was never assigned in dataset {dataset!r}")
    size_hw = task.size_hw
    spans = _read_spans(sent, lambda spans: read_spans(spans, labels, size_hw, keypoints, earlier))
    answered_at = _answered_at(_age_s(sent.age_ms), lambda: last_answered_at(sent.image_id))
    last_s = last_active_s(sent.image_id)
    # A correction alone takes less time than an image, so its time and that of the corrected answer are added up.
    active_s = None if sent.active_ms is UNSET or last_s is None else last_s + sent.active_ms / 1000
    other = {key: value for key, value in task.other.items() if key not in HASHES}
    task = replace(as_shown(task, sent.version), spans=spans, other=other)
    answer = Answer(task, sent.answer, f"{dataset}-{session}", answered_at, active_s)
    return StoredAnswer(
        write_answer(answer),
        image_id=task.image_id,
        session=session,
        answered_at=answered_at,
        answer_id=sent.answer_id,
        version=task.version,
        edits=shown_edits(answer),
        active_s=active_s,
    )


def _read_spans(sent: SentAnswer, read: Callable[[Any], tuple[Span, ...]]) -> tuple[Span, ...]:
    """Every span of an accepted image must be usable. Rejected and ignored images drop spans that are not."""
    try:
        return read([] if sent.spans is None else sent.spans)
    except ValueError:
        if sent.answer is Decision.ACCEPT:
            raise
        return ()


def _answered_at(age_s: float, last: Callable[[], float | None]) -> float:
    """Seconds since the epoch. A fresh answer is always later than the session's last one, even if the clock was set
    back."""
    at = time.time() - age_s
    before = last() if age_s < _FRESH_S else None
    return at if before is None else max(at, before + 0.001)


def as_shown(task: Task, version: int | UnsetType | None) -> Task:
    """Drop the task's suggestions if the page showed those of another version, because these were not reviewed.

    Args:
        version: version of the suggestions that the page showed; UNSET if the page did not send it.
    """
    is_shown = version is UNSET or version == task.version
    return task if is_shown else replace(task, suggestions=None)


def _age_s(age_ms: Any) -> float:
    return age_ms / 1000 if is_number(age_ms, 1000 * _MAX_AGE_S) and age_ms >= 0 else 0.0


def check_answer_id(answer: StoredAnswer, image_id: str | None) -> None:
    """Refuse an id that another answer has: the database keeps the first answer with an id.

    Args:
        image_id: the image of the answer that has this id already; None if none has.

    Raises:
        ValueError: it is another image.
    """
    if image_id not in (None, answer.image_id):
        raise ValueError(
            f"the answer_id {answer.answer_id[:80]!r} belongs to an answer about another image; answer this image again"
        )
