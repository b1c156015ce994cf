"""Every route, by HTTP: what is right, what is wrong, and what comes by itself."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_processes
import fixtures_web
import httpx
import msgspec
import pytest
from fixtures_web import IMAGES, SPAN, Annotating, Page, annotating, answer_to
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tasks import bare_task
from waiting import wait_until

from odkeras import __version__
from odkeras.annotation import Span, Suggestions
from odkeras.errors import SetupError
from odkeras.formats.spans import read_span
from odkeras.images import read_image
from odkeras.keypoints import Keypoint
from odkeras.process import open_listener
from odkeras.session.events import Event
from odkeras.web import app as web_app
from odkeras.web import replies, tensorboard
from odkeras.web.app import SHOWN_EVERY_S
from odkeras.web.files import page_files
from odkeras.web.replies import Candidate
from odkeras.web.requests import MAX_ANSWERS, MAX_TASKS
from odkeras.web.security import CONTENT_SECURITY_POLICY, Policy
from odkeras.web.service import LOG_BYTES, LOG_LINES

web_project, annotate = fixtures_web.web_project, fixtures_web.annotate
Start = Callable[..., Annotating]
MANY = ["0" * 32] * (MAX_ANSWERS + 1)
POSTS = ("tasks", "answers", "reopen", "save", "suggestions", "tensorboard", "training")


@pytest.fixture
def running(annotate: Start) -> Annotating:
    return annotate()


@pytest.fixture
def page(running: Annotating) -> Page:
    return running.page("anna")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Annotating]:
    """For tests that leave others in peace; with its paths in full, as the working directory changes."""
    folder = tmp_path_factory.mktemp("shared")
    fixtures_web.save_project(folder, count=400)
    with pytest.MonkeyPatch.context() as patch:
        fake_processes.use_fakes(patch.setattr)
        places = {name: str(folder / name) for name in ("model_dir", "data_dir", "export_dir")}
        source, config = str(folder / "images"), str(folder / "pipeline.config")
        with annotating() as start:
            yield start(source=source, config=config, db=folder / "annotations.db", **places)


@pytest.fixture
def guest(shared: Annotating) -> Page:
    """A new tab there."""
    return shared.page("anna", uuid.uuid4().hex)


def error_of(response: Any, status: int) -> str:
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error"}
    assert response.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    return str(response.json()["error"])


class TestProject:
    def test_what_the_page_needs_to_know(self, page: Page, running: Annotating) -> None:
        response = page.get("/api/project")
        assert response.headers["cache-control"] == "no-store"
        found = response.json()
        assert len(found.pop("instance")) == 32
        assert found == {
            "dataset": "things",
            "session": "anna",
            "labels": [
                {"name": "thing", "color": "#e69f00", "keypoints": [], "edges": []},
                {"name": "other", "color": "#0a7fd1", "keypoints": [], "edges": []},
            ],
            "renamed": {},
            "source": "images",
            "prefetch": 4,
            "batch_size": 5,
            "answered": 0,
            "random_weights": False,
            "threshold": 0.5,
            "tensorboard": True,
            "logdir": "model",
            "odkeras": __version__,
        }

    @pytest.mark.parametrize(
        ("checkpoint", "expected"),
        [("", True), ("PATH_TO_BE_CONFIGURED/ckpt-0", True), ("zoo/ckpt-0", False)],
    )
    def test_whether_the_model_started_from_random_weights(
        self, annotate: Start, web_project: Path, checkpoint: str, expected: bool
    ) -> None:
        config = f"model {{ ssd {{}} }} train_config {{ fine_tune_checkpoint: '{checkpoint}' }}"
        (web_project / "pipeline.config").write_text(config)
        assert annotate().page().get("/api/project").json()["random_weights"] is expected

    def test_a_model_that_has_been_trained_did_not_start_from_random_weights(
        self, annotate: Start, web_project: Path
    ) -> None:
        """The config alone was looked at: it was said for ever."""
        (web_project / "pipeline.config").write_text("model { ssd {} }")
        (web_project / "model").mkdir(exist_ok=True)
        (web_project / "model" / "ckpt-30.index").touch()
        assert annotate().page().get("/api/project").json()["random_weights"] is False

    def test_how_many_answers_the_session_has_given(self, page: Page, running: Annotating) -> None:
        page.answer(page.tasks(1)["tasks"][0], "reject")
        wait_until(lambda: page.get("/api/project").json()["answered"] == 1)
        assert running.page("ben").get("/api/project").json()["answered"] == 0

    def test_another_run_has_another_instance(self, annotate: Start) -> None:
        running = annotate()
        before = running.page().get("/api/project").json()["instance"]
        running.close()
        assert annotate(dataset="more").page().get("/api/project").json()["instance"] != before

    def test_a_second_run_on_the_same_data_is_refused(self, annotate: Start, monkeypatch: pytest.MonkeyPatch) -> None:
        """Every image would be handed out twice, and two trainers would be started."""
        monkeypatch.setattr("odkeras.web.pages.LOCK_WAIT_S", 0.1)
        annotate()
        with pytest.raises(SetupError, match=r"another `odkeras annotate` is using .*\?session=NAME"):
            annotate(dataset="more")

    def test_many_labels_have_colours_of_their_own(self, annotate: Start, web_project: Path) -> None:
        from odkeras.labels import LabelMap

        LabelMap.from_names([f"label {number}" for number in range(45)]).save(web_project / "label_map.pbtxt")
        labels = annotate().page().get("/api/project").json()["labels"]
        assert len(labels) == 45
        assert len({label["color"] for label in labels}) == 45

    def test_labels_have_their_keypoints_and_edges(self, annotate: Start, web_project: Path) -> None:
        points = "keypoints { id: 2 label: 'tip' } keypoints { id: 1 label: 'tail' }"
        hand = "item { id: 3 name: 'hand' keypoints { id: 0 label: 'thumb' } }"
        label_map = f"item {{ id: 1 name: 'thing' {points} }} item {{ id: 2 name: 'other' }} {hand}"
        (web_project / "label_map.pbtxt").write_text(label_map)
        config = web_project / "pipeline.config"
        edges = "keypoint_edge { start: 2 end: 1 } keypoint_edge { start: 0 end: 1 }"
        config.write_text(f"{config.read_text()}\neval_config {{ {edges} }}\n")
        labels = annotate().page().get("/api/project").json()["labels"]
        assert [(label["keypoints"], label["edges"]) for label in labels] == [
            (["tail", "tip"], [[1, 0]]),
            ([], []),
            (["thumb"], []),
        ]

    def test_without_tensorboard(self, annotate: Start) -> None:
        assert annotate(tensorboard=False).page().get("/api/project").json()["tensorboard"] is False


class TestCandidates:
    SHOWN = Span("car", ((10, 10), (30, 20)), 0.9)
    ADJUSTED = Span("car", ((10, 10), (30, 20.5)), id="a")
    OTHER = Span("person", ((12.04, 10), (30, 40.06)), 0.3)
    WEAK = Span("car", ((40, 10), (60, 20)), 0.04)

    def test_those_that_are_not_shown_can_be_picked(self) -> None:
        suggestions = Suggestions(7, 0.5, (self.SHOWN,), candidates=(self.SHOWN, self.OTHER, self.WEAK))
        task = bare_task("a", spans=(self.ADJUSTED,), suggestions=suggestions)
        other = Candidate("person", (12.0, 10.0, 18.0, 30.1), 0.3)
        assert web_app.task_document(task).candidates == [other]
        without_boxes = web_app.task_document(replace(task, spans=()))
        assert without_boxes.candidates == [Candidate("car", (10.0, 10.0, 20.0, 10.0), 0.9), other]

    def test_spans_and_candidates_have_their_keypoints(self) -> None:
        detected = replace(self.OTHER, keypoints=(Keypoint("tip", 12.125, 30.0, 0),))
        suggestions = Suggestions(7, 0.5, candidates=(detected,))
        shown = replace(self.ADJUSTED, keypoints=(Keypoint("tip", 9.5, 30.0, 1),))
        document = web_app.task_document(bare_task("a", spans=(shown,), suggestions=suggestions))
        assert document.candidates[0].keypoints == [replies.Keypoint("tip", 12.12, 30.0, 0)]
        assert document.spans[0].keypoints == [replies.Keypoint("tip", 9.5, 30.0, 1)]

    def test_keypoints_of_another_tool_are_left_out(self) -> None:
        """Their type was not that of the reply: the whole task failed."""
        foreign = read_span({"label": "car", "points": [[1, 1], [9, 9]], "keypoints": [1, 2, 2]})
        document = web_app.task_document(bare_task("a", spans=(foreign,)))
        assert document.spans[0].keypoints is msgspec.UNSET

    def test_control_images_have_none(self) -> None:
        suggestions = Suggestions(7, 0.5, (self.SHOWN,), hidden=True, candidates=(self.SHOWN, self.OTHER))
        assert web_app.task_document(bare_task("a", suggestions=suggestions)).candidates == []

    def test_a_picked_box_stays_picked_when_its_answer_is_opened_again(self, page: Page) -> None:
        task = page.tasks(1)["tasks"][0]
        page.send(answer_to(task, spans=[{**SPAN, "picked": True}, {**SPAN, "x": 30}]))
        spans = page.post("/api/reopen", image_id=task["image_id"]).json()["task"]["spans"]
        assert [span.get("picked") for span in spans] == [True, None]


class TestLog:
    """The end of a process's log, on demand."""

    def test_the_end_of_it(self, page: Page, web_project: Path) -> None:
        log = web_project / "model" / "logs" / "trainer.log"
        log.parent.mkdir(exist_ok=True)
        log.write_text("".join(f"line {number} {'x' * 100}\n" for number in range(5000)))
        found = page.get("/api/log", process="trainer").json()
        assert found["path"] == "model/logs/trainer.log"
        lines = found["text"].splitlines()
        assert len(lines) == LOG_LINES
        assert lines[-1].startswith("line 4999 ")
        log.write_text("y" * 10**6)
        assert len(page.get("/api/log", process="trainer").json()["text"]) == LOG_BYTES

    def test_a_missing_log_gets_404(self, page: Page) -> None:
        text = error_of(page.get("/api/log", process="server"), 404)
        assert text == "the server has no log here; it may run on another machine"

    @pytest.mark.parametrize("process", ["", "../trainer", "tensorboard", "trainer.log"])
    def test_another_file_is_refused(self, page: Page, process: str) -> None:
        assert "process must be one of trainer, server" in error_of(page.get("/api/log", process=process), 400)
        assert "process must be one of" in error_of(page.http.get("/api/log"), 400)

    def test_it_is_guarded_as_all_else(self, annotate: Start, web_project: Path) -> None:
        page = annotate(policy=Policy(token="a-long-token")).page()
        assert page.get("/api/log", process="trainer").status_code == 401


