"""Imports labels from the files of other tools into the answer database.

    files = find_label_files([Path("export")])
    report = import_labels(files, LabelChoice(label_map), database=Path("annotations.db"), dataset="shapes")

The labels are read, matched with their images and fitted to them first, and spooled to a temporary file; then they are
stored in one transaction.
"""

from __future__ import annotations

import gc
import pickle
import struct
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from functools import partial
from io import SEEK_CUR
from itertools import chain, islice
from pathlib import Path, PurePath
from typing import IO

from odkeras.annotation import Answer, Decision, Span, Task
from odkeras.database_url import DatabaseLocation
from odkeras.errors import ConfigError, ImageError, OdkerasError, RecordError
from odkeras.formats.image_finder import ImageFinder
from odkeras.formats.label_files import SPLIT, LabelFile
from odkeras.formats.label_fitting import Exif, fit_spans
from odkeras.formats.label_formats import read_label_files
from odkeras.formats.prodigy import write_answer
from odkeras.image_ref import Fetch, ImageRef, is_data_uri, is_file, is_url
from odkeras.images import SUFFIXES, EncodedImage, ImageFacts, absolute_path, inspect_image, read_image_bytes
from odkeras.label_choice import LabelChoice
from odkeras.project import write_atomically
from odkeras.web.database import AnswerDatabase
from odkeras.web.gallery_rows import TaskFacts
from odkeras.web.import_report import LabelReport
from odkeras.web.imports import SESSION, stored_answer
from odkeras.web.stored import StoredAnswer, to_json

_TOGETHER = 256
_GROUP = 32
_THREADS = 4
_LENGTHS = struct.Struct("<QQQ")
_STORED = tuple(each.name for each in fields(StoredAnswer) if each.name != "example")
Progress = Callable[[int], object]
NoteImage = Callable[[Path, str], object]
"""Called with the path and the id of an image."""
KnownFacts = Callable[[Path], ImageFacts | ImageError | None]
"""What is known of an image file already, so that it is not read; None if nothing is."""


@dataclass(frozen=True)
class ImportRules:
    """How labels are matched and fitted.

    Args:
        images_dir: the folder of the images; None: beside and below the labels.
        exif: see `label_fitting.EXIF`.
        skip_other_labels: leave out objects whose names the label map lacks, instead of importing nothing.
        written_dir: for the images of TFRecords, and of URLs, that are not in a file; None: they are not written.
        fetch: returns the bytes at a URL; None: an image at a URL is missing.
    """

    images_dir: Path | None = None
    exif: Exif = "auto"
    skip_other_labels: bool = False
    written_dir: Path | None = None
    fetch: Fetch | None = None


@contextmanager
def _seldom_collected() -> Iterator[None]:
    """Nearly all objects of an import live for a moment. Looking for cycles among them takes a tenth of its time."""
    threshold, *others = gc.get_threshold()
    gc.set_threshold(100 * threshold, *others)
    try:
        yield
    finally:
        gc.set_threshold(threshold, *others)


@_seldom_collected()
def import_labels(
    files: list[LabelFile],
    labels: LabelChoice,
    rules: ImportRules | None = None,
    *,
    database: DatabaseLocation,
    dataset: str,
    check: bool = False,
    progress: Progress = lambda done: None,
    note_image: NoteImage = lambda path, image_id: None,
    known_facts: KnownFacts = lambda path: None,
) -> LabelReport:
    """Import label files.

    An image that a person has answered is left as it is. Answers that were imported before are recognised.

    Args:
        database: the file or the URL of the database; created if there is none and there is something to store.
        check: store nothing; the report says what would be.
        progress: callback with the number of images done.
        note_image: called for every imported image that has a file, after all are stored.
        known_facts: called for the file of each image.

    Raises:
        RecordError: a file cannot be read at all.
        ConfigError: names of classes are not in the label map; nothing was stored.
        DatabaseError: the database cannot be written; nothing was stored.
    """
    rules = rules or ImportRules()
    report = LabelReport(files, labels)
    staging = _Staging(rules, report, labels, dataset, _Earlier.of(database, dataset), known_facts)
    with tempfile.TemporaryFile() as spool:
        try:
            _spool(spool, staging.stage(read_label_files(files, report.notes)), progress)
            if check:
                report.unlabelled = staging.unlabelled_images()
                return report
            if labels.unknown and not rules.skip_other_labels:
                raise ConfigError(labels.explain_unknown())
            if spool.tell():
                with AnswerDatabase.open(database) as opened:
                    report.added = opened.add_all(dataset, _spooled(spool))
        except BaseException:
            staging.remove_written()
            raise
        for path, image_id in _spooled_places(spool):
            if path:
                note_image(Path(path), image_id)
    return report


