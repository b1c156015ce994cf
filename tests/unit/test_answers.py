from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from odkeras import inbox
from odkeras.errors import InboxError
from odkeras.formats.prodigy import Task, make_task
from odkeras.image_store import ImageStore
from odkeras.images import EncodedImage, encode_image
from odkeras.inbox import list_batches, read_batch
from odkeras.session.answers import AnswerWriter


class Place:
    """An inbox, the writer to it, and what was warned of."""

    def __init__(self, data_dir: Path) -> None:
        self.inbox_dir = data_dir / "inbox"
        self.store = ImageStore(inbox.images_dir(self.inbox_dir))
        self.warned: list[str] = []
        self.writer = AnswerWriter(self.inbox_dir, self.store, warn=self.warned.append)

    def batches(self) -> list[list[Task]]:
        return [[answer for answer, _ in read_batch(path) if answer] for path in list_batches(self.inbox_dir)]

    def block(self) -> None:
        """From now on, nothing can be written."""
        if self.inbox_dir.exists():
            self.inbox_dir.rename(self.inbox_dir.with_name("inbox-before"))
        self.inbox_dir.write_text("a file in the way")

    def unblock(self) -> None:
        self.inbox_dir.unlink()
        if self.inbox_dir.with_name("inbox-before").exists():
            self.inbox_dir.with_name("inbox-before").rename(self.inbox_dir)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def answer(image_id: str | None, **changes: Any) -> Task:
    span = {"label": "car", "points": [[8, 6], [8, 30], [40, 30], [40, 6]]}
    found = {"image_id": image_id, "answer": "accept", "spans": [span], "width": 64, "height": 48}
    return {**found, "_timestamp": 1700000000, "_session_id": "ann", **changes}


