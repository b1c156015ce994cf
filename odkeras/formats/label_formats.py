"""The formats of labels that can be imported: how each is recognised and read.

    files = find_label_files([Path("export")])
    notes = ReadNotes()
    for place, answer in read_label_files(files, notes): ...

A file is recognised by its content, not by its name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from odkeras.annotation import Answer
from odkeras.errors import ConfigError, RecordError
from odkeras.formats import (
    coco_reader,
    csv_reader,
    cvat_reader,
    jsonl_reader,
    labelstudio_reader,
    tfrecord_reader,
    voc_reader,
    yolo_reader,
)
from odkeras.formats.label_files import LabelFile, LabelledImage, ReadNotes, decode_text, split_of
from odkeras.keypoints import Skeleton
from odkeras.natural_order import natural_key
from odkeras.tfrecord import DamagedRecordError, iter_records

AUTO = "auto"
_HEAD = 2**16


@dataclass(frozen=True)
class LabelFormat:
    """A format.

    Args:
        name: as on the command line.
        title: for people.
        read: see `label_files`.
        classes: the names of the classes in the order of the file, if the format lists them.
        is_per_image: a file has one image, so that one that cannot be read costs itself alone.
    """

    name: str
    title: str
    read: Callable[[LabelFile, ReadNotes], Iterator[LabelledImage]]
    classes: Callable[[LabelFile], list[str]] | None = None
    is_per_image: bool = False


FORMATS = {
    each.name: each
    for each in (
        LabelFormat("coco", "COCO JSON", coco_reader.read_labels, coco_reader.read_classes),
        LabelFormat("voc", "Pascal VOC XML", voc_reader.read_labels, is_per_image=True),
        LabelFormat("yolo", "YOLO", yolo_reader.read_labels, yolo_reader.read_classes),
        LabelFormat("csv", "CSV", csv_reader.read_labels),
        LabelFormat("tfrecord", "TFRecord", tfrecord_reader.read_labels),
        LabelFormat("labelstudio", "Label Studio JSON", labelstudio_reader.read_labels),
        LabelFormat("cvat", "CVAT XML", cvat_reader.read_labels, cvat_reader.read_classes),
        LabelFormat("jsonl", "JSON lines", jsonl_reader.read_labels),
    )
}
_ENDINGS = (".json", ".jsonl", ".ndjson", ".xml", ".csv", ".tsv", ".txt", ".names", ".yaml", ".yml")
_TFRECORD = re.compile(r"\.(tf)?records?(-\d+-of-\d+)?$", re.IGNORECASE)
_JSON_KEY = re.compile(rb'"(\w+)"\s*:')


def find_label_files(paths: Sequence[Path], format: str = AUTO) -> list[LabelFile]:
    """The label files at the paths, and below those that are folders, all of one format.

    Args:
        format: name of a format; auto recognises it.

    Raises:
        ConfigError: an unknown format, a path that does not exist, no labels, or labels in several formats.
    """
    if format != AUTO and format not in FORMATS:
        raise ConfigError(f"--format must be {AUTO} or one of {', '.join(FORMATS)}; got {format!r}")
    files: list[LabelFile] = []
    for path in paths:
        if path.is_dir():
            files += _below(path, format)
        elif path.is_file():
            name = format if format != AUTO else _recognised(path)
            files.append(LabelFile(path, name, path.parent, _split(path, path.parent, name)))
        else:
            raise ConfigError(f"{path}: no such file or folder")
    formats = list(dict.fromkeys(file.format for file in files))
    if not files:
        raise ConfigError(f"no labels{_of(format)} in {', '.join(map(str, paths))}; known are {_titles()}")
    if len(formats) > 1:
        examples = ", ".join(f"{name} ({next(file.path for file in files if file.format == name)})" for name in formats)
        raise ConfigError(f"labels in {len(formats)} formats: {examples}; choose one with --format")
    return _without_inner_yolo(files) if formats == ["yolo"] else _with_image_sets(files)


def read_label_files(files: Sequence[LabelFile], notes: ReadNotes) -> Iterator[tuple[LabelFile, str, Answer]]:
    """(file, place, answer) of each image in the files.

    Raises:
        RecordError: a file of many images cannot be read at all.
    """
    for file in files:
        format = FORMATS[file.format]
        try:
            for place, answer in format.read(file, notes):
                yield file, place, answer
        except RecordError as error:
            if not format.is_per_image:
                raise
            notes.refuse(str(file.path), error)


def class_names(files: Sequence[LabelFile]) -> list[str]:
    """The names of the classes: in the order in which the files list them, else in that of their first object.

    Raises:
        RecordError: one of the files cannot be read.
    """
    names: dict[str, None] = {}
    for file in files:
        listed = FORMATS[file.format].classes
        own = listed(file) if listed is not None else []
        if not own:
            own = [span.label for _, _, answer in read_label_files([file], ReadNotes()) for span in answer.task.spans]
        names.update(dict.fromkeys(own))
    return list(names)


def class_keypoints(files: Sequence[LabelFile]) -> dict[str, Skeleton]:
    """The keypoints of the classes that have some, by class. Of the formats, COCO's JSON lists them.

    Raises:
        RecordError: one of the files cannot be read.
    """
    found: dict[str, Skeleton] = {}
    for file in files:
        if file.format == "coco":
            found.update(coco_reader.read_skeletons(file))
    return found


def recognise(path: Path) -> str | None:
    """The name of a file's format; None if it is no file of labels. Reads its beginning, never raises."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
        if _TFRECORD.search(path.name):
            return "tfrecord" if _is_tfrecord(path) else None
        name = _of_text(path, head)
        return name or ("tfrecord" if path.suffix == "" and _is_tfrecord(path) else None)
    except (OSError, RecordError):
        return None


