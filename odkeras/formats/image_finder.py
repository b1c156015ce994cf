"""Finds the images that label files name.

    finder = ImageFinder(images_dir=None)
    finder.find("train/a.jpg", file)       # the candidates: one is a match, none is missing, several are ambiguous

Label files come with paths of other machines, without suffixes, or with the name alone. A file is found by its path
from the folder of the labels or of the images; else by its name, if only one file below the folder has it, or if one
has more of the path than the others. Only files below the folder are considered, wherever a path leads to.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path, PurePosixPath

from odkeras.formats.label_files import LabelFile
from odkeras.image_files import list_image_files
from odkeras.image_ref import is_file
from odkeras.images import SUFFIXES, local_path

_UPLOADED = re.compile(r"[0-9a-f]{8}-(.+)")
"""Label Studio puts eight digits before the names of uploaded files."""
_SPECIAL = re.compile(r"[/\\:]")
_OF_LABELS_ONLY = re.compile(r"annotations?|labels?|ann|xmls?|jsons?|csvs?", re.IGNORECASE)


class ImageFinder:
    """Looks for images.

    Args:
        images_dir: the folder of the images; None: that of each label file, or the one above it if there are no images
            and its name says that it has labels only (`annotations`, `labels`).
    """

    def __init__(self, images_dir: Path | None = None) -> None:
        self._images_dir = images_dir
        self._indices: dict[Path, _Index] = {}
        self._roots: dict[Path, Path] = {}

    def find(self, name: str, file: LabelFile) -> list[Path]:
        """The files that the path of an image in a label file can mean; one is a match. Never raises."""
        parts = _parts(name)
        if not parts:
            return []
        root = self.root_of(file)
        for folder in dict.fromkeys((root, *(() if self._images_dir else (file.path.parent,)))):
            if is_file(path := folder.joinpath(*parts)) and path.suffix.lower() in SUFFIXES:
                return [path]
        candidates = self.index(root).find(parts)
        if len(candidates) > 1 and not self._images_dir:
            beside = [path for path in candidates if path.is_relative_to(file.path.parent)]
            return beside if len(beside) == 1 else candidates
        return candidates

    def root_of(self, file: LabelFile) -> Path:
        """The folder below which the images of a label file are looked for."""
        if self._images_dir is not None:
            return self._images_dir
        if file.folder not in self._roots:
            whole = file.folder.absolute()
            has_labels_only = _OF_LABELS_ONLY.fullmatch(whole.name) and not self.index(file.folder).files
            self._roots[file.folder] = whole.parent if has_labels_only else file.folder
        return self._roots[file.folder]

    def index(self, root: Path) -> _Index:
        """The images below a folder."""
        if root not in self._indices:
            self._indices[root] = _Index(list_image_files(root) if root.is_dir() else [])
        return self._indices[root]

    @property
    def files(self) -> list[Path]:
        """All images in the folders that were looked into."""
        return list(dict.fromkeys(path for index in self._indices.values() for path in index.files))


class _Index:
    def __init__(self, files: list[Path]) -> None:
        self.files = files
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        for path in files:
            self._by_stem[_stem(path.name)].append(path)

    def find(self, parts: tuple[str, ...]) -> list[Path]:
        name = parts[-1]
        candidates = self._by_stem.get(_stem(name), [])
        if not candidates and (uploaded := _UPLOADED.fullmatch(name)):
            candidates = self._by_stem.get(_stem(uploaded[1]), [])
        if len(candidates) > 1:
            same = [path for path in candidates if path.name.casefold() == name.casefold()]
            candidates = same or candidates
        if len(candidates) > 1:
            shared = [_shared_parts(path, parts) for path in candidates]
            candidates = [path for path, number in zip(candidates, shared, strict=True) if number == max(shared)]
        return candidates


def _parts(name: str) -> tuple[str, ...]:
    """The parts of a path of any system, without root, drive and parts that climb."""
    if not _SPECIAL.search(name):
        return (name,) if name not in (".", "..") else ()
    path = str(local_path(name)) if name.lower().startswith("file:") else name
    parts = PurePosixPath(path.replace("\\", "/")).parts
    return tuple(part for part in parts if part not in ("/", "//", "..", ".") and not part.endswith(":"))


def _stem(name: str) -> str:
    """The name in lower case, without the suffix of an image."""
    stem, dot, suffix = name.casefold().rpartition(".")
    return stem if dot and f".{suffix}" in SUFFIXES else name.casefold()


def _shared_parts(path: Path, parts: tuple[str, ...]) -> int:
    """How many folders above the file have the same names."""
    number = 0
    for one, other in zip(reversed(path.parts[:-1]), reversed(parts[:-1]), strict=False):
        if one.casefold() != other.casefold():
            break
        number += 1
    return number