def nested(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


def test_answers_are_one_batch(place: Place) -> None:
    answers = [answer("a"), answer("b", answer="reject"), {"answer": "ignore"}]
    path = place.writer.write(answers)
    assert [path] == list_batches(place.inbox_dir)
    assert place.batches() == [answers]
    assert place.warned == []


def test_no_answers_are_no_batch(place: Place) -> None:
    assert place.writer.write([]) is None
    assert not place.inbox_dir.exists()


class TestSentAgain:
    @pytest.mark.parametrize(
        ("first", "second", "is_new"),
        [
            (answer("a"), answer("a"), False),  # the browser sends a batch again when it saw no reply
            (answer("a"), dict(reversed(answer("a").items())), False),
            (answer("a"), answer("a", meta={"score": 0.5}, image="data:,"), False),  # nothing that a person decides
            (answer("a"), answer("b"), True),
            (answer("a"), answer("a", answer="reject"), True),
            (answer("a"), answer("a", spans=[]), True),
            (answer("a"), answer("a", _session_id="bob"), True),
            (answer("a"), answer("a", _timestamp=1700000001), True),  # answered again, after "undo"
            (answer(None, _input_hash=7), answer(None, _input_hash=7), False),
            (answer(None, _input_hash=7), answer(None, _input_hash=8), True),
            (answer(None, path="a.png"), answer(None, path="a.png"), False),
            (answer(None), answer(None), True),  # who can tell
        ],
    )
    def test_the_same_answer_counts_once(self, place: Place, first: Task, second: Task, is_new: bool) -> None:
        assert place.writer.write([first]) is not None
        assert (place.writer.write([second]) is not None) == is_new
        assert place.batches() == [[first], [second]][: 1 + is_new]

    def test_also_in_one_batch(self, place: Place) -> None:
        place.writer.write([answer("a"), answer("b"), answer("a")])
        assert place.batches() == [[answer("a"), answer("b")]]

    def test_what_changes_its_mind_twice_is_stored_three_times(self, place: Place) -> None:
        """The trainer takes the latest, so the first answer given again must come after the second."""
        minds = [answer("a"), answer("a", answer="reject"), answer("a")]
        place.writer.write(minds)
        assert place.batches() == [minds]

    def test_also_while_the_first_waits_to_be_stored(self, place: Place) -> None:
        place.block()
        for _ in range(2):
            place.writer.try_write([answer("a")])
        assert place.writer.waiting == 1
        place.unblock()
        place.writer.write([answer("a")])
        assert place.batches() == [[answer("a")]]


class TestImages:
    def test_one_that_is_in_the_store_is_left_out(self, place: Place, image: EncodedImage) -> None:
        path = place.store.put(image)
        task = {**make_task(image, file="a.jpg"), "answer": "accept"}
        place.writer.write([task])
        ((stored,),) = place.batches()
        assert stored == {
            **{key: value for key, value in task.items() if key != "image"},
            "stored_image": path.name,
        }
        assert task["image"] == image.data_uri  # the host's own answer is as it was

    def test_one_that_is_not_stays_in_the_answer(self, place: Place, image: EncodedImage) -> None:
        task = {**make_task(image, file="a.jpg"), "answer": "accept"}
        place.writer.write([task])
        assert place.batches() == [[task]]

    @pytest.mark.parametrize("image_id", [None, 7, "", "../a", ["a"]])
    def test_strange_ids_stay(self, place: Place, image: EncodedImage, image_id: object) -> None:
        place.store.put(image)
        task = {"image": image.data_uri, "image_id": image_id, "answer": "accept"}
        place.writer.write([task])
        assert place.batches() == [[task]]

    def test_one_that_went_while_the_answer_waited_comes_along(
        self, place: Place, image: EncodedImage, png_bytes: bytes
    ) -> None:
        path = place.store.put(image)
        stays = encode_image(png_bytes, source="stays")
        place.store.put(stays)
        place.block()
        tasks = [{**make_task(each, file="a"), "answer": "accept"} for each in (image, stays)]
        place.writer.try_write(tasks)
        place.unblock()
        path.unlink()
        place.writer.write([])
        ((first, second),) = place.batches()
        assert first["image"] == image.data_uri
        assert (second["stored_image"], "image" in second) == (f"{stays.image_id}.png", False)


class TestTrouble:
    def test_what_cannot_be_stored_is_kept_and_comes_first_later(self, place: Place) -> None:
        place.block()
        assert place.writer.try_write([answer("a")]) is None
        with pytest.raises(InboxError, match=r"cannot store 2 answers in .*inbox: "):
            place.writer.write([answer("b")])
        assert place.writer.waiting == 2
        (text,) = place.warned
        assert text.startswith("1 answers wait to be stored for training: cannot store 1 answers in ")
        place.unblock()
        place.writer.write([answer("c")])
        assert place.batches() == [[answer("a"), answer("b"), answer("c")]]
        assert place.writer.waiting == 0

    def test_the_last_attempt_may_succeed(self, place: Place) -> None:
        place.block()
        place.writer.try_write([answer("a")])
        place.unblock()
        assert place.writer.give_up() == 0
        assert place.batches() == [[answer("a")]]

    def test_what_is_given_up_is_counted_and_may_be_sent_again(self, place: Place) -> None:
        place.block()
        place.writer.try_write([answer("a"), answer("b")])
        assert place.writer.give_up() == 2
        assert place.writer.waiting == 0
        place.unblock()
        assert place.writer.give_up() == 0
        place.writer.write([answer("a")])
        assert place.batches() == [[answer("a")]]

    @pytest.mark.parametrize(
        ("bad", "problem"),
        [
            (answer("x", spans=np.zeros(2)), "Object of type ndarray is not JSON serializable"),
            (answer("x", spans={1: 2, "a": np.float32(3)}), "Object of type float32 is not JSON serializable"),
            (answer("x", meta={("a", "b"): 1}), "keys must be str"),
            (answer("x", image=b"\x89PNG"), "its image must be a text; got bytes"),
            ([1, 2], "it must be a JSON object; got list"),
            (None, "it must be a JSON object; got NoneType"),
            (answer("x", meta=nested(100_000)), "recursion"),
        ],
        ids=range(7),
    )
    def test_what_is_no_json_does_not_block_the_others(self, place: Place, bad: Any, problem: str) -> None:
        """It lost the whole batch, or was kept and tried again for ever, the others with it."""
        good = [answer("a", spans=[1.5]), answer("b")]
        assert place.writer.write([good[0], bad, good[1]]) is not None
        assert place.batches() == [good]
        (text,) = place.warned
        assert text.startswith("an answer cannot be stored and is left out: ")
        assert problem in text
        assert place.writer.waiting == 0

    def test_nothing_but_what_is_no_json_is_no_batch(self, place: Place) -> None:
        """It was reported as `0 answers wait to be stored: a batch needs at least one answer; got none`."""
        assert place.writer.try_write([answer("x", spans={1})]) is None
        assert len(place.warned) == 1
        assert place.warned[0].endswith("Object of type set is not JSON serializable")
        assert list_batches(place.inbox_dir) == []

    def test_keys_of_several_types_are_no_trouble(self, place: Place) -> None:
        place.writer.write([answer("a", spans=[{1: 2, "a": 3}])])
        assert place.batches() == [[answer("a", spans=[{"1": 2, "a": 3}])]]


def test_several_threads_lose_nothing_and_store_nothing_twice(place: Place) -> None:
    together = threading.Barrier(4)

    def write(number: int) -> None:
        together.wait()
        for each in range(10):
            place.writer.try_write([answer(f"{number}-{each}"), answer("of all")])

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stored = [each["image_id"] for batch in place.batches() for each in batch]
    assert sorted(stored) == sorted(["of all", *(f"{number}-{each}" for number in range(4) for each in range(10))])
    assert place.warned == []
