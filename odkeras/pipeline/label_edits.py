"""Edit the classes of a project: its label map and `num_classes` in its pipeline.config.

The files are replaced one after the other, each atomically, in an order in which every state between is valid: a model
may have more outputs than the label map has classes. After a crash the same call completes the edit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from odkeras.errors import ConfigError, LabelMapError
from odkeras.label_choice import fold
from odkeras.labels import Label, LabelMap
from odkeras.locks import locked
from odkeras.pipeline.class_history import ClassHistory, note_classes, write_class_history
from odkeras.pipeline.proto import PipelineConfig, load_pipeline, num_classes, parse_pipeline, set_num_classes
from odkeras.project import Project, write_atomically

MAX_NAME = 100
_Value = TypeVar("_Value")
_LOCK_WAIT_S = 5.0
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
_NUM_CLASSES = re.compile(r"(\bnum_classes\s*:\s*)(\d+)")


@dataclass(frozen=True)
class LabelFiles:
    """The files that name the classes of a project.

    Args:
        config: the pipeline.config.
        label_map: the label map.
        project: the directories, for the history of the classes.
    """

    config: Path
    label_map: Path
    project: Project

    def load(self) -> LabelMap:
        """The label map.

        Raises:
            LabelMapError: it cannot be read.
        """
        return LabelMap.load(self.label_map, may_be_empty=True)

    @contextmanager
    def edited(self) -> Iterator[tuple[LabelMap, ClassHistory]]:
        """Lock the files against other edits until the block ends, and yield the label map and the history.

        Raises:
            InUseError: another edit takes too long.
            LabelMapError: the label map cannot be read.
            ConfigError, SetupError: a file cannot be written.
        """
        lock = self.label_map.with_name(f".{self.label_map.name}.lock")
        try:
            with locked(lock, taken=f"another process edits {self.label_map}; try again", wait_s=_LOCK_WAIT_S):
                label_map = self.load()
                yield label_map, note_classes(self.project, label_map)
        except OSError as error:
            raise ConfigError(f"cannot edit {self.label_map}: {error.strerror or error}") from error


InAnswers = Callable[[str, str], object]
"""Changes a label of the stored answers, given the old and the new name."""


def add_label(files: LabelFiles, name: str) -> Label:
    """Add a class with the next id. Does nothing but complete an interrupted call if the class is there already.

    Comments in both files stay.

    Raises:
        LabelMapError: the name is empty, too long, not of one line, an earlier name of another class, or only differs
            from another name in case, spaces or hyphens.
        ConfigError: a file cannot be written, or num_classes cannot be found in the pipeline.config.
    """
    name = name.strip()
    with files.edited() as (label_map, history):
        existing = next((label for label in label_map.labels if label.name == name), None)
        next_id = max([label_map.max_id, *history.retired]) + 1
        label = existing or Label(next_id, _checked(name, label_map.texts, history))
        raise_num_classes(files.config, label.id)
        if existing is None:
            if name in history.renamed:  # a class that was retired comes back with another id
                renamed = {old: new for old, new in history.renamed.items() if old != name}
                added = {old: at for old, at in history.added_s.items() if old != name}
                write_class_history(files.project, replace(history, added_s=added, renamed=renamed))
            _append(files.label_map, label, label_map)
    return label


def rename_label(files: LabelFiles, old: str, new: str, in_answers: InAnswers) -> None:
    """Rename a class; it keeps its id. Answers with the old name are taken for the new one, also by the trainer.

    A call that was interrupted is completed by the same call.

    Raises:
        LabelMapError: there is no class `old`, or `new` cannot be a name (see `add_label`).
        ConfigError, SetupError: a file cannot be written.
    """
    new = new.strip()
    with files.edited() as (label_map, history):
        if old not in label_map.texts and new in label_map.names and history.renamed.get(old) == new:
            in_answers(old, new)  # this is the repetition of an interrupted call
            return
        label = _find_by_name(label_map, old)
        old, others = label.name, {text for each in label_map.labels if each != label for text in _texts(each)}
        _checked(new, others, history, own={old, *_earlier(history, old)})
        renamed = {**_redirected(history, old, new), old: new}
        renamed.pop(new, None)
        added, colours = _moved(history.added_s, old, new), _moved(history.colours, old, new)
        after = replace(history, added_s=added, renamed=renamed, colours=colours)
        # The history first: it has an effect on a name only as long as the label map lacks it. Until then it has both
        # names, because a name that it lacks counts as a class that is added now.
        both = replace(after, added_s={**history.added_s, **added}, colours={**history.colours, **colours})
        write_class_history(files.project, both)
        _write(files.label_map, [replace(each, name=new) if each == label else each for each in label_map.labels])
        in_answers(old, new)
        write_class_history(files.project, after)


def merge_label(files: LabelFiles, old: str, into: str, in_answers: InAnswers) -> None:
    """Make the objects of a class objects of another one, and remove it from the label map. Its id is not used again.

    Raises:
        LabelMapError: one of the classes does not exist, or they have different keypoints.
        ConfigError, SetupError: a file cannot be written.
    """
    with files.edited() as (label_map, history):
        label, target = _find_by_name(label_map, old), _find_by_name(label_map, into)
        if label == target:
            raise LabelMapError(f"{old!r} cannot be merged with itself")
        if label.keypoints != target.keypoints:
            raise LabelMapError(f"{old!r} and {into!r} have different keypoints, so they cannot be merged")
        _remove(files, label_map, history, label, target.name, in_answers)


def retire_label(files: LabelFiles, name: str) -> None:
    """Remove a class from the label map. Its objects stay in the answers, but are not trained on. Its id is not used
    again.

    Raises:
        LabelMapError: there is no such class, or no other one.
        ConfigError, SetupError: a file cannot be written.
    """
    with files.edited() as (label_map, history):
        label = _find(label_map, name)
        if len(label_map) == 1:
            raise LabelMapError(f"{name!r} is the only label, so it cannot be retired; rename it, or add another first")
        _remove(files, label_map, history, label, None, lambda old, new: None)


def recolour_label(files: LabelFiles, name: str, colour: str) -> None:
    """Choose the colour of a class in the page.

    Args:
        colour: "#rrggbb".

    Raises:
        LabelMapError: there is no such class, or no such colour.
        SetupError: the history cannot be written.
    """
    if not _COLOUR.fullmatch(colour):
        raise LabelMapError(f"{colour!r} is not a colour; give #rrggbb, such as #0a7fd1")
    with files.edited() as (label_map, history):
        colours = {**history.colours, _find(label_map, name).name: colour.lower()}
        write_class_history(files.project, replace(history, colours=colours))


def _remove(
    files: LabelFiles,
    label_map: LabelMap,
    history: ClassHistory,
    label: Label,
    target: str | None,
    in_answers: InAnswers,
) -> None:
    renamed = {**_redirected(history, label.name, target), label.name: target}
    retired = history.retired | {label.id}
    write_class_history(files.project, replace(history, renamed=renamed, retired=retired))
    if target is not None:
        in_answers(label.name, target)
    _write(files.label_map, [each for each in label_map.labels if each != label])


def _find(label_map: LabelMap, name: str) -> Label:
    id = label_map.id_of(name)
    return next(label for label in label_map.labels if label.id == id)


def _find_by_name(label_map: LabelMap, name: str) -> Label:
    """Raises: LabelMapError: there is no such class, or answers may have its display name instead of its name."""
    label = _find(label_map, name)
    if label.name != name and name == label.display_name:
        raise LabelMapError(f"{name!r} is the display name of {label.name!r}; change it in the label map's file")
    return label


def _earlier(history: ClassHistory, name: str) -> set[str]:
    """The earlier names of a class."""
    return {old for old, new in history.renamed.items() if new == name}


def _redirected(history: ClassHistory, old: str, new: str | None) -> dict[str, str | None]:
    """The renames, with those that led to `old` leading to `new`."""
    return {name: new if target == old else target for name, target in history.renamed.items()}


def _moved(values: Mapping[str, _Value], old: str, new: str) -> dict[str, _Value]:
    """The values, with that of `old`, if there is one, at `new`."""
    return {(new if name == old else name): value for name, value in values.items()}


def _texts(label: Label) -> set[str]:
    return {text for text in (label.name, label.display_name) if text}


def _checked(name: str, others: Collection[str], history: ClassHistory, own: Collection[str] = ()) -> str:
    """A name that a class can get.

    Args:
        others: names of the other classes.
        own: names that the class had so far.
    """
    if not name or len(name) > MAX_NAME or not name.isprintable() or "," in name:
        shown = name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}…"
        raise LabelMapError(
            f"a label must have 1 to {MAX_NAME} printable characters in one line, without a comma; got {shown!r}"
        )
    if alike := [text for text in sorted(others) if fold(text) == fold(name)]:
        raise LabelMapError(f"there is a label {alike[0]!r} already, which is like {name!r}; choose another name")
    current = history.renamed.get(name)
    if current is not None and name not in own:
        raise LabelMapError(
            f"{name!r} is an earlier name of {current!r}, whose answers may have it; choose another name"
        )
    return name


def _write(path: Path, labels: Sequence[Label]) -> None:
    write_atomically(path, LabelMap(tuple(labels)).to_pbtxt())


def raise_num_classes(config: Path, at_least: int) -> None:
    """Set `num_classes` in a pipeline.config to at least this number, in its text, so that comments stay.

    Raises:
        ConfigError: the file cannot be read or written, or its text has no number to replace.
    """
    current = load_pipeline(config)
    if num_classes(current) >= at_least:
        return
    text = config.read_text(encoding="utf-8-sig")
    wanted = parse_pipeline(text, source=str(config))
    set_num_classes(wanted, at_least)
    edited = _with_num_classes(text, wanted, at_least)
    if edited is None:
        raise ConfigError(f"{config}: there is no num_classes to replace; set num_classes: {at_least} in its model")
    try:
        write_atomically(config, edited)
    except OSError as error:
        raise ConfigError(f"cannot write {config}: {error.strerror}") from error


def _with_num_classes(text: str, wanted: PipelineConfig, count: int) -> str | None:
    """The text with the one number replaced that makes it `wanted`; None if there is none."""
    for match in _NUM_CLASSES.finditer(text):
        edited = f"{text[: match.start(2)]}{count}{text[match.end(2) :]}"
        if parse_pipeline(edited, source="the edited pipeline.config") == wanted:
            return edited
    return None


def _append(path: Path, label: Label, label_map: LabelMap) -> None:
    longer = LabelMap((*label_map.labels, label))
    text = path.read_text(encoding="utf-8-sig")
    item = LabelMap((label,)).to_pbtxt()
    edited = f"{text.rstrip()}\n\n{item}" if text.strip() else item
    if LabelMap.from_pbtxt(edited, source=str(path)) != longer:  # an unfinished comment at its end, for example
        edited = longer.to_pbtxt()
    write_atomically(path, edited)
