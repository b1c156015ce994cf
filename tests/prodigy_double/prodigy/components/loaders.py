"""Loaders of tasks. `get_stream` is here in all versions; newer ones have another in `components.stream`."""

from __future__ import annotations

import base64
import json
import mimetypes
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from prodigy.components.db import connect
from prodigy.eras import current_era
from prodigy.hashing import INPUT_HASH_ATTR, TASK_HASH_ATTR, set_hashes

Task = dict[str, Any]
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".svg", ".webp", ".bmp")


def Images(source: str | Path) -> Iterator[Task]:
    """A task per image file in the directory: with the path as `image` where `fetch_media` is left to the recipe."""
    era = current_era()
    for path in sorted(path for path in Path(source).iterdir() if path.suffix.lower() in IMAGE_SUFFIXES):
        task = {"image": str(path) if era.has_stream_class else data_uri(path), "meta": {"file": path.name}}
        task["text"] = path.stem if era.since("1.10") else path.name
        yield {**task, "path": str(path)} if era.since("1.10") else task


def JSONL(source: str | Path) -> Iterator[Task]:
    with Path(source).open(encoding="utf-8") as lines:
        yield from _tasks_in(lines)


def JSON(source: str | Path) -> Iterator[Task]:
    yield from json.loads(Path(source).read_text(encoding="utf-8"))


LOADERS: dict[str, Callable[[str | Path], Iterator[Task]]] = {"images": Images, "jsonl": JSONL, "json": JSON}


def get_stream(
    source: Any,
    api: str | None = None,
    loader: str | None = None,
    rehash: bool = False,
    dedup: bool = False,
    input_key: str | None = None,
    skip_invalid: bool = True,
    **newer: Any,
) -> Iterable[Task]:
    """Tasks from a file, a directory, a dataset, stdin (None or `-`), or an iterable, which is returned as it is."""
    _check_newer(newer)
    if api is not None:
        raise ValueError(f"this test double has no API {api!r}")
    if source is not None and not isinstance(source, (str, Path)):
        return source
    tasks: Iterable[Task] = _tasks_from(source, loader)
    if input_key is not None:
        tasks = _with_key(tasks, input_key, skip_invalid)
    if rehash or dedup or current_era().has_stream_class:
        tasks = _hashed(tasks, overwrite=rehash)
    return _without_duplicates(tasks) if dedup else tasks


def data_uri(path: Path) -> str:
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _check_newer(options: dict[str, Any]) -> None:
    known = ["is_binary"] if current_era().since("1.10") else []
    if unknown := [name for name in options if name not in known]:
        raise TypeError(f"get_stream() got an unexpected keyword argument {unknown[0]!r}")


def _tasks_from(source: str | Path | None, loader: str | None) -> Iterator[Task]:
    """Missing files are found here, not at the first task."""
    if source in (None, "-"):
        return _tasks_in(sys.stdin)
    if str(source).startswith("dataset:") and current_era().has_callbacks_of_1_10:
        return _tasks_of_dataset(str(source).removeprefix("dataset:"))
    path = Path(str(source))
    if not path.exists():
        raise ValueError(f"can't find the source {path}")
    return _loader_for(path, loader)(path)


def _loader_for(path: Path, loader: str | None) -> Callable[[str | Path], Iterator[Task]]:
    """Only newer versions see by themselves that a directory has images."""
    name = loader or ("images" if path.is_dir() and current_era().has_stream_class else path.suffix.lstrip("."))
    if name not in LOADERS:
        raise ValueError(f"can't find a loader for {path}: {name!r} is none of {', '.join(LOADERS)}")
    return LOADERS[name]


def _tasks_in(lines: Iterable[str]) -> Iterator[Task]:
    return (json.loads(line) for line in lines if line.strip())


def _tasks_of_dataset(name: str) -> Iterator[Task]:
    examples = connect().get_dataset(name)
    if examples is None:
        raise ValueError(f"can't find the dataset {name!r}")
    return iter(examples)


def _with_key(tasks: Iterable[Task], key: str, skip_invalid: bool) -> Iterator[Task]:
    for task in tasks:
        if key in task:
            yield task
        elif not skip_invalid:
            raise ValueError(f"a task has no {key!r}: {sorted(task)}")


def _hashed(tasks: Iterable[Task], overwrite: bool) -> Iterator[Task]:
    return (set_hashes(task, overwrite=overwrite) for task in tasks)


def _without_duplicates(tasks: Iterable[Task]) -> Iterator[Task]:
    seen: set[tuple[int, int]] = set()
    for task in tasks:
        hashes = (task[INPUT_HASH_ATTR], task[TASK_HASH_ATTR])
        if hashes not in seen:
            seen.add(hashes)
            yield task
