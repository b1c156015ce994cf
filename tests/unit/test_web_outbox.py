from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until

from odkeras.web.database import AnswerDatabase
from odkeras.web.deliveries import Deliveries
from odkeras.web.outbox import MAX_TOGETHER, DeliveryRules, Outbox
from odkeras.web.stored import StoredAnswer

DATASET = "d"


class Trainer:
    """Takes batches; with `hold` it waits for `go`."""

    def __init__(self) -> None:
        self.batches: dict[str, list[str]] = {}
        self.waited: list[str] = []
        self.hold = False
        self.go = threading.Event()
        self.failures = 0
        self._names = 0

    def new_batch_name(self) -> str:
        self._names += 1
        return f"{self._names:03}"

    def submit(self, answers: Sequence[dict[str, Any]], *, batch: str | None = None) -> Path:
        if self.hold:
            assert self.go.wait(10)
        if self.failures:
            self.failures -= 1
            raise OSError("no space left")
        assert batch is not None
        self.batches[batch] = [f"{answer['answer']} {answer['image_id']}" for answer in answers]
        return Path(batch)

    def wait_until_served(self, batch: Path, *, stop: Callable[[], bool]) -> None:
        self.waited.append(batch.name)
        while not stop() and not self.go.is_set():
            time.sleep(0.005)

    @property
    def answers(self) -> list[str]:
        return [answer for name in sorted(self.batches) for answer in self.batches[name]]


class Desk:
    """A database and its outbox."""

    def __init__(self, database: AnswerDatabase, trainer: Trainer) -> None:
        self.database, self.trainer = database, trainer
        self.deliveries = Deliveries(database, DATASET)
        self.warned: list[str] = []
        self.done = False
        self.outboxes: list[Outbox] = []
        self._clock = 0.0

    def start(self, batch_size: int = 3, **rules: Any) -> Outbox:
        outbox = Outbox(
            Deliveries(self.database, DATASET, shared=rules.get("shared", True)),
            self.trainer,
            DeliveryRules(batch_size, poll_s=0.02, **rules),
            no_more=lambda: self.done,
            warn=self.warned.append,
        )
        self.outboxes.append(outbox)
        outbox.start()
        return outbox

    def answer(self, *images: str, session: str = "anna", decision: str = "accept") -> None:
        for image in images:
            self._clock += 1
            answer = StoredAnswer({"answer": decision}, image, session, answered_at=self._clock)
            self.database.add(DATASET, [answer], shared=True)
            for outbox in self.outboxes:
                outbox.notify([(session, image)])


def is_empty(outbox: Outbox) -> bool:
    """Whether nothing is pending and nothing is on its way."""
    return outbox.pending == 0 and not outbox.delivering


@pytest.fixture
def trainer() -> Trainer:
    return Trainer()


@pytest.fixture
def desk(trainer: Trainer, tmp_path: Path) -> Iterator[Desk]:
    with AnswerDatabase.open(tmp_path / "annotations.db") as database:
        desk = Desk(database, trainer)
        yield desk
        trainer.go.set()
        for outbox in desk.outboxes:
            outbox.close()


def test_a_batch_is_delivered_as_soon_as_it_is_full(desk: Desk, trainer: Trainer) -> None:
    outbox = desk.start()
    desk.answer("a", "b")
    time.sleep(0.1)
    assert (trainer.answers, outbox.pending, outbox.ready) == ([], 2, 2)
    desk.answer("c")
    wait_until(lambda: is_empty(outbox))
    assert trainer.answers == ["accept a", "accept b", "accept c"]
    assert len(trainer.batches) == 1


def test_answers_that_another_process_stores_are_delivered(desk: Desk, trainer: Trainer) -> None:
    """As `odkeras db in` does while the page is open."""
    desk.start(batch_size=1)
    desk.database.add(DATASET, [StoredAnswer({"answer": "accept"}, "a", "imported")])
    wait_until(lambda: trainer.answers == ["accept a"])


def test_fewer_than_a_batch_are_delivered_when_no_image_is_left(desk: Desk, trainer: Trainer) -> None:
    outbox = desk.start()
    outbox.hold_back("anna", "b")
    desk.answer("a")
    desk.done = True
    wait_until(lambda: trainer.answers == ["accept a"])


class TestCorrection:
    def test_a_later_answer_replaces_a_pending_one(self, desk: Desk, trainer: Trainer) -> None:
        desk.start()
        desk.answer("a", "b")
        desk.answer("a", decision="reject")
        desk.answer("c")
        wait_until(lambda: trainer.answers == ["accept b", "reject a", "accept c"])

    def test_an_answer_under_correction_waits(self, desk: Desk, trainer: Trainer) -> None:
        outbox = desk.start()
        desk.answer("a")
        outbox.hold_back("anna", "a")
        desk.answer("b", "c")
        time.sleep(0.1)
        assert (trainer.answers, outbox.pending, outbox.ready) == ([], 3, 2)
        desk.answer("a", decision="ignore")
        wait_until(lambda: sorted(trainer.answers) == ["accept b", "accept c", "ignore a"])

    def test_a_correction_that_does_not_come_holds_nothing_back(self, desk: Desk, trainer: Trainer) -> None:
        outbox = desk.start(batch_size=1, correction_s=0.1)
        outbox.hold_back("anna", "a")
        desk.database.add(DATASET, [StoredAnswer({"answer": "accept"}, "a", "anna")])
        wait_until(lambda: trainer.answers == ["accept a"])

    @pytest.mark.parametrize("shared", [True, False])
    def test_whose_answers_count(self, desk: Desk, trainer: Trainer, shared: bool) -> None:
        """Shared images have one answer, the latest of all sessions; otherwise each session has its own."""
        outbox = desk.start(batch_size=9, shared=shared)
        desk.answer("a", session="anna")
        desk.answer("a", session="ben", decision="reject")
        assert outbox.deliver_now() == (1 if shared else 2)
        wait_until(lambda: is_empty(outbox))
        assert trainer.answers == (["reject a"] if shared else ["accept a", "reject a"])


