from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from odkeras.project import read_status

SOURCE = Path(__file__).parents[2] / "odkeras" / "training" / "status.py"


def load_without_tensorflow() -> Any:
    """The module itself: its package prepares TensorFlow, which no unit test waits for."""
    spec = importlib.util.spec_from_file_location("status_without_tensorflow", SOURCE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


status = load_without_tensorflow()


class Clock:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def monotonic(self) -> float:
        return self.now_s

    def time(self) -> float:
        return 1_600_000_000.0 + self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(status, "time", made)
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "status.json"


def on_disk(path: Path) -> dict[str, Any]:
    found = read_status(path)
    assert found is not None
    return found


def test_the_file_has_all_fields(path: Path, clock: Clock) -> None:
    file = status.StatusFile(path)
    assert not path.exists()
    file.update(state="training", round=2, step=31, round_step=1, round_steps=30, loss=1.5, version=1_600_000_000)
    assert json.loads(path.read_text()) == {
        "state": "training",
        "reason": "",
        "round": 2,
        "step": 31,
        "round_step": 1,
        "round_steps": 30,
        "loss": 1.5,
        "version": 1_600_000_000,
        "pid": os.getpid(),
        "updated": 1_600_001_000.0,
    }


def test_every_change_of_state_is_written_at_once(path: Path, clock: Clock) -> None:
    file = status.StatusFile(path)
    for state in (
        "starting",
        "building",
        "publishing",
        "waiting",
        "training",
        "evaluating",
        "failed",
        "stopped",
        "ended",
    ):
        file.update(state=state)
        assert on_disk(path)["state"] == state
    file.update(reason="killed")
    assert on_disk(path)["reason"] == "killed"
    file.update(version=7)
    assert on_disk(path)["version"] == 7


def test_progress_is_written_a_few_times_a_second(path: Path, clock: Clock) -> None:
    file = status.StatusFile(path)
    file.update(state="training", round_steps=1000)
    seen = []
    for step in range(1, 101):  # a hundred steps in one second
        clock.now_s += 0.01
        file.update(step=step, loss=1 / step)
        seen.append(on_disk(path)["step"])
    assert file.current.step == 100
    assert 2 <= len(set(seen) - {0}) <= 4
    assert all(step - shown <= 31 for step, shown in enumerate(seen, start=1))


def test_a_heartbeat_is_written_without_a_change(path: Path, clock: Clock) -> None:
    file = status.StatusFile(path)
    file.update(state="waiting")
    clock.now_s += 60
    file.write()
    assert on_disk(path)["updated"] == clock.time()


def test_a_reader_never_sees_half_a_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk the old content stays; the trainer once ended in mid-round over a mere progress report."""
    file = status.StatusFile(path)
    file.update(state="training")
    before = path.read_bytes()

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        file.update(state="publishing")
    assert path.read_bytes() == before
    assert [*path.parent.iterdir()] == [path]
    file.update(reason="again")
    assert on_disk(path)["state"] == "publishing"
