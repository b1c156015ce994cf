"""The whole way of an answer: page, database, inbox, trainer, suggestions; and what is left of it after a crash."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fixtures_web
import pytest
from fixtures_web import DATASET, IMAGES, SPAN, Annotating, answer_to, answers_in
from msgspec import UNSET
from tasks import FakeSuggester, bare_task
from waiting import wait_until

from odkeras.annotation import Suggestions
from odkeras.annotation import Task as SessionTask
from odkeras.config.run import read_run
from odkeras.control import Control
from odkeras.errors import ConfigError, OdkerasError
from odkeras.images import read_image
from odkeras.inbox import list_batches
from odkeras.session.session import AnnotationSession
from odkeras.web import incoming
from odkeras.web.database import AnswerDatabase
from odkeras.web.database_file import SqliteConnection
from odkeras.web.deliveries import Deliveries
from odkeras.web.opening import open_page
from odkeras.web.sqlite_engine import SqliteEngine
from odkeras.web.stored import StoredAnswer

web_project, annotate = fixtures_web.web_project, fixtures_web.annotate
Start = Callable[..., Annotating]
Task = dict[str, Any]


def files(tasks: Sequence[Task]) -> list[str]:
    return [task["file"] for task in tasks]


def refuse(*_: Any, **__: Any) -> None:
    raise OSError("killed")


def stored(db: Path, dataset: str = DATASET, **options: Any) -> list[Task]:
    with AnswerDatabase.open(db) as database:
        return database.examples(dataset, **options)


def in_inbox(project: Path) -> list[Task]:
    return answers_in(project / "data")


class TestTheLoop:
    def test_answers_become_a_version_and_its_suggestions(self, annotate: Start, web_project: Path) -> None:
        running = annotate(model=True)
        page = running.page()
        first = wait_until(lambda: running.service.panel.version)
        tasks = page.tasks(9)["tasks"]
        assert [(task["spans"], task["version"], task["threshold"]) for task in tasks] == [([], first, 0.5)] * 9
        for task in tasks[:5]:
            page.answer(task)
        second = wait_until(lambda: (found := running.service.panel.version) != first and found)
        prefetched = [task["image_id"] for task in tasks[5:]]
        again = page.post("/api/suggestions", image_ids=[*prefetched, tasks[0]["image_id"]]).json()["tasks"]
        assert [task["image_id"] for task in again] == prefetched
        for task in again:
            (span,) = task["spans"]
            assert (span["label"], span["type"], span["score"]) == ("thing", "rect", 0.9)
            assert task["version"] == second
        assert page.post("/api/suggestions", image_ids=prefetched).json() == {"tasks": []}, "nothing newer"
        page.answer(again[0], spans=[again[0]["spans"][0], {**SPAN, "x": 0, "width": 9}])
        page.answer(again[1], spans=[])
        panel = wait_until(lambda: (found := page.panel())["mine"]["accept"] == 7 and found)
        assert panel["versions"][-1] == {
            "version": second,
            "images": 2,
            "suggested": 2,
            "kept": 1,
            "kept_80": 1,
            "picked": 0,
            "adjusted": 0,
            "relabelled": 0,
            "deleted": 1,
            "added": 1,
        }
        assert panel["answers"] == panel["mine"] == {"accept": 7, "reject": 0, "ignore": 0}
        assert panel["rounds"][0]["examples"] == 5
        assert (panel["version"], panel["failure"]) == (second, "")
        example = stored(web_project / "annotations.db")[5]
        assert example["_suggestions"]["version"] == second
        assert example["spans"][0]["score"] == 0.9
        assert example["_session_id"] == example["_annotator_id"] == "things-default"
        assert not example["image"].startswith("data:")

    def test_sync(self, annotate: Start) -> None:
        running = annotate(model=True, sync=True)
        page = running.page()
        first = wait_until(lambda: running.service.panel.version)
        tasks = page.tasks(9)["tasks"]
        assert len(tasks) == 5, "no more than are trained on together"
        assert page.tasks(3, have=tasks)["waiting"].startswith("more images follow when")
        seen = set()
        page.send(*[answer_to(task) for task in tasks])
        while not (found := page.tasks(3))["tasks"]:
            seen.add(found["waiting"])
            time.sleep(0.005)
        assert seen == {"training on your answers"}
        assert found["tasks"][0]["version"] > first
        assert found["tasks"][0]["spans"]

    def test_sync_while_an_answer_is_corrected(self, annotate: Start) -> None:
        """It counted as one to be trained on: for five minutes there were no images, and nothing was trained."""
        running = annotate(sync=True, answers_per_round=2)
        page = running.page()
        first, second = page.tasks(2)["tasks"]
        page.answer(first)
        page.post("/api/reopen", image_id=first["image_id"])
        page.answer(second)
        assert running.service.outbox.pending == 2
        assert len(page.tasks(2)["tasks"]) == 1

    def test_sync_while_training_is_paused(self, annotate: Start, monkeypatch: pytest.MonkeyPatch) -> None:
        running = annotate(sync=True)
        page = running.page()
        page.post("/api/training", action="pause")
        monkeypatch.setattr(running.service.outbox, "_delivering", 5)
        assert wait_until(lambda: page.tasks()["waiting"]).startswith("training is paused: more images follow when")
        page.post("/api/training", action="resume")
        assert page.tasks()["waiting"] == "training on your answers"

    def test_sync_with_the_last_few(self, annotate: Start) -> None:
        """Fewer than a batch are left: they are trained on when nobody answers for a while."""
        running = annotate(model=True, sync=True)
        page = running.page()
        done = 0
        while not (found := page.tasks(5))["done"]:
            for task in found["tasks"]:
                page.answer(task)
                done += 1
            time.sleep(0.02)
        assert done == IMAGES

    def test_a_trainer_that_is_given_up(self, annotate: Start, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FAKE_TRAINER", "wrong-config")
        running = annotate(model=True)
        page = running.page()
        wait_until(lambda: "batch_size is 0" in page.panel()["failure"])
        for task in page.tasks(5)["tasks"]:
            page.answer(task)
        wait_until(lambda: len(in_inbox(Path.cwd())) == 5)

    def test_no_process_is_left(self, annotate: Start) -> None:
        running = annotate(model=True)
        session: Any = running.service.session
        pids = [pid for pid in session._processes.pids().values() if pid]
        assert len(pids) == 2
        running.service.close()
        running.service.close()
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)


class TestAnswers:
    def test_on_its_way(self, annotate: Start, web_project: Path) -> None:
        running = annotate()
        page = running.page("anna")
        tasks = page.tasks(5)["tasks"]
        page.answer(tasks[0], spans=[{**SPAN, "x": -5, "score": 0.5}])
        (example,) = stored(web_project / "annotations.db")
        assert example["answer"] == "accept"
        assert (example["spans"][0]["x"], example["spans"][0]["width"]) == (0, 25)
        assert example["image"] == example["path"] == str(web_project / "images" / "00.png")
        assert example["meta"]["file"] == "00.png"
        for decision, task in zip(["reject", "ignore", "accept", "accept"], tasks[1:], strict=True):
            page.answer(task, decision)
        wait_until(lambda: len(in_inbox(web_project)) == 5)
        assert [answer["answer"] for answer in in_inbox(web_project)] == [
            "accept",
            "reject",
            "ignore",
            "accept",
            "accept",
        ]
        assert {answer["stored_image"][:32] for answer in in_inbox(web_project)} == {task["image_id"] for task in tasks}
        wait_until(lambda: [row["state"] for row in page.history()] == ["delivered"] * 5)

    def test_a_round_begins_with_the_stated_number_of_answers(self, annotate: Start, web_project: Path) -> None:
        running = annotate(answers_per_round=3)
        page = running.page()
        assert page.get("/api/project").json()["batch_size"] == 3
        tasks = page.tasks(3)["tasks"]
        for task in tasks[:2]:
            page.answer(task)
        wait_until(lambda: page.panel()["pending"] == 2)
        time.sleep(0.2)
        assert in_inbox(web_project) == []
        page.answer(tasks[2])
        wait_until(lambda: len(in_inbox(web_project)) == 3)
        wait_until(lambda: page.panel()["pending"] == 0)

    def test_the_last_few_do_not_wait_for_more(self, annotate: Start, web_project: Path) -> None:
        running = annotate()
        page = running.page()
        for task in page.tasks(IMAGES)["tasks"]:
            page.answer(task)
        assert page.tasks()["done"]
        wait_until(lambda: len(in_inbox(web_project)) == IMAGES)

    def test_not_while_somebody_else_has_images(self, annotate: Start, web_project: Path) -> None:
        running = annotate()
        anna, ben = running.page("anna"), running.page("ben")
        (his,) = ben.tasks()["tasks"]
        tasks = anna.tasks(IMAGES)["tasks"]
        for task in tasks:
            anna.answer(task)
        assert "1 image is open in other annotators' pages" in anna.tasks()["waiting"]
        wait_until(lambda: anna.panel()["pending"] == 1)
        time.sleep(0.2)
        assert len(in_inbox(web_project)) == 10
        ben.answer(his)
        wait_until(lambda: len(in_inbox(web_project)) == IMAGES)

    def test_an_answer_id_of_another_image_is_refused(self, annotate: Start) -> None:
        """It was acknowledged, and not stored: the page forgot the answer."""
        page = annotate().page("anna")
        first, second, third = page.tasks(3)["tasks"]
        kept = page.answer(first)
        reply = page.send({**answer_to(second), "answer_id": kept["answer_id"]}, answer_to(third))
        assert len(reply["saved"]) == 1
        ((refused),) = reply["refused"]
        assert refused["answer_id"] == kept["answer_id"]
        assert "belongs to an answer about another image" in refused["reason"]
        twice = answer_to(second)
        reply = page.send(twice, {**answer_to(third), "answer_id": twice["answer_id"]})
        assert (reply["saved"], len(reply["refused"])) == ([twice["answer_id"]], 1)
        assert page.send(kept) == {"saved": [kept["answer_id"]], "refused": []}

    def test_sent_twice_stored_once(self, annotate: Start, web_project: Path) -> None:
        running = annotate(answers_per_round=1)
        page = running.page()
        (task,) = page.tasks()["tasks"]
        answer = page.answer(task)
        assert page.send(answer, answer) == {"saved": [answer["answer_id"]] * 2, "refused": []}
        running.close()
        assert len(stored(web_project / "annotations.db", replaced=True)) == 1
        assert len(in_inbox(web_project)) == 1

    def test_two_requests_with_it_at_once(self, annotate: Start, web_project: Path) -> None:
        running = annotate()
        page = running.page()
        answer = answer_to(page.tasks()["tasks"][0])
        together([lambda: page.send(answer) for _ in range(6)])
        assert len(stored(web_project / "annotations.db", replaced=True)) == 1

    def test_the_one_given_last_counts(self, annotate: Start, web_project: Path) -> None:
        running = annotate()
        page = running.page()
        (task,) = page.tasks()["tasks"]
        page.answer(task, "reject", age_ms=1000)
        page.answer(task, "accept", age_ms=60_000)  # came late, by a bad connection
        (example,) = stored(web_project / "annotations.db")
        assert example["answer"] == "reject"
        assert len(stored(web_project / "annotations.db", replaced=True)) == 2
        assert page.save() == 1
        wait_until(lambda: [answer["answer"] for answer in in_inbox(web_project)] == ["reject"])

    @pytest.mark.parametrize(
        ("times_ms", "total_s"),
        [([2540], 2.5), ([2500, 1500], 4.0), ([None], None), ([2500, None], None), ([None, 1500], None)],
    )
    def test_active_seconds_of_an_answer_and_its_corrections_are_added_up(
        self, annotate: Start, web_project: Path, times_ms: list[int | None], total_s: float | None
    ) -> None:
        """The sum is unknown if one of them is: a correction alone takes less time than an image."""
        page = annotate().page()
        (task,) = page.tasks()["tasks"]
        for time_ms in times_ms:
            page.answer(task, **({} if time_ms is None else {"active_ms": time_ms}))
        (example,) = stored(web_project / "annotations.db")
        assert example.get("_active_s") == total_s

    @pytest.mark.parametrize(("overlap", "total_s"), [(False, 4.0), (True, 1.5)])
    def test_without_overlap_another_session_s_answer_is_a_correction(
        self, annotate: Start, web_project: Path, overlap: bool, total_s: float
    ) -> None:
        running = annotate(overlap=overlap)
        (task,) = running.page("anna").tasks()["tasks"]
        running.page("anna").answer(task, active_ms=2500)
        ben = running.page("ben")
        if overlap:
            (task,) = ben.tasks()["tasks"]
        ben.answer(task, active_ms=1500)
        *_, last = stored(web_project / "annotations.db")
        assert (last["_session_id"], last["_active_s"]) == ("things-ben", total_s)

    def test_an_answer_that_is_sent_again_has_its_active_seconds_once(self, annotate: Start, web_project: Path) -> None:
        page = annotate().page()
        answer = answer_to(page.tasks()["tasks"][0], active_ms=2500)
        page.send(answer)
        page.send(answer)
        (example,) = stored(web_project / "annotations.db", replaced=True)
        assert example["_active_s"] == 2.5

    def test_reopen_and_correct(self, annotate: Start, web_project: Path) -> None:
        running = annotate(answers_per_round=2)
        page = running.page()
        tasks = page.tasks(3)["tasks"]
        page.answer(tasks[0])
        found = page.post("/api/reopen", image_id=tasks[0]["image_id"]).json()
        assert found["answer"] == "accept"
        assert found["task"]["spans"][0]["x"] == 20
        assert found["task"]["file"] == "00.png"
        page.answer(tasks[1])
        page.answer(tasks[2])
        wait_until(lambda: len(in_inbox(web_project)) == 2)
        wait_until(lambda: [row["state"] for row in page.history()] == ["delivered", "delivered", "saved"])
        page.answer(found["task"], "reject")
        assert [row["answer"] for row in page.history()] == ["reject", "accept", "accept"]
        page.save()
        wait_until(lambda: len(in_inbox(web_project)) == 3)
        assert [answer["answer"] for answer in in_inbox(web_project)] == ["accept", "accept", "reject"]

    def test_reopened_after_it_was_delivered(self, annotate: Start, web_project: Path) -> None:
        running = annotate(answers_per_round=1)
        page = running.page()
        (task,) = page.tasks()["tasks"]
        page.answer(task)
        wait_until(lambda: len(in_inbox(web_project)) == 1)
        page.answer(page.post("/api/reopen", image_id=task["image_id"]).json()["task"], "ignore")
        wait_until(lambda: len(in_inbox(web_project)) == 2)

    def test_what_a_colleague_corrected_meanwhile(self, annotate: Start, web_project: Path) -> None:
        """Anna got her own older answer, and undid ben's correction; and hers reached the trainer after his."""
        running = annotate(answers_per_round=9)
        anna, ben = running.page("anna"), running.page("ben")
        (task,) = anna.tasks()["tasks"]
        anna.answer(task)
        anna.post("/api/reopen", image_id=task["image_id"])
        ben.answer(task, "reject")
        assert anna.post("/api/reopen", image_id=task["image_id"]).json()["answer"] == "reject"
        assert anna.save() == 1
        wait_until(lambda: [answer["answer"] for answer in in_inbox(web_project)] == ["reject"])
        wait_until(lambda: anna.history()[0]["state"] == "delivered")
        running.hang_up()
        running.close()
        again = annotate(answers_per_round=1)
        time.sleep(0.3)
        assert (again.service.outbox.pending, len(in_inbox(web_project))) == (0, 1), "anna's older answer stays behind"

    def test_an_answer_that_comes_late(self, annotate: Start, web_project: Path) -> None:
        """One that was given before a colleague's, and came after it, took its place at the trainer."""
        running = annotate(answers_per_round=1)
        anna, ben = running.page("anna"), running.page("ben")
        (task,) = anna.tasks()["tasks"]
        ben.answer(task, "reject")
        wait_until(lambda: len(in_inbox(web_project)) == 1)
        anna.answer(task, age_ms=60_000)
        assert anna.save() == 0
        assert running.service.outbox.pending == 0
        assert [answer["answer"] for answer in in_inbox(web_project)] == ["reject"]

    def test_by_somebody_else_it_is_not_to_be_reopened(self, annotate: Start) -> None:
        running = annotate()
        anna, ben = running.page("anna"), running.page("ben")
        (task,) = anna.tasks()["tasks"]
        anna.answer(task)
        response = ben.post("/api/reopen", image_id=task["image_id"])
        assert (response.status_code, "no answer" in response.json()["error"]) == (404, True)

    def test_after_the_task_went_to_somebody_else(self, annotate: Start, web_project: Path) -> None:
        running = annotate()
        anna, ben = running.page("anna"), running.page("ben")
        (task,) = anna.tasks()["tasks"]
        running.service.queue._clock = lambda: time.monotonic() + 100
        wait_until(lambda: not running.service.queue.sessions_here())
        running.service.queue.release_gone()
        assert ben.tasks()["tasks"] == [task]
        ben.answer(task, "reject")
        anna.answer(task)
        assert [example["answer"] for example in stored(web_project / "annotations.db")] == ["reject", "accept"]

    def test_an_image_that_was_never_handed_out_is_refused(self, annotate: Start, web_project: Path) -> None:
        running = annotate()
        page = running.page()
        (task,) = page.tasks()["tasks"]
        other = answer_to({"image_id": read_image(web_project / "images" / "07.png").image_id})
        good = answer_to(task)
        found = page.send(other, good)
        assert found["saved"] == [good["answer_id"]]
        assert found["refused"][0]["answer_id"] == other["answer_id"]
        assert "was never assigned" in found["refused"][0]["reason"]

    def test_save_hands_on_now(self, annotate: Start, web_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        running = annotate()
        page = running.page()
        tasks = page.tasks(2)["tasks"]
        page.answer(tasks[0])
        page.answer(tasks[1])
        wait_until(lambda: page.panel()["pending"] == 2)
        assert page.save() == 2
        wait_until(lambda: len(in_inbox(web_project)) == 2)
        wait_until(lambda: page.panel()["pending"] == 0)
        assert page.save() == 0

    def test_many_pages_at_once(self, annotate: Start, web_project: Path) -> None:
        fixtures_web.save_images(web_project / "images", 40)
        running = annotate()

        def annotate_all(session: str, tab: str) -> None:
            page = running.page(session, tab)
            while tasks := page.tasks(2)["tasks"]:
                for task in tasks:
                    page.answer(task)

        together([lambda who=who: annotate_all(*who) for who in [("a", "1"), ("a", "2"), ("b", "1"), ("c", "1")]])
        assert len({example["image_id"] for example in stored(web_project / "annotations.db")}) == 40
        wait_until(lambda: running.service.outbox.pending == 0)
        running.close()
        assert len({answer["image_id"] for answer in in_inbox(web_project)}) == 40
        assert len(in_inbox(web_project)) == len(stored(web_project / "annotations.db"))


def together(jobs: Sequence[Callable[[], Any]]) -> None:
    problems: list[BaseException] = []

    def run(job: Callable[[], Any]) -> None:
        try:
            job()
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not problems


class TestControl:
    """Pause, resume and stop, from the page."""

    def test_the_state_is_kept_and_shown(self, annotate: Start, web_project: Path) -> None:
        running = annotate()
        page = running.page()
        assert page.panel()["training"] == "running"
        for action, state in (("pause", "paused"), ("stop", "stopped"), ("resume", "running"), ("pause", "paused")):
            assert page.post("/api/training", action=action).json() == {"training": state}
            assert page.panel()["training"] == state
        running.close()
        assert Control(web_project / "model" / "control.json").state == "paused"
        page = annotate().page()
        wait_until(lambda: page.panel()["training"] == "paused")

    @pytest.mark.parametrize("action", ["dance", "", None, 5, ["pause"]])
    def test_another_action_is_refused(self, annotate: Start, action: Any) -> None:
        response = annotate().page().post("/api/training", action=action)
        assert response.status_code == 400
        assert "action must be one of pause, resume, stop" in response.json()["error"]

    def test_train_now_resumes(self, annotate: Start, web_project: Path) -> None:
        page = annotate().page()
        page.answer(page.tasks()["tasks"][0])
        page.post("/api/training", action="pause")
        assert page.post("/api/save").json() == {"delivered": 1, "resumed": True}
        wait_until(lambda: page.panel()["training"] == "running")
        wait_until(lambda: len(in_inbox(web_project)) == 1)
        assert page.post("/api/save").json() == {"delivered": 0, "resumed": False}

    def test_answers_reach_the_inbox_while_training_is_paused(self, annotate: Start, web_project: Path) -> None:
        running = annotate(model=True)
        page = running.page()
        page.post("/api/training", action="pause")
        wait_until(lambda: (page.panel()["trainer"] or {}).get("state") == "paused")
        for task in page.tasks(5)["tasks"]:
            page.answer(task)
        wait_until(lambda: len(in_inbox(web_project)) == 5)
        assert page.panel()["rounds"] == []
        assert running.journal.has("trainer: paused")
        page.post("/api/training", action="resume")
        wait_until(lambda: page.panel()["rounds"])

    def test_a_model_directory_that_cannot_be_written(self, annotate: Start, monkeypatch: pytest.MonkeyPatch) -> None:
        page = annotate().page()

        def full(path: Path, data: str) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("odkeras.control.write_atomically", full)
        response = page.post("/api/training", action="pause")
        assert response.status_code == 500
        assert "cannot pause training: " in response.json()["error"]


class TestTasks:
    def test_a_reload_gets_the_same(self, annotate: Start) -> None:
        page = annotate().page()
        first = page.tasks(2)
        assert files(first["tasks"]) == ["00.png", "01.png"]
        assert (first["done"], first["waiting"]) == (False, "")
        assert page.tasks(2) == first
        assert files(page.tasks(2, have=first["tasks"])["tasks"]) == ["02.png", "03.png"]

    def test_two_tabs(self, annotate: Start) -> None:
        running = annotate()
        assert files(running.page(tab="1").tasks(2)["tasks"]) == ["00.png", "01.png"]
        assert files(running.page(tab="2").tasks(2)["tasks"]) == ["02.png", "03.png"]
        rest = running.page("ben").tasks(20)["tasks"]
        assert len(rest) == IMAGES - 4
        found = running.page("cleo").tasks()
        assert (found["tasks"], found["done"]) == ([], False)
        assert found["waiting"].startswith("12 images are open in other annotators' pages")

    def test_done(self, annotate: Start) -> None:
        page = annotate().page()
        tasks = page.tasks(20)["tasks"]
        page.send(*[answer_to(task) for task in tasks])
        assert page.tasks() == {"tasks": [], "done": True, "waiting": ""}
        wait_until(lambda: page.panel()["left"] == 0)
        assert page.panel()["total"] == IMAGES

    def test_what_a_task_looks_like(self, annotate: Start) -> None:
        (task,) = annotate().page().tasks()["tasks"]
        assert task == {
            "image_id": task["image_id"],
            "image": f"/images/{task['image_id']}",
            "width": 64,
            "height": 48,
            "file": "00.png",
            "spans": [],
            "candidates": [],
            "version": None,
            "threshold": None,
        }

    def test_a_corrupt_image_is_skipped_and_shown(self, annotate: Start, web_project: Path) -> None:
        (web_project / "images" / "00.png").write_bytes(b"<html>")
        (web_project / "images" / "01.png").write_bytes((web_project / "images" / "02.png").read_bytes()[:60])
        page = annotate().page()
        assert files(page.tasks()["tasks"]) == ["02.png"]
        panel = page.panel()
        assert panel["skipped_count"] == 2
        assert [row["file"] for row in panel["skipped"]] == ["images/00.png", "images/01.png"]
        assert "an HTML page" in panel["skipped"][0]["reason"]

    def test_a_file_name_that_is_no_utf_8(self, annotate: Start, web_project: Path) -> None:
        old = web_project / "images" / "00.png"
        old.rename(Path(os.fsdecode(os.fsencode(web_project / "images") + b"/0\xe9.png")))
        page = annotate().page()
        (task,) = page.tasks()["tasks"]
        assert task["file"].startswith("0")
        page.answer(task)
        assert page.http.get(task["image"]).status_code == 200
        assert page.history()[0]["image_id"] == task["image_id"]
        assert page.post("/api/reopen", image_id=task["image_id"]).status_code == 200

    def test_overlap(self, annotate: Start, web_project: Path) -> None:
        running = annotate(overlap=True)
        anna, ben = running.page("anna"), running.page("ben")
        for page in (anna, ben):
            tasks = page.tasks(20)["tasks"]
            assert len(tasks) == IMAGES
            page.send(*[answer_to(task) for task in tasks])
            assert page.tasks()["done"]
        assert len(stored(web_project / "annotations.db")) == 2 * IMAGES
        running.close()
        again = annotate(overlap=True)
        assert again.page("anna").tasks()["done"]
        assert len(again.page("cleo").tasks(20)["tasks"]) == IMAGES

    def test_labels_to_choose_from(self, annotate: Start) -> None:
        page = annotate(label=["other"]).page()
        assert [label["name"] for label in page.get("/api/project").json()["labels"]] == ["other"]
        (task,) = page.tasks()["tasks"]
        found = page.send(answer_to(task))
        assert "box 1 has the label 'thing'; known: other" in found["refused"][0]["reason"]
        page.answer(task, spans=[{**SPAN, "label": "other"}])

    def test_display_names(self, annotate: Start) -> None:
        page = annotate(use_display_name=True).page()
        assert [label["name"] for label in page.get("/api/project").json()["labels"]] == ["Thing", "other"]

    @pytest.mark.parametrize("session", ["a", "..", ".", "-", "_", "__proto__", "A.b-c_9", "0", "x" * 64, "None"])
    def test_unusual_session_names(self, annotate: Start, session: str) -> None:
        running = annotate()
        page = running.page(session, session)
        page.answer(page.tasks()["tasks"][0])
        assert len(page.history()) == 1
        wait_until(lambda: {"name": session, "answers": 1, "here": True} in page.panel()["sessions"])
        assert page.panel()["mine"]["accept"] == 1


class TestDatasetAsSource:
    def test_what_another_dataset_holds(self, annotate: Start, web_project: Path) -> None:
        running = annotate(dataset="first")
        page = running.page()
        tasks = page.tasks(3)["tasks"]
        for decision, task in zip(["accept", "reject", "accept"], tasks, strict=True):
            page.answer(task, decision)
        running.close()
        page = annotate(dataset="second", source="dataset:first:accept").page()
        again = page.tasks(5)["tasks"]
        assert files(again) == ["00.png", "02.png"]
        assert [len(task["spans"]) for task in again] == [1, 1], "to be corrected"
        assert page.http.get(again[0]["image"]).status_code == 200
        page.answer(again[0])
        assert len(stored(web_project / "annotations.db", "second")) == 1

    @pytest.mark.parametrize(
        ("source", "message"), [("dataset:none", "no dataset 'none'"), ("nowhere", "no such file")]
    )
    def test_what_is_not_there(self, web_project: Path, source: str, message: str) -> None:
        arguments = fixtures_web.arguments_of({"source": source})
        with pytest.raises(ConfigError, match=message):
            open_page(arguments)

    def test_excluded_datasets(self, annotate: Start) -> None:
        running = annotate(dataset="first")
        page = running.page()
        page.answer(page.tasks()["tasks"][0])
        running.close()
        assert files(annotate(dataset="second", exclude=["first"]).page().tasks()["tasks"]) == ["01.png"]


class TestRestart:
    def test_answered_ones_are_not_asked_again_and_open_ones_are(self, annotate: Start) -> None:
        running = annotate()
        page = running.page()
        tasks = page.tasks(4)["tasks"]
        for task in tasks[:2]:
            page.answer(task)
        running.close()
        page = annotate().page()
        assert files(page.tasks(2)["tasks"]) == ["02.png", "03.png"]
        wait_until(lambda: page.panel()["left"] == IMAGES - 2)

    def test_a_correction_after_a_restart_does_not_count_twice(self, annotate: Start) -> None:
        """`left` was the number of images minus those answered before, minus those answered now: one was both."""
        running = annotate()
        page = running.page()
        (task,) = page.tasks()["tasks"]
        page.answer(task)
        running.close()
        running = annotate()
        page = running.page()
        page.answer(page.post("/api/reopen", image_id=task["image_id"]).json()["task"], "reject")
        page.tasks(20)
        wait_until(lambda: page.panel()["left"] is not None)
        running.service.housekeeping.look_after()
        assert page.panel()["left"] == IMAGES - 1

    def test_the_page_answers_what_it_got_before(self, annotate: Start, web_project: Path) -> None:
        running = annotate()
        tasks = running.page().tasks(3)["tasks"]
        running.close()
        running = annotate()
        page = running.page()
        page.answer(tasks[1])
        assert page.http.get(tasks[2]["image"]).status_code == 200
        assert files(page.tasks(1, have=[tasks[0], tasks[2]])["tasks"]) == ["03.png"]
        assert files(running.page("ben").tasks(1)["tasks"]) == ["04.png"]

    def test_stored_undelivered_answers_reach_the_trainer(self, annotate: Start, web_project: Path) -> None:
        running = annotate()
        page = running.page()
        for task in page.tasks(3)["tasks"]:
            page.answer(task)
        running.crash()
        assert in_inbox(web_project) == []
        running = annotate(answers_per_round=2)
        assert running.journal.has("3 stored answers had not reached the trainer")
        wait_until(lambda: len(in_inbox(web_project)) == 3)
        running.close()
        assert not annotate().journal.has("had not reached")

    def test_a_few_that_wait_are_counted_again_and_not_trained_on(self, annotate: Start, web_project: Path) -> None:
        """Ctrl-C handed three answers to the trainer, whose next start trained a round on them."""
        running = annotate()
        page = running.page()
        for task in page.tasks(3)["tasks"]:
            page.answer(task)
        running.close()
        running = annotate()
        page = running.page()
        assert running.journal.has("3 of 5 answers for the next training round received")
        wait_until(lambda: page.panel()["pending"] == 3)
        assert in_inbox(web_project) == []
        for task in page.tasks(2)["tasks"]:
            page.answer(task)
        wait_until(lambda: len(in_inbox(web_project)) == 5)

    def test_killed_between_the_batch_and_the_note_that_it_was_delivered(
        self, annotate: Start, web_project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The same batch is written again under its name, so the trainer does not get the answer twice."""
        with monkeypatch.context() as patch:
            patch.setattr(Deliveries, "mark_delivered", refuse)
            running = annotate(answers_per_round=1)
            page = running.page()
            page.answer(page.tasks()["tasks"][0])
            wait_until(lambda: in_inbox(web_project))
            running.crash()
        (batch,) = list_batches(web_project / "data" / "inbox")
        batch.unlink()  # the trainer has taken it
        running = annotate(answers_per_round=9)
        wait_until(lambda: list_batches(web_project / "data" / "inbox") == [batch])
        wait_until(lambda: running.service.outbox.pending == 0)

    def test_killed_between_the_note_of_the_batch_and_the_batch(
        self, annotate: Start, web_project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(AnnotationSession, "submit", refuse)
            running = annotate(answers_per_round=1)
            page = running.page()
            page.answer(page.tasks()["tasks"][0])
            wait_until(lambda: running.journal.has("stored answers are not delivered"))
            running.crash()
        assert in_inbox(web_project) == []
        annotate(answers_per_round=9)
        wait_until(lambda: len(in_inbox(web_project)) == 1)

    def test_with_a_new_data_directory(self, annotate: Start, web_project: Path) -> None:
        running = annotate(answers_per_round=1)
        page = running.page()
        tasks = page.tasks(3)["tasks"]
        for task in tasks:
            page.answer(task)
        page.answer(tasks[0], "reject")
        running.close()
        assert len(in_inbox(web_project)) >= 3
        running = annotate(data_dir="data2", answers_per_round=1)
        wait_until(lambda: len(answers_in(web_project / "data2")) == 3)
        decisions = {answer["image_id"]: answer["answer"] for answer in answers_in(web_project / "data2")}
        assert [decisions[task["image_id"]] for task in tasks] == ["reject", "accept", "accept"]
        assert files(running.page().tasks()["tasks"]) == ["03.png"]

    def test_imported_examples_are_trained_on(self, annotate: Start, web_project: Path) -> None:
        path = web_project / "images" / "04.png"
        image = read_image(path)
        example = {"path": str(path), "answer": "accept", "spans": [SPAN], "meta": {"file": "04.png"}}
        with AnswerDatabase.open("annotations.db") as database:
            database.add(DATASET, [StoredAnswer(example, image.image_id, "imported")])
        running = annotate(answers_per_round=1)
        (answer,) = wait_until(lambda: in_inbox(web_project))
        assert answer["image_id"] == image.image_id
        assert answer["stored_image"] == f"{image.image_id}.png"
        page = running.page()
        assert "04.png" not in files(page.tasks(20)["tasks"])
        assert page.http.get(f"/images/{image.image_id}").status_code == 200
        assert running.page("imported").post("/api/reopen", image_id=image.image_id).json()["task"]["width"] == 64

    def test_another_database_for_each_dataset_and_several_datasets_in_one(self, annotate: Start) -> None:
        running = annotate(dataset="one")
        running.page().answer(running.page().tasks()["tasks"][0])
        running.close()
        assert files(annotate(dataset="two").page().tasks()["tasks"]) == ["00.png"]


class FullDisk:
    """sqlite3.Connection of a disk that is full for whatever writes what `stops` says."""

    def __init__(self, connection: SqliteConnection, stops: str) -> None:
        self._connection = connection
        self.stops: str = stops

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, query: str, *values: Any) -> Any:
        self._check(query)
        return self._connection.execute(query, *values)

    def insert(self, query: str, values: Any) -> Any:
        self._check(query)
        return self._connection.insert(query, values)

    def executemany(self, query: str, values: Any) -> Any:
        self._check(query)
        return self._connection.executemany(query, values)

    def _check(self, query: str) -> None:
        if self.stops and query.startswith(self.stops):
            raise sqlite3.OperationalError("database or disk is full")


class TestFullDisk:
    @pytest.fixture
    def running(self, annotate: Start) -> Iterator[Annotating]:
        running = annotate(answers_per_round=1)
        engine = running.service.database.engine
        assert isinstance(engine, SqliteEngine)
        self.disk = FullDisk(engine.connection, "")
        engine.file.connection = self.disk  # type: ignore[assignment]
        yield running
        self.disk.stops = ""

    @pytest.mark.parametrize("statement", ["INSERT INTO answers", "COMMIT", "BEGIN", "DELETE"])
    def test_nothing_is_acknowledged_and_it_goes_on_afterwards(
        self, running: Annotating, web_project: Path, statement: str
    ) -> None:
        page = running.page()
        tasks = page.tasks(2)["tasks"]
        self.disk.stops = statement
        answer = answer_to(tasks[0])
        response = page.post("/api/answers", answers=[answer])
        assert response.status_code == 507
        assert "disk is full" in response.json()["error"]
        self.disk.stops = ""
        assert page.history() == []
        assert files(page.tasks(1)["tasks"]) == ["00.png"], "it is still this tab's"
        assert page.send(answer) == {"saved": [answer["answer_id"]], "refused": []}
        assert len(stored(web_project / "annotations.db")) == 1
        wait_until(lambda: len(in_inbox(web_project)) == 1)

    def test_tasks_that_could_not_be_noted_come_again(self, running: Annotating) -> None:
        page = running.page()
        self.disk.stops = "INSERT INTO open_tasks"
        assert page.post("/api/tasks", count=2).status_code == 507
        self.disk.stops = ""
        assert files(page.tasks(2)["tasks"]) == ["00.png", "01.png"]

    def test_the_note_that_the_trainer_has_it(self, running: Annotating, web_project: Path) -> None:
        page = running.page()
        (task,) = page.tasks()["tasks"]
        self.disk.stops = "UPDATE answers SET handed_on"
        page.answer(task)
        wait_until(lambda: running.journal.has("cannot mark the answers as delivered"))
        assert len(in_inbox(web_project)) == 1
        assert page.history()[0]["state"] == "saved"

    def test_an_inbox_that_cannot_be_written(
        self, annotate: Start, running: Annotating, web_project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from odkeras.session import answers as loop_answers

        real, full = loop_answers.put_batch, [True]

        def put_batch(*arguments: Any, **options: Any) -> Path:
            if full[0]:
                raise OSError("No space left on device")
            return real(*arguments, **options)

        monkeypatch.setattr(loop_answers, "put_batch", put_batch)
        page = running.page()
        tasks = page.tasks(2)["tasks"]
        page.answer(tasks[0])
        wait_until(lambda: running.journal.has("No space left"))
        assert page.history()[0]["state"] == "saved"
        full[0] = False
        page.answer(tasks[1])
        wait_until(lambda: len(in_inbox(web_project)) == 2)
        running.close()
        assert len({answer["image_id"] for answer in in_inbox(web_project)}) == 2

    def test_the_panel_goes_on_after_the_database_was_busy(self, running: Annotating) -> None:
        page = running.page()
        tasks = page.tasks(1)["tasks"]
        self.disk.stops = "SELECT session, decision"
        page.answer(tasks[0])
        wait_until(lambda: running.journal.has("figures are outdated"))
        self.disk.stops = ""
        wait_until(lambda: page.panel()["mine"]["accept"] == 1)


class TestStarting:
    def test_an_external_trainer_is_started_by_the_command_that_is_printed(
        self, annotate: Start, web_project: Path
    ) -> None:
        running = annotate()  # its trainer is external
        run_path = web_project / "model" / "run.json"
        assert running.journal.has(f"start the trainer on its machine with: odkeras trainer --config {run_path}")
        assert running.journal.has("watch the training with: tensorboard --logdir model")
        assert read_run(run_path).steps_per_epoch == 5

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"config": Path("none.config")}, "no such file"),
            ({"dataset": " "}, "DATASET is"),
            ({"label": ["cat"]}, "cat"),
            ({"threshold": 2}, "threshold"),
            ({"steps_per_epoch": -2}, "steps_per_epoch"),
            ({"api": "unsplash"}, "Prodigy's own"),
        ],
    )
    def test_arguments_that_cannot_work(self, web_project: Path, changes: dict[str, Any], message: str) -> None:
        before = set(threading.enumerate())
        with pytest.raises(OdkerasError, match=message):
            open_page(fixtures_web.arguments_of(changes))
        assert set(threading.enumerate()) == before

    def test_a_database_of_something_else(self, web_project: Path) -> None:
        Path("other.db").write_bytes(b"not a database at all, but long enough to be looked at" * 20)
        with pytest.raises(OdkerasError, match=r"other\.db"):
            open_page(fixtures_web.arguments_of({"db": Path("other.db")}))

    def test_a_source_that_fails_now_and_then(self, annotate: Start, monkeypatch: pytest.MonkeyPatch) -> None:
        """The first exception ended the stream: "all done", although most images had not been seen."""
        running = annotate()
        stream: Any = running.service.stream
        real, calls = stream._tasks._suggester, []

        def suggest(tasks: Sequence[SessionTask]) -> list[SessionTask]:
            calls.append(1)
            if len(calls) == 1:
                raise ZeroDivisionError("the server's answer made no sense")
            return list(real(tasks))

        stream._tasks._suggester = FakeSuggester(suggest, real.is_fresh)
        page = running.page()
        response = page.post("/api/tasks", count=3)
        assert (response.status_code, response.json()["error"]) == (
            500,
            "ZeroDivisionError: the server's answer made no sense",
        )
        assert files(page.tasks(20)["tasks"]) == [f"{number:02}.png" for number in range(IMAGES)]


def test_suggestions_that_the_page_did_not_show_are_not_judged() -> None:
    task = bare_task("a", suggestions=Suggestions(7))
    assert incoming.as_shown(task, 7) is task
    assert incoming.as_shown(task, UNSET) is task
    assert incoming.as_shown(task, 6) == bare_task("a")
    assert incoming.as_shown(task, None) == bare_task("a")


def test_a_clock_that_is_set_back_does_not_make_a_correction_an_old_answer(
    annotate: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was stored as replaced by the answer that it corrects."""
    running = annotate()
    page = running.page()
    (task,) = page.tasks()["tasks"]
    page.answer(task)
    now = time.time
    monkeypatch.setattr(incoming, "time", SimpleNamespace(time=lambda: now() - 3600))
    page.answer(task, "reject")
    (entry,) = page.history()
    assert entry["answer"] == "reject"


def test_boxes_of_a_rejected_image_need_not_be_usable(annotate: Start) -> None:
    page = annotate().page()
    (task,) = page.tasks()["tasks"]
    page.answer(task, "reject", spans=[{"label": "thing", "x": 1, "y": 1, "width": 0, "height": 0}])
