from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from waiting import wait_until

from odkeras.errors import RequestError
from odkeras.serving.protocol import ApiRequest
from odkeras.serving.versions import ServedModel, SharedLock, choose_version
from tests.fixtures_serving import FakeBackend, FakeServable, write_version

ANY = ApiRequest("predict", "raccoon")


class Bench:
    """A model that polls when the test says so, and its fake backend."""

    def __init__(self, base_path: Path) -> None:
        self.base_path = base_path
        self.backend = FakeBackend()
        self.model = ServedModel("raccoon", base_path, lambda: self.backend, poll_wait_s=0.01)

    def add(self, version: int, value: str, graph: str = "graph") -> Path:
        return write_version(self.base_path, version, value, graph)

    def look(self) -> dict[int, tuple[str, str]]:
        """State and error code of each version after one look."""
        self.model.poll_once()
        return self.states()

    def states(self) -> dict[int, tuple[str, str]]:
        try:
            return {
                row.version: (row.state, row.error_code) for row in self.model.statuses(ApiRequest("status", "raccoon"))
            }
        except RequestError:
            return {}

    def answer(self, request: ApiRequest = ANY) -> tuple[int, float]:
        """The version that answers, and what it adds."""
        with self.model.lease(request) as lease:
            return lease.version, lease.servable.run("serving_default", {"x": np.zeros(1, np.float32)})["y"].item()

    @property
    def newest(self) -> FakeServable:
        return self.backend.loaded[-1]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "export")


AVAILABLE, ENDED, BROKEN = ("AVAILABLE", "OK"), ("END", "OK"), ("END", "NOT_FOUND")


@pytest.mark.parametrize(
    ("versions", "loaded", "broken", "target"),
    [
        ([], None, [], None),  # nothing there yet
        ([], 3, [], None),  # deleted, but the loaded version keeps serving
        ([3], None, [], 3),
        ([3, 20], None, [], 20),  # by number, not by text
        ([3], 3, [], None),
        ([3, 4, 5], 3, [], 5),  # those in between are left out
        ([3, 4], 3, [4], None),
        ([3, 4, 5], 3, [5], 4),
        ([3, 4], None, [4], 3),  # at the start an older one is better than none
        ([3, 4], None, [3, 4], None),
        ([3, 4], 5, [], 4),  # the newest was taken away: back to the one before
    ],
)
def test_the_newest_version_that_is_not_broken_is_chosen(
    versions: list[int], loaded: int | None, broken: list[int], target: int | None
) -> None:
    assert choose_version(versions, loaded, broken) == target


