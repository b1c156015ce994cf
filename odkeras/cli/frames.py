"""`odkeras frames`: frames of videos as image files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from odkeras.cli.progress import progress_bar
from odkeras.text import say


def add_commands(app: typer.Typer) -> None:
    app.command("frames", epilog="Example: odkeras frames walk.mp4 frames/ --frame-seconds 2 --skip-duplicates 6")(
        frames
    )


def frames(
    video: Annotated[list[Path], typer.Argument(help="Videos, or folders of them.")],
    out: Annotated[Path, typer.Argument(help="The folder to write to.")],
    frame_seconds: Annotated[float, typer.Option(min=0.001, help="Seconds from one frame to the next.")] = 1.0,
    skip_duplicates: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=32,
            help="Leave out frames that are nearly the same as an earlier one: their hashes differ in at most so many "
            "of 64 bits. 6 finds still scenes.",
        ),
    ] = None,
) -> None:
    """Write frames of videos as JPEG files, in a folder for each video. An interrupted call continues.

    `odkeras annotate` takes videos itself; this is for Prodigy and for other tools.
    """
    from odkeras.errors import ConfigError
    from odkeras.video import FrameRules, extract_frames, list_videos

    if out.is_file():
        raise ConfigError(f"{out}: the last argument is the folder to write to, and this is a file")
    videos = [path for place in video for path in _videos_at(place, list_videos(place))]
    with progress_bar("seconds") as progress:
        report = extract_frames(
            videos,
            out,
            FrameRules(frame_seconds, skip_duplicates),
            progress=lambda path, done_s, length_s: progress(int(done_s), int(length_s or done_s), path.name),
        )
    for path, reason in report.problems:
        say(f"{path}: {reason}", file=sys.stderr)
    left_out = f", {report.duplicates} near-duplicates left out" if skip_duplicates is not None else ""
    what = videos[0].name if len(videos) == 1 else f"{len(videos)} videos"
    say(f"{out}: {len(report.files)} frames of {what}{left_out}")
    if report.problems and not report.files:
        raise typer.Exit(code=1)


def _videos_at(place: Path, found: list[Path]) -> list[Path]:
    from odkeras.errors import ConfigError
    from odkeras.video import VIDEO_SUFFIXES

    if not found:
        reason = "no videos in this folder" if place.is_dir() else "no such video"
        raise ConfigError(f"{place}: {reason} ({', '.join(sorted(VIDEO_SUFFIXES))})")
    return found
