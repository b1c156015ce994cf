"""The gallery's routes: pages of images from the database and the source, thumbnails, opening an image."""

from __future__ import annotations

import base64
import io
import json
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from pathlib import Path
from typing import Any

import fixtures_web
import numpy as np
import pytest
from fixtures_web import DATASET, IMAGES, SPAN, Annotating, Page, read
from image_server import image_server
from PIL import Image
from waiting import wait_until

from odkeras.errors import ImageError
from odkeras.images import make_thumbnail
from odkeras.natural_order import natural_key
from odkeras.session.reader import ImageReader
from odkeras.web import app as web_app
from odkeras.web import gallery as gallery_module
from odkeras.web.database import AnswerDatabase
from odkeras.web.gallery_rows import place_key, storable
from odkeras.web.requests import GalleryFilter
from odkeras.web.sqlite_engine import SqliteEngine
from odkeras.web.stored import StoredAnswer
from odkeras.web.thumbnails import RETRY_AFTER_S, RemoteImages, Thumbnails

web_project, annotate = fixtures_web.web_project, fixtures_web.annotate
Annotate = Callable[..., Annotating]
NAMES = [f"{number:02}.png" for number in range(IMAGES)]


def images(page: Page, **query: Any) -> dict[str, Any]:
    return read(page.get("/api/images", **query))


def files(page: Page, **query: Any) -> list[str]:
    found = images(page, **query)
    assert found["total"] == len(found["images"])
    return [each["file"] for each in found["images"]]


def entry(page: Page, file: str) -> dict[str, Any]:
    (found,) = [each for each in images(page)["images"] if each["file"] == file]
    return dict(found)


def open_image(page: Page, key: str) -> dict[str, Any]:
    return read(page.post("/api/open", key=key))


