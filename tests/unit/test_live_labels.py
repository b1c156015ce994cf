"""Labels that are added while the page runs, in the page or in the files of the project."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fixtures_web
import pytest
from waiting import wait_until

from odkeras.labels import LabelMap
from odkeras.pipeline import load_pipeline, num_classes
from odkeras.pipeline.class_history import read_class_history
from odkeras.pipeline.label_edits import LabelFiles, add_label, recolour_label, rename_label
from odkeras.project import Project
from odkeras.web.relabel import relabel

web_project, annotate = fixtures_web.web_project, fixtures_web.annotate
Annotate = Callable[..., fixtures_web.Annotating]


@pytest.fixture
def files(web_project: Path) -> LabelFiles:
    (web_project / "pipeline.config").write_text("model { center_net { num_classes: 2 } }\n")
    return LabelFiles(
        web_project / "pipeline.config",
        web_project / "label_map.pbtxt",
        Project(*(web_project / name for name in ("data", "model", "export"))),
    )


def labels_of(page: fixtures_web.Page) -> list[str]:
    return [label["name"] for label in fixtures_web.read(page.get("/api/project"))["labels"]]


def answer_with(page: fixtures_web.Page, label: str) -> dict[str, Any]:
    """Answer the next image with a box of this label; returns the reply."""
    (task,) = page.tasks()["tasks"]
    answer = fixtures_web.answer_to(task, spans=[{**fixtures_web.SPAN, "label": label}])
    return fixtures_web.read(page.post("/api/answers", answers=[answer]))


def test_a_label_is_added_in_the_page(files: LabelFiles, annotate: Annotate) -> None:
    running = annotate(model=True)
    page, other = running.page("anna"), running.page("ben", "tab2")
    before = page.panel()["labels"]
    trainer = running.service.session._processes.pids()["trainer"]
    assert answer_with(page, "tail")["refused"]
    project = fixtures_web.read(page.post("/api/labels", name=" tail "))
    assert [label["name"] for label in project["labels"]] == ["thing", "other", "tail"] == labels_of(other)
    assert len({label["color"] for label in project["labels"]}) == 3
    wait_until(lambda: other.panel()["labels"] > before, "the news about the labels")
    assert answer_with(page, "tail")["saved"]
    assert files.load().names == ("thing", "other", "tail") and num_classes(load_pipeline(files.config)) == 3
    wait_until(lambda: running.service.session._processes.pids()["trainer"] not in (trainer, None), "a new trainer")
    kept = running.service.database.label_map(fixtures_web.DATASET)
    assert kept is not None and "tail" in kept[1]
    added = json.loads((files.config.parent / "data" / "classes.json").read_text())["added_s"]
    assert added["thing"] == added["other"] == 0 < added["tail"]
    assert running.journal.has("the labels are now thing, other, tail")


def test_an_edit_of_the_files_is_taken_over(files: LabelFiles, annotate: Annotate) -> None:
    """`odkeras labels add` while the page runs."""
    running = annotate()
    page = running.page()
    before = page.panel()["labels"]
    add_label(files, "tail")
    wait_until(lambda: page.panel()["labels"] > before, "the new labels")
    assert labels_of(page) == ["thing", "other", "tail"]
    assert answer_with(page, "tail")["saved"]
    assert running.journal.has("start the trainer again on its machine"), "an external trainer"


def test_the_first_label(files: LabelFiles, annotate: Annotate) -> None:
    """Until there is one, no trainer runs: it has nothing to learn. The project begins with it."""
    files.label_map.write_text("# no labels yet\n")
    running = annotate(model=True)
    page, processes = running.page(), running.service.session._processes
    assert labels_of(page) == [] and processes.pids()["trainer"] is None
    assert fixtures_web.read(page.post("/api/labels", name="raccoon"))["labels"][0]["name"] == "raccoon"
    wait_until(lambda: processes.pids()["trainer"] is not None, "the trainer")
    assert answer_with(page, "raccoon")["saved"] and not processes.failure()
    assert files.label_map.read_text().startswith("# no labels yet") and files.load().ids == (1,)
    history = read_class_history(files.project)
    assert history is not None and history.added_s == {"raccoon": 0.0}


@pytest.mark.parametrize(
    ("name", "status", "message"),
    [
        ("Thing", 409, "there is a label 'Thing' already"),
        ("  ", 409, "1 to 100 printable characters"),
        ("", 400, "1 to 100 characters"),
        ("x" * 101, 400, "1 to 100 characters"),
    ],
)
def test_names_that_are_refused(files: LabelFiles, annotate: Annotate, name: str, status: int, message: str) -> None:
    page = annotate().page()
    reply = page.post("/api/labels", name=name)
    assert reply.status_code == status and message in reply.json()["error"]
    assert labels_of(page) == ["thing", "other"]


def test_a_label_map_that_cannot_be_read_changes_nothing(files: LabelFiles, annotate: Annotate) -> None:
    running = annotate()
    page, text = running.page(), files.label_map.read_text()
    files.label_map.write_text("item {")
    wait_until(lambda: running.journal.has("the label map is not taken over: "), "the warning")
    assert labels_of(page) == ["thing", "other"]
    assert len([event for event in running.journal.events if "not taken over" in event.text]) == 1
    files.label_map.write_text(text)
    add_label(files, "tail")
    wait_until(lambda: labels_of(page) == ["thing", "other", "tail"], "the new label")


def test_a_label_gets_another_name_and_colour(files: LabelFiles, annotate: Annotate) -> None:
    """The answers that are stored have the new name, and the next ones."""
    running = annotate()
    page = running.page()
    assert answer_with(page, "other")["saved"]
    database = running.service.database
    rename_label(files, "other", "stripe", lambda old, new: relabel(database, fixtures_web.DATASET, old, new))
    recolour_label(files, "stripe", "#ABCDEF")
    wait_until(lambda: labels_of(page) == ["thing", "stripe"], "the new name")
    wait_until(lambda: fixtures_web.read(page.get("/api/project"))["labels"][1]["color"] == "#abcdef", "the colour")
    assert answer_with(page, "other")["saved"], "from a page that does not know of the change yet"
    assert answer_with(page, "stripe")["saved"] and answer_with(page, "star")["refused"]
    labels = {span["label"] for each in database.examples(fixtures_web.DATASET) for span in each["spans"]}
    assert labels == {"stripe"}
    assert fixtures_web.read(page.get("/api/images", label="stripe"))["total"] == 3


def test_a_choice_of_labels_gets_the_new_one(files: LabelFiles, annotate: Annotate) -> None:
    running = annotate(label=["other"])
    page = running.page()
    assert labels_of(page) == ["other"]
    page.post("/api/labels", name="tail")
    assert labels_of(page) == ["other", "tail"]
    assert LabelMap.load(files.label_map).names == ("thing", "other", "tail")


def edit(page: fixtures_web.Page, action: str, name: str, value: str = "") -> dict[str, Any]:
    return fixtures_web.read(page.post("/api/labels/edit", action=action, name=name, value=value))


def images_of(page: fixtures_web.Page) -> dict[str, int]:
    """The number of answered images with each label."""
    return dict(fixtures_web.read(page.get("/api/labels"))["images"])


def test_labels_are_edited_in_the_page(files: LabelFiles, annotate: Annotate) -> None:
    """A page that does not know of the change yet can still answer; what it shows next has the new labels."""
    running = annotate(model=True)
    page, other = running.page("anna"), running.page("ben", "tab2")
    (shown,) = other.tasks()["tasks"]
    assert answer_with(page, "other")["saved"] and images_of(page) == {"other": 1}
    before = other.panel()["labels"]
    project = edit(page, "rename", "other", "stripe")
    assert labels_of(other) == ["thing", "stripe"] and project["renamed"] == {"other": "stripe"}
    assert images_of(page) == {"stripe": 1}
    wait_until(lambda: other.panel()["labels"] > before, "the news about the labels")
    other.answer(shown, spans=[{**fixtures_web.SPAN, "label": "other"}])
    assert images_of(page) == {"stripe": 2}
    assert edit(page, "recolour", "stripe", "#ABCDEF")["labels"][1]["color"] == "#abcdef"
    add_label(files, "tail")
    project = edit(page, "merge", "stripe", "tail")
    assert project["renamed"] == {"other": "tail", "stripe": "tail"} and images_of(page) == {"tail": 2}
    assert [label["name"] for label in edit(other, "retire", "tail")["labels"]] == ["thing"]
    assert images_of(page) == {"tail": 2}, "its objects stay in the answers"
    assert answer_with(page, "tail")["saved"], "from a page that does not know of the change yet"


def test_tasks_in_memory_get_the_new_labels(files: LabelFiles, annotate: Annotate) -> None:
    """A page asks for them again after a reload."""
    running = annotate(model=True)
    page = running.page()
    first = wait_until(lambda: running.service.panel.version, "a version")
    for task in page.tasks(5)["tasks"]:
        page.answer(task)
    wait_until(lambda: running.service.panel.version != first, "the next version")

    def labels_shown() -> list[str]:
        (task,) = page.tasks()["tasks"]
        return [span["label"] for span in task["spans"]]

    assert labels_shown() == ["thing"]
    edit(page, "rename", "thing", "object")
    assert labels_shown() == ["object"]
    edit(page, "retire", "object")
    assert labels_shown() == []


@pytest.mark.parametrize(
    ("action", "name", "value", "status", "message"),
    [
        ("rename", "other", "thinG", 409, "there is a label 'Thing' already"),
        ("rename", "other", "", 409, "1 to 100 printable characters"),
        ("rename", "tail", "leg", 409, "'tail' is not in the label map"),
        ("rename", "Thing", "leg", 409, "'Thing' is the display name of 'thing'"),
        ("merge", "other", "other", 409, "merged with itself"),
        ("recolour", "other", "red", 409, "'red' is not a colour"),
        ("paint", "other", "", 400, "one of rename, merge, recolour, retire"),
        ("rename", "x" * 501, "", 400, "at most 500 characters"),
    ],
)
def test_edits_that_are_refused(
    files: LabelFiles, annotate: Annotate, action: str, name: str, value: str, status: int, message: str
) -> None:
    page = annotate().page()
    reply = page.post("/api/labels/edit", action=action, name=name, value=value)
    assert reply.status_code == status and message in reply.json()["error"]
    assert labels_of(page) == ["thing", "other"] and files.load().names == ("thing", "other")


def test_answers_of_an_interrupted_rename_get_the_name_at_the_next_start(files: LabelFiles, annotate: Annotate) -> None:
    running = annotate()
    assert answer_with(running.page(), "other")["saved"]
    running.service.close()

    def killed(old: str, new: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rename_label(files, "other", "stripe", killed)
    again = annotate()
    wait_until(lambda: images_of(again.page("ben", "2")) == {"stripe": 1}, "the new name")
