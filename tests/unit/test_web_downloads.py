"""The labels as downloads of the page: the same as `odkeras db out` writes, guarded like everything else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fixtures_web
import pytest
from fixtures_web import DATASET, SPAN, Annotating, Page

from odkeras.labels import Label, LabelMap
from odkeras.web import downloads
from odkeras.web.database import AnswerDatabase
from odkeras.web.downloads import open_download
from odkeras.web.exports import coco_of_dataset
from odkeras.web.security import Policy

web_project, annotate = fixtures_web.web_project, fixtures_web.annotate
Start = Callable[..., Annotating]
TOKEN = "correct horse"


@pytest.fixture
def answered(annotate: Start) -> Page:
    """An accepted image with a box of the second label, one without boxes, and a rejected one."""
    page = annotate().page("anna")
    for decision, spans in (("accept", [{**SPAN, "label": "other"}]), ("accept", []), ("reject", [])):
        page.answer(page.tasks()["tasks"][0], decision, spans=spans)
    return page


class TestJsonLines:
    def test_the_answers(self, answered: Page, web_project: Path) -> None:
        response = answered.get("/api/export/jsonl")
        assert response.status_code == 200
        assert response.headers["content-type"] == "application/x-ndjson"
        assert response.headers["content-disposition"] == 'attachment; filename="things.jsonl"'
        assert response.headers["cache-control"] == "no-store"
        rows = [json.loads(line) for line in response.text.splitlines()]
        assert [row["answer"] for row in rows] == ["accept", "accept", "reject"]
        with AnswerDatabase.open(web_project / "annotations.db") as database:
            assert rows == database.examples(DATASET)

    def test_many_of_them_are_sent_in_pieces(
        self, answered: Page, web_project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(downloads, "_CHUNK_CHARS", 10)
        with AnswerDatabase.open(web_project / "annotations.db") as database:
            found = open_download(database, DATASET, "jsonl")
            assert found is not None
            pieces = list(found.chunks())
        assert len(pieces) == 4
        assert "".join(pieces) == answered.get("/api/export/jsonl").text


class TestCoco:
    def test_the_accepted_images_with_the_label_maps_ids(self, answered: Page, web_project: Path) -> None:
        response = answered.get("/api/export/coco")
        assert response.headers["content-disposition"] == 'attachment; filename="things_coco.json"'
        found: dict[str, Any] = response.json()
        assert [(each["id"], each["name"]) for each in found["categories"]] == [(1, "thing"), (2, "other")]
        assert [each["category_id"] for each in found["annotations"]] == [2]
        assert found["annotations"][0]["bbox"] == [20, 10, 30, 20]
        assert sorted(image["file_name"] for image in found["images"]) == ["00.png", "01.png"]
        with AnswerDatabase.open(web_project / "annotations.db") as database:
            assert found == coco_of_dataset(database, DATASET).to_json()

    def test_ids_with_gaps(self, annotate: Start, web_project: Path) -> None:
        LabelMap((Label(3, "zebra"), Label(7, "ant"))).save(web_project / "label_map.pbtxt")
        page = annotate().page()
        page.answer(page.tasks()["tasks"][0], spans=[{**SPAN, "label": "ant"}])
        found = page.get("/api/export/coco").json()
        assert [each["category_id"] for each in found["annotations"]] == [7]

    def test_what_is_left_out_is_said(self, annotate: Start, web_project: Path) -> None:
        """Boxes of a label that the label map lacks were missing in the file, and nobody was told."""
        running = annotate()
        page = running.page()
        tasks = page.tasks(5)["tasks"]
        for task in tasks:
            page.answer(task, spans=[SPAN, {**SPAN, "id": "2", "label": "other"}])
        running.hang_up()
        running.close()
        LabelMap((Label(1, "thing"),)).save(web_project / "label_map.pbtxt")
        running = annotate()
        found = running.page().get("/api/export/coco").json()
        assert len(found["annotations"]) == 5
        (told,) = [news for news in running.journal.events if "COCO download" in news.text]
        assert told.urgent and "00.png" in told.text and "'other'" in told.text and "and 2 more" in told.text
        assert "left out" in found["info"]["description"]


class TestWhatIsRefused:
    @pytest.mark.parametrize("format", ["jsonl", "coco"])
    def test_without_answers(self, annotate: Start, format: str) -> None:
        response = annotate().page().get(f"/api/export/{format}")
        assert (response.status_code, response.json()["error"]) == (404, "there are no answers yet")

    @pytest.mark.parametrize("format", ["tfrecord", "JSONL", "..", "%2e%2e"])
    def test_another_format(self, answered: Page, format: str) -> None:
        assert answered.get(f"/api/export/{format}").status_code == 404

    def test_without_the_token(self, annotate: Start) -> None:
        page = annotate(policy=Policy(token=TOKEN)).page()
        assert page.get("/api/export/jsonl").status_code == 401
        headers = {"authorization": f"Bearer {TOKEN}"}
        assert page.http.get("/api/export/jsonl", headers=headers).status_code == 404, "no answers, but allowed"

    @pytest.mark.parametrize(("site", "status"), [("cross-site", 403), ("same-site", 403), ("same-origin", 200)])
    def test_from_other_web_pages(self, answered: Page, site: str, status: int) -> None:
        """A foreign page could not read it, but it could have the browser save it."""
        response = answered.http.get("/api/export/jsonl", headers={"sec-fetch-site": site})
        assert response.status_code == status


def test_a_name_that_is_none_for_a_file(annotate: Start) -> None:
    page = annotate(dataset='a/b "c"\r\né').page()
    page.answer(page.tasks()["tasks"][0])
    assert page.get("/api/export/jsonl").headers["content-disposition"] == 'attachment; filename="a_b_c_.jsonl"'
