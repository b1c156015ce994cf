from __future__ import annotations

import pytest

from odkeras.session.remaining import Remaining


@pytest.fixture
def remaining() -> Remaining:
    """Of five items, counted for everybody."""
    made = Remaining(5)
    made.follow(None)
    return made


def test_unanswered_images_are_counted(remaining: Remaining) -> None:
    assert remaining.left(None) == 5
    remaining.found(0, "a")
    assert remaining.left(None) == 5


def test_an_answer_counts_once(remaining: Remaining) -> None:
    remaining.found(0, "a")
    remaining.answered(None, "a")
    remaining.answered(None, "a")  # corrected
    assert remaining.left(None) == 4


def test_answered_before_its_turn_comes(remaining: Remaining) -> None:
    remaining.answered(None, "c")
    assert remaining.left(None) == 5
    remaining.found(2, "c")
    assert remaining.left(None) == 4
    remaining.found(2, "c")  # its turn
    assert remaining.left(None) == 4
    assert remaining.knows(2) and not remaining.knows(1)


def test_an_answer_about_an_image_of_another_source(remaining: Remaining) -> None:
    remaining.answered(None, "elsewhere")
    for number, image_id in enumerate("abcde"):
        remaining.found(number, image_id)
    assert remaining.left(None) == 5


def test_unusable_items_are_not_counted(remaining: Remaining) -> None:
    remaining.found(0, None)
    remaining.lost()
    assert remaining.left(None) == 3


def test_the_same_picture_twice(remaining: Remaining) -> None:
    remaining.found(0, "a")
    remaining.found(4, "a")
    assert remaining.left(None) == 4
    remaining.answered(None, "a")
    assert remaining.left(None) == 3


def test_each_session_has_its_own() -> None:
    remaining = Remaining(2)
    remaining.follow("anna")
    remaining.found(0, "a")
    remaining.answered("anna", "a")
    remaining.answered("ben", "a")  # nobody asks for ben's yet
    assert not remaining.follows("ben")
    remaining.follow("ben")
    remaining.follow("anna")  # already
    assert (remaining.left("anna"), remaining.left("ben")) == (1, 2)
    remaining.answered("ben", "a")
    assert (remaining.left("anna"), remaining.left("ben")) == (1, 1)


def test_a_source_without_a_length() -> None:
    remaining = Remaining(None)
    remaining.follow(None)
    remaining.found(0, "a")
    assert remaining.left(None) is None
