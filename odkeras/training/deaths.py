"""Find the image with which the trainer process dies: an exception is handled where it is raised, but nothing handles
the kernel's SIGKILL for lack of memory, or a decoder that crashes.

While the trainer trains, a small file has the images that were drawn. If the process dies, the next one finds the file.
After `MAX_DEATHS` deaths in a row it takes a step with each of the latest images alone, with the file as before. So an
image is left out only if the process died with it alone, and again. A host that kills the trainer itself deletes the
file.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO

from odkeras.data.stored_example import StoredExample
from odkeras.numeric import is_whole
from odkeras.project import Project, read_jsonl, read_status, write_atomically

_log = logging.getLogger(__name__)

MAX_DEATHS = 2
"""So many deaths of the process: in a row before images are tried alone, and with one image alone before it is left
out. Both together are fewer than those after which a host pauses."""
_MAX_SUSPECTS = 100  # more than a pipeline of datasets holds in its buffers

Key = tuple[str, str]  # image id, and batch of the answer: a new answer about the image is tried again


@dataclass
class _State:
    deaths: int = 0
    suspects: tuple[Key, ...] = ()
    alone: Key | None = None  # the last one that a process died with alone
    deaths_alone: int = 0
    left_out: tuple[Key, ...] = ()


class TrainingDeaths:
    """The deaths of the trainer processes of a project, read when a process starts.

    Args:
        project: its model directory has the files.

    Raises:
        OSError: the model directory cannot be written.
    """

    def __init__(self, project: Project) -> None:
        self._path, self._drawn_path = project.deaths_path, project.drawn_path
        self._lock = threading.Lock()
        self._drawn: IO[bytes] | None = None
        self._state = _read_state(read_status(self._path) or {})
        rows = read_jsonl(self._drawn_path)
        if keys := _latest_keys(rows):
            if rows[0].get("alone"):
                self._note_death_alone(keys[0])
            else:
                self._note_death(keys)
            self._save()
        with suppress(OSError):
            self._drawn_path.unlink(missing_ok=True)

    def _note_death(self, drawn: tuple[Key, ...]) -> None:
        state = self._state
        state.deaths += 1
        common = set(state.suspects) & set(drawn)
        state.suspects = tuple(key for key in drawn if key in common) or drawn
        _log.warning("the last trainer died while it trained, %d times in a row", state.deaths)

    def _note_death_alone(self, key: Key) -> None:
        state = self._state
        state.deaths_alone = state.deaths_alone + 1 if state.alone == key else 1
        state.alone = key
        _log.error("the last trainer died in a step with image %s alone, %d times", key[0], state.deaths_alone)
        if state.deaths_alone >= MAX_DEATHS:
            self._state = _State(left_out=(*state.left_out, key))

    @property
    def left_out(self) -> Sequence[Key]:
        """The images with which the process died."""
        return self._state.left_out

    def noting(self, read: Callable[[StoredExample], bytes]) -> Callable[[StoredExample], bytes]:
        """`read`, which notes each example in the file first. Thread-safe."""

        def note_and_read(example: StoredExample) -> bytes:
            with self._lock, suppress(OSError):  # training goes on without the note
                if self._drawn is not None:
                    self._drawn.write(_row(example))
            return read(example)

        return note_and_read

    @contextmanager
    def watch(self) -> Iterator[None]:
        """While this block runs, the death of the process counts. Its end, also by an `Exception`, ends the row."""
        with suppress(OSError):
            self._drawn = self._drawn_path.open("wb", buffering=0)
        try:
            yield
        except Exception:
            self._end()
            raise
        self._end()

    def try_alone(self, examples: Sequence[StoredExample], step: Callable[[StoredExample], object]) -> None:
        """Take a step with each of the suspects alone, if the process died `MAX_DEATHS` times in a row.

        Args:
            examples: those that are to be trained on.
            step: takes a step with one example; it may kill the process.

        Raises:
            OSError: the model directory cannot be written.
        """
        if self._state.deaths < MAX_DEATHS:
            return
        state, suspects = self._state, {*self._state.suspects}
        among = [example for example in examples if _key(example) in suspects]
        among.sort(key=lambda example: _key(example) != state.alone)  # where the last process died, first
        _log.warning("trying %d images alone, since the trainer died %d times in a row", len(among), state.deaths)
        for example in among:
            self._drawn_path.write_bytes(_row(example, alone=True))
            step(example)
        self._end()

    def _end(self) -> None:
        with self._lock:
            if self._drawn is not None:
                self._drawn.close()
            self._drawn = None
        with suppress(OSError):
            self._drawn_path.unlink(missing_ok=True)
        if self._state.deaths:
            self._state = _State(left_out=self._state.left_out)
            self._save()

    def _save(self) -> None:
        state = self._state
        row = {"deaths": state.deaths, "suspects": state.suspects, "left_out": state.left_out}
        write_atomically(self._path, json.dumps({**row, "alone": state.alone, "deaths_alone": state.deaths_alone}))


def _key(example: StoredExample) -> Key:
    return example.image_id, example.batch


def _row(example: StoredExample, alone: bool = False) -> bytes:
    return json.dumps({"image_id": example.image_id, "batch": example.batch, "alone": alone}).encode() + b"\n"


def _latest_keys(rows: Sequence[dict[str, object]]) -> tuple[Key, ...]:
    keys = ((row.get("image_id"), row.get("batch")) for row in reversed(rows))
    whole = dict.fromkeys((name, batch) for name, batch in keys if isinstance(name, str) and isinstance(batch, str))
    return tuple(whole)[:_MAX_SUSPECTS]


def _read_state(row: dict[str, object]) -> _State:
    """What is damaged is forgotten: the images are found again."""
    alone = _keys([row.get("alone")])
    deaths, deaths_alone = row.get("deaths"), row.get("deaths_alone")
    return _State(
        deaths=deaths if is_whole(deaths, 0) else 0,
        suspects=_keys(row.get("suspects")),
        alone=alone[0] if alone else None,
        deaths_alone=deaths_alone if is_whole(deaths_alone, 0) else 0,
        left_out=_keys(row.get("left_out")),
    )


def _keys(value: object) -> tuple[Key, ...]:
    rows = value if isinstance(value, list) else []
    return tuple((str(row[0]), str(row[1])) for row in rows if isinstance(row, list) and len(row) == 2)
