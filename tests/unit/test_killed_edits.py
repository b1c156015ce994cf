"""kill -9 before each write of an edit of the classes: every state is valid, and the same edit completes it.

Run as a program, it makes the edits and kills them; see `main`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from odkeras.init_project import init_project
from odkeras.pipeline import class_history, label_edits, load_pipeline, num_classes
from odkeras.pipeline.class_history import ClassHistory, note_classes, read_class_history
from odkeras.pipeline.label_edits import LabelFiles
from odkeras.project import Project
from odkeras.web.database import AnswerDatabase
from odkeras.web.relabel import count_images, relabel
from odkeras.web.stored import StoredAnswer

MOST_WRITES = 6


def files_in(folder: Path) -> LabelFiles:
    directories = Project(*(folder / name for name in ("data", "model", "export")))
    return LabelFiles(folder / "pipeline.config", folder / "label_map.pbtxt", directories)


def in_answers(folder: Path) -> Callable[[str, str], object]:
    def change(old: str, new: str) -> None:
        with AnswerDatabase.open(folder / "annotations.db") as database:
            relabel(database, "d", old, new)

    return change


EDITS: dict[str, Callable[[Path], object]] = {
    "add": lambda folder: label_edits.add_label(files_in(folder), "tail"),
    "rename": lambda folder: label_edits.rename_label(files_in(folder), "car", "auto", in_answers(folder)),
    "merge": lambda folder: label_edits.merge_label(files_in(folder), "person", "car", in_answers(folder)),
    "retire": lambda folder: label_edits.retire_label(files_in(folder), "person"),
}
WRITES = {"add": 2, "rename": 3, "merge": 2, "retire": 2}
"""Files that each edit writes."""


def main(template: Path, out: Path) -> None:
    """Make each edit in a copy of `template`, `EDIT-NUMBER`, and kill it before the write of this number, from 0."""
    for name, edit in EDITS.items():
        for number in range(MOST_WRITES):
            folder = out / f"{name}-{number}"
            shutil.copytree(template, folder)
            child = os.fork()
            if child == 0:
                kill_before(number)
                edit(folder)
                os._exit(0)
            _, status = os.waitpid(child, 0)
            if os.waitstatus_to_exitcode(status) == 0:
                (folder / "done").touch()
                break
            if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
                sys.exit(f"{folder.name} failed")


def kill_before(number: int) -> None:
    left = number
    write = label_edits.write_atomically

    def write_or_die(*arguments: Any) -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        write(*arguments)

    for module in (label_edits, class_history):
        module.write_atomically = write_or_die  # type: ignore[attr-defined]


def history_of(folder: Path) -> ClassHistory:
    history = read_class_history(files_in(folder).project)
    assert history is not None
    return history


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the killed edits."""
    folder = tmp_path_factory.mktemp("killed")
    template = folder / "template"
    init_project(template, ["car", "person"], template="shapes_96")
    note_classes(files_in(template).project, files_in(template).load())
    with AnswerDatabase.open(template / "annotations.db") as database:
        for number, label in enumerate(("car", "person")):
            span = {"label": label, "points": [[1, 1], [9, 9]]}
            database.add("d", [StoredAnswer({"spans": [span], "answer": "accept"}, f"{number}" * 32, "anna")])
    (folder / "out").mkdir()
    subprocess.run([sys.executable, __file__, str(template), str(folder / "out")], check=True, timeout=100)
    return folder


@pytest.mark.parametrize("edit", EDITS)
def test_every_state_is_valid_and_completed_by_the_same_edit(killed: Path, edit: str) -> None:
    states = sorted((killed / "out").glob(f"{edit}-*"))
    done = states[-1]
    assert len(states) == WRITES[edit] + 1
    assert [(folder / "done").exists() for folder in states] == [False] * WRITES[edit] + [True]
    names = files_in(done).load().names
    for folder in states:
        label_map = files_in(folder).load()
        assert label_map.names in (("car", "person"), names)
        assert num_classes(load_pipeline(folder / "pipeline.config")) >= label_map.max_id
        with AnswerDatabase.open(folder / "annotations.db") as database:
            current = {history_of(folder).current(label, label_map.texts) for label in count_images(database)}
        assert current - {None} <= set(label_map.names), "no object has lost its class"
        before = note_classes(files_in(folder).project, label_map)
        assert {before.added_s[name] for name in label_map.names if name != "tail"} == {0.0}, "no class is new"
        if folder != done:
            EDITS[edit](folder)
        assert_same(folder, done)


def assert_same(folder: Path, done: Path) -> None:
    for name in ("label_map.pbtxt", "pipeline.config"):
        text, expected = ((each / name).read_text() for each in (folder, done))
        assert text == expected
    history, expected_history = history_of(folder), history_of(done)
    assert (history.renamed, history.retired) == (expected_history.renamed, expected_history.retired)
    counts = []
    for each in (folder, done):
        with AnswerDatabase.open(each / "annotations.db") as database:
            counts.append(count_images(database))
    assert counts[0] == counts[1]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
