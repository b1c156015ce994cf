from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import fake_processes
import numpy as np
import pytest
from PIL import Image
from waiting import wait_until

from odkeras.annotation import Answer, Decision, Task
from odkeras.config import SessionSettings
from odkeras.config.run import read_run
from odkeras.errors import (
    ConfigError,
    InboxError,
    LabelMapError,
    OdkerasError,
    RequestError,
    ServingError,
    TrainingError,
)
from odkeras.formats.prodigy import Record, write_answer
from odkeras.inbox import images_dir, list_batches, read_batch
from odkeras.labels import LabelMap
from odkeras.pipeline import read_template
from odkeras.process import open_listener
from odkeras.project import append_jsonl, read_jsonl, write_atomically
from odkeras.session import waiting
from odkeras.session.children import external_trainer_command, server_child, trainer_command
from odkeras.session.events import Event, Listener
from odkeras.session.session import AnnotationSession
from odkeras.session.setup import SessionSetup, load_label_map
from odkeras.session.suggester import image_bytes
from odkeras.version_names import VersionNames


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    fake_processes.use_fakes(monkeypatch.setattr)
    (tmp_path / "pipeline.config").write_text("")
    LabelMap.from_names(["thing"]).save(tmp_path / "label_map.pbtxt")
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[10:30, 20:50] = 255
    (tmp_path / "images").mkdir()
    for number in range(3):
        pixels[0, 0] = number
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    return tmp_path