class TestListing:
    def test_all_images_before_any_was_answered(self, annotate: Annotate) -> None:
        page = annotate().page()
        assert files(page) == NAMES
        assert {each["decision"] for each in images(page)["images"]} == {None}
        assert images(page)["missing"] == ""

    def test_answered_and_unanswered_ones_in_one_order(self, annotate: Annotate) -> None:
        page = annotate().page("anna")
        first, second, third = page.tasks(3)["tasks"]
        page.answer(first)
        page.answer(third, "reject")
        assert files(page) == NAMES
        assert files(page, state="answered") == ["00.png", "02.png"]
        assert files(page, state="unanswered") == [name for name in NAMES if name not in ("00.png", "02.png")]
        assert files(page, decision="reject") == ["02.png"]
        assert files(page, annotator="anna") == ["00.png", "02.png"]
        assert files(page, annotator="ben") == []
        found = entry(page, "00.png")
        assert (found["decision"], found["annotator"], found["key"]) == ("accept", "anna", first["image_id"])
        (box,) = found["boxes"]
        rect = [SPAN["x"] / 64, SPAN["y"] / 48, SPAN["width"] / 64, SPAN["height"] / 48]
        assert box == {"label": "thing", "rect": pytest.approx(rect, abs=1e-4)}
        assert entry(page, "01.png")["held"] == "here"
        assert second["file"] == "01.png"

    def test_natural_order_also_in_folders(self, web_project: Path, annotate: Annotate) -> None:
        shutil.rmtree(web_project / "images")
        for name in ("1", "2", "10"):
            fixtures_web.save_images(web_project / "images" / f"part {name}", 1)
            (web_project / "images" / f"part {name}" / "00.png").rename(
                web_project / "images" / f"part {name}/{name}.png"
            )
        page = annotate().page()
        assert files(page) == ["1.png", "2.png", "10.png"]

    def test_by_pages(self, annotate: Annotate) -> None:
        page = annotate().page()
        page.answer(page.tasks()["tasks"][0])
        found = images(page, offset=10, limit=1)
        assert (found["total"], found["offset"], [each["file"] for each in found["images"]]) == (IMAGES, 10, ["10.png"])
        assert [each["file"] for each in images(page, offset=11, limit=5)["images"]] == ["11.png"]
        assert images(page, offset=99)["images"] == []

    def test_by_label_name_and_score(self, annotate: Annotate) -> None:
        page = annotate().page()
        for number, task in enumerate(page.tasks(4)["tasks"]):
            page.answer(task, spans=[{**SPAN, "label": "other" if number % 2 else "thing", "score": number / 10}])
        assert files(page, label="other") == ["01.png", "03.png"]
        assert files(page, label="othe") == []
        assert files(page, name="1.P") == ["01.png", "11.png"]
        assert files(page, name="%") == []
        assert files(page, state="answered", min_score=0.1, max_score=0.25) == ["01.png", "02.png"]

    def test_suggestions_of_images_at_hand_have_scores(self, annotate: Annotate) -> None:
        started = annotate(model=True)
        page = started.page()
        wait_until(lambda: page.panel()["version"])
        for task in page.tasks(5)["tasks"]:
            page.answer(task)
        version = page.panel()["version"]
        wait_until(lambda: page.panel()["version"] not in (None, version))
        (task,) = page.tasks(1)["tasks"]
        assert task["spans"]
        found = entry(page, task["file"])
        assert found["score"] == pytest.approx(min(span["score"] for span in task["spans"]))
        assert len(found["boxes"]) == len(task["spans"])
        assert task["file"] in files(page, state="unanswered", min_score=0, max_score=1)

    def test_the_last_answer_about_an_image_counts(self, annotate: Annotate) -> None:
        page = annotate().page()
        (task,) = page.tasks()["tasks"]
        page.answer(task)
        page.answer(task, "reject")
        assert files(page, decision="accept") == []
        assert files(page, decision="reject") == ["00.png"]

    def test_with_overlap_everybody_sees_their_own(self, annotate: Annotate) -> None:
        started = annotate(overlap=True)
        anna, ben = started.page("anna"), started.page("ben")
        anna.answer(anna.tasks()["tasks"][0])
        assert files(anna, state="answered") == ["00.png"]
        assert files(ben, state="answered") == []
        assert files(ben, annotator="anna") == ["00.png"]
        assert entry(ben, "00.png")["decision"] is None

    def test_answered_images_outside_the_source_are_listed(self, annotate: Annotate) -> None:
        started = annotate()
        example = {"answer": "accept", "spans": [], "meta": {"file": "from elsewhere.jpg"}}
        started.service.database.add(DATASET, [StoredAnswer(example, "f" * 32, "carl")])
        assert "from elsewhere.jpg" in files(started.page())

    def test_a_file_that_another_run_answered_is_not_listed_twice(self, web_project: Path, annotate: Annotate) -> None:
        """Its size or time may have changed, or the file of ids is lost."""
        first = annotate()
        page = first.page()
        page.answer(page.tasks()["tasks"][0])
        first.hang_up()
        first.close()
        (web_project / "data" / "image_ids.jsonl").unlink(missing_ok=True)
        assert files(annotate().page()) == NAMES

    def test_a_source_without_a_length_is_listed_as_incomplete(self, annotate: Annotate) -> None:
        paths = [f"images/{name}" for name in NAMES]
        page = annotate(source=(path for path in paths)).page()
        page.tasks(2)
        found = images(page)
        assert [each["file"] for each in found["images"]] == ["00.png", "01.png"]
        assert "stream" in found["missing"]

    def test_a_large_jsonl_file_is_listed_completely(
        self, web_project: Path, annotate: Annotate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("odkeras.session.sources._COUNTED_BYTES", 0)
        (web_project / "tasks.jsonl").write_text(json.dumps({"path": "images/00.png"}))
        missing = images(annotate(source="tasks.jsonl").page())["missing"]
        assert missing == "The source is too large to list at once: images appear here when they are queued."

    def test_an_image_in_its_record(
        self, web_project: Path, annotate: Annotate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gallery_module, "_MAX_RECORD_CHARACTERS", 100)
        uri = "data:image/png;base64," + base64.b64encode((web_project / "images/00.png").read_bytes()).decode()
        (web_project / "tasks.jsonl").write_text(json.dumps({"image": uri}))
        missing = images(annotate(source="tasks.jsonl").page())["missing"]
        assert missing == "1 image is embedded in the source file: it appears here when it is queued."

    def test_a_jsonl_file_with_paths(self, web_project: Path, annotate: Annotate) -> None:
        lines = [json.dumps({"image": f"images/{name}"}) for name in reversed(NAMES)]
        (web_project / "tasks.jsonl").write_text("\n".join(lines))
        page = annotate(source="tasks.jsonl").page()
        assert files(page) == NAMES
        assert open_image(page, entry(page, "05.png")["key"])["task"]["file"] == "05.png"

    def test_images_of_one_name_at_different_places(self, web_project: Path, annotate: Annotate) -> None:
        """As soon as one of them was answered, the others that had not been read were hidden."""
        with image_server() as server:
            urls = [
                server.put(f"/{number}/photo.jpg", (web_project / f"images/{name}").read_bytes())
                for number, name in enumerate(NAMES[:8])
            ]
            lines = [json.dumps({"image": url}) for url in urls]
            lines += [json.dumps({"path": f"images/{name}", "meta": {"file": "x"}}) for name in NAMES[8:]]
            (web_project / "tasks.jsonl").write_text("\n".join(lines))
            page = annotate(source="tasks.jsonl").page()
            assert images(page)["total"] == IMAGES
            for file in ("photo.jpg", "x"):
                key = next(each["key"] for each in images(page)["images"] if each["file"] == file)
                page.answer(open_image(page, key)["task"])
            assert files(page) == ["photo.jpg"] * 8 + ["x"] * 4
            assert len(files(page, state="unanswered")) == IMAGES - 2

    @pytest.mark.parametrize(
        "query",
        [
            {"state": "x"},
            {"decision": "x"},
            {"min_score": "2"},
            {"max_score": "nan"},
            {"limit": "9999"},
            {"offset": "-1"},
        ],
    )
    def test_invalid_filters_are_refused(self, annotate: Annotate, query: dict[str, str]) -> None:
        assert annotate().page().get("/api/images", **query).status_code == 400


class TestOpening:
    def test_an_answered_image_to_be_corrected(self, annotate: Annotate) -> None:
        page = annotate().page()
        (task,) = page.tasks()["tasks"]
        page.answer(task)
        opened = open_image(page, entry(page, "00.png")["key"])
        assert (opened["answer"], opened["task"]["image_id"]) == ("accept", task["image_id"])
        assert [span["label"] for span in opened["task"]["spans"]] == ["thing"]
        page.answer(opened["task"], "reject")
        assert files(page, decision="reject") == ["00.png"]

    def test_an_unanswered_image_out_of_its_turn(self, annotate: Annotate) -> None:
        started = annotate()
        page = started.page()
        opened = open_image(page, entry(page, "07.png")["key"])
        assert (opened["answer"], opened["task"]["file"]) == (None, "07.png")
        assert page.http.get(opened["task"]["image"]).status_code == 200
        assert entry(page, "07.png")["held"] == "here"
        page.answer(opened["task"])
        assert files(page, state="answered") == ["07.png"]
        rest = page.tasks(20)["tasks"]
        assert [each["file"] for each in rest] == [name for name in NAMES if name != "07.png"], "each once"

    def test_an_image_that_another_tab_has(self, annotate: Annotate) -> None:
        started = annotate()
        anna, ben = started.page("anna"), started.page("ben")
        anna.tasks(1)
        found = entry(ben, "00.png")
        assert found["held"] == "elsewhere"
        refused = ben.post("/api/open", key=found["key"])
        assert (refused.status_code, "annotator anna" in refused.json()["error"]) == (409, True)
        twin = started.page("anna", tab="other")
        assert "another tab of yours" in twin.post("/api/open", key=found["key"]).json()["error"]

    def test_what_another_annotator_answered_can_be_corrected(self, annotate: Annotate) -> None:
        started = annotate()
        anna, ben = started.page("anna"), started.page("ben")
        (task,) = anna.tasks()["tasks"]
        anna.answer(task)
        opened = open_image(ben, entry(ben, "00.png")["key"])
        assert (opened["answer"], len(opened["task"]["spans"])) == ("accept", 1)
        ben.answer(opened["task"], "reject")
        assert (entry(anna, "00.png")["decision"], entry(anna, "00.png")["annotator"]) == ("reject", "ben")

    def test_a_correction_by_a_colleague_is_what_is_opened(self, annotate: Annotate) -> None:
        """The gallery listed ben's correction, and anna got her own older answer: saving it undid his."""
        started = annotate()
        anna, ben = started.page("anna"), started.page("ben")
        (task,) = anna.tasks()["tasks"]
        anna.answer(task)
        opened = open_image(ben, entry(ben, "00.png")["key"])
        ben.answer(opened["task"], spans=[{**SPAN, "label": "other"}])
        opened = open_image(anna, entry(anna, "00.png")["key"])
        assert [span["label"] for span in opened["task"]["spans"]] == ["other"]
        boxes = read(anna.get("/api/boxes", image_id=task["image_id"]))
        assert [span["label"] for span in boxes["spans"]] == ["other"]

    def test_with_overlap_an_answer_of_another_is_no_answer_of_mine(self, annotate: Annotate) -> None:
        started = annotate(overlap=True)
        anna, ben = started.page("anna"), started.page("ben")
        anna.answer(anna.tasks()["tasks"][0])
        opened = open_image(ben, entry(ben, "00.png")["key"])
        assert (opened["answer"], opened["task"]["spans"]) == (None, [])

    def test_a_broken_file_and_one_that_is_gone(self, web_project: Path, annotate: Annotate) -> None:
        (web_project / "images" / "03.png").write_bytes(b"no image")
        page = annotate().page()
        broken, gone = entry(page, "03.png")["key"], entry(page, "04.png")["key"]
        (web_project / "images" / "04.png").unlink()
        for key in (broken, gone):
            refused = page.post("/api/open", key=key)
            assert (refused.status_code, "cannot be used" in refused.json()["error"]) == (409, True)
            assert page.http.get(f"/thumbnails/{key}").status_code == 404
        assert page.post("/api/open", key="0" * 32).status_code == 409
        assert page.post("/api/open", key="../x").status_code == 400

    def test_an_answer_whose_image_is_gone(self, annotate: Annotate) -> None:
        """It was said to have just been answered, however often the images were listed again."""
        started = annotate()
        example = {"answer": "accept", "spans": [], "meta": {"file": "gone.jpg"}}
        started.service.database.add(DATASET, [StoredAnswer(example, "f" * 32, "carl")])
        refused = started.page().post("/api/open", key="f" * 32)
        assert (refused.status_code, "the image of this answer is missing" in refused.json()["error"]) == (409, True)

    def test_boxes_of_another_image(self, annotate: Annotate) -> None:
        page = annotate().page()
        first, second = page.tasks(2)["tasks"]
        page.answer(first)
        found = read(page.get("/api/boxes", image_id=first["image_id"]))
        assert (found["file"], [span["label"] for span in found["spans"]]) == ("00.png", ["thing"])
        assert page.get("/api/boxes", image_id=second["image_id"]).status_code == 404


class TestExcludedDatasets:
    """The gallery ignored --exclude: images of the test set were listed, opened, stored and trained on."""

    def answer_two(self, annotate: Annotate) -> None:
        started = annotate(dataset="test")
        page = started.page()
        for task in page.tasks(3)["tasks"][:2]:
            page.answer(task)
        started.hang_up()
        started.close()

    @pytest.mark.parametrize("overlap", [False, True])
    @pytest.mark.parametrize("ids_are_known", [True, False])
    def test_their_images_are_not_listed(
        self, web_project: Path, annotate: Annotate, ids_are_known: bool, overlap: bool
    ) -> None:
        self.answer_two(annotate)
        if not ids_are_known:
            (web_project / "data" / "image_ids.jsonl").unlink()
        assert files(annotate(exclude=["test"], overlap=overlap).page()) == NAMES[2:]

    def test_their_images_are_not_opened(self, web_project: Path, annotate: Annotate) -> None:
        """Under another name it is not known before it is read."""
        self.answer_two(annotate)
        shutil.copy("images/00.png", "images/moved.png")
        page = annotate(exclude=["test"]).page()
        refused = page.post("/api/open", key=entry(page, "moved.png")["key"])
        assert (refused.status_code, "is excluded: it is in dataset test" in refused.json()["error"]) == (409, True)
        assert "moved.png" not in files(page)

    def test_what_is_answered_here_can_be_corrected(self, annotate: Annotate) -> None:
        self.answer_two(annotate)
        started = annotate()
        page = started.page()
        page.answer(page.tasks(1)["tasks"][0])
        started.hang_up()
        started.close()
        page = annotate(exclude=[DATASET, "test"]).page()
        assert files(page, state="answered") == ["00.png"]
        assert open_image(page, entry(page, "00.png")["key"])["answer"] == "accept"


class TestThumbnails:
    def test_of_answered_and_of_unread_images(self, web_project: Path, annotate: Annotate) -> None:
        Image.fromarray(np.zeros((900, 1200, 3), np.uint8)).save(web_project / "images" / "11.png")
        page = annotate().page()
        page.answer(page.tasks()["tasks"][0])
        for file, size in (("00.png", (64, 48)), ("11.png", (256, 192))):
            response = page.http.get(entry(page, file)["thumbnail"])
            assert response.headers["content-type"] == "image/jpeg"
            assert "immutable" in response.headers["cache-control"]
            assert Image.open(io.BytesIO(response.content)).size == size

    def test_a_photograph_that_was_held_sideways_is_upright(self) -> None:
        pixels = np.zeros((600, 800, 3), np.uint8)
        pixels[:300] = (255, 0, 0)
        exif = Image.Exif()
        exif[0x0112] = 6
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", exif=exif)
        made = Image.open(io.BytesIO(make_thumbnail(buffer.getvalue(), side_px=256)))
        assert made.size == (192, 256)
        red, _, _ = made.getpixel((180, 128))  # type: ignore[misc]
        assert red > 200, "what was on top is on the right"
        assert not made.getexif()

    def test_they_are_made_once_and_memory_is_bounded(self) -> None:
        buffer = io.BytesIO()
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8)).save(buffer, "PNG")
        made: list[str] = []

        def reader(key: str) -> Callable[[], bytes]:
            return lambda: made.append(key) or buffer.getvalue()  # type: ignore[func-returns-value]

        size = len(make_thumbnail(buffer.getvalue(), side_px=256))
        thumbnails = Thumbnails(max_bytes=int(2.5 * size))
        for key in ("a", "a", "b", "a", "c", "a", "b"):
            thumbnails.get(key, reader(key))
        assert made == ["a", "b", "c", "b"], "b was asked for longest ago when c came"


