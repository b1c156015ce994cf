"""`--review`: images with imported labels are asked about, with these labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fixtures_web
import pytest
from fixtures_web import DATASET, IMAGES, Annotating, read
from waiting import wait_until

from odkeras.images import read_image
from odkeras.web.database import AnswerDatabase
from odkeras.web.imports import SESSION
from odkeras.web.stored import StoredAnswer

web_project, annotate = fixtures_web.web_project, fixtures_web.annotate
Start = Callable[..., Annotating]
BOX = {"label": "other", "points": [[5, 6], [5, 30], [40, 30], [40, 6]]}


@pytest.fixture
def imported(web_project: Path) -> list[str]:
    """The ids of the first four images, which have imported labels; a person has answered the fourth."""
    ids = []
    with AnswerDatabase.open(web_project / "annotations.db") as database:
        for number in range(4):
            path = web_project / "images" / f"{number:02}.png"
            ids.append(read_image(path).image_id)
            example: dict[str, Any] = {"image": str(path), "path": str(path), "width": 64, "height": 48, "spans": [BOX]}
            example |= {"answer": "accept", "image_id": ids[-1], "meta": {"file": path.name}}
            database.add(DATASET, [StoredAnswer(example, ids[-1], SESSION, 1000 + number)])
            if number == 3:
                database.add(DATASET, [StoredAnswer(example, ids[-1], "anna", 2000)])
    return ids


def all_tasks(page: fixtures_web.Page) -> list[fixtures_web.Task]:
    return list(page.tasks(IMAGES)["tasks"])


def test_without_it_imported_images_are_not_asked_about(annotate: Start, imported: list[str]) -> None:
    tasks = all_tasks(annotate().page("bob"))
    assert len(tasks) == IMAGES - 4 and not {task["image_id"] for task in tasks} & {*imported}


def test_with_it_they_are_and_have_their_labels(annotate: Start, imported: list[str]) -> None:
    host = annotate(review=True)
    page = host.page("bob")
    tasks = {task["image_id"]: task for task in all_tasks(page)}
    assert len(tasks) == IMAGES - 1 and imported[3] not in tasks
    assert host.journal.has("3 images with imported labels are shown for review")
    assert [span["label"] for span in tasks[imported[0]]["spans"]] == ["other"]
    others = [task for id, task in tasks.items() if id not in imported]
    assert all(task["spans"] == [] for task in others)
    wait_until(lambda: page.panel()["left"] == IMAGES - 1)


def test_a_reviewed_image_is_not_asked_about_again(annotate: Start, imported: list[str]) -> None:
    host = annotate(review=True)
    page = host.page("bob")
    task = next(task for task in all_tasks(page) if task["image_id"] == imported[0])
    page.answer(task)
    host.hang_up()
    host.close()
    tasks = all_tasks(annotate(review=True).page("bob"))
    assert len(tasks) == IMAGES - 2 and imported[0] not in {task["image_id"] for task in tasks}


def test_the_model_s_suggestions_do_not_replace_them(annotate: Start, imported: list[str]) -> None:
    host = annotate(review=True, model=True, threshold=0.5)
    page = host.page("bob")
    wait_until(lambda: page.panel().get("version") is not None)
    tasks = {task["image_id"]: task for task in all_tasks(page)}
    assert [span["label"] for span in tasks[imported[0]]["spans"]] == ["other"]
    assert any(task.get("version") for id, task in tasks.items() if id not in imported)
    again = read(page.post("/api/suggestions", image_ids=list(tasks)))["tasks"]
    assert not {task["image_id"] for task in again} & {*imported[:3]}
