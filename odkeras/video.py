"""Extracts frames of videos as JPEG files.

    rules = FrameRules(every_s=1.0)
    report = extract_frames([Path("walk.mp4")], Path("frames"), rules)
    report.files                              # frames/walk-1a2b3c4d/walk_000001.000.jpg, ...

Each video has a folder of its own, which `odkeras export-labels --group-by folder` keeps in one split. Frames that are
there already are not written again, so an interrupted extraction continues.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from odkeras.errors import ConfigError, SetupError
from odkeras.image_files import list_files
from odkeras.near_duplicates import INSTALL, NearDuplicates, perceptual_hash
from odkeras.project import write_atomically

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".ts", ".mts"})
_QUALITY = 95
_SEEK_FROM_S = 10.0
"""From this distance on, jumping to the key frame before a frame is faster than decoding all frames between two."""

Progress = Callable[[Path, float, float | None], object]
"""Called with a video, the seconds of it that are done, and its length in seconds, None if unknown."""


@dataclass(frozen=True)
class FrameRules:
    """Which frames are extracted.

    Args:
        every_s: seconds from one frame to the next.
        max_distance: frames whose perceptual hash differs in at most so many of 64 bits from that of an earlier frame
            are left out; None keeps all.
    """

    every_s: float = 1.0
    max_distance: int | None = None


@dataclass
class FrameReport:
    """The result of an extraction.

    Args:
        files: the frames, those that were there before included, in order.
        duplicates: number of frames that were left out.
        problems: (video, reason) for each that cannot be read, or not to its end.
    """

    files: list[Path] = field(default_factory=list)
    duplicates: int = 0
    problems: list[tuple[Path, str]] = field(default_factory=list)


def list_videos(path: Path) -> list[Path]:
    """The video itself, or the videos below a folder, recognised by suffix, in natural order."""
    if path.is_dir():
        return list_files(path, VIDEO_SUFFIXES)
    return [path] if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file() else []


def extract_frames(
    videos: Sequence[Path],
    out: Path,
    rules: FrameRules,
    *,
    progress: Progress = lambda video, done_s, length_s: None,
) -> FrameReport:
    """Write frames of videos as JPEG files into a folder for each video.

    A video that ends in the middle of a frame costs its rest, one that cannot be read itself alone.

    Raises:
        SetupError: PyAV is not installed, or ImageHash, if near-duplicates are to be left out.
        ConfigError: a file cannot be written.
    """
    report = FrameReport()
    seen = NearDuplicates(rules.max_distance) if rules.max_distance is not None else None
    for video in videos:
        folder = out / _folder_name(video)
        try:
            for time_s, length_s, frame in _frames(video, rules.every_s):
                path = folder / f"{_usable(video.stem)}_{_clock(time_s)}.jpg"
                picture: Image.Image | None = None
                if not path.is_file():
                    picture = _upright(frame)
                if seen is not None and not seen.is_new(perceptual_hash(picture or path)):
                    report.duplicates += 1
                    path.unlink(missing_ok=True)  # of an extraction that kept near-duplicates
                else:
                    if picture is not None:
                        _write(path, picture)
                    report.files.append(path)
                progress(video, time_s, length_s)
        except ConfigError as error:
            report.problems.append((video, str(error)))
    return report


def _frames(video: Path, every_s: float) -> Iterator[tuple[float, float | None, Any]]:
    """(time, length, frame) of the first frame at or after each multiple of `every_s`; times in seconds.

    Raises:
        ConfigError: the video cannot be read, or not to its end.
    """
    try:
        import av
    except ImportError as error:
        raise SetupError(f"videos need the package PyAV: {INSTALL}") from error
    try:
        with av.open(str(video)) as container:
            if not container.streams.video:
                raise ConfigError("has no pictures")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            length_s = container.duration / av.time_base if container.duration else None
            start_s = float(stream.start_time * stream.time_base) if stream.start_time and stream.time_base else 0.0
            seeks = every_s >= _SEEK_FROM_S and stream.time_base is not None
            number, found = 0, True
            while found:
                found = False
                for frame in container.decode(stream):
                    if frame.time is None or (time_s := frame.time - start_s) < number * every_s - 1e-6:
                        continue
                    yield time_s, length_s, frame
                    number, found = math.floor(time_s / every_s + 1e-6) + 1, seeks
                    if seeks:
                        target = int((start_s + number * every_s) / float(stream.time_base))
                        container.seek(target, stream=stream)
                        break
    except (av.FFmpegError, OSError) as error:
        raise ConfigError(f"cannot be read: {error.strerror}") from error


def _upright(frame: Any) -> Image.Image:
    """The frame as people see it: a phone writes how it was held into the video."""
    picture: Image.Image = frame.to_image()
    rotation = getattr(frame, "rotation", 0)
    return picture.rotate(rotation, expand=True) if rotation else picture


def _write(path: Path, picture: Image.Image) -> None:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, buffer.getvalue())
    except OSError as error:
        raise SetupError(f"cannot write {path}: {error.strerror}") from error


def _folder_name(video: Path) -> str:
    """The same wherever the video is moved to, and different for videos of one name."""
    try:
        size = video.stat().st_size
    except OSError:
        size = 0
    return f"{_usable(video.stem)}-{hashlib.sha256(f'{video.name}|{size}'.encode('utf-8', 'replace')).hexdigest()[:8]}"


def _usable(stem: str) -> str:
    """The name without what a file name or a terminal cannot have, and not hidden."""
    return (
        "".join(letter if letter.isprintable() and letter not in '<>:"|?*' else "_" for letter in stem).lstrip(".")[:80]
        or "video"
    )


def _clock(time_s: float) -> str:
    """Hours, minutes and seconds, to the millisecond: 013005.250."""
    milliseconds = round(time_s * 1000)
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}{seconds // 60 % 60:02}{seconds % 60:02}.{rest:03}"
