"""What an import of labels found, in numbers and in lines for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from odkeras.formats.label_files import LabelFile, ReadNotes
from odkeras.formats.label_formats import FORMATS
from odkeras.label_choice import LabelChoice

_SHOWN = 10
_SHOWN_REFUSED = 20


@dataclass
class LabelReport:
    """The result of reading, and perhaps importing, label files.

    Args:
        files: the label files.
        labels: the names that they have, and the labels that these became.
        notes: what could not be used.
        images: number of images by split; "" without one.
        boxes: number of objects by label.
        negatives: number of images without objects.
        decisions: number of answers by decision, of formats that have them.
        missing: images that were not found, as their label files name them.
        ambiguous: (place, candidates) of images that several files could be.
        duplicates: (place, place of the first) of images that were there before, by name or by content.
        leaks: (place, place of the first) of those among them that are in different splits.
        unlabelled: image files beside the labels that no label file names.
        answered: number of images left as they are, because a person has answered them.
        known: number of answers that were imported before.
        added: number of answers added.
        written: number of images of TFRecords, and of URLs, that were written to files.
    """

    files: list[LabelFile]
    labels: LabelChoice
    notes: ReadNotes = field(default_factory=ReadNotes)
    images: Counter[str] = field(default_factory=Counter)
    boxes: Counter[str] = field(default_factory=Counter)
    negatives: int = 0
    decisions: Counter[str] = field(default_factory=Counter)
    missing: list[str] = field(default_factory=list)
    ambiguous: list[tuple[str, list[Path]]] = field(default_factory=list)
    duplicates: list[tuple[str, str]] = field(default_factory=list)
    leaks: list[tuple[str, str]] = field(default_factory=list)
    unlabelled: list[str] = field(default_factory=list)
    answered: int = 0
    known: int = 0
    added: int = 0
    written: int = 0

    @property
    def is_clean(self) -> bool:
        """Whether everything in the files can be used."""
        problems = (self.notes.num_refused, self.missing, self.ambiguous, self.duplicates, self.labels.unknown)
        return not any(problems)

    def format_line(self) -> str:
        """Which format the files have."""
        number = len(self.files)
        first = self.files[0].path
        which = str(first) if number == 1 else f"{number} files, the first is {first}"
        return f"{FORMATS[self.files[0].format].title}: {which}"

    def lines(self) -> list[str]:
        """The report, a fact on each line."""
        return [
            f"images      {_number(self.images)}, {self.negatives} of them without objects",
            f"objects     {_number(self.boxes)}",
            *self._line("answers", self.decisions if set(self.decisions) - {"accept"} else {}),
            *(f"label       {remark}" for remark in self.labels.remarks()),
            *(f"unknown     {count} objects of {name!r}" for name, count in self.labels.unknown.most_common(_SHOWN)),
            *(f"repaired    {count} {what}" for what, count in self.notes.repaired.most_common()),
            *(f"note        {count} {what}" for what, count in self.notes.left_out.most_common()),
            *self._some("not found", self.missing, "images"),
            *self._some("ambiguous", (f"{place} ({_names(files)})" for place, files in self.ambiguous), "images"),
            *self._some("twice", (f"{place} (first: {first})" for place, first in self.duplicates), "images"),
            *self._some("leakage", (f"{place} and {first}" for place, first in self.leaks), "images in two splits"),
            *self._some("no labels", self.unlabelled, "image files"),
            *([f"no labels   {self.notes.unlabelled} tasks"] if self.notes.unlabelled else []),
            *([f"kept        {self.answered} images that a person has answered"] if self.answered else []),
            *([f"written     {self.written} images of TFRecords and URLs"] if self.written else []),
            *([f"refused     {self.notes.num_refused}"] if self.notes.num_refused else []),
        ]

    def refusals(self) -> list[str]:
        """What was refused: the first with their places and reasons."""
        lines = [f"refused {place}: {reason}" for place, reason in self.notes.refused[:_SHOWN_REFUSED]]
        more = self.notes.num_refused - len(lines)
        return [*lines, f"refused: and {more} more"] if more > 0 else lines

    @staticmethod
    def _line(name: str, counts: Mapping[str, int]) -> list[str]:
        return [f"{name:<12}{_listed(counts)}"] if counts else []

    @staticmethod
    def _some(name: str, items: Iterable[str], what: str) -> list[str]:
        all_items = list(items)
        if not all_items:
            return []
        more = f", and {len(all_items) - _SHOWN} more" if len(all_items) > _SHOWN else ""
        return [f"{name:<12}{len(all_items)} {what}: {', '.join(all_items[:_SHOWN])}{more}"]


def _number(counts: Mapping[str, int]) -> str:
    named = {name: count for name, count in counts.items() if name}
    return f"{sum(counts.values())}{f' ({_listed(named)})' if named else ''}"


def _listed(counts: Mapping[str, int]) -> str:
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    more = f", {len(ranked) - 2 * _SHOWN} more" if len(ranked) > 2 * _SHOWN else ""
    return ", ".join(f"{name} {count}" for name, count in ranked[: 2 * _SHOWN]) + more


def _names(files: list[Path]) -> str:
    return ", ".join(map(str, files[:3])) + (", ..." if len(files) > 3 else "")
