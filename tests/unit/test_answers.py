from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from odkeras import inbox
from odkeras.annotation import Task
from odkeras.errors import InboxError
from odkeras.formats.prodigy import Record, write_task
from odkeras.image_store import ImageStore
from odkeras.images import EncodedImage
from odkeras.inbox import list_batches, new_batch_name, read_batch
from odkeras.session.answers import write_answers


class Place:
    """An inbox, its image store, and the warnings of writing to it."""

    def __init__(self, data_dir: Path) -> None:
        self.inbox_dir = data_dir / "inbox"
        self.store = ImageStore(inbox.images_dir(self.inbox_dir))
        self.warned: list[str] = []

    def write(self, *answers: Any, name: str | None = None) -> Path | None:
        return write_answers(self.inbox_dir, answers, name=name, warn=self.warned.append)

    def batches(self) -> list[list[Record]]:
        return [[answer for answer, _ in read_batch(path) if answer] for path in list_batches(self.inbox_dir)]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def answer(image_id: str | None, **changes: Any) -> Record:
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
    assert [place.write(*answers)] == list_batches(place.inbox_dir)
    assert place.batches() == [answers]
    assert place.warned == []


def test_no_answers_are_no_batch(place: Place) -> None:
    assert place.write() is None
    assert not place.inbox_dir.exists()


def test_a_batch_written_again_under_its_name_is_replaced(place: Place) -> None:
    name = new_batch_name(place.inbox_dir)
    place.write(answer("a"), name=name)
    later = place.write(answer("b"))
    assert place.write(answer("a"), answer("c"), name=name) == place.inbox_dir / name
    assert list_batches(place.inbox_dir) == [place.inbox_dir / name, later]
    assert place.batches() == [[answer("a"), answer("c")], [answer("b")]]


class TestImages:
    def test_a_stored_image_is_left_out(self, place: Place, image: EncodedImage) -> None:
        path = place.store.put(image)
        task = {**write_task(Task.of(image, file="a.jpg")), "answer": "accept"}
        place.write(task)
        ((stored,),) = place.batches()
        assert stored == {
            **{key: value for key, value in task.items() if key != "image"},
            "stored_image": path.name,
        }
        assert task["image"] == image.data_uri  # the caller's answer is unchanged

    def test_an_image_that_is_not_stored_stays_in_the_answer(self, place: Place, image: EncodedImage) -> None:
        task = {**write_task(Task.of(image, file="a.jpg")), "answer": "accept"}
        place.write(task)
        assert place.batches() == [[task]]

    @pytest.mark.parametrize("image_id", [None, 7, "", "../a", ["a"]])
    def test_the_image_stays_if_the_id_is_not_one_of_ours(
        self, place: Place, image: EncodedImage, image_id: object
    ) -> None:
        place.store.put(image)
        task = {"image": image.data_uri, "image_id": image_id, "answer": "accept"}
        place.write(task)
        assert place.batches() == [[task]]


def test_a_batch_that_cannot_be_written(place: Place) -> None:
    place.inbox_dir.write_text("a file in the way")
    with pytest.raises(InboxError, match=r"cannot store 2 answers in .*inbox: "):
        place.write(answer("a"), answer("b"))


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (answer("x", spans=np.zeros(2)), "Object of type ndarray is not JSON serializable"),
        (answer("x", spans={1: 2, "a": np.float32(3)}), "Object of type float32 is not JSON serializable"),
        (answer("x", meta={("a", "b"): 1}), "keys must be str"),
        (answer("x", image=b"\x89PNG"), "its image must be a string; got bytes"),
        ([1, 2], "it must be a JSON object; got list"),
        (None, "it must be a JSON object; got NoneType"),
        (answer("x", meta=nested(100_000)), "recursion"),
    ],
    ids=range(7),
)
def test_an_answer_that_is_not_json_does_not_block_the_others(place: Place, bad: Any, problem: str) -> None:
    """It lost the whole batch, or was kept and tried again for ever, the others with it."""
    good = [answer("a", spans=[1.5]), answer("b")]
    assert place.write(good[0], bad, good[1]) is not None
    assert place.batches() == [good]
    (text,) = place.warned
    assert text.startswith("an answer cannot be stored and is skipped: ")
    assert problem in text


def test_only_answers_that_are_not_json_are_no_batch(place: Place) -> None:
    assert place.write(answer("x", spans={1})) is None
    assert place.warned[0].endswith("Object of type set is not JSON serializable")
    assert list_batches(place.inbox_dir) == []


def test_keys_of_several_types(place: Place) -> None:
    place.write(answer("a", spans=[{1: 2, "a": 3}]))
    assert place.batches() == [[answer("a", spans=[{"1": 2, "a": 3}])]]
