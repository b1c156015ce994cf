"""The database's file is deleted, replaced or emptied while it is open. SQLite does not notice: answers went into a
file that nobody could open any more."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from odkeras.errors import DatabaseError
from odkeras.web.database import AnswerDatabase
from odkeras.web.stored import StoredAnswer


def answer(number: int) -> StoredAnswer:
    example = {"image": f"{number}.png", "answer": "accept", "spans": [], "width": 64, "height": 48}
    return StoredAnswer(example, f"{number:032x}", "anna", 1000.0 + number, f"id-{number}")


def ids(path: Path) -> list[str]:
    with AnswerDatabase.open(path, create=False) as database:
        return [str(example["image"]) for example in database.examples("things")]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[AnswerDatabase]:
    with AnswerDatabase.open(tmp_path / "annotations.db") as opened:
        opened.add("things", [answer(1)])
        yield opened


@pytest.mark.parametrize("also", [(), ("-wal",), ("-wal", "-shm")])
def test_a_deleted_file_is_written_again(
    database: AnswerDatabase, also: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    for suffix in ("", *also):
        Path(f"{database.path}{suffix}").unlink()
    database.add("things", [answer(2)])
    assert ids(database.path) == ["1.png", "2.png"]
    assert "was deleted while it was in use; it has been written again, with all answers" in caplog.text
    database.add("things", [answer(3)])
    database.close()
    assert ids(database.path) == ["1.png", "2.png", "3.png"]
    assert sorted(path.name for path in database.path.parent.iterdir()) == ["annotations.db"]


@pytest.mark.parametrize("other", ["database", "text", "folder"])
def test_the_answers_of_a_replaced_file_are_kept_beside_it(
    database: AnswerDatabase, tmp_path: Path, other: str
) -> None:
    with AnswerDatabase.open(tmp_path / "other.db") as another:
        another.add("things", [answer(7)])
    if other == "text":
        (tmp_path / "other.db").write_text("not a database")
    elif other == "folder":
        (tmp_path / "other.db").unlink()
        (tmp_path / "other.db").mkdir()
        database.path.unlink()
    (tmp_path / "other.db").replace(database.path)
    for _ in range(2):
        with pytest.raises(DatabaseError, match=r"was replaced .*annotations\.db\.rescued.* start again"):
            database.add("things", [answer(2)])
    assert ids(tmp_path / "annotations.db.rescued") == ["1.png"]


@pytest.mark.parametrize("content", [b"", b"something else"])
def test_an_emptied_file_takes_no_answers(database: AnswerDatabase, content: bytes) -> None:
    database.path.write_bytes(content)
    with pytest.raises(DatabaseError, match=r"annotations\.db: was emptied while it was in use"):
        database.add("things", [answer(2)])


def test_a_vanished_folder_is_an_error_of_the_database(database: AnswerDatabase) -> None:
    shutil.rmtree(database.path.parent)
    with pytest.raises(DatabaseError, match="was deleted, or cannot be read any more"):
        database.add("things", [answer(2)])


def test_another_process_that_closes_the_database_harms_nothing(database: AnswerDatabase) -> None:
    """The check opened the file, and closing it dropped SQLite's locks: the other process took itself for the last one,
    and deleted the log with the latest answers."""
    read = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT COUNT(*) FROM answers'); c.close()"
    for number in range(2, 6):
        database.add("things", [answer(number)])
        subprocess.run([sys.executable, "-c", read, str(database.path)], check=True)
        assert database.path.with_name("annotations.db-wal").exists(), "the log was deleted while it is in use"
    assert ids(database.path) == [f"{number}.png" for number in range(1, 6)]
