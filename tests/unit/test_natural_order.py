from __future__ import annotations

import os
import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from odkeras.image_files import list_image_files
from odkeras.natural_order import natural_key


@pytest.mark.parametrize(
    "names",
    [
        ["1.jpg", "2.jpg", "10.jpg", "100.jpg"],
        ["frame_9.png", "frame_10.png", "frame_0011.png"],
        ["a.jpg", "B.jpg", "c.jpg"],  # not the capitals first
        ["Zebra/1.jpg", "zebra/2.jpg"],
        ["v1.2.jpg", "v1.10.jpg", "v2.1.jpg"],
        ["day 2/9.jpg", "day 2/10.jpg", "day 10/1.jpg"],  # folders by their numbers, too
        ["a/z.jpg", "a b/a.jpg"],  # a folder's files stay together
        ["1.jpg", "a.jpg"],
        ["x01.jpg", "x1.jpg"],  # the same number: still always in one order
        ["A.jpg", "a.jpg"],
        [f"{2**70}.jpg", f"{2**71}.jpg"],
    ],
)
def test_numbers_in_names_sort_by_value(names: list[str]) -> None:
    shuffled = random.Random(0).sample(names, len(names))
    assert sorted(shuffled, key=natural_key) == names
    assert sorted([Path(name) for name in shuffled], key=natural_key) == [Path(name) for name in names]


def test_every_path_has_a_key_of_its_own() -> None:
    paths = ["1", "01", "001", "a1", "A1", "a/1", "A/1", "a\x011"]
    assert len({natural_key(path) for path in paths}) == len(paths)


def test_a_database_sorts_by_the_key() -> None:
    """As Python does; also a name that is not UTF-8."""
    names = ["ä2.jpg", "ä10.jpg", "z.jpg", "日本3.jpg", "日本20.jpg", os.fsdecode(b"\xff2.jpg")]
    keys = [natural_key(name) for name in names]
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE files (key TEXT)")
        connection.executemany("INSERT INTO files VALUES (?)", [(key,) for key in keys])
        assert [key for (key,) in connection.execute("SELECT key FROM files ORDER BY key")] == sorted(keys)


def test_a_folder_is_read_in_that_order(tmp_path: Path) -> None:
    """`10.png` came before `2.png`."""
    names = ["1.png", "2.png", "10.png", "part 2/1.png", "part 10/1.png"]
    for name in random.Random(1).sample(names, len(names)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list_image_files(tmp_path) == [tmp_path / name for name in names]
