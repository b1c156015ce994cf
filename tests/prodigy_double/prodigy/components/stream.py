"""Streams of newer versions; older ones do not have this module."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prodigy.components import loaders
from prodigy.eras import current_era

if not current_era().has_stream_class:
    raise ModuleNotFoundError(f"No module named {__name__!r}", name=__name__)

Task = dict[str, Any]


class Stream:
    """An iterator of tasks that can be wrapped in place."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._tasks: Iterator[Task] = iter(tasks)

    @classmethod
    def from_iterable(cls, tasks: Iterable[Task]) -> Stream:
        return cls(tasks)

    def apply(self, wrapper: Callable[..., Iterable[Task]], *args: Any, **options: Any) -> Stream:
        """Wraps what is left of the stream, lazily. The stream comes first, unless `stream=` was given."""
        wrapped = self._tasks
        if "stream" in options:
            self._tasks = iter(wrapper(*args, **{**options, "stream": wrapped}))
        else:
            self._tasks = iter(wrapper(wrapped, *args, **options))
        return self

    def __iter__(self) -> Iterator[Task]:
        return self

    def __next__(self) -> Task:
        return next(self._tasks)


def get_stream(source: Any, *args: Any, **options: Any) -> Stream:
    """As `components.loaders.get_stream`, in a `Stream`."""
    tasks = loaders.get_stream(source, *args, **options)
    return tasks if isinstance(tasks, Stream) else Stream.from_iterable(tasks)
