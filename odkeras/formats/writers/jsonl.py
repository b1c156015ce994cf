"""Prodigy's JSON lines, as `odkeras db in` and `prodigy db-in` read them: `SPLIT.jsonl` for each split.

The only format that has all of an answer: who gave it and when, and what the model had suggested.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from odkeras.formats.prodigy import write_answer
from odkeras.formats.writers.writer import FLAGS, ExportedImage, LabelWriter


class JsonlWriter(LabelWriter):
    """A line for each answer. Its image is relative to the file, if it is in the export."""

    holds_keypoints = True
    flags = FLAGS

    def begin(self) -> None:
        self._lines = {split: self.open(f"{split}.jsonl") for split in self.target.splits}

    def write_image(self, image: ExportedImage) -> None:
        has_file = image.stored is not None or isinstance(image.source, Path)
        task = replace(image.answer.task, image=image.place, path=image.place if has_file else None)
        record = write_answer(replace(image.answer, task=task))
        self._lines[image.split].write(json.dumps(record) + "\n")

    def remarks(self) -> list[str]:
        has_images = (self.target.folder / "images").is_dir()
        return ["paths of images start at the folder of the .jsonl files"] if has_images else []
