"""Writes batches of answers to the inbox, from which the trainer takes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from odkeras.formats.prodigy import Record
from odkeras.image_ref import ImageRef, is_data_uri
from odkeras.image_store import ImageStore
from odkeras.inbox import STORED_IMAGE, images_dir, put_batch


def write_answers(
    inbox_dir: Path, answers: Sequence[Record], *, name: str | None = None, warn: Callable[[str], None]
) -> Path | None:
    """Write answers as one batch; durable when this returns.

    An image that is in the image store is left out, so that a batch is a few kilobytes. An answer that cannot be
    written as JSON is left out and reported, so that it does not block the others.

    Args:
        inbox_dir: directory of the batches and of the image store.
        name: name of the batch's file, from `inbox.new_batch_name`. Writing the same batch twice is idempotent: the
            trainer skips a batch whose name it has a record of. A new name when None.
        warn: callback for answers that are left out.

    Returns:
        The batch's file; None without answers.

    Raises:
        InboxError: the batch cannot be written.
    """
    store = ImageStore(images_dir(inbox_dir))
    usable = []
    for answer in answers:
        if problem := _why_not_json(answer):
            warn(f"an answer cannot be stored and is skipped: {problem}")
        else:
            usable.append(_without_image(answer, store))
    return put_batch(inbox_dir, usable, name=name) if usable else None


def _without_image(answer: Record, store: ImageStore) -> Record:
    """The answer with a reference to its stored image. An image that the answer only names by a path is stored, because
    the trainer's machine may not have the file. Unchanged if the image cannot be found or stored."""
    image_id = answer.get("image_id")
    if not isinstance(image_id, str):
        return answer
    name = store.claim(image_id)
    if name is None and not is_data_uri(str(answer.get("image") or "")):
        image = ImageRef.of_record(answer).find(image_id)
        try:
            name = None if image is None else store.put(image).name
        except OSError:
            name = None
    return answer if name is None else {**_all_but_image(answer), STORED_IMAGE: name}


def _why_not_json(answer: object) -> str:
    """Why the answer cannot be serialized; "" if it can. The image, a large string, is not serialized to find out."""
    if not isinstance(answer, dict):
        return f"it must be a JSON object; got {type(answer).__name__}"
    image = answer.get("image")
    if image is not None and not isinstance(image, str):
        return f"its image must be a string; got {type(image).__name__}"
    try:
        json.dumps(_all_but_image(answer))
    except (TypeError, ValueError, RecursionError) as error:
        return str(error)
    return ""


def _all_but_image(answer: Record) -> Record:
    return {key: value for key, value in answer.items() if key != "image"}
