from __future__ import annotations

import json
from pathlib import Path

import pytest

from odkeras.control import PAUSED, RUNNING, STOPPED, Control
from odkeras.errors import SetupError


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.json"


def test_training_runs_when_there_is_no_control_file(path: Path) -> None:
    assert Control(path).state == RUNNING


@pytest.mark.parametrize(("action", "state"), [("pause", PAUSED), ("stop", STOPPED), ("resume", RUNNING)])
def test_another_process_sees_the_state(path: Path, action: str, state: str) -> None:
    other = Control(path, Clock())
    assert other.state == RUNNING
    control = Control(path)
    assert control.set(action) == state
    assert control.state == other.state == Control(path).state == state
    assert json.loads(path.read_text())["state"] == state


@pytest.mark.parametrize("text", ["", "{", "[]", '{"state": "dancing"}', '{"state": 5}', "{}"])
def test_an_invalid_control_file_is_ignored(path: Path, text: str) -> None:
    path.write_text(text)
    assert Control(path).state == RUNNING


def test_the_file_is_polled_a_few_times_a_second(path: Path) -> None:
    now = [0.0]
    control = Control(path, lambda: now[0])
    assert control.state == RUNNING
    Control(path).set("pause")
    now[0] += 0.01
    assert control.state == RUNNING
    now[0] += 0.1
    assert control.state == PAUSED


def test_the_file_is_read_only_when_it_changed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Control(path).set("pause")
    control = Control(path, Clock())
    assert control.state == PAUSED
    monkeypatch.setattr("odkeras.control.read_status", lambda path: pytest.fail("read again"))
    assert control.state == PAUSED


def test_an_unwritable_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"cannot pause training: .*control\.json"):
        Control(tmp_path / "none" / "control.json").set("pause")
    assert list(tmp_path.iterdir()) == []
