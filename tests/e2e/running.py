"""Processes of a small project on pictures of shapes."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from odkeras.annotation import Task
from odkeras.formats.prodigy import write_answer
from odkeras.images import read_image
from odkeras.inbox import put_batch
from odkeras.labels import LabelMap
from odkeras.project import Project, read_status
from odkeras.shapes import ShapesDataset
from odkeras.simulation.truth import LabeledImage, answer_task, read_labeled_images


@dataclass
class ShapesProject:
    """A project whose model trains on two images per step."""

    config: Path
    pictures: ShapesDataset
    directories: Project

    def known_images(self) -> list[LabeledImage]:
        label_map = LabelMap.load(self.config.parent / "label_map.pbtxt")
        known = read_labeled_images(
            self.pictures.train_csv, self.pictures.images_dir, label_map, on_skip=lambda file, reason: None
        )
        return list(known.annotate)

    def answer(self, images: list[LabeledImage]) -> Path:
        """Put the right answers about `images` into the inbox."""
        label_map = LabelMap.load(self.config.parent / "label_map.pbtxt")
        tasks = [Task.of(read_image(known.path), file=known.path.name) for known in images]
        answers = [write_answer(answer_task(task, known, label_map)) for task, known in zip(tasks, images, strict=True)]
        return put_batch(self.directories.inbox_dir, answers)

    def trainer_command(self, *more: str) -> list[str]:
        return [sys.executable, "-m", "odkeras", "trainer", str(self.config), "--steps-per-epoch", "8", *more]

    def state(self) -> str:
        return str((read_status(self.directories.status_path) or {}).get("state"))


def processes_about(folder: Path) -> list[int]:
    """Ids of the living processes whose command line names `folder`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(folder).encode() in command:
                found.append(int(entry.name))
    return found


def kill_all(process_ids: list[int]) -> None:
    for process_id in process_ids:
        try:
            os.kill(process_id, signal.SIGKILL)
        except ProcessLookupError:
            continue
