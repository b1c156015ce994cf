"""The label map: class names <-> ids. Ids start at 1; 0 is the background, which a label map does not list.

A .pbtxt file is parsed with the Object Detection API's own protobuf message, without TensorFlow; see `label_map_text`.
"""

from __future__ import annotations

import difflib
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from odkeras.errors import LabelMapError
from odkeras.label_map_text import normalise, read_items

_MAX_ID = 2**31 - 1


@dataclass(frozen=True)
class Label:
    """One class.

    Args:
        id: label-map id, from 1.
        name: the class text in records.
        display_name: the text shown to annotators; None: the name.
        keypoints: (id, name) of each keypoint of its objects, in the file's order; ids count from 0.
    """

    id: int
    name: str
    display_name: str | None = None
    keypoints: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class LabelMap:
    """All classes, in the file's order.

    Args:
        labels: the classes.
        earlier_names: earlier name -> name, for `id_of`; not in the file.

    Raises:
        LabelMapError: an id below 1, an empty name, or a duplicate id or name.
    """

    labels: tuple[Label, ...]
    earlier_names: Mapping[str, str] = field(default_factory=dict, hash=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(self.labels))
        _check_labels([(label, None) for label in self.labels], "label map", may_be_empty=True)

    @classmethod
    def from_names(cls, names: Iterable[str], keypoints: Mapping[str, Sequence[str]] | None = None) -> LabelMap:
        """A label map with the ids 1, 2, ... in the order of the names.

        Args:
            keypoints: the names of the keypoints of some classes, by class; numbered from 0 over all classes.

        Raises:
            LabelMapError: see the class.
        """
        labels, count = [], 0
        for number, name in enumerate(names, start=1):
            points = tuple(enumerate((keypoints or {}).get(name, ()), start=count))
            labels.append(Label(number, name, None, points))
            count += len(points)
        return cls(tuple(labels))

    @classmethod
    def from_pbtxt(cls, text: str, source: str = "label map", *, may_be_empty: bool = False) -> LabelMap:
        """Parse the text format of the Object Detection API's StringIntLabelMap.

        Args:
            source: file name, for messages.
            may_be_empty: accept a label map without classes, to which some are added later.

        Raises:
            LabelMapError: not a valid label map; the message has `source` and the line.
            SetupError: the Object Detection API is not installed.
        """
        items = [
            (_read_label(item, f"{source}:{line}" if line else source), line) for item, line in read_items(text, source)
        ]
        _check_labels(items, source, may_be_empty=may_be_empty)
        return cls(tuple(label for label, _ in items))

    @classmethod
    def load(cls, path: Path | str, *, may_be_empty: bool = False) -> LabelMap:
        """Read a .pbtxt file.

        Args:
            may_be_empty: see `from_pbtxt`.

        Raises:
            LabelMapError: the file cannot be read, is not UTF-8, or is not a valid label map.
        """
        return cls.from_pbtxt(_read_text(path), source=str(path), may_be_empty=may_be_empty)

    def to_pbtxt(self) -> str:
        """The label map in the text format that `from_pbtxt` parses."""
        return "\n".join(_item_text(label) for label in self.labels)

    @property
    def texts(self) -> frozenset[str]:
        """The class texts that the Object Detection API can map to an id: names and display names.

        The API silently drops objects with any other text.
        """
        return frozenset(text for label in self.labels for text in (label.name, label.display_name) if text)

    def save(self, path: Path | str) -> None:
        """Write a .pbtxt file.

        Raises:
            OSError: disk full, or no permission.
        """
        Path(path).write_text(self.to_pbtxt(), encoding="utf-8")

    def id_of(self, name: str) -> int:
        """The id of a name, or else of a display name, or of an earlier name.

        Raises:
            LabelMapError: unknown, or a display name shared by several labels.
        """
        if name in self._id_by_name:
            return self._id_by_name[name]
        ids = [label.id for label in self.labels if label.display_name == name]
        if len(ids) == 1:
            return ids[0]
        if ids:
            raise LabelMapError(f"label {name!r} is the display name of several ids ({_listed(ids)}); use the name")
        if name in self.earlier_names:
            return self._id_by_name[self.earlier_names[name]]
        raise LabelMapError(self._unknown(name))

    def find_id(self, name: str) -> int | None:
        """`id_of`, but None for an unknown or ambiguous name."""
        try:
            return self.id_of(name)
        except LabelMapError:
            return None

    def name_of(self, id: int) -> str:
        """The name of an id.

        Raises:
            LabelMapError: no such id.
        """
        return self._label(id).name

    def display_name_of(self, id: int) -> str:
        """The display name of an id, or its name if it has no display name.

        Raises:
            LabelMapError: no such id.
        """
        label = self._label(id)
        return label.display_name or label.name

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(label.name for label in self.labels)

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(label.id for label in self.labels)

    @property
    def max_id(self) -> int:
        """The largest id, which is the minimum for a model's num_classes: ids may have gaps (COCO: 80 labels, ids up
        to 90). 0 without labels."""
        return max(self.ids, default=0)

    @property
    def num_keypoints(self) -> int:
        """The number of keypoints that an object of any class can have, 0 without keypoints: their highest id plus 1.
        All classes together number their keypoints."""
        return max((id + 1 for label in self.labels for id, _ in label.keypoints if id >= 0), default=0)

    @property
    def keypoint_names(self) -> tuple[str, ...]:
        """The name of each keypoint, by its id; "" for an id that no class uses."""
        names = {id: name for label in self.labels for id, name in label.keypoints}
        return tuple(names.get(id, "") for id in range(self.num_keypoints))

    def keypoints_of(self, id: int) -> tuple[tuple[int, str], ...]:
        """(id, name) of each keypoint of a class's objects, in the file's order. Ids below 0 are left out.

        Raises:
            LabelMapError: no such id.
        """
        return tuple((point_id, name) for point_id, name in self._label(id).keypoints if point_id >= 0)

    def __len__(self) -> int:
        return len(self.labels)

    def __contains__(self, name: object) -> bool:
        return name in self._id_by_name or any(label.display_name == name for label in self.labels if name is not None)

    @cached_property
    def _id_by_name(self) -> dict[str, int]:
        return {label.name: label.id for label in self.labels}

    @cached_property
    def _label_by_id(self) -> dict[int, Label]:
        return {label.id: label for label in self.labels}

    def _label(self, id: int) -> Label:
        label = self._label_by_id.get(int(id))
        if label is None:
            raise LabelMapError(f"id {id} is not in the label map (known: {_listed(self.ids)})")
        return label

    def _unknown(self, name: str) -> str:
        shown = [*(label.display_name for label in self.labels if label.display_name), *self.names]
        folded = {text.strip().casefold(): text for text in shown}
        near = difflib.get_close_matches(str(name).strip().casefold(), folded, n=1)
        hint = f"; did you mean {folded[near[0]]!r}?" if near else ""
        return f"label {name!r} is not in the label map (known: {_listed(self.names)}){hint}"