class TestInvalidRequests:
    @pytest.mark.parametrize("route", POSTS)
    @pytest.mark.parametrize(
        ("body", "message"),
        [
            (b"", "not JSON"),
            (b"{", "not JSON"),
            (b"\xff\xfe\xfd", "not JSON"),
            (b"[" * 100_000, "not JSON"),
            (b"1" * 5000, "not JSON"),
            (b"[]", "the body must be a JSON object; got list"),
            (b"null", "the body must be a JSON object; got NoneType"),
            (b'"text"', "the body must be a JSON object; got str"),
        ],
        ids=lambda value: str(value)[:12],
    )
    def test_no_json_object(self, guest: Page, route: str, body: bytes, message: str) -> None:
        response = guest.http.post(f"/api/{route}", content=body, headers={"content-type": "application/json"})
        assert message in error_of(response, 400)

    @pytest.mark.parametrize("route", [each for each in POSTS if each != "tensorboard"])
    def test_invalid_sessions_and_tabs_are_refused(self, guest: Page, route: str) -> None:
        for name in (None, "", "a b", "é", "a/b", "x" * 65, 5, True, [], {}, "a\n", "\0", "anna\u0660", "\ud800"):
            for key in ("session", "tab"):
                answers, image_id = [{}], "0" * 32  # what else there is to look at is as it should be
                body = {"answers": answers, "image_id": image_id, key: name}
                message = error_of(guest.post(f"/api/{route}", **body), 400)
                assert message.startswith(f"{key} must be 1 to 64 letters, digits or _.-; got ")

    @pytest.mark.parametrize("path", ["/api/project", "/api/history", "/api/events"])
    def test_the_same_in_a_query(self, guest: Page, path: str) -> None:
        for name in ("", "a b", "é", "x" * 65):
            assert error_of(guest.get(path, session=name), 400).startswith("session must be")
        assert error_of(guest.http.get(path), 400).startswith("session must be")
        if path == "/api/events":
            assert error_of(guest.get(path, tab=""), 400).startswith("tab must be")

    @pytest.mark.parametrize("count", [0, -1, MAX_TASKS + 1, 1.0, "1", True, None, [], 10**400])
    def test_counts(self, guest: Page, count: Any) -> None:
        assert error_of(guest.post("/api/tasks", count=count), 400).startswith(f"count must be 1 to {MAX_TASKS}; got")

    @pytest.mark.parametrize(
        "ids",
        [
            "0" * 32,
            {"0": 1},
            5,
            True,
            [None],
            [5],
            [[]],
            ["0" * 31],
            ["0" * 33],
            ["A" * 32],
            ["../" * 8],
            ["\ud800"],
            MANY,
        ],
        ids=lambda value: str(value)[:12],
    )
    def test_image_ids(self, guest: Page, ids: Any) -> None:
        error_of(guest.post("/api/tasks", have=ids), 400)
        error_of(guest.post("/api/suggestions", image_ids=ids), 400)
        if not isinstance(ids, str):
            error_of(guest.post("/api/reopen", image_id=ids), 400)

    @pytest.mark.parametrize("answers", [None, [], {}, "x", 5, [{}] * (MAX_ANSWERS + 1)], ids=lambda v: str(v)[:12])
    def test_no_answers(self, guest: Page, answers: Any) -> None:
        message = error_of(guest.post("/api/answers", answers=answers), 400)
        assert message.startswith(f"answers must be a list of 1 to {MAX_ANSWERS} answers; got ")

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"answer_id": None}, "answer_id must be a string of 1 to 64"),
            ({"answer_id": ""}, "answer_id must be"),
            ({"answer_id": "x" * 65}, "answer_id must be"),
            ({"answer_id": 5}, "answer_id must be"),
            ({"answer_id": ["a"]}, "answer_id must be"),
            ({"answer_id": "\ud800"}, "answer_id must be"),  # SQLite takes no lone surrogates: status 500, for ever
            ({"image_id": None}, "image_id must be an image id; got None"),
            ({"image_id": "0" * 32}, f"image '{'0' * 32}' was never assigned in dataset 'things'"),
            ({"image_id": ["a"]}, "image_id must be an image id"),
            ({"image_id": "\ud800"}, ""),
            ({"answer": None}, "answer must be one of accept, reject, ignore; got None"),
            ({"answer": "ACCEPT"}, "answer must be one of"),
            ({"answer": ["accept"]}, "answer must be one of"),
            ({"answer": {}}, "answer must be one of"),
            ({"spans": {}}, "spans must be a list; got dict"),
            ({"spans": "x"}, "spans must be a list; got str"),
            ({"spans": 0}, "spans must be a list; got int"),
            ({"spans": False}, "spans must be a list; got bool"),
            ({"spans": [5]}, "box 1 must be a JSON object"),
            ({"spans": [{**SPAN, "label": "cat"}]}, "box 1 has the label 'cat'; known: thing, other"),
            ({"spans": [{**SPAN, "x": 10**400}]}, "box 1: x must be a number of pixels"),
            ({"spans": [SPAN, {**SPAN, "x": 64}]}, "box 2 has no area within the image"),
            ({"active_ms": -1}, "active_ms must be milliseconds of work for this answer, 0 to 86400000; got -1"),
            ({"active_ms": 86_400_001}, "0 to 86400000; got 86400001"),
            ({"active_ms": "5"}, "0 to 86400000; got '5'"),
            ({"spans": [SPAN] * 2001}, "2001 boxes are more than 2000"),
        ],
        ids=lambda value: str(value)[:30],
    )
    def test_an_answer_is_refused_and_the_others_are_saved(
        self, guest: Page, changes: dict[str, Any], reason: str
    ) -> None:
        bad, good = guest.tasks(2)["tasks"]
        answers = [answer_to(bad, **changes), answer_to(good)]
        found = guest.send(*answers)
        assert found["saved"] == [answers[1]["answer_id"]]
        (refused,) = found["refused"]
        given = answers[0]["answer_id"]
        assert refused["answer_id"] == (given if isinstance(given, str) else "")
        assert reason in refused["reason"]

    @pytest.mark.parametrize("answer", [None, 5, "accept", [], True])
    def test_an_answer_that_is_no_object(self, guest: Page, answer: Any) -> None:
        found = guest.send(answer)
        assert found["saved"] == []
        assert "an answer must be a JSON object" in found["refused"][0]["reason"]

    @pytest.mark.parametrize("age", [None, True, "5", -5, 10**400, 1e308, [], {}])
    def test_an_age_that_is_none(self, guest: Page, age: Any) -> None:
        (task,) = guest.tasks()["tasks"]
        guest.answer(task, age_ms=age)

    def test_numbers_that_json_does_not_have(self, guest: Page) -> None:
        (task,) = guest.tasks()["tasks"]
        answer = {**answer_to(task), "age_ms": float("nan"), "spans": [{**SPAN, "x": float("nan")}]}
        text = json.dumps({"session": "anna", "tab": "tab", "answers": [answer, {**answer, "spans": []}]})
        found = guest.http.post("/api/answers", content=text, headers={"content-type": "application/json"}).json()
        assert found["saved"] == [answer["answer_id"]]
        assert "box 1: x must be a number" in found["refused"][0]["reason"]

    def test_deeply_nested_json_is_refused(self, guest: Page) -> None:
        (task,) = guest.tasks()["tasks"]
        for depth in (100, 900, 5000):
            deep = "[" * depth + "]" * depth
            for answer in (
                {**answer_to(task), "answer_id": "DEEP"},
                {**answer_to(task), "spans": [{**SPAN, "label": "DEEP"}]},
                {**answer_to(task), "answer": "DEEP"},
                {**answer_to(task), "image_id": "DEEP"},
            ):
                text = json.dumps({"session": "anna", "tab": "t", "answers": [answer]}).replace('"DEEP"', deep)
                json_type = {"content-type": "application/json"}
                response = guest.http.post("/api/answers", content=text, headers=json_type)
                assert response.status_code in (200, 400)
                assert response.status_code == 400 or len(response.json()["refused"]) == 1

    def test_too_large(self, annotate: Start) -> None:
        page = annotate(policy=Policy(max_body_bytes=1000)).page()
        assert "larger than 1000 bytes" in error_of(page.post("/api/save", more="x" * 1000), 413)
        chunks = iter([b'{"more": "', b"x" * 2000, b'"}'])
        response = page.http.post("/api/save", content=chunks, headers={"content-type": "application/json"})
        error_of(response, 413)
        assert page.save() == 0


