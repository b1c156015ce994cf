from __future__ import annotations

import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from odkeras.session import image_ids as module
from odkeras.session.image_ids import ImageIds
from odkeras.session.sources import Item


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "image_ids.jsonl"


def test_what_was_noted_is_known_now_and_in_the_next_run(path: Path) -> None:
    known = ImageIds(path)
    assert known.id_of("/a.png|1|2") is None
    known.note("/a.png|1|2", "first")
    known.note("/b.png|1|2", "second")
    for each in (known, ImageIds(path)):
        assert each.id_of("/a.png|1|2") == "first"
        assert each.id_of("/b.png|1|2") == "second"
        assert each.id_of("/a.png|1|3") is None


def test_a_changed_image_is_not_known(path: Path, tmp_path: Path, png_bytes: bytes) -> None:
    image = tmp_path / "é \udcff.png"  # a name that is not UTF-8
    image.write_bytes(png_bytes)
    item = Item("image", image)
    ImageIds(path).note(item.fingerprint, "before")
    assert ImageIds(path).id_of(item.fingerprint) == "before"
    os.utime(image, (1.0, 1.0))
    assert ImageIds(path).id_of(item.fingerprint) is None


def test_the_latest_line_counts(path: Path) -> None:
    known = ImageIds(path)
    known.note("a", "old")
    known.note("a", "new")
    assert ImageIds(path).id_of("a") == "new"


def test_what_is_known_is_not_written_again(path: Path) -> None:
    for _ in range(3):
        ImageIds(path).note("a", "one")
    assert path.read_text() == '{"image": "a", "id": "one"}\n'


def test_what_has_no_fingerprint_is_never_known(path: Path) -> None:
    known = ImageIds(path)
    known.note(None, "one")
    assert known.id_of(None) is None
    assert not path.exists()


def test_nothing_is_written_or_read_before_it_has_to_be(path: Path) -> None:
    known = ImageIds(path)
    ImageIds(path).note("a", "one")
    assert known.id_of("a") == "one"


def test_a_torn_or_strange_line_costs_itself_only(path: Path) -> None:
    path.write_text('{"image": "a", "id": "one"}\n[1]\n{}\n{"image": "b", "id": "two"}\n{"image": "c", "i')
    known = ImageIds(path)
    assert [known.id_of(name) for name in "abc"] == ["one", "two", None]


def test_a_disk_that_cannot_be_written_is_told_of_once_and_costs_nothing_now(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    known = ImageIds(tmp_path / "none" / "image_ids.jsonl")
    with caplog.at_level(logging.WARNING):
        known.note("a", "one")
        known.note("b", "two")
    assert (known.id_of("a"), known.id_of("b")) == ("one", "two")
    (text,) = caplog.messages
    assert text.endswith("cannot be written, a restart will take longer: No such file or directory")


def test_a_directory_in_the_way_is_no_reason_to_stop(path: Path) -> None:
    path.mkdir()
    known = ImageIds(path)
    assert known.id_of("a") is None
    known.note("a", "one")
    assert known.id_of("a") == "one"


def test_several_threads(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one of them read the file, ids that others noted were forgotten."""

    def read_slowly(path: Path) -> list[Any]:
        time.sleep(0.05)
        return []

    monkeypatch.setattr(module, "read_jsonl", read_slowly)
    known = ImageIds(path)
    names = [str(number) for number in range(8)]
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(lambda name: known.note(name, f"id of {name}"), names))
    assert [known.id_of(name) for name in names] == [f"id of {name}" for name in names]
    assert sorted(known.noted_after(0)) == [(name, f"id of {name}") for name in names]
