"""The two hashes of a task. The real ones are murmurhash; any stable 32-bit number does here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

INPUT_HASH_ATTR = "_input_hash"
TASK_HASH_ATTR = "_task_hash"
SESSION_ID_ATTR = "_session_id"
INPUT_KEYS = ("text", "image", "html", "input")
TASK_KEYS = ("spans", "label", "options", "arcs")
IGNORED_KEYS = (
    *("score", "rank", "model", "source", "pattern", "priority", "path"),
    *("_view_id", "_session_id", "_annotator_id", "answer"),
)

Task = dict[str, Any]


def set_hashes(
    task: Task,
    input_keys: Iterable[str] | None = INPUT_KEYS,
    task_keys: Iterable[str] | None = TASK_KEYS,
    overwrite: bool = False,
) -> Task:
    """A copy of the task with both hashes; hashes that it has are kept unless `overwrite`.

    Ignored keys count for nothing even when they are named: tasks that differ in their `path` alone, hashed with
    input_keys=("path",), are one and the same.
    """
    hashed = dict(task)
    if overwrite or INPUT_HASH_ATTR not in hashed:
        hashed[INPUT_HASH_ATTR] = _hash(_chosen(task, tuple(input_keys or INPUT_KEYS), whole_if_none=True))
    if overwrite or TASK_HASH_ATTR not in hashed:
        chosen = _chosen(task, tuple(task_keys or TASK_KEYS))
        hashed[TASK_HASH_ATTR] = _hash([hashed[INPUT_HASH_ATTR], chosen])
    return hashed


def _chosen(task: Task, keys: tuple[str, ...], whole_if_none: bool = False) -> list[Any]:
    """What is hashed. A task that has none of the keys is hashed as a whole (recalled)."""
    present = [key for key in keys if key in task]
    if whole_if_none and not present:
        present = sorted(key for key in task if key not in (INPUT_HASH_ATTR, TASK_HASH_ATTR))
    return [[key, task[key]] for key in present if key not in IGNORED_KEYS]


def _hash(value: Any) -> int:
    digest = hashlib.blake2b(json.dumps(value, sort_keys=True, default=str).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big", signed=True)