class TestNotFound:
    @pytest.mark.parametrize(
        "path",
        [
            "/nothing",
            "/api",
            "/api/",
            "/api/nothing",
            "/images",
            "/images/",
            "/index.html/x",
            "/page.js/",
            "/%00",
            "/*",
        ],
    )
    def test_404(self, guest: Page, path: str) -> None:
        response = guest.http.get(path, follow_redirects=True)
        if response.history:  # one slash too many
            assert response.status_code == 200
        else:
            assert error_of(response, 404).startswith("nothing is at /")

    @pytest.mark.parametrize(("method", "path"), [("GET", "/api/tasks"), ("POST", "/api/project"), ("POST", "/")])
    def test_405(self, guest: Page, method: str, path: str) -> None:
        error_of(guest.http.request(method, path, json={} if method == "POST" else None), 405)

    def test_reopen(self, guest: Page) -> None:
        (task,) = guest.tasks()["tasks"]
        for image_id in ("0" * 32, task["image_id"]):
            assert "has no answer by this session" in error_of(guest.post("/api/reopen", image_id=image_id), 404)


class TestImages:
    def test_its_bytes(self, page: Page, web_project: Path) -> None:
        (task,) = page.tasks()["tasks"]
        response = page.http.get(task["image"])
        assert response.content == (web_project / "images" / "00.png").read_bytes()
        assert response.headers["content-type"] == "image/png"
        assert response.headers["cache-control"] == "private, max-age=31536000, immutable"
        assert response.headers["x-content-type-options"] == "nosniff"

    def test_one_that_nobody_was_given(self, page: Page, web_project: Path) -> None:
        other = read_image(web_project / "images" / "09.png").image_id
        assert error_of(page.http.get(f"/images/{other}"), 404).startswith("no such image")

    def test_after_it_was_answered(self, page: Page) -> None:
        (task,) = page.tasks()["tasks"]
        page.answer(task)
        assert page.http.get(task["image"]).status_code == 200

    def test_one_whose_file_is_another_by_now(self, page: Page, web_project: Path) -> None:
        (task,) = page.tasks()["tasks"]
        (web_project / "images" / "00.png").write_bytes((web_project / "images" / "01.png").read_bytes())
        for stored in (web_project / "data" / "inbox" / "images").iterdir():
            stored.unlink()
        assert "its file is missing" in error_of(page.http.get(task["image"]), 404)

    @pytest.mark.parametrize(
        "path",
        [
            "/images/../annotations.db",
            "/images/..%2fannotations.db",
            "/images/%2e%2e/annotations.db",
            "/images/%2e%2e%2fannotations.db",
            "/images/..%5cannotations.db",
            "/images/%2fetc%2fpasswd",
            "//etc/passwd",
            "/images//etc/passwd",
            "/../../../../etc/passwd",
            "/%2e%2e/%2e%2e/etc/passwd",
            "/images/00.png",
            "/images/images%2f00.png",
            "/images/" + "0" * 32 + ".png",
            "/images/" + "0" * 32 + "%00",
            "/images/" + "0" * 32 + "%0a",
            "/annotations.db",
            "/pipeline.config",
        ],
    )
    def test_path_traversal_gets_404(self, shared: Annotating, path: str) -> None:
        """By hand: clients tidy paths up."""
        shared.page().tasks()
        address = shared.url.removeprefix("http://").split(":")
        with socket.create_connection((address[0], int(address[1])), timeout=10) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 404"), answer[:100]
        assert b"root:" not in answer
        assert b"SQLite" not in answer


