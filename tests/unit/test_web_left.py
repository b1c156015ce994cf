"""What the page says is left, whatever the answers are about and wherever they come from."""

from __future__ import annotations

import base64
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fixtures_web
import pytest
from fixtures_web import DATASET, IMAGES, SPAN, Annotating, Page
from waiting import wait_until

from odkeras.config.settings import PREDICT_BATCH_SIZE
from odkeras.images import read_image
from odkeras.web.database import AnswerDatabase
from odkeras.web.housekeeping import ImagesLeft
from odkeras.web.imports import import_answers

web_project, annotate = fixtures_web.web_project, fixtures_web.annotate
Start = Callable[..., Annotating]


def left(page: Page) -> int | None:
    found = page.panel()["left"]
    return None if found is None else int(found)


def assert_left(page: Page, expected: int) -> None:
    wait_until(lambda: left(page) == expected)


def answer_some(page: Page, count: int) -> list[dict[str, Any]]:
    tasks = list(page.tasks(count)["tasks"])
    for task in tasks:
        page.answer(task)
    return tasks


def bring_in(*examples: dict[str, Any]) -> None:
    """As `odkeras db in` does."""
    lines = [json.dumps({"answer": "accept", "spans": [SPAN], **example}).encode() for example in examples]
    with AnswerDatabase.open("annotations.db") as database:
        report = import_answers(database, DATASET, lines, base_dir=Path())
    assert report.skipped == []
    assert report.added == len(examples)


def locate(number: int) -> str:
    return f"images/{number:02}.png"


