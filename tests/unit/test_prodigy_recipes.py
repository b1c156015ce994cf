"""The recipe files, driven by the test double of Prodigy, with processes that only pretend to train and serve."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import fake_processes
import fixtures_prodigy
import numpy as np
import pytest
from PIL import Image
from prodigy_annotator import ui_answer
from waiting import wait_until

from odkeras.config import AnnotateSettings
from odkeras.config.run import read_run
from odkeras.config.sources import effective_values
from odkeras.inbox import images_dir, list_batches, put_batch, read_batch
from odkeras.labels import Label, LabelMap
from odkeras.project import append_jsonl, read_jsonl
from odkeras.session.arguments import resolve

prodigy_double = fixtures_prodigy.prodigy_double
RECIPES = Path(__file__).parents[2] / "recipes"
Task = dict[str, Any]
ERAS = ("1.8", "1.11", "1.18")
all_eras = pytest.mark.parametrize("prodigy_double", ERAS, indirect=True)
TRUTH = [([20, 10, 50, 30], "thing")]


def save_images(folder: Path, count: int = 12) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[10:30, 20:50] = 255
    for number in range(count):
        pixels[0, 0] = number
        Image.fromarray(pixels).save(folder / f"{number:02}.png")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with twelve images, whose trainer and server are fakes; the working directory."""
    fake_processes.use_fakes(monkeypatch.setattr)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))  # no tensorflow_model_server
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "pipeline.config").write_text("")
    LabelMap((Label(1, "thing", "Thing"), Label(2, "other"))).save(folder / "label_map.pbtxt")
    save_images(folder / "images")
    return folder


def save_version(project: Path, *, labels: list[list[Any]], step: int = 30, learned: bool = True) -> None:
    extra = project / "export" / "17" / "assets.extra"
    extra.mkdir(parents=True)
    info = {"step": step, "graph": "", "labels": labels, "learned": learned}
    (extra / "odkeras.json").write_text(json.dumps(info))


