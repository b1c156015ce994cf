"""`odkeras training`: the command as a process, and what it says."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from odkeras.cli import app
from odkeras.control import Control
from odkeras.errors import ConfigError
from odkeras.locks import locked


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "pipeline.config").write_text("")
    return tmp_path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["training", *map(str, arguments)])


def says(project: Path, **status: Any) -> None:
    (project / "model" / "status.json").write_text(json.dumps({"updated": time.time(), **status}))


def state(project: Path) -> str:
    return Control(project / "model" / "control.json").state


def test_as_a_process(project: Path) -> None:
    command = [sys.executable, "-m", "odkeras", "training", "pause", str(project)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "training is paused; no trainer has run here yet\n"
    assert done.stderr == ""
    assert state(project) == "paused"


@pytest.mark.parametrize(
    ("action", "set_to", "said"),
    [("pause", "paused", "paused"), ("stop", "stopped", "stopped"), ("resume", "running", "not paused")],
)
def test_each_action_and_the_status(project: Path, action: str, set_to: str, said: str) -> None:
    says(project, state="waiting", reason="no new answers")
    expected = f"training is {said}; the trainer says: waiting: no new answers\n"
    assert run(action, project).output == expected
    assert state(project) == set_to
    assert run("status", project / "pipeline.config").output == expected


def test_a_trainer_that_is_away(project: Path) -> None:
    says(project, state="waiting", reason="no new answers", updated=time.time() - 3600)
    assert run("status", project).output == (
        "training is not paused; no trainer is at work; the last one said: waiting: no new answers\n"
    )
    says(project, state="failed", reason="no GPU")
    assert "no trainer is at work; the last one said: failed: no GPU" in run("status", project).output


def test_another_model_directory(project: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    run("pause", project, "--model-dir", tmp_path / "elsewhere")
    assert state(project) == "running"
    assert Control(tmp_path / "elsewhere" / "control.json").state == "paused"


def test_where_nothing_was_trained(tmp_path: Path) -> None:
    (tmp_path / "pipeline.config").touch()
    result = run("pause", tmp_path)
    assert result.exit_code != 0
    assert f"{tmp_path / 'model'}: no such model directory" in str(result.exception)


@pytest.mark.parametrize(
    ("action", "state", "reason", "expected"),
    [
        ("pause", "training", "training on 8 images", "training is paused\n"),
        ("resume", "paused", "paused in round 2", "training is not paused\n"),
        (
            "resume",
            "training",
            "training on 8 images",
            "training is not paused; the trainer says: training on 8 images\n",
        ),
        ("stop", "building", "building the model", "training is stopped; the trainer says: building the model\n"),
    ],
)
def test_what_the_trainer_says_does_not_contradict(
    project: Path, action: str, state: str, reason: str, expected: str
) -> None:
    """`pause` said "training is paused; the trainer says: training: training on 40 images": it had not seen it yet."""
    says(project, state=state, reason=reason)
    assert run(action, project).output == expected


def test_a_trainer_that_is_busy_is_at_work(project: Path) -> None:
    """It says nothing while it builds a large model or evaluates: `status` took it for dead after 30 s."""
    says(project, state="evaluating", reason="evaluating, to see whether to publish", updated=time.time() - 600)
    with locked(project / "model" / "trainer.lock", taken="", wait_s=0.0):
        assert "the trainer says: evaluating, to see" in run("status", project).output
    assert "no trainer is at work" in run("status", project).output


def test_one_that_has_ended_is_not(project: Path) -> None:
    """For 30 s it was."""
    says(project, state="ended", reason="the trainer was stopped")
    assert run("status", project).output.endswith(
        "no trainer is at work; the last one said: ended: the trainer was stopped\n"
    )


@pytest.mark.parametrize("wrong", ["racoons", "model"])
def test_a_project_that_is_not_there_pauses_no_other(
    project: Path, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistyped name is a path in the working directory: the project there was paused."""
    monkeypatch.chdir(project)
    (project / "model" / "status.json").write_text("{}")
    (project / "model" / "pipeline.config").touch()
    result = run("pause", wrong)
    assert isinstance(result.exception, ConfigError)
    assert state(project) == "running"
