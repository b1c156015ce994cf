"""Answers on their way into the inbox: durable when stored, kept while they cannot be stored, and the same one once."""

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
    """Writes batches of answers; may be used by several threads.

    An answer whose image is in the store is written without it, so that a batch is a few kilobytes. An answer that
    was sent before, by the same session and unchanged, is left out.

    Args:
        inbox_dir: where batches go.
        store: the images that were handed out.
        warn: told when answers cannot be stored.
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
        """Answers that could not be stored yet."""
        return len(self._unsaved)

    def write(self, answers: Sequence[Task]) -> Path | None:
        """Store new answers, and those that could not be stored before, as one batch.

        Returns:
            The batch's file; None if there was nothing new.

        Raises:
            InboxError: they cannot be stored; they are kept, and tried again with the next ones.
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
        """`write`, but what goes wrong is only told: a host that lost its update callback would lose the answers."""
        try:
            return self.write(answers)
        except Exception as error:
            self._warn(f"{self.waiting} answers wait to be stored for training: {error}")
            return None

    def give_up(self) -> int:
        """Try once more; returns how many answers are lost to training."""
        self.try_write([])
        with self._lock:
            lost, self._unsaved = self._unsaved, []
            for answer in lost:  # one that is sent again is welcome
                self._sent.pop(_identity(answer) or "", None)
        return len(lost)

    def _is_json(self, answer: Task) -> bool:
        """One answer that cannot be written must not keep the others from being."""
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
        """The image of an answer that names its file only: the trainer may be on a machine that does not have it."""
        if is_data_uri(str(answer.get("image") or "")):
            return None
        image = ImageRef.of_record(answer).find(image_id)
        try:
            return None if image is None else self._store.put(image).name
        except OSError:
            return None


def _identity(answer: Task) -> str | None:
    """Which image, answered by whom; None if the answer does not tell."""
    image = answer.get("image_id") or answer.get("_input_hash") or answer.get("path")
    return None if image is None else f"{image}|{answer.get('_session_id')}"


def _digest(answer: Task) -> str:
    """Of all that a person decides. What is sent again has the same `_timestamp`; what is answered again has not."""
    said = [answer.get(key) for key in ("answer", "spans", "width", "height", "_timestamp")]
    plain = json.loads(json.dumps(said))  # all keys are texts then, and can be sorted
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _why_not_json(answer: object) -> str:
    """ "" if it can be written. The image, which is a large text, is not looked into."""
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