def test_nothing_is_served_before_there_is_a_version(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert bench.look() == bench.look() == {}
    assert [record.getMessage() for record in caplog.records] == [
        f"waiting for the first version of raccoon in {bench.base_path}"
    ]
    with pytest.raises(RequestError, match="no loaded version of model 'raccoon'"):
        bench.answer()
    with pytest.raises(RequestError, match="no loaded version of model 'raccoon'"):
        bench.model.statuses(ApiRequest("status", "raccoon"))


def test_a_directory_with_leading_zeros_is_a_version(bench: Bench) -> None:
    bench.add(123, "3").rename(bench.base_path / "00000123")
    assert bench.look() == {123: AVAILABLE}
    assert bench.answer(ApiRequest("predict", "raccoon", 123)) == (123, 3.0)
    bench.add(124, "4").rename(bench.base_path / "0124")
    assert bench.look() == {124: AVAILABLE, 123: ENDED}
    assert bench.answer() == (124, 4.0)


def test_the_same_graph_gets_new_weights_in_place(bench: Bench) -> None:
    bench.add(3, "3")
    assert bench.look() == {3: AVAILABLE}
    assert bench.answer() == (3, 3.0)
    bench.add(4, "4")
    assert bench.look() == {4: AVAILABLE, 3: ENDED}
    assert bench.answer() == (4, 4.0)
    assert len(bench.backend.loaded) == 1


def test_another_graph_is_loaded_beside(bench: Bench) -> None:
    bench.add(3, "3")
    bench.look()
    bench.add(4, "4", graph="another")
    assert bench.look() == {4: AVAILABLE, 3: ENDED}
    assert bench.answer() == (4, 4.0)
    assert len(bench.backend.loaded) == 2


@pytest.mark.parametrize("graph", ["graph", "another"])
def test_a_broken_version_is_reported_and_retried_when_its_files_change(bench: Bench, graph: str) -> None:
    bench.add(3, "3")
    bench.look()
    directory = bench.add(4, "", graph)
    assert bench.look() == {4: BROKEN, 3: AVAILABLE}
    (row,) = bench.model.statuses(ApiRequest("status", "raccoon", 4))
    assert "value.txt" in row.error_message
    loads = len(bench.backend.loaded)
    assert bench.look() == {4: BROKEN, 3: AVAILABLE}
    assert len(bench.backend.loaded) == loads
    assert bench.answer() == (3, 3.0)
    (directory / "value.txt").write_text("4")
    assert bench.look() == {4: AVAILABLE, 3: ENDED}
    assert bench.answer() == (4, 4.0)


def test_an_older_version_serves_while_the_newest_is_broken_from_the_start(bench: Bench) -> None:
    bench.add(3, "3")
    bench.add(4, "")
    assert bench.look() == {4: BROKEN}
    assert bench.look() == {4: BROKEN, 3: AVAILABLE}


def test_a_failed_update_of_weights_leads_to_a_full_load(bench: Bench) -> None:
    """Weights of which some are new and some old must not answer."""
    bench.add(3, "3")
    bench.look()
    bench.newest.fails_to_update = True
    bench.add(4, "4")
    states = bench.look()
    assert states == {4: AVAILABLE, 3: ("END", "INTERNAL")}
    assert bench.answer() == (4, 4.0)
    assert len(bench.backend.loaded) == 2


def test_weights_wait_for_running_requests(bench: Bench) -> None:
    bench.add(3, "3")
    bench.look()
    servable = bench.newest
    servable.hold = True
    answers: list[tuple[int, float]] = []
    request = threading.Thread(target=lambda: answers.append(bench.answer()))
    request.start()
    assert servable.entered.wait(10)
    bench.add(4, "4")
    update = threading.Thread(target=bench.model.poll_once)
    update.start()
    wait_until(lambda: bench.states().get(4) == ("LOADING", "OK"))
    assert servable.value == 3.0
    servable.hold = False
    newcomer = threading.Thread(target=lambda: answers.append(bench.answer()))
    wait_until(lambda: bench.model._current is not None and bench.model._current.lock._writer)
    newcomer.start()
    servable.leave.set()
    for thread in (request, update, newcomer):
        thread.join(10)
    assert sorted(answers) == [(3, 3.0), (4, 4.0)]  # the fake checks that nothing changed under the first one


def test_an_unloaded_version_finishes_its_requests(bench: Bench) -> None:
    bench.add(3, "3")
    bench.look()
    old = bench.newest
    old.hold = True
    answers: list[tuple[int, float]] = []
    request = threading.Thread(target=lambda: answers.append(bench.answer()))
    request.start()
    assert old.entered.wait(10)
    bench.add(4, "4", graph="another")
    swap = threading.Thread(target=bench.model.poll_once)
    swap.start()
    wait_until(lambda: bench.states() == {4: AVAILABLE, 3: ("UNLOADING", "OK")})
    assert bench.answer() == (4, 4.0)
    old.leave.set()
    for thread in (request, swap):
        thread.join(10)
    assert answers == [(3, 3.0)]
    assert bench.states() == {4: AVAILABLE, 3: ENDED}


def test_a_version_is_start_while_the_backend_is_opened(bench: Bench) -> None:
    go_on = threading.Event()

    def open_slowly() -> FakeBackend:
        go_on.wait(10)
        return bench.backend

    bench.add(3, "3")
    bench.model = ServedModel("raccoon", bench.base_path, open_slowly, poll_wait_s=0.01)
    with bench.model:
        wait_until(lambda: bench.states() == {3: ("START", "OK")})
        go_on.set()
        wait_until(lambda: bench.states() == {3: AVAILABLE})


def test_a_backend_that_fails_to_start_is_reported_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    tries: list[int] = []

    def fail() -> FakeBackend:
        tries.append(1)
        raise ImportError("libtensorflow is missing")

    with ServedModel("raccoon", bench.base_path, fail, poll_wait_s=0.001):
        wait_until(lambda: len(tries) > 3)
    texts = [record.getMessage() for record in caplog.records]
    assert texts == ["no version of raccoon can be served: libtensorflow is missing"]


def test_a_waiting_writer_has_precedence_over_new_readers() -> None:
    lock, log = SharedLock(), list[str]()
    with lock.shared():
        writer = threading.Thread(target=_enter, args=(lock.exclusive(), log, "writer"))
        writer.start()
        wait_until(lambda: lock._writer)
        reader = threading.Thread(target=_enter, args=(lock.shared(), log, "reader"))
        reader.start()
        log.append("first")
    writer.join(10)
    reader.join(10)
    assert log == ["first", "writer", "reader"]


def _enter(side: Any, log: list[str], name: str) -> None:
    with side:
        log.append(name)
