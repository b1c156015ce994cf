"""Loaders of tasks. `get_stream` is here in all versions; newer ones have another in `components.stream`."""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from prodigy.eras import current_era

Task = dict[str, Any]


def Images(source: str | Path) -> Iterator[Task]:
    """A task per image file in the directory: with the path as `image` where `fetch_media` is left to the recipe."""
    era = current_era()
    for path in sorted(path for path in Path(source).iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png")):
        task = {"image": str(path) if era.has_stream_class else data_uri(path), "meta": {"file": path.name}}
        task["text"] = path.stem if era.since("1.10") else path.name
        yield {**task, "path": str(path)} if era.since("1.10") else task


def get_stream(source: Any, api: str | None = None, loader: str | None = None, **options: Any) -> Iterable[Task]:
    """The images of a directory."""
    if api is not None:
        raise ValueError(f"this test double has no API {api!r}")
    return Images(source)


def data_uri(path: Path) -> str:
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