def _of_text(path: Path, head: bytes) -> str | None:
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start[:1] == b"<":
        return _of_xml(start)
    if start[:1] in (b"{", b"["):
        return _of_json(path, start)
    suffix = path.suffix.lower()
    if suffix in (".yaml", ".yml"):
        return "yolo" if re.search(rb"^[\"']?names[\"']?\s*:", head, re.MULTILINE) else None
    if path.name.lower() in yolo_reader.NAMES_FILES or suffix == ".names":
        return "yolo"
    if suffix == ".txt" and yolo_reader.is_row(start.partition(b"\n")[0]):
        return None  # labels of one image: the file with the names of the classes stands for all of them
    return "csv" if _is_csv(path, head) else None


def _of_xml(start: bytes) -> str | None:
    root = re.search(rb"<([A-Za-z_][\w.-]*)", re.sub(rb"<!--.*?-->", b"", start, flags=re.DOTALL))
    return {voc_reader.ROOT: "voc", cvat_reader.ROOT: "cvat"}.get(root[1].decode()) if root else None


def _of_json(path: Path, start: bytes) -> str | None:
    keys = set(_JSON_KEY.findall(start))
    if start[:1] == b"[":
        if keys & {b"rectanglelabels", b"polygonlabels", b"completions"} or keys >= {b"annotations", b"data"}:
            return "labelstudio"
        return None
    first = start.split(b"\n", 1)[0].rstrip()
    is_line = path.suffix.lower() in (".jsonl", ".ndjson") or (b"\n" in start and first.endswith(b"}"))
    if is_line and keys & {b"spans", b"image", b"path", b"answer"}:
        return "jsonl"
    if len(keys & {b"images", b"annotations", b"categories"}) >= 2 or (b"images" in keys and b"file_name" in keys):
        return "coco"
    return "coco" if keys & {b"images", b"annotations"} and b"image_id" in keys else None


def _is_csv(path: Path, head: bytes) -> bool:
    whole = head if len(head) < _HEAD else head[: head.rfind(b"\n")]
    try:
        csv_reader.read_header(decode_text(whole, path), path)
    except RecordError:
        return False
    return True


def _is_tfrecord(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            _, data = next(iter_records(file))
        features = tfrecord_reader.read_features(data)
    except (OSError, StopIteration, DamagedRecordError, RecordError):
        return False
    return any(name.startswith("image/") for name in features)


def _recognised(path: Path) -> str:
    name = recognise(path)
    if name is None and path.suffix.lower() == ".txt":
        raise ConfigError(f"{path}: labels of YOLO are read as a whole: give the folder with data.yaml or classes.txt")
    if name is None:
        raise ConfigError(f"{path}: not a file of labels; known are {_titles()}. --format names one")
    return name


def _below(folder: Path, format: str) -> Iterator[LabelFile]:
    """The label files below a folder. Those of its images are not opened."""
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and (name.lower().endswith(_ENDINGS) or _TFRECORD.search(name)):
                found.append(Path(parent, name))
    for path in sorted(found, key=natural_key):
        kind = recognise(path)
        if kind is not None and format in (AUTO, kind) and not path.name.startswith("class-descriptions"):
            yield LabelFile(path, kind, folder, _split(path, folder, kind))


def _split(path: Path, folder: Path, format: str) -> str | None:
    """From the names below a folder, and its own. The name of a file about one image says nothing."""
    below = Path(folder.absolute().name, path.relative_to(folder))
    return split_of(below.with_name("image") if format == "voc" else below)


def _without_inner_yolo(files: list[LabelFile]) -> list[LabelFile]:
    """One file of names for each folder: a data.yaml before a classes.txt, and none below another's folder."""
    ranked = sorted(files, key=lambda file: (len(file.path.parts), file.path.suffix.lower() not in (".yaml", ".yml")))
    chosen: list[LabelFile] = []
    for file in ranked:
        if not any(file.path.is_relative_to(other.path.parent) for other in chosen):
            chosen.append(replace(file, split=None, folder=file.path.parent))
    return chosen


def _with_image_sets(files: list[LabelFile]) -> list[LabelFile]:
    """Files of VOC with the splits that its `ImageSets` list."""
    if files[0].format != "voc":
        return files
    folders = {parent: voc_reader.read_image_sets(parent) for parent in {file.path.parent.parent for file in files}}
    return [replace(file, split=folders[file.path.parent.parent].get(file.path.stem, file.split)) for file in files]


def _of(format: str) -> str:
    return "" if format == AUTO else f" in the format {FORMATS[format].title}"


def _titles() -> str:
    return ", ".join(each.title for each in FORMATS.values())
