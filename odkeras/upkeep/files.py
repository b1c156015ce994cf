"""Checks the files of the three directories."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

from odkeras.damaged_files import set_aside
from odkeras.errors import RecordError
from odkeras.export.info import read_export_info
from odkeras.formats.tfrecord_reader import read_features
from odkeras.inbox import list_strays
from odkeras.inbox import set_aside as set_batch_aside
from odkeras.project import Project, list_dir, read_jsonl, write_atomically
from odkeras.record_files import (
    RecordFile,
    list_other_records,
    list_record_files,
    read_record_file,
    replace_damaged,
)
from odkeras.upkeep.findings import Finding
from odkeras.version_dirs import version_dirs

_CHECKPOINT = "checkpoint"


def check_state_files(project: Project) -> Iterator[Finding]:
    """Check the small files: JSON, JSON Lines, the list of checkpoints, the index of the records, and the inbox."""
    for path in _json_files(project):
        if path.exists() and not _is_json(path):
            yield _aside(path, "is damaged: not a JSON object", "it is renamed; what it said is decided anew")
    for path in _jsonl_files(project):
        if path.is_dir():
            yield _aside(path, "is a folder, where a file belongs", "it is renamed")
        elif (lost := _invalid_lines(path)) > 0:
            fix = "the others are kept, in a file of the same name"
            yield Finding(path, f"{lost} of its lines are damaged", fix, partial(_keep_valid_lines, path))
    index = project.replay_dir / "index.sqlite"
    if index.exists() and not _is_sound_sqlite(index):
        yield _aside(index, "is damaged", "it is renamed; the trainer makes it again from the records")
    checkpoint = project.model_dir / _CHECKPOINT
    if checkpoint.is_file() and not _is_text(checkpoint):
        yield _aside(checkpoint, "is damaged", "it is renamed; the trainer makes it again from the checkpoints")
    for path in list_strays(project.inbox_dir):
        yield Finding(path, "is no batch of answers", "it is moved to set-aside", partial(_set_stray_aside, path))


def check_records(project: Project) -> Iterator[tuple[Finding | None, set[str]]]:
    """Check the records; yields for each one a finding, or None, and the ids of its images."""
    files = list_record_files(project)
    # A crash leaves a part of a record at the end of the newest shard, which the next round overwrites.
    shards = [path for path in files if path.parent == project.replay_dir]
    for path in files:
        ids: set[str] = set()

        def visit(data: bytes, ids: set[str] = ids) -> None:
            try:
                values = read_features(data)
            except RecordError as error:
                raise ValueError(str(error)) from error
            ids.update(bytes(each).decode("utf-8", "replace") for each in values.get("image/source_id", ())[:1])

        try:
            found = read_record_file(path, visit)
        except OSError as error:
            yield Finding(path, f"cannot be read: {error.strerror}", "give permission to read it"), set()
            continue
        is_normal = found.is_cut and path in shards[-1:]
        is_sound = not found.is_damaged or (is_normal and not found.damaged)
        yield (None if is_sound else _damaged_record(project, found)), ids


def check_other_records(project: Project) -> Iterator[Finding]:
    """Check the TFRecord files of others in the data directory, such as those of an evaluation."""
    for path in list_other_records(project):
        try:
            found = read_record_file(path, lambda data: None)
        except OSError as error:
            yield Finding(path, f"cannot be read: {error.strerror}", "give permission to read it")
            continue
        if found.is_damaged:
            yield Finding(path, found.problem, "nothing, since odkeras did not write it: make it again, or remove it")


def describe_checks(project: Project) -> list[str]:
    """What the checks of this module look at."""
    records = len(list_record_files(project)) + len(list_other_records(project))
    state_files = sum(path.exists() for path in (*_json_files(project), *_jsonl_files(project)))
    return [
        f"{records} records: both checksums of every example",
        f"{len(version_dirs(project.export_dir))} versions: the checksum of the graph, and that no file of the weights "
        "is missing or empty",
        f"{state_files} state files, the index of the records, the list of checkpoints, the inbox",
    ]


def check_versions(project: Project) -> Iterator[Finding]:
    """Check the published versions: their files, and the checksum of the graph."""
    for number, folder in version_dirs(project.export_dir).items():
        if problem := _version_problem(folder):
            yield _aside(folder, f"version {number} {problem}", "it is renamed, so that no server loads it")


def _damaged_record(project: Project, found: RecordFile) -> Finding:
    def repair() -> str:
        moved = replace_damaged(found, project)
        return f"{found.examples} examples kept; the whole file is now {moved.name}"

    fix = "the intact examples are kept; answers that are lost are delivered again"
    return Finding(found.path, found.problem, fix, repair)


def _version_problem(folder: Path) -> str:
    """What is wrong with a version; "" if nothing is. A version that odkeras did not write has no checksum."""
    try:
        graph = (folder / "saved_model.pb").read_bytes()
        info = read_export_info(folder)
        if not graph or (info and info.graph_sha256 and hashlib.sha256(graph).hexdigest() != info.graph_sha256):
            return "has a damaged saved_model.pb"
        variables = folder / "variables"
        names = {path.name for path in list_dir(variables) if path.stat().st_size}
        if variables.is_dir() and not ("variables.index" in names and any(".data-" in name for name in names)):
            return "lacks files of its weights, or they are empty"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return ""


def _aside(path: Path, problem: str, fix: str) -> Finding:
    return Finding(path, problem, fix, lambda: f"now {set_aside(path).name}")


def _set_stray_aside(path: Path) -> str:
    return f"now {set_batch_aside(path)}"


def _json_files(project: Project) -> list[Path]:
    thresholds = project.data_dir / "thresholds.json"
    data = [project.data_id_path, project.databases_path, thresholds]
    return [
        *data,
        project.status_path,
        project.control_path,
        project.deaths_path,
        project.model_dir / "run.json",
    ]


def _jsonl_files(project: Project) -> list[Path]:
    data = [project.image_ids_path, project.answered_path, project.work_path, project.rejected_path]
    return [*data, project.withdrawn_path, project.metrics_path]


def _is_json(path: Path) -> bool:
    try:
        return isinstance(json.loads(path.read_bytes()), dict)
    except (OSError, ValueError, RecursionError):
        return False


def _is_text(path: Path) -> bool:
    try:
        return bool(path.read_text(encoding="utf-8").strip("\0 \n"))
    except (OSError, ValueError):
        return False


def _invalid_lines(path: Path) -> int:
    """Lines that hold no JSON object, without a last one that is being written."""
    if not path.is_file():
        return 0
    lines = path.read_bytes().rpartition(b"\n")[0].split(b"\n")
    return sum(1 for line in lines if line.strip()) - len(read_jsonl(path)) + _has_whole_last_line(path)


def _has_whole_last_line(path: Path) -> int:
    """1 if the last line is an object without an end of line, which `read_jsonl` takes, too."""
    with suppress(ValueError, RecursionError):
        return int(isinstance(json.loads(path.read_bytes().rpartition(b"\n")[2]), dict))
    return 0


def _keep_valid_lines(path: Path) -> str:
    rows: list[dict[str, Any]] = read_jsonl(path)
    moved = set_aside(path)
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows))
    return f"{len(rows)} lines kept; the whole file is now {moved.name}"


def _is_sound_sqlite(path: Path) -> bool:
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            return connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
    except sqlite3.Error:
        return False
