from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from odkeras.integrations.prodigy.ledger import DeliveryLedger, find_missing, input_hashes, redeliver

Task = dict[str, Any]


class FakeDatabase:
    """The part of Prodigy's database that is used."""

    def __init__(self, examples: list[Task]) -> None:
        self._examples = examples
        self.read = 0

    def __contains__(self, name: str) -> bool:
        return name == "cars"

    def get_input_hashes(self, *names: str) -> set[int]:
        return {example["_input_hash"] for example in self._examples}

    def get_dataset(self, name: str) -> list[Task]:
        self.read += 1
        return self._examples


def example(number: int, answer: str = "accept", **more: Any) -> Task:
    return {"image": "data:,", "spans": [], "_input_hash": number, "answer": answer, **more}


@pytest.fixture
def ledger(tmp_path: Path) -> DeliveryLedger:
    return DeliveryLedger(tmp_path / "answered.jsonl", "cars")


def recover(database: FakeDatabase, ledger: DeliveryLedger, write: Any, **options: Any) -> int:
    return redeliver(find_missing(database, "cars", ledger), ledger, write, lock=threading.Lock(), **options)


def test_unknown_answers_are_delivered_once_in_order(ledger: DeliveryLedger, tmp_path: Path) -> None:
    database = FakeDatabase([example(number) for number in range(25, 0, -1)])
    ledger.add([3, 4])
    written: list[list[int]] = []
    assert recover(database, ledger, lambda some: written.append(input_hashes(some))) == 23
    assert [len(some) for some in written] == [10, 10, 3]
    assert [value for some in written for value in some] == [25 - at for at in range(25) if 25 - at not in (3, 4)]
    again = DeliveryLedger(tmp_path / "answered.jsonl", "cars")  # the next start
    assert find_missing(database, "cars", again) == []
    assert database.read == 1  # hashes alone the second time


def test_the_latest_answer_about_an_image_counts(ledger: DeliveryLedger) -> None:
    database = FakeDatabase([example(1), example(2), example(1, "reject")])
    found = find_missing(database, "cars", ledger)
    assert [(each["_input_hash"], each["answer"]) for each in found] == [(2, "accept"), (1, "reject")]


def test_an_answer_that_came_meanwhile_is_newer(ledger: DeliveryLedger) -> None:
    """A correction, made while the earlier answers were being delivered, was overwritten by them."""
    written: list[int] = []

    def write(some: list[Task]) -> None:
        written.extend(input_hashes(some))
        ledger.add([15, 16])  # corrected now

    assert recover(FakeDatabase([example(number) for number in range(20)]), ledger, write) == 18
    assert written == [number for number in range(20) if number not in (15, 16)]


@pytest.mark.parametrize(
    "row",
    [
        {"text": "a car", "spans": [], "answer": "accept"},
        {"image": "data:,", "spans": [], "answer": "maybe"},
        # a choice about an image: without boxes, but not an image without objects
        {"image": "data:,", "answer": "accept", "accept": ["sharp"], "_view_id": "choice"},
    ],
)
def test_what_is_no_answer_about_boxes_is_left(ledger: DeliveryLedger, row: Task) -> None:
    drawn = {"image": "data:,", "answer": "accept", "_view_id": "image_manual", "_input_hash": 3}  # nothing was there
    database = FakeDatabase([{**row, "_input_hash": 1}, drawn])
    assert input_hashes(find_missing(database, "cars", ledger)) == [3]
    assert ledger.missing([1, 3]) == {3}  # and the other one is not looked at again


def test_one_missing_answer_does_not_load_the_dataset(ledger: DeliveryLedger) -> None:
    """All examples, which may contain their images, were in memory at once: 11 s and the size of the dataset."""

    class Counted(dict[str, Any]):
        alive = most = 0

        def __init__(self, number: int) -> None:
            super().__init__(example(number))
            Counted.alive += 1
            Counted.most = max(Counted.most, Counted.alive)

        def __del__(self) -> None:
            Counted.alive -= 1

    class Newer(FakeDatabase):
        """Of a version of Prodigy that can read one example after another."""

        def iter_dataset_examples(self, name: str) -> Iterator[Task]:
            return map(Counted, range(1000))

    database = Newer([example(number) for number in range(1000)])
    ledger.add([number for number in range(1000) if number not in (3, 500)])
    assert input_hashes(find_missing(database, "cars", ledger)) == [3, 500]
    assert Counted.most <= 5
    assert database.read == 0


def test_no_such_dataset_yet(ledger: DeliveryLedger) -> None:
    assert find_missing(FakeDatabase([example(1)]), "bikes", ledger) == []


def test_another_dataset_of_the_same_data_directory(ledger: DeliveryLedger, tmp_path: Path) -> None:
    ledger.add([1, 2])
    assert DeliveryLedger(tmp_path / "answered.jsonl", "bikes").missing([1, 2]) == {1, 2}


def test_one_that_is_stopped_goes_on_where_it_was(ledger: DeliveryLedger) -> None:
    stops = iter([False, True])
    database = FakeDatabase([example(number) for number in range(25)])
    assert recover(database, ledger, lambda some: None, stop=lambda: next(stops)) == 10
    assert ledger.missing(range(25)) == set(range(10, 25))


def test_an_answer_that_cannot_be_stored_is_delivered_next_time(ledger: DeliveryLedger) -> None:
    def full(answers: object) -> None:
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        recover(FakeDatabase([example(1)]), ledger, full)
    assert ledger.missing([1]) == {1}


def test_a_ledger_survives_what_it_should_not_hold(tmp_path: Path) -> None:
    path = tmp_path / "answered.jsonl"
    path.write_text(json.dumps({"dataset": "cars", "input_hash": -7}) + '\n{"dataset": "cars"}\nnonsense\n{"inp')
    ledger = DeliveryLedger(path, "cars")
    assert ledger.missing([-7, 8]) == {8}
    ledger.add([8, None, "x"])
    assert DeliveryLedger(path, "cars").missing([-7, 8]) == set()  # the torn line has not swallowed it


def test_a_ledger_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    ledger = DeliveryLedger(tmp_path / "nowhere" / "answered.jsonl", "cars")
    ledger.add([8])
    assert ledger.missing([8, 9]) == {9}