@pytest.fixture
def read_files(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the images that are read."""
    found: list[str] = []
    read_bytes = Path.read_bytes

    def noting(self: Path) -> bytes:
        if self.suffix == ".png" and self.parent.name == "images":
            found.append(self.name)
        return read_bytes(self)

    monkeypatch.setattr(Path, "read_bytes", noting)
    return found


@pytest.fixture(autouse=True)
def early_look_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("odkeras.web.housekeeping.LOOK_UP_AFTER_S", 0.0)


def test_the_first_task_does_not_compete_with_the_look_up(
    annotate: Start, web_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 1,000,000 lines, the look-up of answered images took a core from the start on."""
    monkeypatch.setattr("odkeras.web.housekeeping.LOOK_UP_AFTER_S", 1e9)
    begun: list[bool] = []
    find_answered = ImagesLeft.find_answered

    def noting(self: ImagesLeft, *args: Any, **options: Any) -> None:
        begun.append(service.service.queue.has_begun)
        find_answered(self, *args, **options)

    monkeypatch.setattr(ImagesLeft, "find_answered", noting)
    bring_in({"path": locate(9)})
    service = annotate()
    page = service.page()
    assert_left(page, IMAGES)
    assert begun == []
    answer_some(page, 1)
    assert_left(page, IMAGES - 2)
    assert begun == [True]


class TestImported:
    def test_images_of_the_source_that_are_not_the_first(self, annotate: Start, web_project: Path) -> None:
        """They counted as left until their turn came, which for the last ones was the end."""
        bring_in({"path": locate(9)}, {"path": locate(10)}, {"path": locate(4)})
        page = annotate().page()
        assert_left(page, IMAGES - 3)
        answer_some(page, 2)
        assert_left(page, IMAGES - 5)

    def test_from_another_machine(self, annotate: Start, web_project: Path) -> None:
        """The image is in the answer, and its file has another path there."""
        uri = "data:image/png;base64," + base64.b64encode((web_project / locate(7)).read_bytes()).decode()
        bring_in({"image": uri, "path": "/elsewhere/07.png", "meta": {"file": "07.png"}})
        assert_left(annotate().page(), IMAGES - 1)

    def test_images_that_are_not_in_the_source(self, annotate: Start, web_project: Path) -> None:
        """Each made the number of images that are left smaller by one."""
        fixtures_web.save_images(web_project / "more", 40)
        bring_in(*({"path": f"more/{number:02}.png"} for number in range(20, 40)))
        page = annotate().page()
        answer_some(page, 1)
        assert_left(page, IMAGES - 1)
        answer_some(page, 3)
        assert_left(page, IMAGES - 4)
        assert page.panel()["answers"]["accept"] == 24

    def test_another_picture_of_the_same_name(self, annotate: Start, web_project: Path) -> None:
        fixtures_web.save_images(web_project / "more", 30)
        shutil.copy("more/25.png", "more/03.png")
        bring_in({"path": "more/03.png", "meta": {"file": "03.png"}})
        page = annotate().page()
        page.tasks(IMAGES)
        assert_left(page, IMAGES)


class TestUnusable:
    def test_skipped_images(self, annotate: Start, web_project: Path) -> None:
        for number in (0, 5):
            (web_project / locate(number)).write_bytes(b"<html>")
        page = annotate().page()
        answer_some(page, 4)
        page.tasks(IMAGES)
        assert_left(page, IMAGES - 6)
        answer_some(page, IMAGES)
        assert_left(page, 0)

    def test_answered_and_broken_since(self, annotate: Start, web_project: Path) -> None:
        running = annotate()
        answer_some(running.page(), 2)
        running.close()
        (web_project / locate(0)).write_bytes(b"<html>")
        page = annotate().page()
        page.tasks(IMAGES)
        assert_left(page, IMAGES - 2)

    def test_lines_that_are_no_records(self, annotate: Start, web_project: Path) -> None:
        lines = [json.dumps({"path": locate(number)}) for number in range(4)]
        (web_project / "tasks.jsonl").write_text("\n".join([lines[0], "{", *lines[1:], "[1]"]) + "\n")
        page = annotate(source="tasks.jsonl").page()
        page.tasks(9)
        assert_left(page, 4)
        answer_some(page, 9)
        assert_left(page, 0)


class TestRestart:
    def test_answered_images_in_the_middle_do_not_count(
        self, annotate: Start, web_project: Path, read_files: list[str]
    ) -> None:
        running = annotate()
        page = running.page()
        tasks = page.tasks(8)["tasks"]
        for task in tasks[3:6]:
            page.answer(task)
        assert_left(page, IMAGES - 3)
        running.close()
        read_files.clear()
        page = annotate().page()
        assert_left(page, IMAGES - 3)
        assert read_files == [], "what is known from the run before is not read again"
        answer_some(page, IMAGES)
        assert_left(page, 0)

    def test_in_random_order(self, annotate: Start) -> None:
        running = annotate(order="random")
        answer_some(running.page(), 3)
        running.close()
        page = annotate(order="random").page()
        assert_left(page, IMAGES - 3)
        answer_some(page, IMAGES)
        assert_left(page, 0)

    def test_corrections(self, annotate: Start) -> None:
        running = annotate()
        (task, _) = answer_some(running.page(), 2)
        running.close()
        page = annotate().page()
        for decision in ("reject", "accept"):
            page.answer(page.post("/api/reopen", image_id=task["image_id"]).json()["task"], decision)
        assert_left(page, IMAGES - 2)


def test_duplicates_in_the_source(annotate: Start, web_project: Path) -> None:
    """The same picture under two names is asked about once."""
    shutil.copy(web_project / locate(1), web_project / locate(20))
    page = annotate().page()
    page.tasks(20)
    assert_left(page, IMAGES)
    answer_some(page, 20)
    assert_left(page, 0)


def test_answered_through_the_gallery(annotate: Start, web_project: Path) -> None:
    """What was opened there counted as left until the stream came to it."""
    page = annotate().page()
    entries = page.get("/api/images").json()["images"]
    for entry in entries[-3:]:
        page.answer(page.post("/api/open", key=entry["key"]).json()["task"])
    assert_left(page, IMAGES - 3)
    answer_some(page, IMAGES)
    assert_left(page, 0)


def test_an_excluded_image_that_the_gallery_refused(annotate: Start, web_project: Path) -> None:
    running = annotate(dataset="first")
    answer_some(running.page(), 1)
    running.close()
    shutil.copy(web_project / locate(0), web_project / "images" / "moved.png")
    page = annotate(dataset="second", exclude=["first"]).page()
    (key,) = [each["key"] for each in page.get("/api/images", name="moved").json()["images"]]
    assert page.post("/api/open", key=key).status_code == 409
    assert_left(page, IMAGES - 1)


def test_excluded_datasets(annotate: Start, web_project: Path) -> None:
    running = annotate(dataset="first")
    page = running.page()
    tasks = page.tasks(7)["tasks"]
    for task in tasks[5:]:
        page.answer(task)
    running.close()
    page = annotate(dataset="second", exclude=["first"]).page()
    assert_left(page, IMAGES - 2)
    answer_some(page, IMAGES)
    assert_left(page, 0)


def test_with_overlap_each_session_has_its_own_count(annotate: Start) -> None:
    running = annotate(overlap=True)
    anna, ben = running.page("anna"), running.page("ben")
    answer_some(anna, 5)
    answer_some(ben, 2)
    assert_left(anna, IMAGES - 5)
    assert_left(ben, IMAGES - 2)
    running.close()
    anna = annotate(overlap=True).page("anna")
    assert_left(anna, IMAGES - 5)


def test_a_source_without_a_length(annotate: Start, web_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("odkeras.session.sources._COUNTED_BYTES", 0)
    (web_project / "tasks.jsonl").write_text(json.dumps({"path": locate(0)}) + "\n")
    page = annotate(source="tasks.jsonl").page()
    answer_some(page, 1)
    time.sleep(0.1)
    panel = page.panel()
    assert (panel["total"], panel["left"]) == (None, None)


def test_counting_reads_no_image(annotate: Start, web_project: Path, read_files: list[str]) -> None:
    """Images are read when their turn comes, and none for the sake of counting."""
    page = annotate().page()
    answer_some(page, 1)
    assert_left(page, IMAGES - 1)
    assert len(set(read_files)) == PREDICT_BATCH_SIZE


def test_an_image_id_of_an_imported_answer(web_project: Path) -> None:
    bring_in({"path": locate(3)})
    with AnswerDatabase.open("annotations.db") as database:
        assert database.answered(DATASET) == {read_image(locate(3)).image_id}
        assert "03.png" in database.files(DATASET)