class TestFiles:
    def test_the_page(self, page: Page) -> None:
        response = page.http.get("/?session=anna")
        assert (response.status_code, response.text) == (200, "<!doctype html>")
        assert response.headers["content-type"] == "text/html; charset=utf-8"
        assert response.headers["cache-control"] == "no-cache"
        assert response.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
        assert page.http.get("/page.js").headers["content-type"] == "text/javascript; charset=utf-8"

    def test_page_files_are_those_of_the_build(self, tmp_path: Path) -> None:
        (tmp_path / "index.html").write_text("<html>")
        (tmp_path / "page.js").write_text("1")
        (tmp_path / "secret.pem").write_text("key")
        (tmp_path / "THIRD_PARTY_LICENSES.txt").write_text("MIT")
        found = page_files(tmp_path)
        assert set(found) == {"/", "/index.html", "/page.js", "/THIRD_PARTY_LICENSES.txt"}
        assert found["/"].data == b"<html>"

    @pytest.mark.parametrize("there", [True, False])
    def test_a_missing_build_is_an_error(self, tmp_path: Path, there: bool) -> None:
        folder = tmp_path / "static"
        if there:
            folder.mkdir()
            (folder / "page.js").write_text("1")
        with pytest.raises(SetupError, match=r"the page has not been built; .*make install"):
            page_files(folder)


