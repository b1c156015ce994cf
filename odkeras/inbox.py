"""The queue of answers for the trainer: one .jsonl file per batch, written atomically, processed oldest first.

The image of an answer is embedded in the answer, or stored next to the batches, where the session put it when it sent
out the task.
"""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from odkeras.errors import InboxError
from odkeras.image_ref import is_file
from odkeras.image_store import ImageStore
from odkeras.project import TEMPORARY_PREFIX, write_atomically
from odkeras.text import is_utf8

STORED_IMAGE = "stored_image"
"""Key of an answer whose image is stored separately: the image's file name in `images_dir(inbox_dir)`."""

_LAST_STAMP = ".last-stamp"
_SET_ASIDE = "set-aside"
_naming = threading.Lock()
_last_stamp_ns = 0
_listed: set[Path] = set()  # inboxes whose batches this process has listed for a stamp


def put_batch(inbox_dir: Path | str, answers: Sequence[dict[str, Any]], *, name: str | None = None) -> Path:
    """Store a batch durably (synced to disk when this returns), and return its path.

    Args:
        name: file name from `new_batch_name`; a new one when None. An existing batch of that name is replaced.

    Raises:
        InboxError: disk full, no permission, or an answer that cannot be written as JSON. No partial batch remains, so
            the caller can retry.
        ValueError: no answers.
    """
    if not answers:
        raise ValueError("a batch needs at least one answer; got none")
    inbox_dir = Path(inbox_dir)
    data = b"".join(_encode(answer, number) for number, answer in enumerate(answers, start=1))
    try:
        inbox_dir.mkdir(parents=True, exist_ok=True)
        path = inbox_dir / (name or new_batch_name(inbox_dir))
        write_atomically(path, data)
    except OSError as error:
        raise InboxError(f"cannot store {len(answers)} answers in {inbox_dir}: {error.strerror or error}") from error
    return path


def new_batch_name(inbox_dir: Path | str) -> str:
    """A file name for a batch; it sorts after those of all earlier batches.

    Raises:
        OSError: the directory cannot be created.
    """
    inbox_dir = Path(inbox_dir)
    inbox_dir.mkdir(parents=True, exist_ok=True)
    return f"{_next_stamp_ns(inbox_dir):020d}-{os.getpid()}-{uuid.uuid4().hex[:8]}.jsonl"


def batch_written_s(name: str) -> float:
    """When a batch was written, in seconds since the epoch, by its name; 0 for a name of another kind."""
    stamp = name.partition("-")[0]
    return int(stamp) / 1e9 if len(stamp) == 20 and stamp.isdecimal() else 0.0


def images_dir(inbox_dir: Path | str) -> Path:
    """The directory for images of tasks that were sent out (see `image_store`)."""
    return Path(inbox_dir) / "images"


def with_stored_image(answer: dict[str, Any], inbox_dir: Path | str) -> dict[str, Any]:
    """The answer with the path of its stored image in `image`; unchanged if the answer has no stored image."""
    if STORED_IMAGE not in answer:
        return answer
    rest = {key: value for key, value in answer.items() if key != STORED_IMAGE}
    path = ImageStore(images_dir(inbox_dir)).locate(answer[STORED_IMAGE])
    return {**rest, "image": str(path)} if path else rest


def list_batches(inbox_dir: Path | str) -> list[Path]:
    """The complete batches, oldest first; [] if there is no such directory."""
    return [path for path in _list_entries(inbox_dir) if _is_batch(path)]


def has_batches(inbox_dir: Path | str) -> bool:
    """Whether a complete batch waits. Unlike `list_batches`, it does not list all of them."""
    try:
        with os.scandir(inbox_dir) as entries:
            return any(_is_entry(Path(entry)) and _is_batch(Path(entry)) for entry in entries)
    except FileNotFoundError:
        return False


def list_strays(inbox_dir: Path | str) -> list[Path]:
    """The `*.jsonl` entries that are not batches: directories, dangling links, and names that are not UTF-8, which a
    record cannot contain."""
    return [path for path in _list_entries(inbox_dir) if not _is_batch(path)]


def set_aside(path: Path) -> Path:
    """Move an entry of the inbox to `set-aside` in the inbox, where nothing reads it, and return its new path.

    Raises:
        OSError: it cannot be moved.
    """
    directory = path.parent / _SET_ASIDE
    directory.mkdir(exist_ok=True)
    target = directory / path.name
    if os.path.lexists(target):  # Path.exists follows links
        target = directory / f"{uuid.uuid4().hex[:8]}-{path.name}"
    return path.rename(target)


def read_batch(path: Path | str) -> Iterator[tuple[dict[str, Any] | None, str | None]]:
    """Yield (answer, None) for each valid line of a batch and (None, error message) for each invalid one.

    Raises:
        InboxError: the file cannot be read.
    """
    path = Path(path)
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise InboxError(f"cannot read the batch {path}: {error.strerror}") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _decode(line, f"{path.name}:{number}")


def _list_entries(inbox_dir: Path | str) -> list[Path]:
    try:
        paths = list(Path(inbox_dir).iterdir())
    except FileNotFoundError:
        return []
    return sorted(path for path in paths if _is_entry(path))


def _is_entry(path: Path) -> bool:
    return path.suffix == ".jsonl" and not path.name.startswith(".")


def _is_batch(path: Path) -> bool:
    return is_utf8(path.name) and is_file(path)


def _encode(answer: dict[str, Any], number: int) -> bytes:
    try:
        return json.dumps(answer).encode("ascii") + b"\n"
    except (TypeError, ValueError) as error:
        raise InboxError(f"answer {number} of the batch cannot be written as JSON: {error}") from error


def _decode(line: bytes, where: str) -> tuple[dict[str, Any] | None, str | None]:
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError) as error:
        return None, f"{where}: not JSON: {error}"
    if not isinstance(answer, dict):
        return None, f"{where}: an answer must be a JSON object; got {type(answer).__name__}"
    return answer, None


def _next_stamp_ns(inbox_dir: Path) -> int:
    """A timestamp in ns that is larger than that of every earlier batch, waiting or processed.

    Usually the current time. Strictly increasing, because the latest answer about an image wins: that must hold even
    if the clock was set back, or if another machine's clock is ahead. The last timestamp is in a file; the batches are
    listed once per process, and if the file cannot be read.
    """
    global _last_stamp_ns
    last_path = inbox_dir / _LAST_STAMP
    with _naming:
        given = []
        with suppress(OSError):
            given.append(last_path.read_text(encoding="ascii", errors="replace"))
        if not given or inbox_dir not in _listed:
            given += [path.name.split("-")[0] for path in list_batches(inbox_dir)]
            _listed.add(inbox_dir)
        stamps = [int(stamp) for stamp in given if len(stamp) == 20 and stamp.isdecimal() and int(stamp) < 2**63]
        _last_stamp_ns = max([time.time_ns(), _last_stamp_ns + 1, *(stamp + 1 for stamp in stamps)])
        partial = last_path.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}{_LAST_STAMP}")
        with suppress(OSError):  # best effort: the file matters only if a clock is wrong
            partial.write_text(f"{_last_stamp_ns:020d}", encoding="ascii")
            partial.replace(last_path)
        return _last_stamp_ns
