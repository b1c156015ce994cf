from __future__ import annotations

import base64
import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from image_server import ImageServer, image_server
from pictures import draw_pixels, encode

from odkeras.data_uri import bytes_from_data_uri
from odkeras.errors import ConfigError, ImageError
from odkeras.formats.prodigy import Record, write_task
from odkeras.images import EncodedImage
from odkeras.session.sources import Item, Source, load_task, open_source, resolve_source
from odkeras.session.web_images import WebImages


def png(seed: int = 0) -> bytes:
    return encode(draw_pixels(seed=seed), "PNG")


def data_uri(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def refuse_to_skip(name: str, reason: str) -> None:
    raise AssertionError(f"skipped {name}: {reason}")


def items_of(source: Source, stdin: IO[str] | None = None) -> list[Item]:
    return list(open_source(source, on_skip=refuse_to_skip, stdin=stdin)[0])


def task_of(record: dict[str, Any], base_dir: Path | None = None) -> Record:
    return write_task(load_task(Item("tasks.jsonl:1", record=record, base_dir=base_dir)))


def write_lines(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for number in range(3):
        (tmp_path / "images" / f"{number}.png").write_bytes(png(number))
    return tmp_path / "images"


@pytest.fixture
def server() -> Iterator[ImageServer]:
    with image_server() as running:
        yield running


class TestOpenSource:
    def test_a_directory_sorted_and_counted(self, images: Path) -> None:
        (images / "notes.txt").write_text("no image")
        items, number = open_source(images, on_skip=refuse_to_skip)
        assert [item.path for item in items] == [images / f"{number}.png" for number in range(3)]
        assert number == 3

    @pytest.mark.parametrize("as_text", [False, True])
    def test_one_image(self, images: Path, as_text: bool) -> None:
        path = images / "1.png"
        items, number = open_source(str(path) if as_text else path, on_skip=refuse_to_skip)
        assert [(item.name, item.path) for item in items] == [(str(path), path)]
        assert number == 1

    @pytest.mark.parametrize("name", ["tasks.jsonl", "tasks.ndjson", "TASKS.JSONL"])
    def test_the_lines_of_a_file_are_counted(self, tmp_path: Path, name: str) -> None:
        path = write_lines(tmp_path / name, {"image": "a.png"}, {"image": "b.png"})
        items, number = open_source(path, on_skip=refuse_to_skip)
        assert number == 2
        assert list(items) == [
            Item(f"{path}:1", record={"image": "a.png"}, base_dir=tmp_path),
            Item(f"{path}:2", record={"image": "b.png"}, base_dir=tmp_path),
        ]

    def test_the_lines_of_a_file_that_takes_long_to_read_are_not_counted(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("odkeras.session.sources._COUNTED_BYTES", 10)
        path = write_lines(tmp_path / "tasks.jsonl", {"image": "a.png"})
        assert open_source(path, on_skip=refuse_to_skip)[1] is None

    def test_lines_that_are_no_records_are_skipped_with_their_number(self, tmp_path: Path) -> None:
        path = tmp_path / "tasks.jsonl"
        path.write_bytes(
            b'\xef\xbb\xbf{"image": "first.png"}\n'  # as Windows' editor writes it
            b"\n"
            b"   \n"
            b'{"image": \n'
            b"[1, 2]\n"
            b'"text"\n' + b"[" * 100_000 + b"\n"  # deeper than Python's stack
            b'{"image": "\xff.png"}\r\n'  # a broken character is no reason to stop
            b'{"image": "no line end.png"}'
        )
        skipped: list[tuple[str, str]] = []
        items, _ = open_source(path, on_skip=lambda *what: skipped.append(what))
        assert [(item.name, item.record) for item in items] == [
            (f"{path}:1", {"image": "first.png"}),
            (f"{path}:8", {"image": "\ufffd.png"}),
            (f"{path}:9", {"image": "no line end.png"}),
        ]
        assert [name.rpartition(":")[2] for name, _ in skipped] == ["4", "5", "6", "7"]
        assert skipped[0][1].startswith("not JSON: Expecting value")
        assert skipped[1][1] == "a line must be a JSON object; got list"
        assert skipped[2][1] == "a line must be a JSON object; got str"
        assert skipped[3][1].startswith("not JSON: ")

    def test_standard_input(self) -> None:
        items, number = open_source("-", on_skip=refuse_to_skip, stdin=io.StringIO('{"image": "a.png"}\n'))
        assert list(items) == [Item("stdin:1", record={"image": "a.png"})]
        assert number is None

    def test_standard_input_is_utf8_and_a_broken_byte_spoils_its_line_only(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In a terminal that was not set to UTF-8, or at a broken byte, the stream ended with UnicodeDecodeError."""
        lines = '\ufeff{"image": "é.png"}\n'.encode() + b'\xff\n{"image": "b.png"}\n'
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines), encoding="ascii"))
        skipped: list[str] = []
        items, _ = open_source("-", on_skip=lambda name, reason: skipped.append(name))
        assert [item.record for item in items] == [{"image": "é.png"}, {"image": "b.png"}]
        assert skipped == ["stdin:2"]

    def test_an_iterable_of_paths_and_records(self, images: Path) -> None:
        record = {"image": "a.png", "meta": {"file": "shown.png"}}
        source: list[Any] = [images / "0.png", str(images / "1.png"), record]
        items, number = open_source(source, on_skip=refuse_to_skip)
        first, second, third = items
        assert (first.path, second.path) == (images / "0.png", images / "1.png")
        assert (third.name, third.record, third.path) == ("shown.png", record, None)
        assert number == 3

    def test_an_iterable_is_not_asked_before_it_has_to_be(self) -> None:
        asked: list[int] = []

        def paths() -> Iterator[Path]:
            for number in range(3):
                asked.append(number)
                yield Path(f"{number}.png")

        items, _ = open_source(paths(), on_skip=refuse_to_skip)
        assert asked == []
        next(items)
        assert asked == [0]

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ("none", r"source .*none: no such file or directory; give a directory of images, a \.jsonl file, or -"),
            ("none.jsonl", r"source .*none\.jsonl: no such file or directory"),
            ("empty", r"source .*empty: no images in this directory \(JPEG, PNG"),
            # A kind of file that cannot be a source was taken for an image, and skipped when its turn came.
            ("truth.csv", r"source .*truth\.csv: neither an image \(JPEG, .*\) nor a \.jsonl file with an object per"),
            ("tasks.json", r"source .*tasks\.json: neither an image"),
            ("n" * 300, r"source .*n: cannot be read: File name too long"),
        ],
    )
    def test_an_invalid_source_is_refused_on_opening(self, tmp_path: Path, source: str, message: str) -> None:
        (tmp_path / "empty").mkdir()
        (tmp_path / "empty" / ".hidden.png").write_bytes(png())
        (tmp_path / "truth.csv").write_text("path,xmin\n")
        (tmp_path / "tasks.json").write_text("[]")
        with pytest.raises(ConfigError, match=message):
            open_source(tmp_path / source, on_skip=refuse_to_skip)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
    def test_an_unreadable_file_is_refused_on_opening(self, tmp_path: Path) -> None:
        path = write_lines(tmp_path / "tasks.jsonl", {})
        path.chmod(0)
        with pytest.raises(ConfigError, match=r"tasks\.jsonl: cannot be read: Permission denied"):
            open_source(path, on_skip=refuse_to_skip)

    def test_resolving_lists_a_directory_and_leaves_the_rest(self, images: Path, tmp_path: Path) -> None:
        lines = write_lines(tmp_path / "tasks.jsonl", {})
        records: list[Path | Record] = [{"image": "a.png"}]
        assert resolve_source(str(images)) == [images / f"{number}.png" for number in range(3)]
        assert resolve_source(str(lines)) == lines
        assert resolve_source("-") == "-"
        assert resolve_source(records) is records


class TestLoadTask:
    def test_of_a_file(self, images: Path) -> None:
        task = load_task(Item("2.png", images / "2.png"))
        assert isinstance(task.image, EncodedImage)
        assert write_task(task) == {
            "image": data_uri(png(2)),
            "width": 64,
            "height": 48,
            "image_id": task.image.image_id,
            "meta": {"file": "2.png"},
            "path": str(images / "2.png"),
            "spans": [],
        }

    def test_of_a_data_uri(self) -> None:
        task = task_of({"image": data_uri(png())})
        assert bytes_from_data_uri(task["image"]) == png()
        assert (task["width"], task["height"], task["meta"]) == (64, 48, {"file": "image"})
        assert "path" not in task

    def test_of_a_data_uri_whose_file_is_known(self, tmp_path: Path) -> None:
        """Prodigy's own loaders leave both. The file may be on another machine, or the image be a part of that one."""
        (tmp_path / "a.png").write_bytes(png())
        (tmp_path / "page.png").write_bytes(png(7))
        task = task_of({"image": data_uri(png()), "path": str(tmp_path / "a.png")})
        assert (task["path"], task["meta"]["file"]) == (str(tmp_path / "a.png"), "a.png")
        for path in ("/elsewhere/a.png", str(tmp_path / "page.png")):
            task = task_of({"image": data_uri(png()), "path": path})
            assert (task.get("path"), task["source_path"], task["meta"]["file"]) == (None, path, Path(path).name)

    def test_of_a_url(self, server: ImageServer) -> None:
        url = server.put("/photos/a.png?size=large", png(1))
        with WebImages() as web:
            task = load_task(Item("tasks.jsonl:1", record={"image": url}), fetch=web.fetch)
        assert server.requests == ["/photos/a.png?size=large"]
        assert isinstance(task.image, EncodedImage)
        assert (task.image.data, task.path, task.file) == (png(1), url, "a.png")

    def test_a_url_that_is_no_image(self, server: ImageServer) -> None:
        url = server.put("/login", b"<!doctype html><title>Log in</title>")
        with WebImages() as web, pytest.raises(ImageError, match=r"/login: no image data: an HTML page"):
            load_task(Item("tasks.jsonl:1", record={"image": url}), fetch=web.fetch)

    def test_a_url_where_none_are_fetched(self) -> None:
        with pytest.raises(ImageError, match=r"https://example\.org/a\.png: the image is a URL, which is not fetched"):
            task_of({"image": "https://example.org/a.png"})

    @pytest.mark.parametrize(
        "record",
        [
            {"image": "images/1.png"},  # relative to the JSONL file
            {"image": "{images}/1.png"},
            {"image": "file://{images}/1.png"},
            {"path": "images/1.png"},
            {"image": "", "path": "images/1.png"},
            {"image": None, "path": "images/1.png"},
            {"image": "gone.png", "path": "images/1.png"},  # the first that is there
            {"image": "n" * 5000, "path": "images/1.png"},
            {"image": "images/1.png", "path": "images/2.png"},
        ],
    )
    def test_of_a_path(self, images: Path, record: dict[str, Any]) -> None:
        filled = {key: value.format(images=images) if value else value for key, value in record.items()}
        task = task_of(filled, base_dir=images.parent)
        assert bytes_from_data_uri(task["image"]) == png(1)
        assert (task["path"], task["meta"]["file"]) == (str(images / "1.png"), "1.png")

    def test_other_keys_stay(self) -> None:
        own = {"text": "a car?", "options": [{"id": 1}], "meta": {"camera": 3, "file": "front.png"}, "_custom": None}
        task = task_of({"image": data_uri(png()), **own})
        assert {key: task[key] for key in own} == own

    def test_what_an_earlier_answer_left_is_dropped(self) -> None:
        left = {
            "answer": "reject",
            "width": 640,
            "height": 480,
            "stored_image": "a.png",
            "_suggestions": {"version": 3},
            **dict.fromkeys(("_input_hash", "_task_hash", "_session_id", "_annotator_id", "_view_id"), 7),
            **dict.fromkeys(("_timestamp", "_is_binary"), 7),
        }
        meta = {"camera": 3, "score": 0.9, "model version": 17}
        task = task_of({"image": data_uri(png()), "meta": meta, **left})
        assert task == {**task_of({"image": data_uri(png())}), "meta": {"camera": 3, "file": "image"}}

    def test_an_id_of_its_own_is_kept_beside_ours(self, image: EncodedImage) -> None:
        task = task_of({"image": image.data_uri, "image_id": 17})
        assert (task["image_id"], task["source_image_id"]) == (image.image_id, 17)
        again = task_of(task)
        assert (again["image_id"], again["source_image_id"]) == (image.image_id, 17)
        assert "source_image_id" not in task_of({"image": image.data_uri, "image_id": image.image_id})

    def test_spans_are_carried_over(self) -> None:
        points = [[8, 6], [8, 30], [40, 30], [40, 6]]
        spans = [
            {"label": "car", "points": points, "track": 3},
            {"label": "car", "x": 8, "y": 6, "width": 32, "height": 24},
        ]
        first, second = task_of({"image": data_uri(png()), "spans": spans})["spans"]
        assert first == {**second, "track": 3}
        assert second["points"] == points

    @pytest.mark.parametrize(("width", "height", "kept"), [(64, 48, 1), (None, None, 1), (640, 480, 0), (48, 64, 0)])
    def test_spans_for_another_size_are_not(self, width: int | None, height: int | None, kept: int) -> None:
        spans = [{"label": "car", "points": [[8, 6], [8, 30], [40, 30], [40, 6]]}]
        task = task_of({"image": data_uri(png()), "spans": spans, "width": width, "height": height})
        assert (len(task["spans"]), task["width"], task["height"]) == (kept, 64, 48)

    @pytest.mark.parametrize(
        ("record", "message"),
        [
            ({}, "tasks.jsonl:1: the record has neither 'image' nor 'path'"),
            ({"image": 5, "path": ["a.png"]}, "tasks.jsonl:1: the record has neither"),
            ({"image": "/none/a.png"}, "/none/a.png: cannot be read: No such file or directory"),
            ({"image": "a\0.png"}, "cannot be read: embedded null byte"),
            ({"image": "\ud800.png"}, "cannot be read: .*surrogates not allowed"),
            ({"image": "n" * 5000}, "cannot be read: File name too long"),
            ({"image": "data:image/png;base64,?"}, "broken base64 in the data URI"),
            ({"image": "data:image/png;base64,"}, "tasks.jsonl:1: empty file"),
        ],
    )
    def test_unreadable_images_raise_image_error(self, record: dict[str, Any], message: str) -> None:
        with pytest.raises(ImageError, match=message):
            task_of(record)


class TestFingerprint:
    def test_of_a_file_changes_with_it(self, images: Path) -> None:
        path = images / "0.png"
        item = Item("0.png", path)
        first = item.fingerprint
        assert first == Item("another name", path).fingerprint
        os.utime(path, (1.0, 1.0))
        touched = item.fingerprint
        path.write_bytes(png() + b"\0")
        os.utime(path, (1.0, 1.0))
        assert len({first, touched, item.fingerprint, Item("1.png", images / "1.png").fingerprint}) == 4

    def test_of_a_record_that_names_a_file_is_the_files(self, images: Path) -> None:
        of_record = Item("tasks.jsonl:1", record={"image": "0.png"}, base_dir=images).fingerprint
        assert of_record == Item("0.png", images / "0.png").fingerprint

    @pytest.mark.parametrize("record", [{}, {"image": "/none/a.png"}, {"image": "a\0.png"}])
    def test_nothing_has_no_fingerprint(self, record: dict[str, Any]) -> None:
        assert Item("tasks.jsonl:1", record=record).fingerprint is None
        assert Item("none.png", Path("/none/none.png")).fingerprint is None


def test_elements_that_are_neither_path_nor_task_are_skipped() -> None:
    """One such element ended the stream."""
    skipped: dict[str, str] = {}
    items, _ = open_source([None, 7, "a.png"], on_skip=skipped.__setitem__)  # type: ignore[list-item]
    assert [item.name for item in items] == ["a.png"]
    assert skipped["7"] == "must be a path or a task; got int"
