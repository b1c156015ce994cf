from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from odkeras.hosts.prodigy.recovery import AnsweredLedger, recover_answers

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
    return {"image": "data:,", "_input_hash": number, "answer": answer, **more}


@pytest.fixture
def ledger(tmp_path: Path) -> AnsweredLedger:
    return AnsweredLedger(tmp_path / "answered.jsonl")


def test_what_is_not_known_is_handed_on_once(ledger: AnsweredLedger, tmp_path: Path) -> None:
    database = FakeDatabase([example(number) for number in range(25)])
    ledger.add([example(3), example(4)])
    written: list[list[Task]] = []
    assert recover_answers(database, "cars", ledger, lambda some: written.append(list(some))) == 23
    assert [len(some) for some in written] == [10, 10, 3]
    assert {each["_input_hash"] for some in written for each in some} == set(range(25)) - {3, 4}
    again = AnsweredLedger(tmp_path / "answered.jsonl")  # the next start
    assert recover_answers(database, "cars", again, lambda some: pytest.fail("again")) == 0
    assert database.read == 1  # hashes alone the second time


def test_the_latest_answer_about_an_image_counts(ledger: AnsweredLedger) -> None:
    database = FakeDatabase([example(1), example(1, "reject")])
    written: list[Task] = []
    recover_answers(database, "cars", ledger, written.extend)
    assert [each["answer"] for each in written] == ["reject"]


def test_what_is_no_answer_about_an_image_is_left(ledger: AnsweredLedger) -> None:
    rows = [{"text": "a car", "_input_hash": 1, "answer": "accept"}, example(2, "maybe"), example(3)]
    written: list[Task] = []
    assert recover_answers(FakeDatabase(rows), "cars", ledger, written.extend) == 1
    assert [each["_input_hash"] for each in written] == [3]
    assert ledger.missing([1, 2, 3]) == set()  # and not looked at again


def test_no_such_dataset_yet(ledger: AnsweredLedger) -> None:
    assert recover_answers(FakeDatabase([example(1)]), "bikes", ledger, lambda some: pytest.fail("none")) == 0


def test_what_cannot_be_stored_is_handed_on_next_time(ledger: AnsweredLedger) -> None:
    def full(answers: object) -> None:
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        recover_answers(FakeDatabase([example(1)]), "cars", ledger, full)
    assert ledger.missing([1]) == {1}


def test_one_that_is_stopped_goes_on_next_time(ledger: AnsweredLedger) -> None:
    database = FakeDatabase([example(number) for number in range(25)])
    stops = iter([False, True])
    assert recover_answers(database, "cars", ledger, lambda some: None, stop=lambda: next(stops)) == 10
    assert len(ledger.missing(range(25))) == 25  # those ten once more: that does no harm


def test_a_ledger_survives_what_it_should_not_hold(tmp_path: Path) -> None:
    path = tmp_path / "answered.jsonl"
    path.write_text(json.dumps({"input_hash": -7}) + '\n{"input_hash": "x"}\nnonsense\n{"inp')
    ledger = AnsweredLedger(path)
    assert ledger.missing([-7, 8]) == {8}
    ledger.add([{"_input_hash": 8}, {"_input_hash": None}, {}, "no answer"])  # type: ignore[list-item]
    ledger.add([{"_input_hash": 8}])
    assert ledger.missing([-7, 8]) == set()


def test_a_ledger_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    ledger = AnsweredLedger(tmp_path / "nowhere" / "answered.jsonl")
    ledger.add([{"_input_hash": 8}])
    assert ledger.missing([8, 9]) == {9}
