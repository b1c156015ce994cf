"""Three pages of one dataset, each with 10 simulated annotators, are killed one after the other with SIGKILL."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import fixtures_web
import pytest
from annotators import Annotator
from waiting import wait_until

from odkeras.project import read_jsonl
from odkeras.web.database import AnswerDatabase

PROGRAM = Path(__file__).parents[1] / "browser" / "run_page.py"
IMAGES, PAGES, PER_PAGE = 120, 3, 10


class PageProcess:
    """`odkeras annotate` as a process of its own, with the fake trainer and server."""

    def __init__(self, folder: Path, database: str, log: Path, port: int = 0) -> None:
        arguments = ["annotate", fixtures_web.DATASET, "images", ".", "--db", database, "--no-open"]
        arguments += ["--web-port", str(port), "--answers-per-round", "20", "-spe", "5"]
        self.log = log
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, str(PROGRAM), *arguments], cwd=folder, stdout=out, stderr=out, start_new_session=True
            )

    def url(self) -> str:
        def said() -> re.Match[str] | None:
            assert self.process.poll() is None, self.log.read_text()
            return re.search(r"annotate at (http://\S+?)/", self.log.read_text())

        found = wait_until(said, "the page", timeout_s=120)
        assert found is not None
        return found[1]

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fixtures_web.save_project(tmp_path / "project", IMAGES)
    return tmp_path / "project"


@pytest.fixture
def started() -> Iterator[list[PageProcess]]:
    processes: list[PageProcess] = []
    yield processes
    for process in processes:
        process.stop()


@pytest.mark.timeout(400)
def test_no_answer_is_lost_and_none_is_given_twice(
    folder: Path, tmp_path: Path, postgres_url: str, started: list[PageProcess]
) -> None:
    """Each page is killed once, the one that trains among them, and replaced. Each image has one answer at the end, of
    the annotator who was told that it is saved, and the trainer has got each answer once."""
    started += [PageProcess(folder, postgres_url, tmp_path / f"page{number}.log") for number in range(PAGES)]
    urls = [each.url() for each in started]
    annotators = [Annotator(f"a{number}", urls, number % PAGES, number) for number in range(PAGES * PER_PAGE)]
    for annotator in annotators:
        annotator.start()

    def saved() -> int:
        return sum(len(annotator.saved) for annotator in annotators)

    try:
        for number in range(PAGES):
            wait_until(lambda: saved() >= (number + 1) * IMAGES // 5, "the annotators", timeout_s=120)  # noqa: B023
            started[number].kill()
            started.append(PageProcess(folder, postgres_url, tmp_path / f"again{number}.log"))
            urls[number] = started[-1].url()
        for annotator in annotators:
            annotator.join(120)
            assert not annotator.is_alive(), f"{saved()} of {IMAGES} images are answered"
    finally:
        for annotator in annotators:
            annotator.stopping.set()
    with AnswerDatabase.open(postgres_url) as database:
        stored = database.read("SELECT image_id, answer_id FROM answers")
        acknowledged = [pair for annotator in annotators for pair in annotator.saved]
        assert sorted(stored) == sorted(acknowledged)
        assert len({image_id for image_id, _ in stored}) == len(stored) == IMAGES
        # All are delivered without "Train now", as no image is left.
        waiting = "SELECT answers FROM pending_counts"
        wait_until(lambda: database.read(waiting) == [(0,)], "the delivery of all answers", timeout_s=120)
    rows = folder / "data" / "trained_batches.jsonl"

    def trained() -> Counter[str]:
        """In how many batches each image is. The fake trainer takes a batch again if it was killed before it deleted
        it; the real one does not."""
        batches = {name: images for row in read_jsonl(rows) for name, images in row.items()}
        return Counter(image_id for images in batches.values() for image_id in images)

    wait_until(lambda: len(trained()) == IMAGES, "the trainer", timeout_s=120)
    assert set(trained().values()) == {1}
