"""Progress bars of the command line; silent unless standard error is a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(what: str, total: int | None = None, *, in_bytes: bool = False) -> Iterator[Callable[..., None]]:
    """A bar on standard error; yields `advance(done, total=None, note="")`."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn(what),
        BarColumn(),
        DownloadColumn() if in_bytes else MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        # Of a download that turns out not to be needed there is nothing to show.
        task = progress.add_task(what, total=total, note="", visible=not in_bytes)

        def advance(done: int, total: int | None = None, note: str = "") -> None:
            progress.update(task, completed=done, note=note, visible=True)
            if total is not None:
                progress.update(task, total=total)

        yield advance
