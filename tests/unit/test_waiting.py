from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from odkeras.errors import RequestError, TrainingError
from odkeras.project import Project, append_jsonl
from odkeras.session.waiting import AWAY_S, LOST_AFTER_S, SILENT_S, BatchWait

ROUND = {"kind": "round", "batches": ["a.jsonl"], "version": 17, "loss": 0.5}


class FakeLoop:
    """A loop that is looked at; `script` says what happens at each look at the trainer, by its number."""

    def __init__(self, folder: Path) -> None:
        self.project = Project(folder / "data", folder / "model", folder / "export")
        self.project.create()
        self.batch = self.project.inbox_dir / "a.jsonl"
        self.batch.write_text("{}")
        self.status: dict[str, Any] | None = {"state": "training", "updated": 0.0}
        self.version: int | None = 3
        self.error: Exception | None = None
        self.failed: TrainingError | None = None
        self.now = 1000.0
        self.on_sleep: Callable[[], None] = lambda: None
        self.warned: list[str] = []

    def failure(self) -> TrainingError | None:
        return self.failed

    def trainer_status(self) -> dict[str, Any] | None:
        return self.status

    def available_version(self) -> int | None:
        if self.error is not None:
            raise self.error
        return self.version

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.on_sleep()

    def beat(self) -> None:
        """The trainer is alive."""
        assert self.status is not None
        self.status = {**self.status, "updated": self.now}

    def wait(self, stop: Callable[[], bool] = lambda: False) -> dict[str, Any] | None:
        return BatchWait(
            self, self.batch, stop=stop, warn=self.warned.append, clock=lambda: self.now, sleep=self.sleep
        ).run()


@pytest.fixture
def loop(tmp_path: Path) -> FakeLoop:
    return FakeLoop(tmp_path)


def test_until_the_version_of_the_round_is_served(loop: FakeLoop) -> None:
    def go_on() -> None:
        loop.beat()
        if loop.now > 1000 + 2 * SILENT_S and not loop.project.metrics_path.exists():  # a long round
            append_jsonl(loop.project.metrics_path, [{**ROUND, "batches": ["other.jsonl"]}, ROUND])
        if loop.now > 1010 + 2 * SILENT_S:
            loop.version = 18  # or a later one

    loop.on_sleep = go_on
    assert loop.wait() == ROUND
    assert loop.warned == []


def test_not_for_a_trainer_that_is_not_there(loop: FakeLoop) -> None:
    """`--sync` with an external trainer that nobody had started hung, and Ctrl-C with it."""
    loop.status = None
    assert loop.wait() is None
    assert loop.now - 1000 == pytest.approx(SILENT_S, abs=1)
    assert loop.warned == ["no longer waiting: no trainer has reported its status for 120 s"]


@pytest.mark.parametrize("error", [None, RequestError(404, "somebody else")])
def test_not_for_a_server_that_does_not_serve_it(loop: FakeLoop, error: Exception | None) -> None:
    append_jsonl(loop.project.metrics_path, [ROUND])
    loop.error = error
    assert loop.wait() is None
    assert loop.now - 1000 == pytest.approx(AWAY_S, abs=1)
    assert loop.warned == ["no longer waiting: version 17 is not served after 30 s"]


def test_not_for_a_batch_with_nothing_to_train_on(loop: FakeLoop) -> None:
    loop.status = {"state": "waiting", "updated": 1.0}
    loop.batch.unlink()
    assert loop.wait() is None
    assert loop.now - 1000 == pytest.approx(LOST_AFTER_S, abs=0.3)


def test_not_for_a_round_that_failed(loop: FakeLoop) -> None:
    append_jsonl(loop.project.metrics_path, [{**ROUND, "failed": "the loss is not finite"}])
    assert loop.wait() is None
    assert loop.now == 1000


def test_not_when_the_trainer_was_given_up_or_the_host_ends(loop: FakeLoop) -> None:
    assert loop.wait(stop=lambda: True) is None
    loop.failed = TrainingError("it crashed")
    assert loop.wait() is None
    assert loop.now == 1000