class TestRemoteThumbnails:
    def test_a_silent_image_server_does_not_block_the_gallery(
        self, web_project: Path, annotate: Annotate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its thumbnails held the threads of the gallery for 15 seconds each, again and again."""
        monkeypatch.setattr("odkeras.web.thumbnails.SLOW_S", 60)
        monkeypatch.setattr("odkeras.web.gallery_service.FETCH_TIMEOUT_S", 60)
        monkeypatch.setattr(web_app, "_FETCHING_THREADS", 1)
        monkeypatch.setattr(web_app, "_MAX_FETCHES_WAITING", 1)
        go = threading.Event()
        with image_server() as server, ThreadPoolExecutor(3) as pool:
            data = (web_project / "images/00.png").read_bytes()
            urls = [server.url(f"/{number}.png") for number in range(4)]
            server.pages["/0.png"] = lambda handler: go.wait(60)
            server.put("/1.png", data)
            server.put("/2.png", data)
            lines = [json.dumps({"image": url}) for url in urls]
            (web_project / "tasks.jsonl").write_text("\n".join([*lines, json.dumps({"path": "images/05.png"})]))
            page = annotate(source="tasks.jsonl").page()
            places = {each["file"]: each["thumbnail"] for each in images(page)["images"]}
            slow = pool.submit(page.http.get, places["0.png"])
            wait_until(lambda: "/0.png" in server.requests)
            others = [pool.submit(page.http.get, places[name]) for name in ("1.png", "2.png")]
            refused = next(as_completed(others)).result()
            assert (refused.status_code, "other servers" in refused.json()["error"]) == (503, True)
            assert page.http.get(places["05.png"]).status_code == 200, "the gallery is not held up"
            go.set()
            assert slow.result().status_code == 404
            assert sorted(each.result().status_code for each in others) == [200, 503]
            for _ in range(2):
                assert page.http.get(places["3.png"]).status_code == 404
            assert server.requests.count("/3.png") == 1, "it is not asked again and again"

    def test_a_slow_failure_is_one_of_the_server(self) -> None:
        now, asked = [0.0], list[str]()

        def fetch(url: str) -> bytes:
            asked.append(url)
            if "slow" in url:
                now[0] += 4
            if "none" in url or "slow" in url:
                raise ImageError("no", url)
            return b"image"

        remote = RemoteImages(fetch, clock=lambda: now[0])

        def get(url: str) -> bool:
            try:
                return bool(remote.get(url))
            except ImageError:
                return False

        urls = ["http://a/none", "http://a/none", "http://a/1", "http://slow/1", "http://slow/2", "http://["]
        assert [get(url) for url in urls] == [False, False, True, False, False, True]
        assert asked == ["http://a/none", "http://a/1", "http://slow/1", "http://["]
        now[0] += RETRY_AFTER_S
        assert not get("http://slow/2")
        assert asked[-1] == "http://slow/2"


class TestDatabase:
    def test_a_database_of_an_earlier_version_gets_its_gallery(self, tmp_path: Path) -> None:
        path = tmp_path / "annotations.db"
        with AnswerDatabase.open(path) as database:
            spans = [{**SPAN, "score": 0.4}, {**SPAN, "label": "other", "score": 0.7}]
            for number, decision in enumerate(("accept", "reject", "accept")):
                example = {"answer": decision, "spans": spans, "meta": {"file": f"{number}.png"}}
                database.add(DATASET, [StoredAnswer(example, f"{number:032}", "anna", answered_at=float(number))])
            again = {"answer": "ignore", "spans": [], "meta": {"file": "0.png"}}
            database.add(DATASET, [StoredAnswer(again, f"{0:032}", "anna", answered_at=9.0)])
        query = "SELECT * FROM gallery ORDER BY answer"
        with closing(sqlite3.connect(path)) as connection:
            expected = connection.execute(query).fetchall()
            assert [row[5:7] for row in expected] == [("1.png", "reject"), ("2.png", "accept"), ("0.png", "ignore")]
            assert (expected[0][8:], expected[2][8:]) == (("\nother\nthing\n", 0.4, 1), ("", None, 1))
            connection.executescript("DROP TABLE gallery; PRAGMA user_version = 2;")
        AnswerDatabase.open(path).close()
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute(query).fetchall() == expected

    def test_relative_paths_start_where_the_database_is(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """They started in the working directory, so that the image seemed to be another one than the source's."""
        fixtures_web.save_images(tmp_path / "images", 1)
        path = tmp_path / "annotations.db"
        with AnswerDatabase.open(path) as database:
            example = {"answer": "accept", "spans": [], "path": "images/00.png", "meta": {"file": "00.png"}}
            database.add(DATASET, [StoredAnswer(example, "a" * 32, "anna")])
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript("DROP TABLE gallery; PRAGMA user_version = 2;")
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        AnswerDatabase.open(path).close()
        with closing(sqlite3.connect(path)) as connection:
            ((key,),) = connection.execute("SELECT sort_key FROM gallery").fetchall()
        assert key == natural_key(tmp_path / "images" / "00.png")

    def test_a_migration_that_is_interrupted_changes_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "annotations.db"
        with AnswerDatabase.open(path) as database:
            database.add(DATASET, [StoredAnswer({"answer": "accept", "spans": []}, "a" * 32, "anna")])
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript("DROP TABLE gallery; PRAGMA user_version = 2;")

        def interrupt(*_: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("odkeras.web.gallery_rows.fill", interrupt)
            with pytest.raises(KeyboardInterrupt):
                AnswerDatabase.open(path)
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA user_version").fetchone() == (2,)
            names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master")]
            assert "gallery" not in names
        AnswerDatabase.open(path).close()
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("SELECT COUNT(*) FROM gallery").fetchone() == (1,)

    def test_a_page_of_ten_thousand_answers_is_quick(self, tmp_path: Path) -> None:
        path = tmp_path / "annotations.db"
        with AnswerDatabase.open(path) as database:
            database.add(
                DATASET,
                [
                    StoredAnswer(
                        {"answer": "accept", "spans": [SPAN], "meta": {"file": f"{number}.png"}, "text": "x" * 2000},
                        f"{number:032x}",
                        "anna",
                        answered_at=float(number),
                    )
                    for number in range(10_000)
                ],
            )

        class Nothing:
            total = 0
            items = staticmethod(lambda: iter(()))
            reader = ImageReader()

        gallery = gallery_module.Gallery(SqliteEngine(path), DATASET, Nothing)  # type: ignore[arg-type]
        wanted = GalleryFilter(label="thing")
        gallery.page(wanted, "anna", [], 0, 1)
        started = time.thread_time()  # of the processor: the machine may do other things as well
        total, entries = gallery.page(wanted, "anna", [], 9_900, 100)
        took_s = time.thread_time() - started
        gallery.close()
        assert (total, entries[0].file, entries[-1].file) == (10_000, "9900.png", "9999.png")
        assert took_s < 0.2


@pytest.mark.parametrize(
    "place",
    [
        "a.jpg",
        "/a.jpg",
        "x//a.jpg",
        "./a.jpg",
        "x/./a.jpg",
        "../a.jpg",
        "x/..",
        ".",
        "x/",
        "/",
        "///b/a.jpg",
        "x/a\udcff.jpg",
    ],
)
def test_a_place_is_sorted_by_its_absolute_path(place: str) -> None:
    absolute = Path(place).absolute()
    assert place_key(storable(absolute.name), place) == natural_key(absolute)
    assert place_key("other", place) == f"{natural_key('other')}\n{storable(str(absolute))}"
