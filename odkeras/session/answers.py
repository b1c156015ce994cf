"""Writes answers to the inbox: durably, with retries while the disk fails, and without duplicates."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from odkeras.formats.prodigy import Task
from odkeras.image_ref import ImageRef, is_data_uri
from odkeras.image_store import ImageStore
from odkeras.inbox import STORED_IMAGE, put_batch


class AnswerWriter:
    """Writes batches of answers. Thread-safe.

    An answer whose image is in the image store is written without the image, so that a batch is a few kilobytes. An
    answer that the same session sent before, unchanged, is dropped.

    Args:
        inbox_dir: directory of the batches.
        store: stores the images of the tasks.
        warn: callback with a message when answers cannot be stored.
    """

    def __init__(self, inbox_dir: Path, store: ImageStore, *, warn: Callable[[str], None]) -> None:
        self._inbox_dir = inbox_dir
        self._store = store
        self._warn = warn
        self._lock = threading.Lock()
        self._unsaved: list[Task] = []
        self._sent: dict[str, str] = {}

    @property
    def waiting(self) -> int:
        """Number of answers that could not be stored yet."""
        return len(self._unsaved)

    def write(self, answers: Sequence[Task]) -> Path | None:
        """Store new answers as one batch, together with those of earlier calls that failed.

        Returns:
            The batch's file; None if there was nothing new.

        Raises:
            InboxError: the batch cannot be written. Its answers are kept in memory and retried with the next call.
        """
        with self._lock:
            for answer in answers:
                if self._is_json(answer) and self._is_new(answer):
                    self._unsaved.append(answer)
            if not self._unsaved:
                return None
            path = put_batch(self._inbox_dir, [self._without_image(answer) for answer in self._unsaved])
            self._unsaved = []
            return path

    def try_write(self, answers: Sequence[Task]) -> Path | None:
        """`write`, but errors only go to `warn`: an exception in a host's update callback could lose the answers."""
        try:
            return self.write(answers)
        except Exception as error:
            self._warn(f"{self.waiting} answers wait to be stored for training: {error}")
            return None

    def give_up(self) -> int:
        """Retry a last time, and drop the answers that still cannot be stored. Returns their number."""
        self.try_write([])
        with self._lock:
            lost, self._unsaved = self._unsaved, []
            for answer in lost:  # not stored, so an answer that is sent again must not count as a duplicate
                self._sent.pop(_identity(answer) or "", None)
        return len(lost)

    def _is_json(self, answer: Task) -> bool:
        """Whether the answer can be serialized. If not, it is dropped, so that it does not block the other answers."""
        problem = _why_not_json(answer)
        if problem:
            self._warn(f"an answer cannot be stored and is left out: {problem}")
        return not problem

    def _is_new(self, answer: Task) -> bool:
        who = _identity(answer)
        if who is None:
            return True
        digest = _digest(answer)
        if self._sent.get(who) == digest:
            return False
        self._sent[who] = digest
        return True

    def _without_image(self, answer: Task) -> Task:
        image_id = answer.get("image_id")
        if not isinstance(image_id, str):
            return answer
        name = self._store.claim(image_id) or self._store_file_of(answer, image_id)
        return answer if name is None else {**_all_but_image(answer), STORED_IMAGE: name}

    def _store_file_of(self, answer: Task, image_id: str) -> str | None:
        """Store the image of an answer that has only a path, because the trainer's machine may not have the file.

        None if the answer has the image itself, or the image cannot be found or stored.
        """
        if is_data_uri(str(answer.get("image") or "")):
            return None
        image = ImageRef.of_record(answer).find(image_id)
        try:
            return None if image is None else self._store.put(image).name
        except OSError:
            return None


def _identity(answer: Task) -> str | None:
    """Key of an answer: its image and session; None if it names no image."""
    image = answer.get("image_id") or answer.get("_input_hash") or answer.get("path")
    return None if image is None else f"{image}|{answer.get('_session_id')}"


def _digest(answer: Task) -> str:
    """Hash of the annotator's decisions. A repeated request has the same `_timestamp`; a new answer has another one."""
    said = [answer.get(key) for key in ("answer", "spans", "width", "height", "_timestamp")]
    plain = json.loads(json.dumps(said))  # turns all keys into strings, which `sort_keys` can compare
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _why_not_json(answer: object) -> str:
    """Why the answer cannot be serialized; "" if it can. The image, a large string, is not serialized to find out."""
    if not isinstance(answer, dict):
        return f"it must be a JSON object; got {type(answer).__name__}"
    image = answer.get("image")
    if image is not None and not isinstance(image, str):
        return f"its image must be a text; got {type(image).__name__}"
    try:
        json.dumps(_all_but_image(answer))
    except (TypeError, ValueError, RecursionError) as error:
        return str(error)
    return ""


def _all_but_image(answer: Task) -> Task:
    return {key: value for key, value in answer.items() if key != "image"}
