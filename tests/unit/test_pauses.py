"""Holding between steps and between rounds, without a model."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until

from odkeras.control import Control
from odkeras.project import Project
from odkeras.training import free_space, status
from odkeras.training.free_space import FreeSpace
from odkeras.training.limits import LoadLimits
from odkeras.training.status import Pauses, StatusFile


class Trainer:
    """The state that `Pauses` works on."""

    def __init__(self, folder: Path) -> None:
        self.control = Control(folder / "control.json", time.monotonic)
        self.path = folder / "status.json"
        self.status = StatusFile(self.path)
        self.ended = threading.Event()
        self.pauses = Pauses(Control(folder / "control.json"), self.status, self.ended.is_set)

    def said(self) -> dict[str, Any]:
        return dict(json.loads(self.path.read_text()))


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trainer:
    monkeypatch.setattr(status, "_HEARTBEAT_S", 0.05)
    monkeypatch.setattr(status, "_POLL_S", 0.01)
    made = Trainer(tmp_path)
    made.status.update(state="training", reason="training on 8 images", round=7, round_step=40, round_steps=100)
    return made


def test_nothing_is_held_while_training_runs(trainer: Trainer) -> None:
    before = trainer.said()
    assert trainer.pauses.between_steps() is False
    assert trainer.pauses.paused_s == 0
    assert trainer.said() == before


def test_a_pause_between_steps(trainer: Trainer) -> None:
    ended: list[bool] = []
    trainer.control.set("pause")
    thread = threading.Thread(target=lambda: ended.append(trainer.pauses.between_steps()))
    thread.start()
    wait_until(lambda: trainer.said()["state"] == "paused")
    assert trainer.said()["reason"] == "paused in round 7, at step 40 of 100"
    first = trainer.said()["updated"]
    wait_until(lambda: trainer.said()["updated"] > first)  # it is alive
    assert not ended
    trainer.control.set("resume")
    thread.join(10)
    assert ended == [False]
    assert trainer.pauses.paused_s > 0.05
    assert (trainer.said()["state"], trainer.said()["reason"]) == ("training", "training on 8 images")


class TestLimits:
    @pytest.fixture
    def limited(self, trainer: Trainer) -> Trainer:
        limits = LoadLimits(steps_per_hour=60)
        trainer.pauses = Pauses(
            Control(trainer.path.parent / "control.json"), trainer.status, trainer.ended.is_set, limits
        )
        trainer.pauses.before_first_step()
        assert trainer.pauses.between_steps() is False  # the first step may start at once
        return trainer

    def test_a_rest_is_not_training_time_and_shows_that_the_trainer_is_alive(self, trainer: Trainer) -> None:
        trainer.pauses = Pauses(
            Control(trainer.path.parent / "control.json"), trainer.status, trainer.ended.is_set, LoadLimits(0.1)
        )
        trainer.pauses.before_first_step()
        trainer.pauses.between_steps()
        first = trainer.said()["updated"]
        time.sleep(0.05)  # a step
        assert trainer.pauses.between_steps() is False
        assert trainer.pauses.paused_s >= 0.4
        assert trainer.said()["updated"] > first
        assert trainer.said()["state"] == "training"

    @pytest.mark.parametrize("end", ["stop", "pause", "signal", "answers"])
    def test_a_rest_ends_early(self, limited: Trainer, end: str) -> None:
        answers = threading.Event()
        ended: list[bool] = []
        thread = threading.Thread(target=lambda: ended.append(limited.pauses.between_steps(answers.is_set)))
        thread.start()
        time.sleep(0.05)
        assert not ended  # the next step may start in a minute
        if end in ("stop", "pause"):
            limited.control.set(end)
        else:
            (limited.ended if end == "signal" else answers).set()
        if end == "pause":
            wait_until(lambda: limited.said()["state"] == "paused")
            limited.control.set("stop")
        thread.join(10)
        assert ended == [True]


@pytest.mark.parametrize("end", ["stop", "signal"])
def test_the_end_of_a_pause(trainer: Trainer, end: str) -> None:
    ended: list[bool] = []
    trainer.control.set("pause")
    thread = threading.Thread(target=lambda: ended.append(trainer.pauses.between_steps()))
    thread.start()
    wait_until(lambda: trainer.said()["state"] == "paused")
    trainer.control.set("stop") if end == "stop" else trainer.ended.set()
    thread.join(2)
    assert ended == [True]
    assert trainer.pauses.ends_round is (end == "stop"), "the end of the process leaves the round open"


def test_between_rounds(trainer: Trainer) -> None:
    trainer.status.update(state="waiting", reason="no new answers")
    assert trainer.pauses.between_rounds() is False
    trainer.control.set("pause")
    wait_until(trainer.pauses.between_rounds)
    assert (trainer.said()["state"], trainer.said()["reason"]) == ("paused", "paused; new answers wait")
    trainer.control.set("stop")
    wait_until(lambda: trainer.pauses.between_rounds() and trainer.said()["state"] == "stopped")
    trainer.control.set("resume")
    wait_until(lambda: not trainer.pauses.between_rounds())
    assert (trainer.said()["state"], trainer.said()["reason"]) == ("waiting", "no new answers")


class Disk:
    """Free bytes on the disks of three directories."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free = {"data": 9e9, "model": 9e9, "export": 9e9}
        self.now = 0.0
        monkeypatch.setattr(free_space.shutil, "disk_usage", self._usage)

    def _usage(self, path: Path) -> Any:
        if path.name not in self.free:
            raise FileNotFoundError(path)
        return type("Usage", (), {"free": self.free[path.name]})()

    def space(self, min_free_gb: float = 0.5) -> FreeSpace:
        return FreeSpace(Project(Path("data"), Path("model"), Path("export")), min_free_gb, lambda: self.now)


@pytest.mark.parametrize("place", ["data", "model", "export"])
def test_no_round_starts_on_a_disk_that_is_almost_full(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Rounds failed half-way, one after the other, and the trainer was given up; with room again it must go on by
    itself."""
    disk = Disk(monkeypatch)
    trainer.pauses = Pauses(
        Control(trainer.path.with_name("control.json")),
        trainer.status,
        trainer.ended.is_set,
        obstacle=disk.space().problem,
    )
    trainer.status.update(state="waiting", reason="no new answers")
    assert trainer.pauses.between_rounds() is False
    disk.free[place], disk.now = 0.4e9, 3
    assert trainer.pauses.between_rounds() is True
    assert trainer.said()["state"] == "waiting"
    assert trainer.said()["reason"].startswith(f"the disk of {place} has 0.40 GB left, less than --min-free 0.5: ")
    assert trainer.pauses.between_steps() is False  # a round that has begun goes on
    disk.free[place], disk.now = 0.6e9, 6
    assert trainer.pauses.between_rounds() is False
    assert trainer.said()["reason"] == "no new answers"


def test_free_space_is_not_looked_at_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    space = disk.space()
    assert space.problem() == ""
    disk.free["data"] = 0
    assert space.problem() == ""
    disk.now = 3
    assert space.problem() != ""
    del disk.free["data"]  # a directory that is gone is another problem
    disk.now = 6
    assert space.problem() == ""


def test_no_floor_of_free_space(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    disk.free["data"] = 0
    assert disk.space(0).problem() == ""
