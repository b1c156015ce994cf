from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from waiting import wait_until

from odkeras.web.handover import MOST_TOGETHER, Entry, Handover


def entry(number: int, session: str = "anna", answer: str = "accept", act: str = "") -> Entry:
    return Entry(f"{session}-{number}{act}", session, f"image-{number}", {"number": number, "answer": answer})


class Trainer:
    """Takes examples; `hold` makes it wait for `go`."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.noted: list[list[str]] = []
        self.hold = False
        self.go = threading.Event()
        self.fails = 0

    def update(self, examples: Sequence[dict[str, Any]]) -> None:
        if self.hold:
            assert self.go.wait(10)
        if self.fails:
            self.fails -= 1
            raise RuntimeError("not today")
        self.batches.append([example["number"] for example in examples])

    def done(self, ids: Sequence[str]) -> None:
        self.noted.append(list(ids))

    @property
    def numbers(self) -> list[Any]:
        return [number for batch in self.batches for number in batch]


@pytest.fixture
def trainer() -> Trainer:
    return Trainer()


@pytest.fixture
def start(trainer: Trainer) -> Iterator[Callable[..., Handover]]:
    started: list[Handover] = []

    def make(batch_size: int = 3, **options: Any) -> Handover:
        started.append(Handover(trainer.update, trainer.done, batch_size=batch_size, poll_s=0.02, **options))
        return started[-1].__enter__()

    yield make
    trainer.go.set()
    for each in started:
        each.close()


def test_a_batch_as_soon_as_it_is_full(start: Callable[..., Handover], trainer: Trainer) -> None:
    handover = start()
    handover.add([entry(1), entry(2)])
    assert handover.waiting == 2
    handover.add([entry(3)])
    wait_until(lambda: trainer.noted)
    assert trainer.batches == [[1, 2, 3]]
    assert trainer.noted == [["anna-1", "anna-2", "anna-3"]]
    assert handover.waiting == 0


def test_fewer_than_a_batch_wait_however_long_it_takes(start: Callable[..., Handover], trainer: Trainer) -> None:
    """After ten seconds without an answer a round began with one image, and the next four waited for its end."""
    handover = start()
    handover.add([entry(1), entry(2)])
    time.sleep(0.3)
    assert not trainer.batches
    assert handover.waiting == 2
    handover.add([entry(3)])
    wait_until(lambda: trainer.batches == [[1, 2, 3]])


class TestTheLastOnes:
    def test_are_given_when_no_more_are_to_come(self, start: Callable[..., Handover], trainer: Trainer) -> None:
        ended: list[bool] = []
        handover = start(no_more=lambda: bool(ended))
        handover.add([entry(1)])
        time.sleep(0.1)
        assert not trainer.batches
        ended.append(True)
        wait_until(lambda: trainer.batches == [[1]])

    def test_not_while_one_of_them_is_corrected(self, start: Callable[..., Handover], trainer: Trainer) -> None:
        ended: list[bool] = []
        handover = start(no_more=lambda: bool(ended))
        handover.add([entry(1)])
        handover.hold_back("anna", "image-1")
        ended.append(True)
        time.sleep(0.1)
        assert not trainer.batches
        handover.add([entry(1, act="b")])
        wait_until(lambda: trainer.noted == [["anna-1b"]])

    def test_nothing_is_given_when_nothing_waits(self, start: Callable[..., Handover], trainer: Trainer) -> None:
        start(no_more=lambda: True)
        time.sleep(0.1)
        assert not trainer.batches


def test_a_later_answer_replaces_one_that_waits(start: Callable[..., Handover], trainer: Trainer) -> None:
    handover = start(batch_size=2)
    handover.add([entry(1)])
    handover.add([entry(1, answer="reject", act="b")])
    assert handover.waiting == 1
    handover.add([entry(2)])
    wait_until(lambda: trainer.noted)
    assert trainer.noted == [["anna-1b", "anna-2"]]


def test_answers_of_two_sessions_about_an_image_are_two(start: Callable[..., Handover], trainer: Trainer) -> None:
    handover = start(batch_size=2)
    handover.add([entry(1, "anna"), entry(1, "ben")])
    wait_until(lambda: trainer.noted)
    assert trainer.noted == [["anna-1", "ben-1"]]


class TestHoldBack:
    def test_it_waits_for_the_new_answer(self, start: Callable[..., Handover], trainer: Trainer) -> None:
        handover = start(batch_size=2)
        handover.add([entry(1)])
        handover.hold_back("anna", "image-1")
        handover.add([entry(2), entry(3)])
        wait_until(lambda: trainer.noted)
        assert trainer.batches == [[2, 3]]
        assert handover.waiting == 1
        handover.add([entry(1, act="b"), entry(4)])
        wait_until(lambda: len(trainer.noted) == 2)
        assert trainer.noted[1] == ["anna-1b", "anna-4"]

    def test_somebody_else_s_answer_does_not(self, start: Callable[..., Handover], trainer: Trainer) -> None:
        handover = start(batch_size=1)
        handover.hold_back("anna", "image-1")
        handover.add([entry(1, "ben")])
        wait_until(lambda: trainer.noted == [["ben-1"]])

    def test_for_ever_it_does_not(self, start: Callable[..., Handover], trainer: Trainer) -> None:
        handover = start(batch_size=1, held_back_s=0.3)
        handover.hold_back("anna", "image-1")
        handover._entries[("anna", "image-1")] = entry(1)
        handover.hold_back("anna", "image-1")
        time.sleep(0.2)
        assert not trainer.batches
        wait_until(lambda: trainer.batches == [[1]])
        assert not handover._held_back

    def test_hand_on_does_not_wait(self, start: Callable[..., Handover], trainer: Trainer) -> None:
        handover = start()
        handover.add([entry(1)])
        handover.hold_back("anna", "image-1")
        assert handover.hand_on() == 1
        wait_until(lambda: trainer.batches == [[1]])


class TestSharedImages:
    """Two answers about an image could reach the trainer in the wrong order, and the later batch won."""

    def test_the_last_answer_takes_the_place_of_another_session_s(
        self, start: Callable[..., Handover], trainer: Trainer
    ) -> None:
        handover = start(batch_size=2, shared=True)
        handover.add([entry(1, "anna"), entry(1, "ben")])
        assert handover.waiting == 1
        handover.add([entry(2)])
        wait_until(lambda: trainer.noted == [["ben-1", "anna-2"]])

    def test_whoever_corrects_it_holds_it_back(self, start: Callable[..., Handover], trainer: Trainer) -> None:
        handover = start(batch_size=2, shared=True)
        handover.add([entry(1, "anna")])
        handover.hold_back("ben", "image-1")
        handover.add([entry(2), entry(3)])
        wait_until(lambda: trainer.noted == [["anna-2", "anna-3"]])
        handover.add([entry(1, "ben"), entry(4)])
        wait_until(lambda: trainer.noted[1:] == [["ben-1", "anna-4"]])

    def test_an_answer_that_was_held_back_does_not_follow_its_correction(
        self, start: Callable[..., Handover], trainer: Trainer
    ) -> None:
        handover = start(batch_size=1, shared=True, held_back_s=0.2)
        handover.hold_back("anna", "image-1")
        with handover._changed:
            handover._entries[handover._key_of("anna", "image-1")] = entry(1, "anna")
        handover.add([entry(1, "ben")])
        wait_until(lambda: trainer.noted == [["ben-1"]])
        time.sleep(0.3)
        assert trainer.noted == [["ben-1"]]


class TestHandOn:
    def test_what_waits_now(self, start: Callable[..., Handover], trainer: Trainer) -> None:
        handover = start()
        handover.add([entry(1), entry(2)])
        assert handover.hand_on() == 2
        wait_until(lambda: trainer.batches == [[1, 2]])
        handover.add([entry(3)])
        time.sleep(0.1)
        assert trainer.batches == [[1, 2]], "the next ones wait for each other again"

    def test_nothing(self, start: Callable[..., Handover], trainer: Trainer) -> None:
        handover = start()
        assert handover.hand_on() == 0
        wait_until(lambda: not handover._now)
        handover.add([entry(1)])
        time.sleep(0.1)
        assert not trainer.batches

    def test_all_of_many(self, trainer: Trainer) -> None:
        """The rest that is smaller than a batch waited for others to come."""
        handover = Handover(trainer.update, trainer.done, batch_size=MOST_TOGETHER)
        handover.add([entry(number) for number in range(2 * MOST_TOGETHER + 1)])
        assert handover.hand_on() == 2 * MOST_TOGETHER + 1
        with handover:
            pass
        assert [len(batch) for batch in trainer.batches] == [MOST_TOGETHER, MOST_TOGETHER, 1]
        assert trainer.numbers == list(range(2 * MOST_TOGETHER + 1))


def test_as_many_as_a_round_wants(start: Callable[..., Handover], trainer: Trainer) -> None:
    """With --answers-per-round 60 there was a round of 50 and one of 10."""
    handover = start(batch_size=MOST_TOGETHER + 10)
    handover.add([entry(number) for number in range(MOST_TOGETHER + 10)])
    wait_until(lambda: trainer.noted)
    assert [len(batch) for batch in trainer.batches] == [MOST_TOGETHER + 10]


def test_not_too_many_together(start: Callable[..., Handover], trainer: Trainer) -> None:
    handover = start(batch_size=5)
    handover.add([entry(number) for number in range(3 * MOST_TOGETHER)])
    wait_until(lambda: len(trainer.numbers) == 3 * MOST_TOGETHER)
    assert [len(batch) for batch in trainer.batches] == [MOST_TOGETHER] * 3
    assert handover.waiting == 0


class TestClose:
    def test_fewer_than_a_batch_stay_where_they_are(self, start: Callable[..., Handover], trainer: Trainer) -> None:
        """They are in the database; the next start counts them, and does not train on one or two."""
        handover = start()
        handover.add([entry(1), entry(2)])
        handover.close()
        handover.close()
        assert not trainer.batches
        assert handover.waiting == 2
        assert not handover._thread.is_alive()

    def test_whole_batches_are_given(self, trainer: Trainer) -> None:
        handover = Handover(trainer.update, trainer.done, batch_size=3)
        handover.add([entry(number) for number in range(MOST_TOGETHER + 2)])
        handover.add([entry(1, "ben")])
        with handover:
            pass
        assert len(trainer.numbers) == MOST_TOGETHER + 3
        assert sum(map(len, trainer.noted)) == MOST_TOGETHER + 3

    def test_what_was_asked_for_is_given(self, trainer: Trainer) -> None:
        handover = Handover(trainer.update, trainer.done, batch_size=9)
        handover.add([entry(1)])
        handover.hand_on()
        with handover:
            pass
        assert trainer.batches == [[1]]

    def test_what_is_being_corrected_stays(self, start: Callable[..., Handover], trainer: Trainer) -> None:
        handover = start(batch_size=1)
        handover.hold_back("anna", "image-1")
        with handover._changed:
            handover._entries[("anna", "image-1")] = entry(1)
        handover.close()
        assert not trainer.batches

    def test_waits_for_the_update_that_is_at_work(self, start: Callable[..., Handover], trainer: Trainer) -> None:
        trainer.hold = True
        handover = start(batch_size=1)
        handover.add([entry(1)])
        wait_until(lambda: handover.updating)
        handover.add([entry(2)])
        threading.Timer(0.1, trainer.go.set).start()
        handover.close()
        assert trainer.batches == [[1], [2]]
        assert not handover.updating

    def test_before_it_was_entered(self, trainer: Trainer) -> None:
        handover = Handover(trainer.update, trainer.done, batch_size=1)
        handover.add([entry(1)])
        handover.close()
        assert handover.waiting == 1


class TestErrors:
    def test_in_update(self, start: Callable[..., Handover], trainer: Trainer) -> None:
        trainer.fails = 1
        handover = start(batch_size=1)
        handover.add([entry(1)])
        wait_until(lambda: not trainer.fails and not handover.updating)
        handover.add([entry(2)])
        wait_until(lambda: trainer.noted)
        assert trainer.noted == [["anna-2"]], "what failed is not noted as handed on"

    def test_in_done(self, trainer: Trainer) -> None:
        def done(ids: Sequence[str]) -> None:
            trainer.noted.append(list(ids))
            raise RuntimeError("the disk is full")

        with Handover(trainer.update, done, batch_size=1) as handover:
            for number in (1, 2):
                handover.add([entry(number)])
                wait_until(lambda number=number: len(trainer.noted) == number)
        assert trainer.batches == [[1], [2]]


def test_many_threads(start: Callable[..., Handover], trainer: Trainer) -> None:
    handover = start(batch_size=4)

    def answer(session: str) -> None:
        for number in range(100):
            handover.add([entry(number, session)])
            if number % 10 == 3:
                handover.hold_back(session, f"image-{number - 1}")
            if number % 25 == 7:
                handover.hand_on()

    threads = [threading.Thread(target=answer, args=(f"s{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    handover.hand_on()
    handover.close()
    ids = [each for batch in trainer.noted for each in batch]
    assert sorted(ids) == sorted(f"s{number}-{image}" for number in range(4) for image in range(100))
