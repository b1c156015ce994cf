"""Check the checkpoints and TFRecords that a pipeline.config refers to, without TensorFlow."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from pathlib import Path

from odkeras.pipeline.overrides import checkpoint_prefix
from odkeras.pipeline.problems import Problem, Severity
from odkeras.pipeline.proto import is_placeholder

_AT_SHARDS = re.compile(r"@(\d+)$")
_OF_SHARDS = re.compile(r"-of-(\d+)")
_OBJECT_GRAPH = b"_CHECKPOINTABLE_OBJECT_GRAPH"


def is_remote(path: str) -> bool:
    """Whether only TensorFlow's file systems can open the path, such as gs://...; such paths are not checked."""
    return "://" in path


def checkpoint_problems(path: str, *, field: str) -> Iterator[Problem]:
    """Check that `path` is the prefix of a complete, object-based (TensorFlow 2) checkpoint."""
    if is_remote(path):
        return
    prefix = checkpoint_prefix(path)
    if prefix != path:
        yield Problem(field, path, "is one file of a checkpoint; give the path without the suffix", f"write {prefix}")
        return
    index = Path(f"{path}.index")
    if not index.is_file():
        yield Problem(
            field, path, f"no such checkpoint: {index.absolute()} does not exist", _checkpoint_advice(Path(path))
        )
    elif not any(path_beside.name.startswith(f"{Path(path).name}.data-") for path_beside in index.parent.iterdir()):
        yield Problem(field, path, "is incomplete: no data file is beside the .index file", f"copy {path}.data-* too")
    elif _OBJECT_GRAPH not in index.read_bytes():
        reason = "is a checkpoint of TensorFlow 1, which TensorFlow 2 models cannot start from"
        yield Problem(field, path, reason, "download the model from the TensorFlow 2 detection model zoo")


def checkpoint_kind(path: str) -> str | None:
    """The kind of a checkpoint: "detection" (trained by this API) or "classification" (a bare backbone); None if
    unknown.

    Decided by the names of the saved objects, which are in the .index file; TensorFlow restores by these names.
    """
    index = Path(f"{path}.index")
    if is_remote(path) or not index.is_file():
        return None
    names = index.read_bytes()
    if b"model/_feature_extractor" in names:
        return "detection"
    return "classification" if b"feature_extractor/" in names and b"model/" not in names else None


def record_problems(patterns: list[str], *, field: str, severity: Severity) -> Iterator[Problem]:
    """Check that each pattern matches at least one file, and all files of a sharded set."""
    for pattern in patterns:
        if is_remote(pattern):
            continue
        if is_placeholder(pattern):
            yield Problem(field, pattern, "is a placeholder", "put the path of your TFRecord files here", severity)
        elif _AT_SHARDS.search(pattern):
            shards = _AT_SHARDS.sub(lambda match: f"-?????-of-{match.group(1).zfill(5)}", pattern)
            yield Problem(
                field, pattern, "name@number is not supported by the Object Detection API", f"write {shards}", severity
            )
        else:
            yield from _match_problems(pattern, field, severity)


def _match_problems(pattern: str, field: str, severity: Severity) -> Iterator[Problem]:
    matches = glob.glob(pattern)  # noqa: PTH207 - the pattern may be absolute
    shards = _OF_SHARDS.search(pattern)
    if not matches:
        reason = f"no such file: nothing matches {Path(pattern).absolute()}"
        yield Problem(
            field, pattern, reason, "write records with `odkeras records from-csv`, or correct the path", severity
        )
    elif glob.has_magic(pattern) and shards and len(matches) < int(shards.group(1)):
        reason = f"only {len(matches)} of {int(shards.group(1))} shards exist"
        yield Problem(field, pattern, reason, "copy the missing files", "warning")


def _checkpoint_advice(path: Path) -> str:
    folder = path if path.is_dir() else path.parent
    indices = sorted(folder.glob("*.index")) or sorted(folder.glob("checkpoint/*.index"))
    if indices:
        return f"did you mean {' or '.join(str(index.with_suffix('')) for index in indices[:3])}?"
    return "give the path of a checkpoint without its suffix, for example .../checkpoint/ckpt-0"
