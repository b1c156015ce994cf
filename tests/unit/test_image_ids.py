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


def test_ids_are_known_in_this_run_and_the_next(path: Path) -> None:
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


def test_items_without_a_fingerprint_are_not_stored(path: Path) -> None:
    known = ImageIds(path)
    known.note(None, "one")
    assert known.id_of(None) is None
    assert not path.exists()


def test_a_broken_line_is_skipped(path: Path) -> None:
    path.write_text('{"image": "a", "id": "one"}\n[1]\n{}\n{"image": "b", "id": "two"}\n{"image": "c", "i')
    known = ImageIds(path)
    assert [known.id_of(name) for name in "abc"] == ["one", "two", None]


def test_an_unwritable_disk_is_reported_once_and_ids_stay_known(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    known = ImageIds(tmp_path / "none" / "image_ids.jsonl")
    with caplog.at_level(logging.WARNING):
        known.note("a", "one")
        known.note("b", "two")
    assert (known.id_of("a"), known.id_of("b")) == ("one", "two")
    (text,) = caplog.messages
    assert text.endswith("cannot be written, a restart will take longer: No such file or directory")


def test_threads_may_share_the_store(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
