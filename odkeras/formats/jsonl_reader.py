"""Reads answers in JSON lines, as `prodigy db-out` and `odkeras db out` write them, as labels to import."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

from odkeras.annotation import Answer, Decision, Span
from odkeras.errors import OdkerasError, RecordError
from odkeras.formats.label_files import SPLIT, LabelFile, LabelledImage, ReadNotes, decode_text
from odkeras.formats.prodigy import convert_spans, read_answer


def read_labels(file: LabelFile, notes: ReadNotes) -> Iterator[LabelledImage]:
    """The answers of a file. A line without `answer` counts as accepted.

    Raises:
        RecordError: the file cannot be read.
    """
    try:
        with file.path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    where = f"{file.path}:{number}"
                    try:
                        yield where, _answer(decode_text(line, file.path), where, file, notes)
                    except (OdkerasError, ValueError, RecursionError) as error:
                        notes.refuse(where, error if isinstance(error, OdkerasError) else f"not JSON: {error}")
    except OSError as error:
        raise RecordError(f"cannot read {file.path}: {error.strerror}") from error


def _answer(line: str, where: str, file: LabelFile, notes: ReadNotes) -> Answer:
    record = json.loads(line)
    if not isinstance(record, dict):
        raise RecordError(f"a line must be a JSON object; got {type(record).__name__}")
    if record.get("answer") is None:
        record = {**record, "answer": Decision.ACCEPT.value}
    answer = read_answer(record)
    spans: list[Span] = []
    split = {SPLIT: file.split} if file.split else {}
    if answer.decision is Decision.ACCEPT:
        spans, problems = convert_spans(record, lambda span: span)
        for problem in problems:
            notes.refuse(where, problem)
    return replace(answer, task=replace(answer.task, spans=tuple(spans), other={**split, **answer.task.other}))