class TestDeliverNow:
    def test_it_does_not_wait_for_a_batch_or_a_correction(self, desk: Desk, trainer: Trainer) -> None:
        outbox = desk.start()
        desk.answer("a")
        outbox.hold_back("anna", "a")
        assert outbox.deliver_now() == 1
        wait_until(lambda: trainer.answers == ["accept a"])
        assert outbox.deliver_now() == 0

    def test_many_answers_are_several_batches(self, desk: Desk, trainer: Trainer) -> None:
        images = [f"{number:04}" for number in range(2 * MAX_TOGETHER + 1)]
        desk.answer(*images)
        outbox = desk.start(batch_size=10_000)
        outbox._rules = DeliveryRules(1, poll_s=0.02)
        assert outbox.deliver_now() > 0
        wait_until(lambda: is_empty(outbox))
        assert trainer.answers == [f"accept {image}" for image in images]
        assert {len(batch) for batch in trainer.batches.values()} == {MAX_TOGETHER, 1}

    def test_a_round_may_want_more_than_usual(self, desk: Desk, trainer: Trainer) -> None:
        outbox = desk.start(batch_size=MAX_TOGETHER + 5)
        desk.answer(*[f"{number:04}" for number in range(MAX_TOGETHER + 5)])
        wait_until(lambda: is_empty(outbox))
        assert [len(batch) for batch in trainer.batches.values()] == [MAX_TOGETHER + 5]


class TestFailure:
    def test_a_failed_delivery_is_retried_under_the_same_name_and_reported_once(
        self, desk: Desk, trainer: Trainer
    ) -> None:
        trainer.failures = 3
        outbox = desk.start(batch_size=1)
        desk.answer("a")
        wait_until(lambda: is_empty(outbox))
        assert trainer.batches == {"001": ["accept a"]}
        assert desk.warned == ["stored answers are not delivered to the trainer yet; retrying: no space left"]

    def test_the_next_start_repeats_an_interrupted_delivery_alone(self, desk: Desk, trainer: Trainer) -> None:
        desk.answer("a", "b")
        ids = [each.answer_id for each in desk.deliveries.pending(1)]
        desk.deliveries.assign_batch(ids, "000")  # and the process was killed
        outbox = desk.start()
        wait_until(lambda: trainer.batches == {"000": ["accept a"]})
        time.sleep(0.1)
        assert outbox.pending == 1

    def test_an_interrupted_delivery_is_repeated_whole(self, desk: Desk, trainer: Trainer) -> None:
        """The next start may have smaller batches: a part under the batch's name would replace the whole in the inbox,
        and the trainer would skip the other part, because it knows the name."""
        images = [f"{number:04}" for number in range(MAX_TOGETHER + 30)]
        desk.answer(*images)
        ids = [row.answer_id for row in desk.deliveries.pending(1000)]
        desk.deliveries.assign_batch(ids, "000")
        outbox = desk.start(batch_size=5)
        wait_until(lambda: is_empty(outbox))
        assert trainer.batches == {"000": [f"accept {image}" for image in images]}


class TestClose:
    def test_fewer_than_a_batch_stay_in_the_database(self, desk: Desk, trainer: Trainer) -> None:
        outbox = desk.start()
        desk.answer("a", "b")
        outbox.close()
        outbox.close()
        assert (trainer.answers, outbox.pending) == ([], 2)

    def test_a_batch_that_is_due_is_delivered(self, desk: Desk, trainer: Trainer) -> None:
        desk.answer("a", "b", "c")
        outbox = desk.start(batch_size=3)
        outbox.close()
        assert len(trainer.answers) == 3

    def test_it_waits_for_a_delivery_in_progress(self, desk: Desk, trainer: Trainer) -> None:
        trainer.hold = True
        outbox = desk.start(batch_size=1)
        desk.answer("a")
        wait_until(lambda: outbox.delivering)
        assert outbox.pending == 0
        threading.Timer(0.1, trainer.go.set).start()
        outbox.close()
        assert trainer.answers == ["accept a"]

    def test_sync_does_not_wait_for_the_round(self, desk: Desk, trainer: Trainer) -> None:
        outbox = desk.start(batch_size=1, sync=True)
        desk.answer("a")
        wait_until(lambda: trainer.waited)
        assert outbox.delivering
        outbox.close()
        assert desk.deliveries.count_pending() == 0


def test_many_threads(desk: Desk, trainer: Trainer) -> None:
    outbox = desk.start(batch_size=4)

    def work(who: int) -> None:
        for number in range(20):
            desk.database.add(DATASET, [StoredAnswer({"answer": "accept"}, f"{who}-{number}", f"s{who}")], shared=True)
            outbox.notify([(f"s{who}", f"{who}-{number}")])
            if number % 7 == 0:
                outbox.deliver_now()

    threads = [threading.Thread(target=work, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    outbox.deliver_now()
    wait_until(lambda: is_empty(outbox))
    assert sorted(trainer.answers) == sorted(f"accept {who}-{number}" for who in range(4) for number in range(20))
