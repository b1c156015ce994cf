"""A directory becomes read-only, forbidden or unreachable while people annotate, and some time later it is back.

Run by tests/faults/test_torture.py in a process with the layer, because root may write anywhere. `make torture` has the
same faults at every call.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from odkeras.web.database import AnswerDatabase
from tests.faults.layer import FOR_EVER, Layer
from tests.fixtures_web import (  # noqa: F401
    Annotating,
    Page,
    annotate,
    answer_to,
    answers_in,
    web_project,
)
from tests.waiting import wait_until

REASONS = {"readonly": "Read-only file system", "denied": "Permission denied", "gone": "No such file or directory"}


@contextmanager
def trouble(folder: Path, mode: str) -> Iterator[Layer]:
    layer = Layer()
    layer.arm(folder, mode, 1, FOR_EVER)
    try:
        yield layer
    finally:
        layer.disarm()


def send(page: Page, answers: list[dict[str, Any]]) -> tuple[int, str, list[str]]:
    """Status, text, and the ids that are acknowledged."""
    reply = page.post("/api/answers", answers=answers)
    return reply.status_code, reply.text, reply.json()["saved"] if reply.status_code == 200 else []


def stored(folder: Path) -> Counter[str]:
    with AnswerDatabase.open(folder / "db" / "annotations.db") as database:
        return Counter(answer_id for (answer_id,) in database.read("SELECT answer_id FROM answers"))


def check_each_is_there_once(annotating: Annotating, folder: Path, answers: list[dict[str, Any]]) -> None:
    outbox = annotating.service.outbox
    outbox.deliver_now()
    wait_until(lambda: outbox.pending == 0 and not outbox.delivering)
    assert stored(folder) == Counter(answer["answer_id"] for answer in answers)
    expected = Counter(str(answer["image_id"]) for answer in answers)
    wait_until(lambda: Counter(str(answer["image_id"]) for answer in answers_in(folder / "data")) == expected)


@pytest.mark.parametrize("mode", list(REASONS))
def test_the_data_directory(annotate: Callable[..., Annotating], web_project: Path, mode: str) -> None:  # noqa: F811
    """Answers are stored in the database all the same, the page's log says that they wait, and they are delivered
    once the directory is back."""
    annotating = annotate(db=Path("db/annotations.db"), answers_per_round=2)
    page = annotating.page("anna")
    answers = [page.answer(task) for task in page.tasks(2)["tasks"]]
    wait_until(lambda: annotating.service.outbox.pending == 0)
    with trouble(web_project / "data", mode) as layer:
        for _ in range(2):
            answers += [page.answer(task) for task in page.tasks(2)["tasks"]]
        wait_until(lambda: annotating.journal.has("stored answers are not delivered to the trainer yet; retrying: "))
        assert layer.what
    (line,) = [line.text for line in annotating.service.panel.lines_after(0) if "not delivered" in line.text]
    assert REASONS[mode] in line
    check_each_is_there_once(annotating, web_project, answers)


@pytest.mark.parametrize("mode", ["readonly", "gone"])
def test_the_directory_of_the_database(
    annotate: Callable[..., Annotating],  # noqa: F811
    web_project: Path,  # noqa: F811
    mode: str,
) -> None:
    """Nothing is acknowledged, the reply says why, and the browser's retries are stored once it is back. Forbidden
    files stay open, so that nothing fails."""
    annotating = annotate(db=Path("db/annotations.db"), answers_per_round=2)
    page = annotating.page("anna")
    tasks = page.tasks(5)["tasks"]
    answers = [answer_to(task) for task in tasks]
    assert send(page, answers[:1])[2] == [answers[0]["answer_id"]]
    with trouble(web_project / "db", mode):
        for _ in range(2):
            status, text, saved = send(page, answers[1:])
            assert (status, saved) == (507, [])
            assert "Free disk space or fix the cause; the page keeps the answers and retries" in text
    assert stored(web_project) == Counter([answers[0]["answer_id"]])
    assert sorted(send(page, answers)[2]) == sorted(answer["answer_id"] for answer in answers)
    check_each_is_there_once(annotating, web_project, answers)


@pytest.mark.parametrize("mode", list(REASONS))
def test_the_model_directory(annotate: Callable[..., Annotating], web_project: Path, mode: str) -> None:  # noqa: F811
    """The trainer cannot be started again, since its log cannot be written: the page says so, and it is started again
    once the directory is back."""
    annotating = annotate(db=Path("db/annotations.db"), answers_per_round=2, model=True)
    page = annotating.page("anna")
    answers = [page.answer(task) for task in page.tasks(2)["tasks"]]
    trainer = wait_until(lambda: annotating.service.session._processes.pids()["trainer"])
    with trouble(web_project / "model", mode):
        os.kill(trainer, signal.SIGKILL)
        wait_until(lambda: annotating.journal.has("trainer could not be started: "))
        answers += [page.answer(task) for task in page.tasks(2)["tasks"]]
        reply = page.post("/api/training", action="pause")
        assert reply.status_code == 500
        assert reply.json()["error"].endswith(REASONS[mode])
    (line,) = {line.text for line in annotating.service.panel.lines_after(0) if "could not be started" in line.text}
    assert REASONS[mode] in line
    wait_until(lambda: annotating.service.session._processes.pids()["trainer"])
    check_each_is_there_once(annotating, web_project, answers)
