"""Prepares the images of a source: the frames of its videos, without near-duplicates."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from odkeras.config.annotate import AnnotateSettings
from odkeras.errors import ConfigError, ImageError
from odkeras.near_duplicates import NearDuplicates, perceptual_hash
from odkeras.project import append_jsonl, read_jsonl
from odkeras.session.sources import Item, Source
from odkeras.video import VIDEO_SUFFIXES, FrameRules, extract_frames
from odkeras.web.journal import Journal

FRAMES = "frames"
HASHES = "image_hashes.jsonl"
_SAY_EVERY_S = 5.0
_TOGETHER = 256


def prepare_images(source: Source, settings: AnnotateSettings, journal: Journal) -> Source:
    """The source with the frames of its videos instead of these, and without near-duplicates if that is asked for.

    Frames are written below the data directory. Says what is done, and repeatedly how far it is.

    Raises:
        ConfigError: the source is not a folder or a file of images, nothing is left, or a frame cannot be written.
        SetupError: a package for videos or near-duplicates is not installed.
    """
    limit = settings.skip_duplicates
    if not isinstance(source, list) or not all(isinstance(path, Path) for path in source):
        if limit is not None:
            raise ConfigError("--skip-duplicates: SOURCE must be a folder of images, or a video")
        return source
    videos = [path for path in source if path.suffix.lower() in VIDEO_SUFFIXES]
    images = [path for path in source if path.suffix.lower() not in VIDEO_SUFFIXES]
    if limit is not None and images:
        images = _without_duplicates(images, limit, settings.project.data_dir / HASHES, journal)
    if videos:
        images += _frames(videos, settings, journal)
    if not images:
        raise ConfigError(f"source {settings.source}: no image is left to annotate")
    return images


def _frames(videos: list[Path], settings: AnnotateSettings, journal: Journal) -> list[Path]:
    out = settings.project.data_dir / FRAMES
    rules = FrameRules(settings.frame_seconds, settings.skip_duplicates)
    said = time.monotonic()

    def progress(video: Path, done_s: float, length_s: float | None) -> None:
        nonlocal said
        if time.monotonic() - said >= _SAY_EVERY_S:
            said = time.monotonic()
            of_all = f" of {length_s:.0f}" if length_s else ""
            journal.say(f"frames     {video.name}: {done_s:.0f}{of_all} s")

    report = extract_frames(videos, out, rules, progress=progress)
    for video, reason in report.problems:
        journal.warn(f"video {video}: {reason}")
    left_out = f", {report.duplicates} near-duplicates left out" if settings.skip_duplicates is not None else ""
    what = videos[0].name if len(videos) == 1 else f"{len(videos)} videos"
    journal.say(f"frames     {len(report.files)} of {what}, in {out.absolute()}{left_out}")
    return report.files


def _without_duplicates(images: list[Path], limit: int, path: Path, journal: Journal) -> list[Path]:
    """The images without those that are nearly the same as an earlier one. Those that cannot be read stay: the stream
    says why."""
    seen, kept = NearDuplicates(limit), []
    said = time.monotonic()
    for number, (image, image_hash) in enumerate(_hashes(images, path), start=1):
        if image_hash is None or seen.is_new(image_hash):
            kept.append(image)
        if time.monotonic() - said >= _SAY_EVERY_S:
            said = time.monotonic()
            journal.say(f"images     {number} of {len(images)} compared")
    journal.say(f"images     {len(kept)}, {len(images) - len(kept)} near-duplicates left out")
    return kept


def _hashes(images: list[Path], path: Path) -> Iterator[tuple[Path, int | None]]:
    """The hash of each image, None for one that cannot be read. Those of unchanged files are kept in `path`."""
    known = _known_hashes(path)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for at in range(0, len(images), _TOGETHER):
            batch = images[at : at + _TOGETHER]
            files = {image: Item(image.name, image).fingerprint for image in batch}
            new = [image for image, file in files.items() if file not in known]
            found = dict(zip(new, pool.map(_hash, new), strict=True))
            readable = {image: value for image, value in found.items() if value is not None and files[image]}
            append_jsonl(path, ({"file": files[image], "hash": f"{value:016x}"} for image, value in readable.items()))
            for image, file in files.items():
                yield image, found[image] if image in found else known[file]


def _known_hashes(path: Path) -> dict[str | None, int]:
    known: dict[str | None, int] = {}
    for row in read_jsonl(path):
        with suppress(KeyError, TypeError, ValueError):
            known[str(row["file"])] = int(row["hash"], 16)
    return known


def _hash(image: Path) -> int | None:
    try:
        return perceptual_hash(image)
    except ImageError:
        return None
