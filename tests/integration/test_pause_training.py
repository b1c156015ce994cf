"""Training that is paused, resumed and stopped, with the tiny real trainer."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from waiting import wait_until

from odkeras.annotation import Annotation
from odkeras.control import Control
from odkeras.export.publish import read_export_info
from odkeras.inbox import list_batches
from odkeras.model.checkpoint import checkpoint_step, list_checkpoints
from odkeras.training.rounds import Rounds
from odkeras.training.trainer import StepReport
from odkeras.version_dirs import list_versions
from tests.fixtures_training import LABEL_MAP, TinyProject

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("shared_models")]

STEPS = 6
PAUSED_S = 0.5


def begin(project: TinyProject, should_stop: Callable[[], bool] = lambda: False) -> Rounds:
    settings = project.settings(steps_per_epoch=STEPS)
    return Rounds(project.config(), LABEL_MAP, settings, should_stop=should_stop)


def control_of(project: TinyProject) -> Control:
    return Control(project.directories.control_path)


def version_steps(project: TinyProject) -> list[int]:
    """At which steps the versions were published."""
    export_dir = project.directories.export_dir
    found = [read_export_info(export_dir / str(version)) for version in list_versions(export_dir)]
    return [info.step for info in found if info is not None]


def at_step(rounds: Rounds, number: int, act: Callable[[], Any]) -> None:
    """Do something right after a step of the round."""
    original = rounds._summaries.step

    def step(report: StepReport) -> None:
        original(report)
        if report.step == number:
            act()
            time.sleep(0.06)  # the file is looked at a few times a second

    rounds._summaries.step = step  # type: ignore[method-assign]


class Onlooker:
    """Resumes training some time after it was paused; keeps what status.json said meanwhile."""

    def __init__(self, project: TinyProject, after: Callable[[], Any]) -> None:
        self._project, self._after = project, after
        self.said: dict[str, Any] = {}
        self._thread = threading.Thread(target=self._look)

    def pause(self) -> None:
        control_of(self._project).set("pause")
        self._thread.start()

    def _look(self) -> None:
        while self._project.status().get("state") != "paused":
            time.sleep(0.01)
        time.sleep(PAUSED_S)
        self.said = self._project.status()
        self._after()


def test_a_pause_in_the_middle_of_a_round(project: TinyProject, shapes: list[Annotation]) -> None:
    rounds = begin(project)
    project.put(shapes[:4])
    onlooker = Onlooker(project, lambda: control_of(project).set("resume"))
    at_step(rounds, 2, onlooker.pause)
    started = time.monotonic()
    assert rounds.run_pending()
    took_s = time.monotonic() - started
    assert onlooker.said["state"] == "paused"
    assert onlooker.said["reason"] == f"paused in round 1, at step 2 of {STEPS}"
    (row,) = project.metrics()
    assert (row["round"], row["steps"], row["step"]) == (1, STEPS, STEPS)
    assert row["train_s"] < took_s - PAUSED_S, "the pause is no part of the training"
    assert version_steps(project) == [0, STEPS]
    assert project.status()["state"] == "waiting"


def test_stop_ends_the_round_and_publishes_what_it_has_learned(project: TinyProject, shapes: list[Annotation]) -> None:
    rounds = begin(project)
    project.put(shapes[:2])
    at_step(rounds, 3, lambda: control_of(project).set("stop"))
    assert rounds.run_pending()
    assert version_steps(project) == [0, 3]
    assert [checkpoint_step(each) for each in list_checkpoints(project.directories.model_dir)] == [3]
    (row,) = project.metrics()
    assert (row["round"], row["steps"], row["step"], row["outcome"]) == (1, 3, 3, "published")
    project.put(shapes[2:4])
    assert not rounds.run_pending()
    assert project.status()["state"] == "stopped"
    assert len(list_batches(project.directories.inbox_dir)) == 1, "new answers wait"
    control_of(project).set("resume")
    time.sleep(0.06)
    assert rounds.run_pending()
    assert [row["steps"] for row in project.metrics()] == [3, STEPS]


def test_stop_before_the_first_step_leaves_the_round_to_be_done(
    project: TinyProject, shapes: list[Annotation], monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = begin(project)
    project.put(shapes[:2])
    open_round = rounds._open_round

    def opened_and_stopped(new_records: Any) -> int:
        control_of(project).set("stop")
        time.sleep(0.06)
        return open_round(new_records)

    monkeypatch.setattr(rounds, "_open_round", opened_and_stopped)
    rounds.run_pending()
    assert project.metrics() == []
    assert version_steps(project) == [0]
    monkeypatch.undo()
    control_of(project).set("resume")
    time.sleep(0.06)
    assert rounds.run_pending()
    assert [row["steps"] for row in project.metrics()] == [STEPS]


def test_what_was_paused_stays_so_and_goes_on_from_the_very_step(
    project: TinyProject, shapes: list[Annotation]
) -> None:
    """The process is ended during the pause, which does not take long, and started again."""
    ended = threading.Event()
    rounds = begin(project, should_stop=ended.is_set)
    project.put(shapes[:4])
    ended_at: list[float] = []

    def end() -> None:
        ended_at.append(time.monotonic())
        ended.set()

    at_step(rounds, 2, Onlooker(project, end).pause)
    rounds.run_pending()
    rounds.close()
    assert time.monotonic() - ended_at[0] < 2
    assert project.metrics() == []
    rounds = begin(project)
    assert not rounds.run_pending()
    assert (project.status()["state"], rounds._trainer.step) == ("paused", 2)
    control_of(project).set("resume")
    time.sleep(0.06)
    assert rounds.run_pending()
    assert [(row["steps"], row["step"]) for row in project.metrics()] == [(STEPS - 2, STEPS)]


def test_a_project_that_is_paused_gets_its_first_version(project: TinyProject, shapes: list[Annotation]) -> None:
    control_of(project).set("pause")
    project.put(shapes[:2])
    rounds = begin(project)
    assert version_steps(project) == [0], "so that there is a model to ask"
    assert not rounds.run_pending()
    assert project.status()["state"] == "paused"
    assert project.metrics() == []


@pytest.mark.timeout(300)
def test_the_trainer_s_own_process(project: TinyProject, shapes: list[Annotation]) -> None:
    """Resumed by the command from another process; SIGTERM ends it at once while it is paused."""
    odkeras = [sys.executable, "-m", "odkeras"]
    subprocess.run([*odkeras, "training", "pause", str(project.folder)], check=True, timeout=60)
    project.put(shapes[:2])
    command = [*odkeras, "trainer", str(project.config_path), "--steps-per-epoch", str(STEPS)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as trainer:
        try:
            wait_until(lambda: project.status().get("state") == "paused")
            assert project.metrics() == []
            subprocess.run([*odkeras, "training", "resume", str(project.folder)], check=True, timeout=60)
            wait_until(lambda: [row["steps"] for row in project.metrics()] == [STEPS])
            subprocess.run([*odkeras, "training", "pause", str(project.folder)], check=True, timeout=60)
            wait_until(lambda: project.status().get("state") == "paused")
            trainer.send_signal(signal.SIGTERM)
            assert trainer.wait(10) == 0
        finally:
            trainer.kill()
    assert project.status()["state"] == "ended"