@contextmanager
def label_map_for_api(path: Path | str) -> Iterator[str]:
    """Yields the path of a label map that the Object Detection API reads as `LabelMap.load` reads `path`.

    The API refuses some files that `LabelMap.load` reads, and reads others differently: a byte order mark, fields of
    other tools, an item without a name. The file exists until the block ends. It keeps fields that `LabelMap` lacks.

    Raises:
        LabelMapError: as `LabelMap.load`.
    """
    LabelMap.load(path)
    with tempfile.TemporaryDirectory(prefix="odkeras-") as directory:
        file = Path(directory, "label_map.pbtxt")
        file.write_text(normalise(_read_text(path), str(path)), encoding="ascii")
        yield str(file)


def _read_text(path: Path | str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise LabelMapError(f"cannot read the label map {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise LabelMapError(f"{path} is not a text file in UTF-8 (byte {error.start})") from error


def _read_label(item: Any, where: str) -> Label:
    if not item.HasField("id"):
        raise LabelMapError(f"{where}: item without an id; add for example 'id: 1'")
    if not item.name:
        raise LabelMapError(f"{where}: item {item.id} has no name; add for example \"name: 'raccoon'\"")
    keypoints = tuple((point.id, point.label) for point in item.keypoints)
    return Label(item.id, item.name, item.display_name or None, keypoints)


def _check_labels(labels: list[tuple[Label, int | None]], source: str, *, may_be_empty: bool) -> None:
    """Validate ids and names. Each label comes with its line for messages, or None if it has none."""
    if not labels and not may_be_empty:
        raise LabelMapError(f"{source} is empty; it needs at least one item {{ id: 1 name: '...' }}")
    first_lines: dict[int | str, int | None] = {}
    for label, line in labels:
        where = f"{source}:{line}" if line else source
        if not 1 <= label.id <= _MAX_ID:
            hint = "; ids count from 1, the background is not listed" if label.id == 0 else ""
            raise LabelMapError(f"{where}: id must be from 1 to {_MAX_ID}; got {label.id}{hint}")
        if not label.name.strip():
            raise LabelMapError(f"{where}: id {label.id} has an empty name")
        for what, value in (("id", label.id), ("name", label.name)):
            if value in first_lines:
                first = f" (first in line {first_lines[value]})" if line else ""
                raise LabelMapError(f"{where}: {what} {value!r} is used twice{first}")
            first_lines[value] = line


def _item_text(label: Label) -> str:
    lines = [f"  id: {label.id}", f"  name: {_quote(label.name)}"]
    if label.display_name:
        lines.append(f"  display_name: {_quote(label.display_name)}")
    lines += [f"  keypoints {{ id: {id} label: {_quote(name)} }}" for id, name in label.keypoints]
    return "\n".join(["item {", *lines, "}"]) + "\n"


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda match: f"\\{ord(match.group()):03o}", escaped) + '"'


def _listed(values: Iterable[object], most: int = 12) -> str:
    shown = [str(value) for value in values]
    more = f", ... {len(shown) - most} more" if len(shown) > most else ""
    return ", ".join(shown[:most]) + more