def _spool(spool: IO[bytes], answers: Iterable[tuple[StoredAnswer, TaskFacts]], progress: Progress) -> None:
    """Write the answers. The example of each follows as JSON, once as it is stored; of the example itself, what its
    row in the database needs is kept."""
    number = 0
    for number, (answer, task) in enumerate(answers, start=1):
        example = answer.example
        outline = {"answer": example.get("answer"), "spans": [None] * len(example.get("spans") or ())}
        place = pickle.dumps((example.get("path"), answer.image_id))
        facts = pickle.dumps((outline, *(getattr(answer, name) for name in _STORED), *task))
        text = to_json(answer).encode()
        spool.write(_LENGTHS.pack(len(place), len(facts), len(text)) + place + facts + text)
        if number % _TOGETHER == 0:
            progress(number)
    progress(number)


def _spooled(spool: IO[bytes]) -> Iterator[tuple[StoredAnswer, str, TaskFacts]]:
    spool.seek(0)
    while lengths := spool.read(_LENGTHS.size):
        num_place, num_facts, num_text = _LENGTHS.unpack(lengths)
        spool.seek(num_place, SEEK_CUR)
        outline, *facts = pickle.loads(spool.read(num_facts))  # written by this process, to a file without a name
        stored = dict(zip(_STORED, facts, strict=False))
        yield StoredAnswer(outline, **stored), spool.read(num_text).decode(), TaskFacts(*facts[len(_STORED) :])


def _spooled_places(spool: IO[bytes]) -> Iterator[tuple[str | None, str]]:
    """(path, id) of each image."""
    spool.seek(0)
    while lengths := spool.read(_LENGTHS.size):
        num_place, *others = _LENGTHS.unpack(lengths)
        yield pickle.loads(spool.read(num_place))
        spool.seek(sum(others), SEEK_CUR)


@dataclass(frozen=True)
class _Earlier:
    """What a dataset has already: the ids of its answers, and of the images that a person has answered."""

    answer_ids: frozenset[str] = frozenset()
    answered: frozenset[str] = frozenset()

    @classmethod
    def of(cls, path: DatabaseLocation, dataset: str) -> _Earlier:
        if isinstance(path, Path) and not path.is_file():
            return cls()
        by_others = "SELECT DISTINCT image_id FROM answers WHERE dataset = ? AND replaced = 0 AND session != ?"
        with AnswerDatabase.open(path) as database:
            answer_ids = database.read("SELECT answer_id FROM answers WHERE dataset = ?", dataset)
            answered = database.read(by_others, dataset, SESSION)
        return cls(frozenset(id for (id,) in answer_ids), frozenset(id for (id,) in answered))


@dataclass(frozen=True)
class _Located:
    """The labels of an image that was found.

    Args:
        source: its file, its data URI, or the image itself.
    """

    place: str
    answer: Answer
    source: Path | str | EncodedImage
    facts: ImageFacts | ImageError | None = None