class Recorder(Listener):
    """Keeps the events and the names of the images with suggestions."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.suggested_files: list[str] = []

    def event(self, event: Event) -> None:
        self.events.append(event)

    def suggested(self, task: Task, seconds: float) -> None:
        self.suggested_files.append(task.file)

    def skipped(self, name: str, reason: str) -> None:
        self.events.append(Event(f"skipped {name}: {reason}"))

    @property
    def texts(self) -> list[str]:
        return [event.text for event in self.events]

    @property
    def urgent(self) -> list[str]:
        return [event.text for event in self.events if event.urgent]


def start(options: SessionSettings, listener: Listener | None = None, **more: bool) -> AnnotationSession:
    return AnnotationSession.start(SessionSetup.of(options), listener, **more)


def accepted(task: Task) -> Record:
    return write_answer(Answer(task, Decision.ACCEPT))


def submit(session: AnnotationSession, project: Path) -> Path:
    batch = session.submit([accepted(task) for task in session.stream(project / "images")])
    assert batch is not None
    return batch


def options(project: Path, **changes: object) -> SessionSettings:
    return SessionSettings(**{"config": project / "pipeline.config", "steps_per_epoch": 5, **changes})  # type: ignore[arg-type]


class TestOptions:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("model_name", "a/b"),
            ("model_name", ""),
            ("ip", ""),
            ("port", -1),
            ("port", 70000),
            ("steps_per_epoch", -2),
            ("steps_per_epoch", True),
            ("threshold", 1.5),
            ("threshold", float("nan")),
            ("temp_files_num", -1),
            ("max_checkpoints_num", 1.5),
            ("eval_steps", 0),
            ("replay", "yes"),
            ("strategy", "tpu"),
            ("tf_logging_level", 60),
            ("predict_batch_size", 0),
            ("max_pixels", 0),
        ],
    )
    def test_wrong_values_are_refused_by_name(self, name: str, value: object) -> None:
        with pytest.raises(ConfigError, match=f"{name} is .*allowed: "):
            SessionSettings(config=Path("pipeline.config"), **{name: value})  # type: ignore[arg-type]

    def test_directories_are_beside_the_config(self) -> None:
        project = SessionSettings(config=Path("a/pipeline.config"), export_dir=Path("b")).project
        assert (project.data_dir, project.model_dir, project.export_dir) == (Path("a/data"), Path("a/model"), Path("b"))

    def test_directories_must_differ(self) -> None:
        with pytest.raises(ConfigError, match="three different directories"):
            SessionSettings(config=Path("a/pipeline.config"), data_dir=Path("a/./model"))

    def test_the_port_of_an_external_server(self) -> None:
        settings = SessionSettings(config=Path("pipeline.config"), ip="gpu-box")
        assert settings.external_server and settings.server_url == "http://gpu-box:8501"


class TestCommands:
    def test_the_trainer_gets_its_settings_by_a_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        settings = SessionSettings(config=Path("p/pipeline.config"), label_map_path=Path("l.pbtxt"), eval_split=0.2)
        settings.project.create()
        command = trainer_command(settings, "http://127.0.0.1:8501")
        run_path = tmp_path / "p" / "model" / "run.json"
        assert command[:6] == [sys.executable, "-m", "odkeras", "trainer", "--config", str(run_path)]
        assert command[-1] == "--stop-on-stdin-eof"
        run = read_run(run_path)
        assert (run.config, run.data_dir) == (tmp_path / "p" / "pipeline.config", tmp_path / "p" / "data")
        assert (run.label_map_path, run.eval_split, run.steps_per_epoch) == (tmp_path / "l.pbtxt", 0.2, -1)
        assert run.serving_url == "http://127.0.0.1:8501"

    def test_the_command_for_another_machine_works_as_pasted(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It had relative paths, spaces without quotes, and asked 127.0.0.1 there for the version served here."""
        monkeypatch.chdir(tmp_path)
        settings = SessionSettings(config=Path("my photos/pipeline.config"), model_name="birds")
        settings.project.create()
        arguments = shlex.split(external_trainer_command(settings, "http://127.0.0.1:8501"))
        run_path = tmp_path / "my photos" / "model" / "run.json"
        assert arguments == ["odkeras", "trainer", "--config", str(run_path)]
        assert read_run(run_path).serving_url == ""
        external_trainer_command(settings, "http://gpu-box:8501")
        assert (read_run(run_path).serving_url, read_run(run_path).model_name) == ("http://gpu-box:8501", "birds")

    @pytest.mark.parametrize(
        ("ip", "url"),
        [
            ("127.0.0.1", "http://127.0.0.1:8501"),
            ("0.0.0.0", "http://127.0.0.1:8501"),  # listens everywhere: it is on this machine, too
            ("::", "http://127.0.0.1:8501"),
            ("::1", "http://[::1]:8501"),
            ("gpu-box", "http://gpu-box:8501"),
        ],
    )
    def test_where_a_server_that_listens_there_is_asked(self, ip: str, url: str) -> None:
        assert SessionSettings(config=Path("c"), ip=ip).server_url == url

    def test_embedded_server_gets_the_socket(self, tmp_path: Path) -> None:
        with open_listener("127.0.0.1", 0) as bound:
            child = server_child(SessionSettings(config=tmp_path / "c"), tmp_path / "log", bound)
            assert child.pass_fds == (bound.fileno(),)
            assert f"--socket-fd {bound.fileno()}" in " ".join(child.command)
            assert "--tf-logging-level 40" in " ".join(child.command)
            assert child.error is ServingError

    def test_tensorflow_serving_gets_the_port_and_a_leash(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        program = tmp_path / "tensorflow_model_server"
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
        with open_listener("127.0.0.1", 0) as bound:
            port = bound.getsockname()[1]
            child = server_child(
                SessionSettings(config=tmp_path / "c", tensorflow_serving=True), tmp_path / "log", bound
            )
            assert bound.fileno() == -1
        assert child.pass_fds == ()
        assert child.command[1:4] == ("-m", "odkeras.session.exit_with_parent", str(program))
        assert f"--rest_api_port={port}" in child.command
        assert child.env == {"TF_CPP_MIN_LOG_LEVEL": "3"}


class TestLabelMap:
    def test_named_by_the_options(self, tmp_path: Path) -> None:
        LabelMap.from_names(["a"]).save(tmp_path / "l.pbtxt")
        assert load_label_map(options(tmp_path, label_map_path=tmp_path / "l.pbtxt")).names == ("a",)

    def test_a_config_fresh_from_the_zoo(self, tmp_path: Path) -> None:
        """Its label map was reported as a missing file, and after that one placeholder after another."""
        label_map = 'train_input_reader { label_map_path: "PATH_TO_BE_CONFIGURED"'
        keypoints = "num_classes: 1 keypoint_label_map_path: 'PATH_TO_BE_CONFIGURED' keypoint_estimation_task {}"
        zoo = read_template("centernet_resnet50_512").replace("num_classes: 1", keypoints)
        (tmp_path / "pipeline.config").write_text(zoo.replace("train_input_reader {", label_map))
        with pytest.raises(ConfigError) as caught:
            load_label_map(options(tmp_path))
        for field in ("train_input_reader.label_map_path", "model.center_net.keypoint_label_map_path"):
            assert f"{field} 'PATH_TO_BE_CONFIGURED': " in str(caught.value)

    def test_a_config_that_the_trainer_refuses(self, tmp_path: Path) -> None:
        """The page opened, and the trainer failed seconds later."""
        config = read_template("ssd_mobilenet_v2_fpnlite_320").replace("height: 320", "height: 300")
        (tmp_path / "pipeline.config").write_text(config)
        LabelMap.from_names(["thing"]).save(tmp_path / "l.pbtxt")
        given = {"label_map_path": tmp_path / "l.pbtxt"}
        with pytest.raises(ConfigError, match=r"fixed_shape_resizer.height '300': must be a multiple of 32"):
            SessionSetup.of(options(tmp_path, **given))
        SessionSetup.of(options(tmp_path, external_trainer=True, **given))

    def test_not_there(self, project: Path) -> None:
        (project / "label_map.pbtxt").unlink()
        with pytest.raises(LabelMapError), start(options(project)):
            pass


class TestSession:
    @pytest.fixture
    def session(self, project: Path) -> Iterator[AnnotationSession]:
        with start(options(project)) as session:
            wait_until(session.available_version)
            yield session

    def test_learns_from_answers(self, session: AnnotationSession, project: Path) -> None:
        first = list(session.stream(project / "images"))
        assert [task.spans for task in first] == [(), (), ()]
        assert all(task.suggestions is not None for task in first)
        version = session.available_version()
        assert version is not None
        session.submit([accepted(task) for task in first])
        wait_until(lambda: (session.available_version() or 0) > version)
        (span,) = next(session.stream(project / "images")).spans
        assert span.label == "thing"
        status = session.status()
        assert status.failure == ""
        assert status.trainer is not None
        assert status.version == session.available_version()

    @pytest.mark.parametrize(
        ("reported", "age_s", "loss"),
        [
            (0.25, 0.0, 0.25),
            (None, 0.0, None),
            (0.25, 3600.0, None),  # an earlier trainer's
        ],
    )
    def test_the_latest_loss_is_of_this_session_s_trainer(
        self, session: AnnotationSession, reported: float | None, age_s: float, loss: float | None
    ) -> None:
        status = {"loss": reported, "updated": time.time() - age_s}
        write_atomically(session.project.status_path, json.dumps(status))
        assert session.latest_loss() == loss

    def test_waits_until_what_was_trained_on_a_batch_is_served(self, session: AnnotationSession, project: Path) -> None:
        batch = submit(session, project)
        assert session.wait_until_served(batch) == 1 / 5  # the fake trainer's loss after 5 steps
        (row,) = read_jsonl(session.project.metrics_path)
        assert row["batches"] == [batch.name]
        assert session.available_version() == row["version"]

    def test_waits_no_longer_than_it_is_wanted(self, session: AnnotationSession, project: Path) -> None:
        asked = iter([False, False, True])
        assert session.wait_until_served(session.project.inbox_dir / "none.jsonl", stop=lambda: next(asked)) is None

    @pytest.mark.parametrize("mode", ["lose-batch", "fail-round", "wrong-config"])
    def test_waits_for_nothing_that_cannot_come(
        self, project: Path, monkeypatch: pytest.MonkeyPatch, mode: str
    ) -> None:
        """lose-batch: all of it was rejected; fail-round: the loss was not finite."""
        monkeypatch.setenv("FAKE_TRAINER", mode)
        monkeypatch.setattr(waiting, "LOST_AFTER_S", 0.2)
        with start(options(project)) as session:
            assert session.wait_until_served(submit(session, project)) is None
            assert (session.failure() is not None) == (mode == "wrong-config")

    def test_so_many_images_as_wanted_are_predicted_in_one_request(
        self, project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """More than eight went to the server by eights, whatever was asked for."""
        with start(options(project, predict_batch_size=9)) as session:
            wait_until(session.available_version)
            sizes: list[int] = []
            ask = session.model.client._predict_batch

            def noting(images: list[bytes], version: int | None) -> Any:
                sizes.append(len(images))
                return ask(images, version)

            monkeypatch.setattr(session.model.client, "_predict_batch", noting)
            next(session.stream([project / "images" / "0.png"] * 20))
        assert sizes == [9]

    def test_the_listener_gets_each_task_with_suggestions(self, project: Path) -> None:
        recorder = Recorder()
        with start(options(project), recorder) as session:
            wait_until(session.available_version)
            list(session.stream(project / "images"))
        assert recorder.suggested_files == ["0.png", "1.png", "2.png"]

    def test_the_listener_gets_an_event_for_each_step(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FAKE_TRAINER", "step_s=0.1")  # long enough to be seen
        recorder = Recorder()
        with start(options(project), recorder) as session:
            wait_until(session.available_version)
            batch = submit(session, project)
            session.wait_until_served(batch)
            (row,) = read_jsonl(session.project.metrics_path)
            wait_until(
                lambda: any(
                    item.text.endswith(" is served") and item.version == row["version"] for item in recorder.events
                )
            )
        texts = recorder.texts
        name = VersionNames([row]).of(row["version"])
        steps = [
            "trainer: round 1, 5 steps: training on 1 batches",
            f"round 1: trained 5 steps on 3 images in {row['train_s']:.1f} s, loss 0.2",
            f"model of {name} published",
            f"model of {name} is served",
        ]
        assert [text for text in texts if text in steps] == steps
        assert not any(item.urgent for item in recorder.events)

    def test_a_failure_is_an_urgent_event(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FAKE_TRAINER", "wrong-config")
        recorder = Recorder()
        with start(options(project), recorder):
            wait_until(lambda: recorder.urgent)
        expected = "training or suggestions failed, annotation continues: the trainer ended with status"
        assert recorder.urgent[0].startswith(expected)

    def test_a_crash_is_a_warning(self, project: Path) -> None:
        recorder = Recorder()
        with start(options(project), recorder) as session:
            wait_until(session.available_version)
            server = session._processes.pids()["server"]
            assert server is not None
            os.kill(server, signal.SIGKILL)
            wait_until(lambda: recorder.urgent)
        assert recorder.urgent[0].startswith("server was killed by SIGKILL; restarting it in 1 s")

    def test_suggestions_stop_and_come_back(self, project: Path) -> None:
        recorder = Recorder()
        with start(options(project), recorder) as session:
            wait_until(session.available_version)
            stream = session.stream([project / "images" / "0.png"] * 1000)
            assert next(stream).suggestions is not None
            server = session._processes.pids()["server"]
            assert server is not None
            os.kill(server, signal.SIGKILL)
            wait_until(lambda: not session._processes.running("server"))
            wait_until(lambda: next(stream).suggestions is None)
            wait_until(lambda: next(stream).suggestions is not None)
        assert any(text.startswith("no suggestions: ") for text in recorder.texts)
        assert "suggestions are available again" in recorder.texts

    def test_skipped_images_are_said(self, project: Path) -> None:
        (project / "images" / "1.png").write_bytes(b"broken")
        recorder = Recorder()
        with start(options(project), recorder) as session:
            assert len(list(session.stream(project / "images"))) == 2
        assert any("skipped" in text and "1.png" in text for text in recorder.texts)

    def test_close_twice_and_nothing_is_left(self, project: Path) -> None:
        session = start(options(project))
        with session:
            pids = [pid for pid in session._processes.pids().values() if pid is not None]
            session.close()
        session.close()
        assert len(pids) == 2
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)

    @pytest.mark.parametrize("labels", [[[1, "other"]], [[1, "thing"], [2, "gone"]], [[1, "thing"]]])
    def test_what_does_not_fit_the_trained_model_starts_nothing(self, project: Path, labels: list[list[Any]]) -> None:
        """For every host, the simulated annotator too; with the same classes the checkpoints are missing."""
        extra = project / "export" / "17" / "assets.extra"
        extra.mkdir(parents=True)
        (extra / "odkeras.json").write_text(json.dumps({"step": 30, "graph": "", "labels": labels}))
        message = "no checkpoint in" if labels == [[1, "thing"]] else "was trained with another label map"
        with pytest.raises(OdkerasError, match=message), start(options(project)):
            pass
        assert not (project / "model").exists() and not (project / "data").exists()

    def test_a_wrong_config_is_a_failure_with_the_log(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FAKE_TRAINER", "wrong-config")
        with start(options(project)) as session:
            wait_until(session.failure)
            assert isinstance(session.failure(), ConfigError)
            assert "train_config.batch_size is 0" in str(session.failure())

    def test_a_file_in_the_way(self, project: Path) -> None:
        (project / "data").write_text("")
        with pytest.raises(ConfigError), start(options(project)):
            pass


class TestExternal:
    """Nobody is started: somebody else trains and serves."""

    @pytest.fixture
    def session(self, project: Path) -> Iterator[AnnotationSession]:
        with open_listener("127.0.0.1", 0) as nobody:
            port = nobody.getsockname()[1]
        settings = options(project, external_trainer=True, ip="127.0.0.1", port=port)
        with start(settings, report_events=False) as session:  # tests replace what the events are made of
            yield session

    def test_no_processes(self, session: AnnotationSession, project: Path) -> None:
        assert session._processes.pids() == {}
        assert not (project / "model" / "logs").exists()
        assert session.available_version() is None
        assert [task.spans for task in session.stream(project / "images")] == [(), (), ()]

    def test_the_trainers_failure_is_in_its_status(self, session: AnnotationSession) -> None:
        assert session.failure() is None
        write_atomically(
            session.project.status_path, json.dumps({"state": "failed", "reason": "no GPU", "updated": 1.0})
        )
        assert isinstance(session.failure(), TrainingError)
        assert "no GPU" in str(session.failure())

    def test_another_program_at_the_servers_port(self, project: Path) -> None:
        with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as other:
            threading.Thread(target=other.serve_forever, daemon=True).start()
            with start(options(project, external_trainer=True, ip="127.0.0.1", port=other.server_port)) as session:
                with pytest.raises(RequestError, match="not TensorFlow Serving"):
                    session.available_version()
                assert "not TensorFlow Serving" in session.status().failure
                assert [task.spans for task in session.stream(project / "images")] == [(), (), ()]
            other.shutdown()

    def test_answers_are_durable_when_submit_returns(self, session: AnnotationSession) -> None:
        answer = {"image_id": "a", "answer": "reject"}
        session.submit([answer])
        (batch,) = list_batches(session.project.inbox_dir)
        assert list(read_batch(batch)) == [(answer, None)]

    def test_batches_have_no_images(self, session: AnnotationSession, project: Path) -> None:
        """They lie beside them, so that an update takes no longer than writing the boxes."""
        tasks = list(session.stream(project / "images"))
        session.submit([accepted(task) for task in tasks])
        (batch,) = list_batches(session.project.inbox_dir)
        answers = [answer for answer, _ in read_batch(batch) if answer]
        assert len(answers) == 3
        for task, answer in zip(tasks, answers, strict=True):
            assert "image" not in answer
            assert (images_dir(batch.parent) / answer["stored_image"]).read_bytes() == image_bytes(task)
            assert answer["image_id"] == task.image_id

    def test_a_batch_that_is_submitted_again_under_its_name_is_one_batch(self, session: AnnotationSession) -> None:
        answers, name = [{"image_id": "a", "answer": "reject"}], session.new_batch_name()
        assert session.submit(answers, batch=name) == session.submit(answers, batch=name)
        assert [batch.name for batch in list_batches(session.project.inbox_dir)] == [name]

    def test_answers_that_come_when_all_is_stopped_are_for_the_next_time(self, session: AnnotationSession) -> None:
        session.close()
        path = session.submit([{"image_id": "a", "answer": "reject"}])
        assert list_batches(session.project.inbox_dir) == [path]

    def test_an_image_that_is_answered_is_not_read_in_the_next_session(
        self, session: AnnotationSession, project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answered = {task.image_id for task in session.stream(project / "images")}

        def refuse(*_: object, **__: object) -> None:
            raise AssertionError("read")

        monkeypatch.setattr("odkeras.session.sources.read_image", refuse)
        stream = session.stream(project / "images", exclude=answered)
        assert list(stream) == []
        assert stream.excluded == 3

    def test_the_trainer_is_looked_at_last(self, session: AnnotationSession, monkeypatch: pytest.MonkeyPatch) -> None:
        """A round whose line was written while the server was asked was told of before its start."""

        def slow_server() -> int:
            write_atomically(session.project.status_path, json.dumps({"state": "training", "updated": 1.0}))
            return 3

        write_atomically(session.project.status_path, json.dumps({"state": "waiting", "updated": 1.0}))
        monkeypatch.setattr(session, "available_version", slow_server)
        look = session.status()
        assert (look.trainer, look.version, look.failure) == ({"state": "training", "updated": 1.0}, 3, "")

    def test_waits_for_a_round_on_another_machine(
        self, session: AnnotationSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        batch = session.submit([{"image_id": "a", "answer": "accept"}])
        assert batch is not None
        served = iter([None, 16, 17])
        monkeypatch.setattr(session, "available_version", lambda: next(served))
        row = {"kind": "round", "batches": [batch.name], "version": 17, "loss": 0.5}
        append_jsonl(session.project.metrics_path, [row])
        assert session.wait_until_served(batch) == 0.5
        assert list(served) == []

    def test_a_batch_that_cannot_be_written_is_an_error(self, session: AnnotationSession) -> None:
        session.project.inbox_dir.rmdir()
        session.project.inbox_dir.write_text("a file in the way")
        with pytest.raises(InboxError, match="cannot store 1 answers"):
            session.submit([{"image_id": "a"}])


def test_no_tensorflow() -> None:
    code = "import sys, odkeras.simulation.simulate, odkeras.shapes; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0
