"""TensorBoard's pictures of each round were kept for ever: twice the bytes of the images themselves."""

from __future__ import annotations

from pathlib import Path

from odkeras.training.picture_budget import CHUNK_BYTES, PictureBudget


def rounds_with_pictures(budget: PictureBudget, rounds: int, size_bytes: int) -> list[int]:
    due = []
    for number in range(rounds):
        if budget.is_due():
            due.append(number)
            budget.spend(size_bytes)
    return due


def test_pictures_come_half_as_often_with_each_chunk(tmp_path: Path) -> None:
    budget = PictureBudget(tmp_path / "missing")
    assert rounds_with_pictures(budget, 16, CHUNK_BYTES // 4) == [0, 1, 2, 3, 4, 6, 8, 10, 12]


def test_the_events_of_earlier_processes_count(tmp_path: Path) -> None:
    with (tmp_path / "events.1").open("wb") as file:
        file.truncate(2 * CHUNK_BYTES)
    (tmp_path / "later").mkdir()
    assert rounds_with_pictures(PictureBudget(tmp_path), 12, 1000) == [0, 4, 8]


def test_fifty_thousand_rounds_take_some_hundred_megabytes(tmp_path: Path) -> None:
    due = rounds_with_pictures(PictureBudget(tmp_path), 50_000, 200_000)
    assert len(due) * 200_000 < 300 * 2**20