def load(file: str) -> ModuleType:
    """The recipe file, imported by its path as `-F` does."""
    spec = importlib.util.spec_from_file_location(f"recipe_{file}", RECIPES / f"{file}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def components_of(**changes: Any) -> dict[str, Any]:
    arguments = {"dataset": "things", "source": "images", "config_path": "pipeline.config", "steps_per_epoch": 5}
    return load("image_train").image_trainmodel(**{**arguments, **changes})


def controller(components: dict[str, Any]) -> Any:
    core = importlib.import_module("prodigy.core")
    return core.Controller.from_components("image.trainmodel", components)


@pytest.fixture
def run(project: Path, prodigy_double: ModuleType) -> Iterator[Callable[..., Any]]:
    """Starts a recipe in a controller; what still runs is stopped at the end."""
    started: list[Any] = []

    def start(**changes: Any) -> Any:
        ctrl = controller(components_of(**changes)).__enter__()
        started.append(ctrl)
        return ctrl

    yield start
    for ctrl in started:
        ctrl.__exit__(None, None, None)


def host_of(ctrl: Any) -> Any:
    return ctrl._components["on_exit"].__self__


def served_version(ctrl: Any) -> int | None:
    return host_of(ctrl)._session.available_version()


def answers_in(project: Path, data_dir: str = "data") -> list[Task]:
    """What waits in the inbox and what the fake trainer has trained on."""
    waiting = [answer for path in list_batches(project / data_dir / "inbox") for answer, _ in read_batch(path)]
    return [*read_jsonl(project / data_dir / "trained.jsonl"), *(answer for answer in waiting if answer)]


def answer_all(ctrl: Any, tasks: list[Task], decision: str = "accept", session: str | None = None) -> None:
    era = os.environ["PRODIGY_DOUBLE_VERSION"]
    ctrl.receive_answers([ui_answer(task, TRUTH, decision, era=era, session_id=session) for task in tasks], session)


class TestTheLoop:
    @all_eras
    def test_answers_to_version_n_bring_suggestions_of_version_n_plus_1(self, run: Callable[..., Any]) -> None:
        ctrl = run()
        first = wait_until(lambda: served_version(ctrl))
        tasks = ctrl.get_questions()
        assert [task["spans"] for task in tasks] == [[]] * 5
        assert {task["_suggestions"]["version"] for task in tasks} == {first}
        answer_all(ctrl, tasks)
        second = wait_until(lambda: (found := served_version(ctrl)) != first and found)
        for task in ctrl.get_questions():
            (span,) = task["spans"]
            assert span["label"] == "thing"
            assert {"points", "x", "y", "width", "height", "center", "type"} <= set(span)
            assert task["meta"]["score"] == span["score"] == 0.9
            assert task["meta"]["model version"] == task["_suggestions"]["version"] == second > first
            assert task["_suggestions"]["spans"] == task["spans"]

    def test_only_what_is_asked_for_is_pulled(self, run: Callable[..., Any]) -> None:
        ctrl = run()
        ctrl.get_questions()
        assert ctrl.pulled == 5

    def test_tasks_come_while_no_server_is_there(self, project: Path, run: Callable[..., Any]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        ctrl = run(ip="127.0.0.1", port=port, external_trainer=True)
        tasks = [task for _ in range(4) for task in ctrl.get_questions()]
        assert len(tasks) == 12
        assert all("_suggestions" not in task and task["spans"] == [] for task in tasks)

    @all_eras
    def test_a_killed_server_does_not_end_the_stream(self, run: Callable[..., Any]) -> None:
        ctrl = run()
        wait_until(lambda: served_version(ctrl))
        os.kill(host_of(ctrl)._session._processes.pids()["server"], signal.SIGKILL)
        assert sum(len(ctrl.get_questions()) for _ in range(4)) == 12

    def test_a_restart_goes_on_without_asking_or_reading_again(
        self, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Prodigy itself leaves out what is answered only after it has been read and predicted."""
        ctrl = run()
        answered = ctrl.get_questions()
        answer_all(ctrl, answered)
        ctrl.save()
        read: list[str] = []
        real = Path.read_bytes
        monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path.name) or real(path))
        asked = run().get_questions()
        assert [task["meta"]["file"] for task in asked] == ["05.png", "06.png", "07.png", "08.png", "09.png"]
        assert not {task["meta"]["file"] for task in answered} & set(read)

    @pytest.mark.parametrize("exclude_by", ["input", "task"])
    @pytest.mark.parametrize("prodigy_double", ["1.11", "1.18"], indirect=True)
    def test_neither_hash_changes_as_the_model_learns(
        self, run: Callable[..., Any], exclude_by: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PRODIGY_CONFIG_OVERRIDES", json.dumps({"exclude_by": exclude_by}))
        ctrl = run()
        first = wait_until(lambda: served_version(ctrl))
        tasks = ctrl.get_questions()
        answer_all(ctrl, tasks)
        wait_until(lambda: served_version(ctrl) not in (None, first))
        ctrl.save()
        asked = [task for _ in range(3) for task in run().get_questions()]
        hashes = {(task["_input_hash"], task["_task_hash"]) for task in tasks}
        assert hashes.isdisjoint({(task["_input_hash"], task["_task_hash"]) for task in asked})

    @all_eras
    def test_images_of_another_recipe_s_dataset_are_left_out(self, run: Callable[..., Any], project: Path) -> None:
        """image.manual and the 2019 recipe hash the data URI and the file name."""
        loaders = importlib.import_module("prodigy.components.loaders")
        util = importlib.import_module("prodigy.util")
        db = importlib.import_module("prodigy.components.db").connect()
        db.add_dataset("old")
        old = [util.set_hashes(task) for task in loaders.Images("images")][:7]
        db.add_examples([{**task, "answer": "accept"} for task in old], datasets=["old"])
        ctrl = run(exclude=["old"])
        assert [task["meta"]["file"] for task in ctrl.get_questions()] == [
            f"{number:02}.png" for number in range(7, 12)
        ]

    def test_everybody_s_images_are_left_out_unless_overlap_is_asked_for(
        self, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ctrl = run()
        answer_all(ctrl, ctrl.get_questions("things-anna"), session="things-anna")
        ctrl.save()
        assert run().get_questions("things-ben")[0]["meta"]["file"] == "05.png"
        monkeypatch.setenv("PRODIGY_CONFIG_OVERRIDES", json.dumps({"feed_overlap": True}))
        assert run().get_questions("things-ben")[0]["meta"]["file"] == "00.png"

    @pytest.mark.parametrize("prodigy_double", ["1.11", "1.18"], indirect=True)
    def test_two_sessions_share_the_images(self, run: Callable[..., Any], project: Path) -> None:
        ctrl = run(external_trainer=True)
        anna, ben = ctrl.get_questions("things-anna"), ctrl.get_questions("things-ben")
        assert {task["image_id"] for task in anna}.isdisjoint(task["image_id"] for task in ben)
        answer_all(ctrl, anna, session="things-anna")
        answer_all(ctrl, ben, "reject", session="things-ben")
        assert [answer["answer"] for answer in answers_in(project)] == ["accept"] * 5 + ["reject"] * 5

    def test_sessions_pull_and_answer_at_the_same_time(self, run: Callable[..., Any], project: Path) -> None:
        save_images(project / "images", 40)
        ctrl = run()

        def annotate(name: str) -> int:
            done = 0
            while tasks := ctrl.get_questions(f"things-{name}"):
                answer_all(ctrl, tasks, session=f"things-{name}")
                done += len(tasks)
            return done

        with futures.ThreadPoolExecutor() as pool:
            assert sum(pool.map(annotate, ["anna", "ben", "cleo"])) == 40
        assert len({answer["image_id"] for answer in wait_until(lambda: answers_in(project))}) == 40

    def test_the_first_task_needs_no_on_load(self, project: Path, prodigy_double: ModuleType) -> None:
        """Versions differ in whether they look at the stream before they call it."""
        components = components_of()
        try:
            assert next(iter(components["stream"]))["meta"]["file"] == "00.png"
        finally:
            components["on_exit"](None)
            components["on_exit"](None)

    def test_on_exit_leaves_no_process(self, run: Callable[..., Any]) -> None:
        ctrl = run()
        pids = [pid for pid in host_of(ctrl)._session._processes.pids().values() if pid is not None]
        assert len(pids) == 2
        ctrl.save()
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)


class TestUpdate:
    @all_eras
    @pytest.mark.parametrize("order", ["before_db", "after_db"])
    @pytest.mark.parametrize("remove_base64", [False, True])
    def test_answers_are_stored_with_their_images_whatever_prodigy_does_first(
        self,
        run: Callable[..., Any],
        project: Path,
        order: str,
        remove_base64: bool,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("PRODIGY_DOUBLE_UPDATE", order)
        ctrl = run(external_trainer=True, remove_base64=remove_base64)
        tasks = ctrl.get_questions()
        answer_all(ctrl, tasks)
        answers = answers_in(project)
        assert [answer["image_id"] for answer in answers] == [task["image_id"] for task in tasks]
        for answer in answers:
            assert "image" not in answer
            assert (images_dir(project / "data" / "inbox") / answer["stored_image"]).read_bytes()
        stored = ctrl.db.get_dataset("things")
        removed = remove_base64 and os.environ["PRODIGY_DOUBLE_VERSION"] != "1.8"  # which knows no before_db
        assert [example["image"].startswith("data:") for example in stored] == [not removed] * 5
        if removed:
            assert [example["image"] for example in stored] == [str(project / f"images/{n:02}.png") for n in range(5)]

    def test_the_path_of_another_image_does_not_take_the_place_of_this_one(
        self, run: Callable[..., Any], project: Path
    ) -> None:
        """A part of a page, with the page's path: the part was thrown away for the page."""
        uri = f"data:image/png;base64,{base64.b64encode((project / 'images' / '03.png').read_bytes()).decode()}"
        append_jsonl(project / "tasks.jsonl", [{"image": uri, "path": "images/04.png"}])
        ctrl = run(source="tasks.jsonl", external_trainer=True, remove_base64=True)
        (task,) = ctrl.get_questions()
        answer_all(ctrl, [{**task, "path": "images/05.png"}])  # nor one that the browser sends
        (example,) = ctrl.db.get_dataset("things")
        assert Path(example["image"]).read_bytes() == (project / "images" / "03.png").read_bytes()

    def test_an_answer_that_only_names_its_file_gets_the_image_into_the_store(
        self, run: Callable[..., Any], project: Path
    ) -> None:
        """The trainer may be on a machine without that file; the store keeps an unanswered image for an hour."""
        ctrl = run(external_trainer=True)
        task = ctrl.get_questions()[0]
        store = images_dir(project / "data" / "inbox")
        for path in store.iterdir():
            path.unlink()
        ctrl._components["update"]([{**ui_answer(task, TRUTH), "image": task["path"]}])
        (answer,) = answers_in(project)
        assert (store / answer["stored_image"]).read_bytes() == (project / task["path"]).read_bytes()

    def test_what_did_not_reach_the_trainer_does_so_at_the_next_start(
        self, run: Callable[..., Any], project: Path
    ) -> None:
        """Prodigy was killed between its database and `update`, or the disk was full: the images are never asked for
        again."""
        ctrl = run(external_trainer=True)
        tasks = ctrl.get_questions()
        ctrl._components["update"] = lambda answers: None
        answer_all(ctrl, tasks)
        assert answers_in(project) == []
        ctrl.save()
        again = run(external_trainer=True)
        wait_until(lambda: len(answers_in(project)) == 5)
        answer_all(again, again.get_questions())
        again.save()
        run(external_trainer=True)
        wait_until(lambda: not any(thread.name == "odkeras-recovery" for thread in threading.enumerate()))
        assert len(answers_in(project)) == 10  # each once

    def test_a_closed_terminal_is_no_reason_to_lose_anything(
        self, run: Callable[..., Any], project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """`prodigy ... 2>&1 | tee log` with a dead tee: update raised, the stream ended, no server was restarted."""
        (project / "images" / "01.png").write_bytes(b"broken")
        ctrl = run()
        wait_until(lambda: served_version(ctrl))
        broken = os.fdopen(os.open("/dev/full", os.O_WRONLY), "w")
        monkeypatch.setattr("sys.stderr", broken)
        os.kill(host_of(ctrl)._session._processes.pids()["server"], signal.SIGKILL)
        tasks = [task for _ in range(3) for task in ctrl.get_questions()]
        assert len(tasks) == 11
        ctrl._components["update"]([ui_answer(task, TRUTH) for task in tasks] + [{"image": b"x"}])
        wait_until(lambda: len(answers_in(project)) == 11)
        wait_until(lambda: served_version(ctrl))

    def test_an_image_without_a_file_gets_one(self, run: Callable[..., Any], project: Path) -> None:
        data = [(project / "images" / f"{number:02}.png").read_bytes() for number in range(2)]
        uris = [f"data:image/png;base64,{base64.b64encode(each).decode()}" for each in data]
        append_jsonl(project / "tasks.jsonl", [{"image": uri} for uri in uris])
        ctrl = run(source="tasks.jsonl", external_trainer=True, remove_base64=True)
        answer_all(ctrl, ctrl.get_questions())
        for example in ctrl.db.get_dataset("things"):
            assert Path(example["image"]).read_bytes()[:4] == b"\x89PNG"
            assert Path(example["image"]).parent == project / "data" / "images"  # found from everywhere
            assert example["path"] == example["image"]

    def test_what_is_sent_again_is_stored_once_and_what_is_edited_again(
        self, run: Callable[..., Any], project: Path
    ) -> None:
        ctrl = run(external_trainer=True)
        update = ctrl._components["update"]
        answers = [{**ui_answer(task, TRUTH), "_timestamp": 1} for task in ctrl.get_questions()]
        for _ in range(3):
            update(answers)
        assert len(answers_in(project)) == 5
        update([{**answers[0], "spans": [], "_timestamp": 2}, answers[1]])
        found = answers_in(project)
        assert len(found) == 6
        assert (found[5]["image_id"], found[5]["spans"]) == (answers[0]["image_id"], [])

    @pytest.mark.parametrize(
        "answers",
        [
            [],
            [{}],
            [{"answer": "accept"}],
            [{"answer": "accept", "image": 7, "spans": None}],
            [{"answer": "accept", "spans": [{"points": [[0, 0]]}]}],
            [{"answer": "ignore", "meta": None}],
            [None],  # no answer at all
            ["x"],
            [{"answer": "accept", "image": b"not JSON"}, {"answer": "reject"}],
        ],
    )
    def test_it_never_raises(self, run: Callable[..., Any], answers: list[Any]) -> None:
        assert run(external_trainer=True)._components["update"](answers) is None

    def test_it_returns_the_loss_and_in_sync_that_of_the_round(self, run: Callable[..., Any]) -> None:
        ctrl = run(sync=True)
        first = wait_until(lambda: served_version(ctrl))
        tasks = ctrl.get_questions()
        loss = ctrl._components["update"]([ui_answer(task, TRUTH) for task in tasks])
        assert loss == pytest.approx(0.2)
        assert served_version(ctrl) > first

    def test_sync_does_not_wait_for_ever(self, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
        """A trainer that cannot start is a reason to go on annotating, not to hang."""
        monkeypatch.setenv("FAKE_TRAINER", "wrong-config")
        ctrl = run(sync=True)
        tasks = ctrl.get_questions()
        assert ctrl._components["update"]([ui_answer(task, TRUTH) for task in tasks]) is None

    def test_what_comes_after_the_end_is_kept_for_the_next_start(self, run: Callable[..., Any], project: Path) -> None:
        ctrl = run(external_trainer=True)
        tasks = ctrl.get_questions()
        ctrl.save()
        ctrl._components["update"]([ui_answer(task, TRUTH) for task in tasks])
        assert len(answers_in(project)) == 5

    @all_eras
    def test_progress_is_the_share_that_is_answered(self, run: Callable[..., Any]) -> None:
        ctrl = run(external_trainer=True)
        answer_all(ctrl, ctrl.get_questions()[:3])
        assert ctrl.progress == pytest.approx(3 / 12)
        ctrl.save()
        again = run(external_trainer=True)
        answer_all(again, again.get_questions()[:1])
        assert again.progress == pytest.approx(4 / 12)

    @pytest.mark.parametrize("arguments", [(1, 2), (1, 2, 0.5), (object(), 0.5), (object(), object(), [], None), ()])
    def test_progress_takes_what_every_version_passes(
        self, run: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> None:
        assert run(external_trainer=True)._components["progress"](*arguments) == 0

    def test_a_stream_without_a_length_has_no_progress(self, run: Callable[..., Any], project: Path) -> None:
        ctrl = run(source=iter([project / "images" / "00.png"]), external_trainer=True)
        assert len(ctrl.get_questions()) == 1
        assert ctrl._components["progress"](ctrl, None) is None


class TestSources:
    def test_dataset(self, run: Callable[..., Any], project: Path, capsys: pytest.CaptureFixture[str]) -> None:
        db = importlib.import_module("prodigy.components.db").connect()
        db.add_dataset("seen")
        rows = [{"image": f"images/{number:02}.png", "answer": "accept"} for number in range(3)]
        rows.append({"image": "images/05.png", "answer": "reject"})
        hashes = [{"_input_hash": number, "_task_hash": number} for number in range(4)]
        db.add_examples([{**row, **each} for row, each in zip(rows, hashes, strict=True)], datasets=["seen"])
        ctrl = run(source="dataset:seen:accept", external_trainer=True)
        tasks = ctrl.get_questions()
        assert [task["path"] for task in tasks] == [str(project / f"images/{number:02}.png") for number in range(3)]
        with pytest.raises(SystemExit):
            components_of(source="dataset:seen:ignore")
        assert "none of its 4 examples has that answer" in capsys.readouterr().err
        assert all("answer" not in task and not 0 <= task["_input_hash"] < 4 for task in tasks)

    def test_stdin(self, run: Callable[..., Any], project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (project / "in.jsonl").write_text('{"image": "images/03.png", "shelf": 7}\n')
        with (project / "in.jsonl").open() as file:
            monkeypatch.setattr("sys.stdin", file)
            (task,) = run(source="-", external_trainer=True).get_questions()
        assert (task["path"], task["shelf"]) == (str(project / "images/03.png"), 7)

    def test_records_that_prodigy_could_not_show(self, run: Callable[..., Any], project: Path) -> None:
        rows = [
            '{"path": "images/00.png", "area": NaN}',
            '{"path": "images/01.png", "spans": [{"start": 1, "end": 2}]}',
        ]
        (project / "in.jsonl").write_text("\n".join(rows))
        (task,) = run(source="in.jsonl", external_trainer=True).get_questions()
        assert (task["path"], task["spans"]) == (str(project / "images/01.png"), [])

    def test_an_error_of_any_kind_skips_one_image(
        self, run: Callable[..., Any], project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It ended the stream: "No tasks available", with thousands left."""
        monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")  # needs a package that is not there
        append_jsonl(project / "in.jsonl", [{"image": "http://example.org/a.png"}, {"path": "images/01.png"}])
        (task,) = run(source="in.jsonl", external_trainer=True).get_questions()
        assert task["path"] == str(project / "images/01.png")

    def test_an_iterable_from_python(self, run: Callable[..., Any], project: Path) -> None:
        paths = sorted((project / "images").iterdir())[:3]
        assert len(run(source=iter(paths), external_trainer=True).get_questions()) == 3

    def test_an_unreadable_image_in_the_middle_is_skipped_and_said(
        self, run: Callable[..., Any], project: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (project / "images" / "02.png").write_bytes(b"\x89PNG broken")
        (project / "images" / "03.png").write_bytes(b"<!doctype html><p>404")
        tasks = run(external_trainer=True).get_questions()
        assert [task["meta"]["file"] for task in tasks] == ["00.png", "01.png", "04.png", "05.png", "06.png"]
        said = capsys.readouterr().err
        assert "odkeras: skipped images/02.png: " in said
        assert "odkeras: skipped images/03.png: no image data: an HTML page (a failed download?)" in said

    @pytest.mark.parametrize("prodigy_double", ["1.8"], indirect=True)
    def test_an_api_of_an_old_version(
        self, run: Callable[..., Any], project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        loaders = importlib.import_module("prodigy.components.loaders")
        asked: list[Any] = []

        def get_stream(source: Any, **options: Any) -> list[Task]:
            asked.append((source, options["api"]))
            return [{"image": "images/01.png"}]

        monkeypatch.setattr(loaders, "get_stream", get_stream)
        (task,) = run(source="cats", api="unsplash", external_trainer=True).get_questions()
        assert (asked, task["path"]) == ([("cats", "unsplash")], str(project / "images/01.png"))


class TestArguments:
    def test_labels_to_choose_from(self, run: Callable[..., Any]) -> None:
        assert run(external_trainer=True).config["labels"] == ["thing", "other"]
        assert run(external_trainer=True, label=["other"]).config["labels"] == ["other"]
        assert run(external_trainer=True, use_display_name=True).config["labels"] == ["Thing", "other"]

    def test_chosen_labels_are_all_that_is_suggested(self, run: Callable[..., Any]) -> None:
        ctrl = run(label=["other"])
        first = wait_until(lambda: served_version(ctrl))
        answer_all(ctrl, ctrl.get_questions())
        wait_until(lambda: served_version(ctrl) not in (None, first))
        assert [task["spans"] for task in ctrl.get_questions()] == [[]] * 5  # the model finds things only

    def test_the_config_asks_for_nothing_that_predicts_ahead(self, run: Callable[..., Any]) -> None:
        config = run(external_trainer=True).config
        assert (config["batch_size"], config["auto_count_stream"], config["exclude_by"]) == (5, False, "input")

    @pytest.mark.parametrize(
        ("changes", "status", "message"),
        [
            ({"dataset": ""}, 2, "DATASET is ''; name the dataset that the answers are stored in"),
            ({"dataset": "  "}, 2, "DATASET is '  '"),
            ({"dataset": False}, 2, "DATASET is False"),
            ({"config_path": "nothing.config"}, 2, "nothing.config: no such file; CONFIG is a pipeline.config"),
            ({"source": "nowhere"}, 2, "source nowhere: no such file or directory; give a directory of images"),
            ({"source": "empty"}, 2, "source empty: no images in this directory"),
            ({"source": "dataset:none"}, 2, "there is no dataset 'none' with examples (known: "),
            ({"source": "dataset:none:maybe"}, 2, "the answer must be one of accept, reject, ignore"),
            ({"label": ["zebra"]}, 2, "label 'zebra' is not in the label map (known: thing, other)"),
            ({"label": ["things"]}, 2, "did you mean 'thing'?"),
            ({"label_map_path": "none.pbtxt"}, 2, "cannot read the label map none.pbtxt"),
            ({"threshold": 2.0}, 2, "threshold is 2.0; allowed: 0 to 1"),
            ({"tf_logging_level": 15}, 2, "--tf-logging-level is 15; allowed: 10, 20, 30, 40, 50"),
            ({"eval_steps": 0}, 2, "--eval-steps is 0; allowed: a number of images, 1 or more"),
            ({"steps_per_epoch": -7}, 2, "--steps-per-epoch is -7; allowed: a number of steps, or -1 for one pass"),
            (
                {"ip": "http://localhost"},
                2,
                "IP is 'http://localhost'; allowed: an address or host name, without http://",
            ),
            ({"ip": "localhost:8501"}, 2, "IP is 'localhost:8501'"),
            ({"ip": "local host"}, 2, "IP is 'local host'"),
            ({"ip": "localhost", "port": 70000}, 2, "PORT is 70000"),
            ({"replay": "yes"}, 2, "replay is 'yes'; allowed: on, off"),
            ({"predict_batch_size": 0}, 2, "--predict-batch-size is 0"),
            ({"model_name": "a/b"}, 2, "MODEL_NAME is 'a/b'"),
            ({"api": "flickr"}, 2, "--api flickr: the installed Prodigy has no such API loader"),
            ({"data_dir": "model"}, 2, "data_dir, model_dir and export_dir must be three different directories"),
        ],
    )
    def test_what_cannot_work_is_one_line_before_anything_starts(
        self,
        project: Path,
        prodigy_double: ModuleType,
        capsys: pytest.CaptureFixture[str],
        changes: dict[str, Any],
        status: int,
        message: str,
    ) -> None:
        (project / "empty").mkdir()
        with pytest.raises(SystemExit) as ended:
            components_of(**changes)
        assert ended.value.code == status
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("image.trainmodel: error: ")
        assert message in line
        assert not (project / "model").exists()

    def test_a_model_of_another_label_map(
        self, project: Path, prodigy_double: ModuleType, capsys: pytest.CaptureFixture[str]
    ) -> None:
        extra = project / "export" / "17" / "assets.extra"
        extra.mkdir(parents=True)
        labels = [[1, "other"], [2, "thing"], [3, "gone"]]
        (extra / "odkeras.json").write_text(json.dumps({"step": 1, "graph": "", "labels": labels}))
        with pytest.raises(SystemExit):
            components_of()
        said = capsys.readouterr().err
        assert "the model in export was trained with another label map: id 1 is 'other' there and 'thing' here" in said
        assert "id 3, 'gone' there, is missing here" in said

    def test_a_label_map_that_has_grown(self, project: Path, run: Callable[..., Any]) -> None:
        """The trainer extends the model, and the answers from before are no negatives for the new class."""
        save_version(project, labels=[[1, "thing"]])
        put_batch(project / "data" / "inbox", [{"answer": "accept"}])
        ctrl = run(external_trainer=True)
        added_s = json.loads((project / "data" / "classes.json").read_text())["added_s"]
        assert added_s["thing"] == 0 and abs(added_s["other"] - time.time()) < 60
        assert ctrl.config["labels"] == ["thing", "other"]

    def test_a_label_map_that_has_grown_before_anything_was_learned(
        self, project: Path, run: Callable[..., Any]
    ) -> None:
        save_version(project, labels=[[1, "thing"]], step=0, learned=False)
        run(external_trainer=True)

    def test_a_trained_model_without_its_checkpoints(
        self, project: Path, prodigy_double: ModuleType, run: Callable[..., Any], capsys: pytest.CaptureFixture[str]
    ) -> None:
        save_version(project, labels=[[1, "thing"], [2, "other"]])
        with pytest.raises(SystemExit):
            components_of()
        assert "has 30 training steps, but there is no checkpoint in model to resume" in capsys.readouterr().err
        run(external_trainer=True)  # where they may be on another machine

    def test_another_program_at_the_port(
        self, project: Path, prodigy_double: ModuleType, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as other:
            threading.Thread(target=other.serve_forever, daemon=True).start()
            with pytest.raises(SystemExit):
                components_of(ip="127.0.0.1", port=other.server_port)
            other.shutdown()
        assert "is not TensorFlow Serving's REST API" in capsys.readouterr().err

    def test_a_grpc_port(self, project: Path, prodigy_double: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
        """The 2019 recipe's command lines name it: 8500 as a rule."""
        grpc = pytest.importorskip("grpc")
        server = grpc.server(futures.ThreadPoolExecutor(1))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            with pytest.raises(SystemExit):
                components_of(ip="127.0.0.1", port=port)
        finally:
            server.stop(None)
        said = capsys.readouterr().err
        assert "gRPC" in said
        assert "8501" in said

    def test_no_server_yet_is_said_with_the_command_that_starts_it(
        self,
        project: Path,
        prodigy_double: ModuleType,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        said = capture_log(monkeypatch)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        components_of(ip="127.0.0.1", port=port, model_name="raccoon")["on_exit"](None)
        (line,) = [text for text, _ in said if "no model server" in text]
        assert f"tensorflow_model_server --rest_api_port={port} --model_name=raccoon" in line
        assert f"--model_base_path={project / 'export_dir'} " in line

    def test_directories_are_beside_the_config_or_with_a_server_those_of_2019(self, project: Path) -> None:
        here = resolve(AnnotateSettings(dataset="d", source="images", config=Path("pipeline.config")))
        assert [path.name for path in vars(here.project).values()] == ["data", "model", "export"]
        there = resolve(
            AnnotateSettings(
                dataset="d", source="images", config=Path("pipeline.config"), ip="10.0.0.1", data_dir=Path("x")
            )
        )
        assert [str(path) for path in vars(there.project).values()] == ["x", "model_dir", "export_dir"]
        assert (there.external_server, there.server_url, there.model_name) == (True, "http://10.0.0.1:8501", "odkeras")

    def test_options_from_the_project_file_and_the_environment(
        self, run: Callable[..., Any], project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (project / "odkeras.toml").write_text('label = ["other"]\nsteps_per_epoch = 3\n')
        monkeypatch.setenv("ODKERAS_EVAL_STEPS", "9")
        ctrl = run(external_trainer=True, steps_per_epoch=None)
        assert ctrl.config["labels"] == ["other"]
        saved = read_run(project / "model" / "run.json")
        assert (saved.steps_per_epoch, saved.eval_steps) == (3, 9)

    def test_a_tensorflow_serving_on_the_path_is_used(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        program = project / "bin" / "tensorflow_model_server"
        program.parent.mkdir()
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        arguments = AnnotateSettings(dataset="d", source="images", config=Path("pipeline.config"))
        assert not resolve(arguments).tensorflow_serving
        monkeypatch.setenv("PATH", str(program.parent))
        assert resolve(arguments).tensorflow_serving
        assert not resolve(
            AnnotateSettings(dataset="d", source="images", config=Path("pipeline.config"), ip="10.0.0.1")
        ).tensorflow_serving


OPTIONS_OF_2019 = (
    "-lmp map.pbtxt -l thing,other -md m -ed e -dd d -spe 20 -t 0.4 -tfn 3 -mcn 2 -E -es 10 -D -tl 30 -e old,older"
)
LONG_OPTIONS_OF_2019 = (
    "--label-map-path map.pbtxt --label thing,other --model-dir m --export-dir e --data-dir d "
    "--steps-per-epoch 20 --threshold 0.4 --temp-files-num 3 --max-checkpoints-num 2 --run-eval --eval-steps 10 "
    "--use-display-name --tf-logging-level 30 --exclude old,older"
)


class TestCommandLine:
    @pytest.fixture
    def parsed(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        """What the recipes are called with, as their settings read it."""
        import odkeras.integrations.prodigy as package

        found: list[Any] = []
        for recipe, command in (("trainmodel", "recipe"), ("servingmodel", "servingmodel")):

            def keep(command: str = command, **arguments: Any) -> None:
                given = {name: value for name, value in arguments.items() if value not in (None, False)}
                options = {row.declared.name: row.value for row in effective_values(None, command, given) if row.origin}
                found.append(SimpleNamespace(**{**given, **options}))

            monkeypatch.setattr(package, recipe, keep)
        return found

    @all_eras
    @pytest.mark.parametrize("options", [OPTIONS_OF_2019, LONG_OPTIONS_OF_2019])
    def test_a_command_line_of_2019(
        self, project: Path, prodigy_double: ModuleType, parsed: list[Any], options: str
    ) -> None:
        file = str(RECIPES / "image_train.py")
        run_line(
            "image.trainmodel", "cars", "images", "p.config", "10.0.0.1", "8501", "car", *options.split(), "-F", file
        )
        (found,) = parsed
        assert (found.dataset, found.source, found.config_path) == ("cars", "images", "p.config")
        assert (found.ip, found.port, found.model_name) == ("10.0.0.1", 8501, "car")
        assert (found.label_map_path, found.label) == (Path("map.pbtxt"), ("thing", "other"))
        assert found.exclude == ("old", "older")
        assert (found.model_dir, found.export_dir, found.data_dir) == (Path("m"), Path("e"), Path("d"))
        assert (found.steps_per_epoch, found.threshold, found.temp_files_num) == (20, 0.4, 3)
        assert (found.max_checkpoints_num, found.run_eval, found.eval_steps) == (2, True, 10)
        assert (found.use_display_name, found.tf_logging_level) == (True, 30)

    @all_eras
    def test_three_arguments_are_enough(self, project: Path, prodigy_double: ModuleType, parsed: list[Any]) -> None:

        run_line("image.trainmodel", "cars", "images", "p.config", "-F", str(RECIPES / "image_train.py"))
        (found,) = parsed
        assert vars(found) == {"dataset": "cars", "source": "images", "config_path": "p.config"}

    @all_eras
    def test_new_options(self, project: Path, prodigy_double: ModuleType, parsed: list[Any]) -> None:
        line = "cars - p.config -rp off -S -xt -pbs 8 -R -l labels.txt"
        (project / "labels.txt").write_text("thing\n\nother\n")
        run_line("image.trainmodel", *line.split(), "-F", str(RECIPES / "image_train.py"))
        (found,) = parsed
        assert (found.source, found.replay, found.sync, found.external_trainer) == ("-", "off", True, True)
        assert (found.predict_batch_size, found.remove_base64, found.label) == (8, True, ("thing", "other"))

    @all_eras
    def test_servingmodel(self, project: Path, prodigy_double: ModuleType, parsed: list[Any]) -> None:
        line = "cars 10.0.0.1 8501 car label_map.pbtxt images -t 0.3 -e old"
        run_line("image.servingmodel", *line.split(), "-F", str(RECIPES / "image_serving.py"))
        (found,) = parsed
        assert (found.dataset, found.ip, found.port, found.model_name) == ("cars", "10.0.0.1", 8501, "car")
        assert (found.label_map_path, found.source, found.threshold) == (Path("label_map.pbtxt"), "images", 0.3)
        assert found.exclude == ("old",)


def run_line(*line: str) -> None:
    """As if typed after `prodigy`; the recipe's function returns nothing, so nothing is served."""
    main = importlib.import_module("prodigy.__main__").main
    try:
        main(list(line))
    except SystemExit as ended:
        assert ended.code in (None, 0), ended.code


def capture_log(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """What goes to `prodigy.log`, with details."""
    said: list[tuple[str, Any]] = []
    prodigy = importlib.import_module("prodigy")
    monkeypatch.setattr(prodigy, "log", lambda message, details=None: said.append((message, details)))
    return said


class TestLogging:
    def test_every_step_is_a_line_and_no_line_has_image_data(
        self, run: Callable[..., Any], project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FAKE_TRAINER", "step_s=0.15")
        said = capture_log(monkeypatch)
        ctrl = run()
        wait_until(lambda: served_version(ctrl))
        answer_all(ctrl, ctrl.get_questions())
        wait_until(lambda: any("published" in text for text, _ in said))
        ctrl.save()
        texts = [text for text, _ in said]
        for wanted in (
            "RECIPE: model server at http://127.0.0.1:",
            "RECIPE: trainer: process ",
            "/logs/trainer.log",
            "RECIPE: model of ",
            " is served",
            "0 suggestions of version ",
            "(threshold 0.5, ",
            "RECIPE: 5 answers stored (5 accept)",
            "RECIPE: trainer: round ",
            "RECIPE: round ",
            ", loss 0.2",
            "published",
            "RECIPE: stopped; the same command continues from here",
        ):
            assert any(wanted in text for text in texts), f"{wanted!r} not in {texts}"
        assert all(text.startswith("RECIPE: ") and "\n" not in text for text in texts)
        assert "base64" not in repr(said)
        assert all(len(repr(details)) < 2000 for _, details in said)

    def test_a_trainer_that_cannot_start_is_seen_without_logging(
        self, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("FAKE_TRAINER", "wrong-config")
        said: list[str] = []
        run()
        wait_until(lambda: said.append(capsys.readouterr().err) or "train_config.batch_size is 0" in "".join(said))
        assert "annotation continues" in "".join(said)


class TestServingmodel:
    @pytest.fixture
    def server(self, project: Path) -> Iterator[int]:
        """A fake model server with one version that has learnt."""
        version = project / "served" / "17"
        version.mkdir(parents=True)
        (version / "annotations").write_text("10")
        args = type("Args", (), {"model_base_path": project / "served"})
        with socket.create_server(("127.0.0.1", 0)) as bound:
            args.socket_fd = os.dup(bound.fileno())
            threading.Thread(target=fake_processes.run_server, args=(args,), daemon=True).start()
            yield bound.getsockname()[1]

    @all_eras
    def test_suggestions_and_nothing_else(self, project: Path, prodigy_double: ModuleType, server: int) -> None:
        components = load("image_serving").image_servingmodel(
            "things", "127.0.0.1", server, "thing", "label_map.pbtxt", "images"
        )
        assert "update" not in components
        with controller(components) as ctrl:
            tasks = ctrl.get_questions()
            assert [[span["label"] for span in task["spans"]] for task in tasks] == [["Thing"]] * 5
            assert {task["meta"]["model version"] for task in tasks} == {17}
            answer_all(ctrl, tasks)
        assert sorted(path.name for path in project.iterdir()) == [
            "images",
            "label_map.pbtxt",
            "pipeline.config",
            "served",
        ]

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"threshold": -1.0}, "--threshold is -1.0; allowed: 0 to 1"),
            ({"label_map_path": "none"}, "cannot read the label map none"),
            ({"dataset": ""}, "DATASET is ''"),
            ({"port": 0}, "PORT is 0; allowed: 1 to 65535, usually 8501"),
            ({"port": 70000}, "PORT is 70000"),
            ({"ip": "http://localhost"}, "IP is 'http://localhost'; allowed: an address or host name, without http://"),
        ],
    )
    def test_what_cannot_work(
        self,
        project: Path,
        prodigy_double: ModuleType,
        capsys: pytest.CaptureFixture[str],
        changes: dict[str, Any],
        message: str,
    ) -> None:
        arguments: dict[str, Any] = {
            "dataset": "d",
            "ip": "127.0.0.1",
            "port": 1,
            "model_name": "m",
            "label_map_path": "label_map.pbtxt",
            "source": "images",
        }
        with pytest.raises(SystemExit) as ended:
            load("image_serving").image_servingmodel(**{**arguments, **changes})
        assert ended.value.code == 2
        assert message in capsys.readouterr().err


class TestWithoutProdigy:
    @pytest.mark.parametrize("file", ["image_train", "image_serving"])
    def test_the_import_says_what_is_missing(self, file: str) -> None:
        with pytest.raises(ModuleNotFoundError, match=r"Prodigy is not installed for .* needs a licence") as raised:
            load(file)
        assert raised.value.name == "prodigy"


@pytest.mark.parametrize("file", ["image_train", "image_serving"])
def test_without_odkeras_it_says_so(file: str, tmp_path: Path) -> None:
    """Prodigy lives in another environment than odkeras: the commonest mistake."""
    (tmp_path / f"{file}.py").write_bytes((RECIPES / f"{file}.py").read_bytes())
    command = [sys.executable, "-E", "-S", "-c", f"import {file}"]  # no site-packages
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    said = done.stderr.splitlines()[-1]
    assert said.startswith(
        "ModuleNotFoundError: No module named 'odkeras': odkeras, or a package that it needs, is not"
    )
    assert sys.executable in said


def test_no_tensorflow_in_the_host() -> None:
    code = "import sys, odkeras.integrations.prodigy; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=RECIPES.parent).returncode == 0
