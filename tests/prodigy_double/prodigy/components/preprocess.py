"""Replaces paths and URLs by data URIs: `fetch_images` in old versions, `fetch_media` in newer ones."""

from __future__ import annotations

import base64
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from prodigy.components.loaders import data_uri
from prodigy.eras import current_era

Task = dict[str, Any]


def _fetched(stream: Iterable[Task], keys: Sequence[str], skip: bool) -> Iterator[Task]:
    for task in stream:
        try:
            yield {**task, **{key: _fetch(task[key]) for key in keys if key in task}}
        except ValueError:
            if not skip:
                raise


def _fetch(value: str) -> str:
    """Raises ValueError when there is nothing at the path or URL."""
    if value.startswith("data:"):
        return value
    try:
        if value.startswith(("http://", "https://")):
            with urllib.request.urlopen(value, timeout=10) as response:
                kind = response.headers.get_content_type()
                return f"data:{kind};base64,{base64.b64encode(response.read()).decode()}"
        return data_uri(Path(value))
    except OSError as error:
        raise ValueError(f"can't fetch {value[:80]!r}: {error}") from error


if current_era().has_callbacks_of_1_10:

    def fetch_media(stream: Iterable[Task], input_keys: Sequence[str], skip: bool = False) -> Iterator[Task]:
        return _fetched(stream, input_keys, skip)

else:

    def fetch_images(stream: Iterable[Task], image_key: str = "image", skip: bool = False) -> Iterator[Task]:
        return _fetched(stream, [image_key], skip)