@dataclass
class _Staging:
    """Matches labels with images, and makes the answers."""

    rules: ImportRules
    report: LabelReport
    labels: LabelChoice
    dataset: str
    earlier: _Earlier
    known_facts: KnownFacts
    _first: dict[str, tuple[str, str]] = field(default_factory=dict)  # image id -> place, split
    _used: set[str] = field(default_factory=set)
    _written: list[Path] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._finder = ImageFinder(self.rules.images_dir)

    def stage(self, labelled: Iterable[tuple[LabelFile, str, Answer]]) -> Iterator[tuple[StoredAnswer, TaskFacts]]:
        """The answers to be stored. Counts everything in the report."""
        now, rows = time.time(), iter(labelled)
        number = 0
        with ThreadPoolExecutor(_THREADS) as pool:
            while batch := list(islice(rows, _TOGETHER)):
                located = [found for row in batch if (found := self._locate(*row)) is not None]
                groups = [located[at : at + _GROUP] for at in range(0, len(located), _GROUP)]
                for each in chain.from_iterable(pool.map(partial(_inspect_all, fetch=self.rules.fetch), groups)):
                    number += 1
                    answer = self._answer(each)
                    if answer is None:
                        continue
                    record = write_answer(answer)
                    stored = stored_answer(record, answer, self.dataset, answer.task.image_id, now + number * 1e-6)
                    if stored.session == SESSION and stored.image_id in self.earlier.answered:
                        self.report.answered += 1
                    elif stored.answer_id in self.earlier.answer_ids:
                        self.report.known += 1
                    else:
                        yield stored, TaskFacts.of(answer.task)

    def unlabelled_images(self) -> list[str]:
        """The image files in the folders of the images that no label file names."""
        for file in self.report.files:
            self._finder.index(self._finder.root_of(file))
        return [str(path) for path in self._finder.files if str(absolute_path(path)) not in self._used]

    def remove_written(self) -> None:
        for path in self._written:
            with suppress(OSError):
                path.unlink()

    def _locate(self, file: LabelFile, place: str, answer: Answer) -> _Located | None:
        task = answer.task
        if isinstance(task.image, str) and is_data_uri(task.image):
            return _Located(place, answer, task.image)
        name = task.path or (task.image if isinstance(task.image, str) else "") or task.file
        found = self._finder.find(name, file)
        if not found and file.format == "jsonl" and is_file(Path(name)) and Path(name).suffix.lower() in SUFFIXES:
            found = [Path(name)]  # odkeras wrote it with its absolute path
        if isinstance(task.image, EncodedImage) and len(found) != 1:
            return _Located(place, answer, task.image)
        if len(found) == 1:
            path = absolute_path(found[0])
            return _Located(place, answer, path, self.known_facts(path))
        if not found and is_url(name) and self.rules.fetch is not None:
            return _Located(place, answer, name)
        if found:
            self.report.ambiguous.append((place, found))
        else:
            self.report.missing.append(name)
        return None

    def _answer(self, located: _Located) -> Answer | None:
        """The answer as it is stored; None if it cannot be used."""
        place, facts = located.place, located.facts
        if isinstance(facts, ImageError):
            self.report.notes.refuse(place, facts)
            return None
        assert facts is not None
        try:
            self._check_first(place, located, facts)
            answer = self._fitted(located, facts)
        except OdkerasError as error:
            self.report.notes.refuse(place, error)
            return None
        if answer is not None:
            self._count(answer)
        return answer

    def _check_first(self, place: str, located: _Located, facts: ImageFacts) -> None:
        split = str(located.answer.task.other.get(SPLIT, ""))
        if isinstance(located.source, Path):
            self._used.add(str(located.source))
        first, first_split = self._first.setdefault(facts.image_id, (place, split))
        if first != place:
            self.report.duplicates.append((place, first))
            if split and first_split and split != first_split:
                self.report.leaks.append((place, first))
            raise RecordError(f"the labels of the same picture are in {first}; the first ones count")

    def _fitted(self, located: _Located, facts: ImageFacts) -> Answer | None:
        answer = located.answer
        if answer.decision is not Decision.ACCEPT:
            return replace(answer, task=self._task(located, facts, answer.task.spans))
        fitted = fit_spans(answer.task, facts, located.place, self.report.notes, self.rules.exif)
        spans = tuple(span for each in fitted if (span := self._labelled(each)) is not None)
        if fitted and not spans:
            return None  # all of its objects have other labels: whether it has ours is not known
        return replace(answer, task=self._task(located, facts, spans))

    def _labelled(self, span: Span) -> Span | None:
        label = self.labels.choose(span.label)
        if label is None:
            return None
        if span.keypoints and (names := self.labels.keypoints(label)) is not None:
            kept = tuple(point for point in span.keypoints if point.name in names)
            self.report.notes.left_out["keypoints that the label map lacks"] += len(span.keypoints) - len(kept)
            span = replace(span, keypoints=kept)
        return span if label == span.label else replace(span, label=label)

    def _task(self, located: _Located, facts: ImageFacts, spans: tuple[Span, ...]) -> Task:
        source, task = located.source, located.answer.task
        if isinstance(source, EncodedImage):
            source = self._write(task.file, source) or source
        image = str(source) if isinstance(source, Path) else source
        return replace(
            task,
            image_id=facts.image_id,
            image=image,
            path=str(source) if isinstance(source, Path) else None,
            file=source.name if isinstance(source, Path) else task.file,
            image_size_hw=facts.image_size_hw,
            spans=spans,
        )

    def _write(self, name: str, image: EncodedImage) -> Path | None:
        """Write the image of a TFRecord to a file of its own; None for a check."""
        folder = self.rules.written_dir
        if folder is None:
            return None
        stem, suffix = PurePath(name).stem[:80] or "image", {"jpeg": ".jpg", "png": ".png"}[image.format]
        path = folder / f"{stem}-{image.image_id[:8]}{suffix}"
        if not path.exists():
            try:
                folder.mkdir(parents=True, exist_ok=True)
                write_atomically(path, image.data)
            except OSError as error:
                raise RecordError(f"cannot write {path}: {error.strerror}") from error
            self._written.append(path)
            self.report.written += 1
        return absolute_path(path)

    def _count(self, answer: Answer) -> None:
        task, report = answer.task, self.report
        report.images[str(task.other.get(SPLIT, ""))] += 1
        report.decisions[answer.decision.value] += 1
        report.negatives += not task.spans and answer.decision is Decision.ACCEPT
        report.boxes.update(span.label for span in task.spans)


def _inspect_all(group: list[_Located], fetch: Fetch | None) -> list[_Located]:
    """With what is known of each image. Runs in a thread; handing over images one by one would take longer."""
    return [_inspect(located, fetch) for located in group]


def _inspect(located: _Located, fetch: Fetch | None) -> _Located:
    if located.facts is not None:
        return located
    source = located.source
    facts: ImageFacts | ImageError
    try:
        if isinstance(source, EncodedImage):
            facts = ImageFacts(source.image_id, source.image_size_hw, 1)
        elif isinstance(source, Path):
            facts = inspect_image(read_image_bytes(source), source=str(source))
        else:
            image = ImageRef((source,), name=located.answer.task.file).read(fetch=fetch)
            facts = ImageFacts(image.image_id, image.image_size_hw, 1)
            source = image if is_url(source) else source
    except ImageError as error:
        facts = error
    return replace(located, source=source, facts=facts)
