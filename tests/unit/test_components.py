from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import fake_processes
import numpy as np
import pytest
from PIL import Image

from odkeras.errors import (
    ConfigError,
    LabelMapError,
    OdkerasError,
    RequestError,
    ServingError,
    SetupError,
    TrainingError,
)
from odkeras.inbox import images_dir, list_batches, read_batch
from odkeras.labels import LabelMap
from odkeras.project import append_jsonl, read_jsonl, write_atomically
from odkeras.session import components, waiting
from odkeras.session.children import external_trainer_command, server_child, server_url, trainer_command
from odkeras.session.components import Loop, LoopOptions, load_label_map
from odkeras.session.suggester import image_bytes
from odkeras.session.supervisor import bind_socket
from odkeras.session.watch import News
from odkeras.version_names import VersionNames


def wait_until(condition: Callable[[], object], timeout_s: float = 15.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


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


def submit(loop: Loop, project: Path) -> Path:
    batch = loop.submit([{**task, "answer": "accept"} for task in loop.stream(project / "images")])
    assert batch is not None
    return batch


def options(project: Path, **changes: object) -> LoopOptions:
    return LoopOptions(**{"config": project / "pipeline.config", "steps_per_epoch": 5, **changes})  # type: ignore[arg-type]


class TestLoopOptions:
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
            LoopOptions(config=Path("pipeline.config"), **{name: value})  # type: ignore[arg-type]

    def test_directories_are_beside_the_config(self) -> None:
        project = LoopOptions(config=Path("a/pipeline.config"), export_dir=Path("b")).project
        assert (project.data_dir, project.model_dir, project.export_dir) == (Path("a/data"), Path("a/model"), Path("b"))

    def test_directories_must_differ(self) -> None:
        with pytest.raises(ConfigError, match="three different directories"):
            LoopOptions(config=Path("a/pipeline.config"), data_dir=Path("a/./model"))

    def test_an_external_server_needs_a_port(self) -> None:
        with pytest.raises(ConfigError, match="port"):
            LoopOptions(config=Path("pipeline.config"), external_server=True)


class TestCommands:
    def test_trainer(self) -> None:
        command = trainer_command(LoopOptions(config=Path("p/pipeline.config")), "http://127.0.0.1:8501")
        here = Path.cwd()
        assert command[:5] == [sys.executable, "-m", "odkeras", "trainer", f"{here}/p/pipeline.config"]
        text = " ".join(command)
        assert f"--data-dir {here}/p/data --model-dir {here}/p/model --export-dir {here}/p/export" in text
        assert "--serving-url http://127.0.0.1:8501 --model-name odkeras" in text
        assert "--steps-per-epoch 1000 --temp-files-num 5 --max-checkpoints-num 5 --replay on" in text
        assert "--label-map-path" not in text
        assert "--run-eval" not in text
        assert command[-1] == "--stop-on-stdin-eof"

    def test_trainer_with_everything(self) -> None:
        changes = LoopOptions(
            config=Path("c"), label_map=Path("l.pbtxt"), run_eval=True, eval_steps=7, replay="off", steps_per_epoch=-1
        )
        text = " ".join(trainer_command(changes, ""))
        for part in (
            f"--label-map-path {Path.cwd()}/l.pbtxt",
            "--run-eval",
            "--eval-steps 7",
            "--replay off",
            "--steps-per-epoch -1",
        ):
            assert part in text

    def test_the_command_for_another_machine_works_as_pasted(self) -> None:
        """It had relative paths, spaces without quotes, and asked 127.0.0.1 there for the version served here."""
        options = LoopOptions(config=Path("my photos/pipeline.config"), model_name="birds")
        command = external_trainer_command(options, "http://127.0.0.1:8501")
        arguments = shlex.split(command)
        assert arguments[:3] == ["odkeras", "trainer", f"{Path.cwd()}/my photos/pipeline.config"]
        assert all(Path(each).is_absolute() for each in arguments if "my photos" in each)
        assert "--serving-url" not in command and "stdin" not in command
        assert "--serving-url http://gpu-box:8501" in external_trainer_command(options, "http://gpu-box:8501")

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
        assert server_url(ip, 8501) == url

    def test_embedded_server_gets_the_socket(self, tmp_path: Path) -> None:
        with bind_socket("127.0.0.1", 0) as bound:
            child = server_child(LoopOptions(config=tmp_path / "c"), tmp_path / "log", bound)
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
        with bind_socket("127.0.0.1", 0) as bound:
            port = bound.getsockname()[1]
            child = server_child(LoopOptions(config=tmp_path / "c", tensorflow_serving=True), tmp_path / "log", bound)
            assert bound.fileno() == -1
        assert child.pass_fds == ()
        assert child.command[1:4] == ("-m", "odkeras.session.leash", str(program))
        assert f"--rest_api_port={port}" in child.command
        assert child.env == {"TF_CPP_MIN_LOG_LEVEL": "3"}


class TestLabelMap:
    def test_named_by_the_options(self, tmp_path: Path) -> None:
        LabelMap.from_names(["a"]).save(tmp_path / "l.pbtxt")
        assert load_label_map(options(tmp_path, label_map=tmp_path / "l.pbtxt")).names == ("a",)

    def test_named_by_nobody(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(components, "label_map_path_of", lambda config: None)
        with pytest.raises(ConfigError, match="names no label map"):
            load_label_map(options(project))

    def test_not_there(self, project: Path) -> None:
        (project / "label_map.pbtxt").unlink()
        with pytest.raises(LabelMapError), Loop(options(project)):
            pass


class TestLoop:
    @pytest.fixture
    def loop(self, project: Path) -> Iterator[Loop]:
        with Loop(options(project)) as loop:
            wait_until(loop.available_version)
            yield loop

    def test_learns_from_answers(self, loop: Loop, project: Path) -> None:
        first = list(loop.stream(project / "images"))
        assert [task["spans"] for task in first] == [[], [], []]
        assert all("_suggestions" in task for task in first)
        version = loop.available_version()
        assert version is not None
        loop.update([{**task, "answer": "accept"} for task in first])
        wait_until(lambda: (loop.available_version() or 0) > version)
        (span,) = next(loop.stream(project / "images"))["spans"]
        assert span["label"] == "thing"
        status = loop.status()
        assert status.failure is None
        assert status.trainer is not None
        assert status.version == loop.available_version()

    @pytest.mark.parametrize(
        ("reported", "age_s", "loss"),
        [
            (0.25, 0.0, 0.25),
            (None, 0.0, None),
            (0.25, 3600.0, None),  # an earlier trainer's
        ],
    )
    def test_update_returns_the_latest_loss(
        self, loop: Loop, reported: float | None, age_s: float, loss: float | None
    ) -> None:
        status = {"loss": reported, "updated": time.time() - age_s}
        write_atomically(loop.project.status_path, json.dumps(status))
        assert loop.update([]) == loop.latest_loss() == loss

    def test_waits_until_what_was_trained_on_a_batch_is_served(self, loop: Loop, project: Path) -> None:
        batch = submit(loop, project)
        assert loop.wait_until_served(batch) == 1 / 5  # the fake trainer's loss after 5 steps
        (row,) = read_jsonl(loop.project.metrics_path)
        assert row["batches"] == [batch.name]
        assert loop.available_version() == row["version"]

    def test_waits_no_longer_than_it_is_wanted(self, loop: Loop, project: Path) -> None:
        asked = iter([False, False, True])
        assert loop.wait_until_served(loop.project.inbox_dir / "none.jsonl", stop=lambda: next(asked)) is None

    @pytest.mark.parametrize("mode", ["lose-batch", "fail-round", "wrong-config"])
    def test_waits_for_nothing_that_cannot_come(
        self, project: Path, monkeypatch: pytest.MonkeyPatch, mode: str
    ) -> None:
        """lose-batch: all of it was rejected; fail-round: the loss was not finite."""
        monkeypatch.setenv("FAKE_TRAINER", mode)
        monkeypatch.setattr(waiting, "LOST_AFTER_S", 0.2)
        with Loop(options(project)) as loop:
            assert loop.wait_until_served(submit(loop, project)) is None
            assert (loop.failure() is not None) == (mode == "wrong-config")

    def test_so_many_images_as_wanted_are_predicted_in_one_request(
        self, project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """More than eight went to the server by eights, whatever was asked for."""
        with Loop(options(project, predict_batch_size=9)) as loop:
            wait_until(loop.available_version)
            sizes: list[int] = []
            ask = loop.client._predict_batch

            def noting(images: list[bytes], version: int | None) -> Any:
                sizes.append(len(images))
                return ask(images, version)

            monkeypatch.setattr(loop.client, "_predict_batch", noting)
            next(loop.stream([project / "images" / "0.png"] * 20))
        assert sizes == [9]

    def test_each_task_with_suggestions_is_told_of(self, project: Path) -> None:
        told: list[str] = []
        with Loop(options(project), on_suggested=lambda task, _: told.append(task["meta"]["file"])) as loop:
            wait_until(loop.available_version)
            list(loop.stream(project / "images"))
        assert told == ["0.png", "1.png", "2.png"]

    def test_the_watch_tells_of_each_step(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FAKE_TRAINER", "step_s=0.1")  # long enough to be seen
        news: list[News] = []
        with Loop(options(project), watch=news.append) as loop:
            wait_until(loop.available_version)
            batch = submit(loop, project)
            loop.wait_until_served(batch)
            (row,) = read_jsonl(loop.project.metrics_path)
            wait_until(
                lambda: any(item.text.endswith(" is served") and item.version == row["version"] for item in news)
            )
        texts = [item.text for item in news]
        name = VersionNames([row]).of(row["version"])
        steps = [
            "trainer: round 1, 5 steps: training on 1 batches",
            f"round 1: trained 5 steps on 3 images in {row['train_s']:.1f} s, loss 0.2",
            f"model of {name} published",
            f"model of {name} is served",
        ]
        assert [text for text in texts if text in steps] == steps
        assert not any(item.urgent for item in news)

    def test_the_watch_tells_of_a_failure(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FAKE_TRAINER", "wrong-config")
        news: list[News] = []
        with Loop(options(project), watch=news.append):
            wait_until(lambda: any(item.urgent for item in news))
        text = next(item.text for item in news if item.urgent)
        assert text.startswith("annotating goes on, but training or suggestions do not: the trainer ended with status")

    def test_a_crash_is_a_warning(self, project: Path) -> None:
        said: list[str] = []
        warned: list[str] = []
        with Loop(options(project), say=said.append, warn=warned.append) as loop:
            wait_until(loop.available_version)
            server = loop._supervisor.pids()["server"]
            assert server is not None
            os.kill(server, signal.SIGKILL)
            wait_until(lambda: warned)
        assert warned[0].startswith("server was ended by SIGKILL; starting it again in 1 s")
        assert not any("SIGKILL" in text for text in said)

    def test_suggestions_stop_and_come_back(self, project: Path) -> None:
        said: list[str] = []
        with Loop(options(project), say=said.append) as loop:
            wait_until(loop.available_version)
            stream = loop.stream([project / "images" / "0.png"] * 1000)
            assert "_suggestions" in next(stream)
            server = loop._supervisor.pids()["server"]
            assert server is not None
            os.kill(server, signal.SIGKILL)
            wait_until(lambda: not loop._supervisor.running("server"))
            wait_until(lambda: "_suggestions" not in next(stream))
            wait_until(lambda: "_suggestions" in next(stream))
        assert any(text.startswith("no suggestions for now: ") for text in said)
        assert "suggestions are back" in said

    def test_skipped_images_are_said(self, project: Path) -> None:
        (project / "images" / "1.png").write_bytes(b"broken")
        said: list[str] = []
        with Loop(options(project), say=said.append) as loop:
            assert len(list(loop.stream(project / "images"))) == 2
        assert any("skipped" in text and "1.png" in text for text in said)

    def test_close_twice_and_nothing_is_left(self, project: Path) -> None:
        loop = Loop(options(project))
        with loop:
            pids = [pid for pid in loop._supervisor.pids().values() if pid is not None]
            loop.close()
        loop.close()
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
        with pytest.raises(OdkerasError, match=message), Loop(options(project)):
            pass
        assert not (project / "model").exists() and not (project / "data").exists()

    def test_a_wrong_config_is_a_failure_with_the_log(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FAKE_TRAINER", "wrong-config")
        with Loop(options(project)) as loop:
            wait_until(loop.failure)
            assert isinstance(loop.failure(), ConfigError)
            assert "train_config.batch_size is 0" in str(loop.failure())

    def test_a_taken_port(self, project: Path) -> None:
        with (
            bind_socket("127.0.0.1", 0) as other,
            pytest.raises(SetupError, match="another program"),
            Loop(options(project, port=other.getsockname()[1])),
        ):
            pass

    def test_the_given_port_is_used(self, project: Path) -> None:
        with bind_socket("127.0.0.1", 0) as other:
            port = other.getsockname()[1]
        with Loop(options(project, port=port, ip="0.0.0.0")) as loop:
            assert loop.url == f"http://127.0.0.1:{port}"
            wait_until(loop.available_version)

    def test_a_file_in_the_way(self, project: Path) -> None:
        (project / "data").write_text("")
        with pytest.raises(ConfigError), Loop(options(project)):
            pass


class TestExternal:
    """Nobody is started: somebody else trains and serves."""

    @pytest.fixture
    def loop(self, project: Path) -> Iterator[Loop]:
        with bind_socket("127.0.0.1", 0) as nobody:
            port = nobody.getsockname()[1]
        with Loop(options(project, external_trainer=True, external_server=True, port=port)) as loop:
            yield loop

    def test_no_processes(self, loop: Loop, project: Path) -> None:
        assert loop._supervisor.pids() == {}
        assert not (project / "model" / "logs").exists()
        assert loop.available_version() is None
        assert [task["spans"] for task in loop.stream(project / "images")] == [[], [], []]

    def test_the_trainers_failure_is_in_its_status(self, loop: Loop) -> None:
        assert loop.failure() is None
        write_atomically(loop.project.status_path, json.dumps({"state": "failed", "reason": "no GPU", "updated": 1.0}))
        assert isinstance(loop.failure(), TrainingError)
        assert "no GPU" in str(loop.failure())

    def test_another_program_at_the_servers_port(self, project: Path) -> None:
        with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as other:
            threading.Thread(target=other.serve_forever, daemon=True).start()
            with Loop(options(project, external_trainer=True, external_server=True, port=other.server_port)) as loop:
                with pytest.raises(RequestError, match="not TensorFlow Serving"):
                    loop.available_version()
                assert isinstance(loop.status().failure, RequestError)
                assert [task["spans"] for task in loop.stream(project / "images")] == [[], [], []]
            other.shutdown()

    def test_answers_are_durable_when_update_returns(self, loop: Loop) -> None:
        answer = {"image_id": "a", "answer": "reject"}
        assert loop.update([answer]) is None
        (batch,) = list_batches(loop.project.inbox_dir)
        assert list(read_batch(batch)) == [(answer, None)]

    def test_batches_have_no_images(self, loop: Loop, project: Path) -> None:
        """They lie beside them, so that an update takes no longer than writing the boxes."""
        tasks = list(loop.stream(project / "images"))
        loop.update([{**task, "answer": "accept"} for task in tasks])
        (batch,) = list_batches(loop.project.inbox_dir)
        answers = [answer for answer, _ in read_batch(batch) if answer]
        assert len(answers) == 3
        for task, answer in zip(tasks, answers, strict=True):
            assert "image" not in answer
            assert (images_dir(batch.parent) / answer["stored_image"]).read_bytes() == image_bytes(task)
            assert answer["image_id"] == task["image_id"]

    def test_answers_that_are_sent_again_are_stored_once(self, loop: Loop) -> None:
        answers = [{"image_id": "a", "answer": "reject"}]
        batch = loop.submit(answers)
        assert list_batches(loop.project.inbox_dir) == [batch]
        assert loop.submit(answers) is None
        assert loop.store(answers) is None
        loop.update(answers)
        assert list_batches(loop.project.inbox_dir) == [batch]

    def test_answers_that_come_when_all_is_stopped_are_for_the_next_time(self, loop: Loop) -> None:
        loop.close()
        path = loop.store([{"image_id": "a", "answer": "reject"}])
        assert list_batches(loop.project.inbox_dir) == [path]

    def test_an_image_that_is_answered_is_not_read_in_the_next_session(
        self, loop: Loop, project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answered = {task["image_id"] for task in loop.stream(project / "images")}

        def refuse(*_: object, **__: object) -> None:
            raise AssertionError("read")

        monkeypatch.setattr("odkeras.session.sources.read_image", refuse)
        stream = loop.stream(project / "images", exclude=answered)
        assert list(stream) == []
        assert stream.excluded == 3

    def test_the_trainer_is_looked_at_last(self, loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
        """A round whose line was written while the server was asked was told of before its start."""

        def slow_server() -> int:
            write_atomically(loop.project.status_path, json.dumps({"state": "training", "updated": 1.0}))
            return 3

        write_atomically(loop.project.status_path, json.dumps({"state": "waiting", "updated": 1.0}))
        monkeypatch.setattr(loop, "available_version", slow_server)
        look = loop.look()
        assert (look.trainer, look.version, look.failure) == ({"state": "training", "updated": 1.0}, 3, "")

    def test_waits_for_a_round_on_another_machine(self, loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
        batch = loop.submit([{"image_id": "a", "answer": "accept"}])
        assert batch is not None
        served = iter([None, 16, 17])
        monkeypatch.setattr(loop, "available_version", lambda: next(served))
        row = {"kind": "round", "batches": [batch.name], "version": 17, "loss": 0.5}
        append_jsonl(loop.project.metrics_path, [row])
        assert loop.wait_until_served(batch) == 0.5
        assert list(served) == []

    def test_update_never_raises_and_loses_nothing(self, project: Path) -> None:
        warned: list[str] = []
        with Loop(options(project, external_trainer=True), warn=warned.append) as loop:
            inbox = loop.project.inbox_dir
            inbox.rmdir()
            inbox.write_text("a file in the way")
            loop.update([{"image_id": "a"}])
            loop.update([{"image_id": "b"}])
            assert warned[1].startswith("2 answers wait to be stored")
            inbox.unlink()
            loop.update([{"image_id": "c"}])
            (batch,) = list_batches(inbox)
            assert [answer["image_id"] for answer, _ in read_batch(batch) if answer] == ["a", "b", "c"]

    def test_what_could_not_be_stored_is_tried_again_at_the_end(self, project: Path) -> None:
        with Loop(options(project, external_trainer=True)) as loop:
            inbox = loop.project.inbox_dir
            inbox.rmdir()
            inbox.write_text("a file in the way")
            loop.update([{"image_id": "a"}])
            inbox.unlink()
        assert len(list_batches(inbox)) == 1

    def test_what_is_lost_is_said(self, project: Path) -> None:
        said: list[str] = []
        with Loop(options(project, external_trainer=True), say=said.append) as loop:
            loop.project.inbox_dir.rmdir()
            loop.project.inbox_dir.write_text("a file in the way")
            loop.update([{"image_id": "a"}])
        assert "1 answers could not be stored" in said[-1]


def test_no_tensorflow() -> None:
    code = "import sys, odkeras.simulation.simulate, odkeras.shapes; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0