def test_history(page: Page) -> None:
    assert page.history() == []
    for task in page.tasks(2)["tasks"]:
        page.answer(task, age_ms=5000)
    newest, oldest = page.history()
    assert newest.pop("answered_s_ago") == pytest.approx(5, abs=2)
    assert newest.pop("state") in ("saved", "delivered")
    assert (newest["file"], newest["answer"], newest["boxes"]) == ("01.png", "accept", 1)
    assert oldest["file"] == "00.png"


class TestEvents:
    def test_the_state_at_once_and_when_it_changes(self, page: Page) -> None:
        (task,) = page.tasks()["tasks"]
        with page.events() as events:
            states = (data for event, data, _ in events if event == "state")
            first = next(states)
            assert first["mine"] == {"accept": 0, "reject": 0, "ignore": 0}
            page.answer(task)
            assert next(state for state in states if state["mine"]["accept"] == 1)["answers"]["accept"] == 1
        assert first["total"] in (None, IMAGES)

    def test_who_is_here(self, running: Annotating, page: Page) -> None:
        with running.page("ben").events(), page.events() as events:
            here = (data["sessions"] for event, data, _ in events if event == "state")
            both = [{"name": name, "answers": 0, "here": True} for name in ("anna", "ben")]
            assert next(each for each in here if len(each) == 2) == both

    def test_no_news_twice(self, running: Annotating, page: Page) -> None:
        running.journal.event(Event("first"))
        with page.events() as events:
            seen = wait_for_news(events, "first")
        numbers = [int(number) for _, number in seen]
        assert numbers == sorted(set(numbers))
        running.journal.event(Event("second", urgent=True))
        with page.events(**{"last-event-id": seen[-1][1]}) as events:
            again = wait_for_news(events, "second")
        assert [text for text, _ in again] == ["second"]

    @pytest.mark.parametrize("last", ["", "abc", "-1", "99999999999", "9" * 50, "1.5", "\xb2"])
    def test_of_another_run_or_none(self, shared: Annotating, guest: Page, last: str) -> None:
        text = f"news for {last!r}"
        shared.journal.event(Event("more"))
        shared.journal.event(Event(text))
        with guest.http.stream(
            "GET",
            "/api/events",
            params={"session": "a", "tab": "t"},
            headers=[(b"last-event-id", last.encode("latin-1"))],
        ) as response:
            assert len(wait_for_news(fixtures_web.read_events(response.iter_lines()), text)) > 1

    def test_tasks_came_back(self, running: Annotating, page: Page) -> None:
        page.tasks()
        with running.page("ben").events() as events:
            next(events)
            threading.Timer(
                0.1, lambda: setattr(running.service.queue, "_clock", lambda: time.monotonic() + 99)
            ).start()
            assert next(data for event, data, _ in events if event == "tasks") == {}
        assert running.page("ben").tasks()["tasks"][0]["file"] == "00.png"

    def test_it_is_kept_alive(self, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(web_app, "ALIVE_EVERY_S", 0.5)
        with page.events() as events:
            assert next(data for event, data, _ in events if not event) == "here"

    def test_a_tab_that_listens_is_there(self, running: Annotating, page: Page) -> None:
        page.tasks()
        board: Any = running.service.queue
        with page.events() as events:
            next(events)
            board._clock = lambda: time.monotonic() + 99
            assert board.release_gone() == 0
        wait_until(lambda: all(each.connections == 0 for each in board._tabs.values()))

    def test_the_event_stream_ends_with_the_server(self, running: Annotating, page: Page) -> None:
        with page.events() as events:
            next(events)
            started = time.monotonic()
            threading.Timer(0.1, running.close).start()
            for _ in events:
                pass
            assert time.monotonic() - started < 3

    def test_at_most_four_a_second(self, running: Annotating, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(web_app, "SHOWN_EVERY_S", SHOWN_EVERY_S)  # other tests are in a hurry
        stop = threading.Event()

        def change() -> None:
            number = 0
            while not stop.wait(0.01):
                number += 1
                running.service.panel.update(number=number)

        changing = threading.Thread(target=change)
        changing.start()
        with page.events() as events:
            next(events)
            started = time.monotonic()
            for _ in range(4):
                next(data for event, data, _ in events if event == "state")
        stop.set()
        changing.join()
        assert time.monotonic() - started > 0.7


def wait_for_news(events: Any, text: str) -> list[tuple[str, str]]:
    """(text, id) of all news up to that one."""
    seen = []
    for event, data, number in events:
        if event == "news":
            assert set(data) == {"text", "urgent", "at", "version"}
            seen.append((data["text"], number))
            if data["text"] == text:
                return seen
    raise AssertionError("the events ended")


LISTENER = """
import socket, sys, time
server = socket.create_server(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])))
time.sleep(60)
"""


class TestTensorBoard:
    @pytest.fixture(autouse=True)
    def started(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Another program in its place."""
        started: list[str] = []
        real = tensorboard.exit_with_parent

        def command(given: list[str]) -> list[str]:
            started.append(" ".join(given))
            return real([sys.executable, "-c", self.program, *given[3:]])

        self.program = LISTENER
        monkeypatch.setattr(tensorboard, "exit_with_parent", command)
        return started

    def test_it_is_started_once(self, page: Page, started: list[str]) -> None:
        url = page.post("/api/tensorboard").json()["url"]
        assert url.startswith("http://127.0.0.1:")
        assert page.post("/api/tensorboard").json()["url"] == url
        (command,) = started
        assert "--logdir model --host 127.0.0.1" in command

    def test_a_tensorboard_that_cannot_start_is_reported(
        self, page: Page, web_project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def command(given: list[str]) -> list[str]:
            return [str(web_project / "no such program")]

        monkeypatch.setattr(tensorboard, "exit_with_parent", command)
        for _ in range(2):  # the second time it had no address, and that was all
            message = error_of(page.post("/api/tensorboard"), 409)
            assert "cannot start the tensorboard" in message
            assert message.endswith("; or run: tensorboard --logdir model")

    def test_ctrl_c_does_not_wait_for_it(self, running: Annotating, page: Page) -> None:
        """It waited up to a minute for a TensorBoard that was starting."""
        self.program = "import time; time.sleep(60)"

        def ask() -> None:
            with suppress(httpx.HTTPError):  # it may end before there is an answer
                page.post("/api/tensorboard")

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        board: Any = running.service._tensorboard
        wait_until(lambda: board._supervisor is not None)
        started = time.monotonic()
        board.close()
        assert time.monotonic() - started < 3
        asking.join(5)


def test_with_a_token(annotate: Start) -> None:
    running = annotate(policy=Policy(token="long enough"))
    page = running.page()
    assert "open the link" in error_of(page.get("/api/project"), 401)
    assert "open the link" in error_of(page.post("/api/tasks"), 401)
    response = page.http.get("/?token=long%20enough&session=anna")
    assert (response.status_code, response.headers["location"]) == (303, "/?session=anna")
    assert page.get("/api/project").status_code == 200, "httpx keeps cookies as browsers do"
    assert page.tasks()["tasks"]


def test_other_web_pages(page: Page, running: Annotating) -> None:
    body = {"session": "anna", "tab": "tab"}
    for headers in ({"origin": "http://evil.example"}, {"host": "evil.example"}, {"sec-fetch-site": "cross-site"}):
        error_of(page.http.post("/api/tasks", json=body, headers=headers), 403)
    assert page.http.post("/api/tasks", json=body, headers={"origin": running.url}).status_code == 200
    form = page.http.post("/api/save", data={"session": "anna"})
    assert error_of(form, 415) == "send application/json"


def test_an_internal_error_does_not_show_paths(
    page: Page, running: Annotating, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running.service.outbox, "deliver_now", lambda: {}["missing"])
    assert error_of(page.post("/api/save"), 500) == "KeyError: 'missing'"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.sampled_from(["accept", "thing", "rect", "0" * 32, "\ud800"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["answer_id", "image_id", "answer", "spans", "age_ms", "label", "x", "type", "points"]),
            inner,
            max_size=6,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    route=st.sampled_from(POSTS[:5]),
    key=st.sampled_from(["answers", "have", "image_ids", "image_id", "count"]),
    value=JSON,
)
@example("answers", "answers", [{"answer_id": "\ud800"}])
@example("answers", "answers", [{"answer_id": "a", "image_id": "\ud800", "answer": "accept"}])
def test_any_json_gets_200_400_or_404(guest: Page, route: str, key: str, value: Any) -> None:
    assert guest.post(f"/api/{route}", **{key: value}).status_code in (200, 400, 404)


def test_an_answer_does_not_wait_for_an_acknowledgement() -> None:
    """Each took 44 ms: asyncio sets TCP_NODELAY on sockets that it makes itself, not on those of ours."""
    with open_listener("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_no_tensorflow(web_project: Path) -> None:
    """The page and its server run without it."""
    import subprocess

    code = "import sys, odkeras.web.server, odkeras.web.app; sys.exit('tensorflow' in sys.modules)"
    root = str(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": root}, check=False)
    assert done.returncode == 0
