"""Small state files that hold anything: what they said is lost, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from odkeras.control import RUNNING, Control
from odkeras.export.info import EXPORT_INFO_PATH, read_export_info
from odkeras.pipeline.trained_classes import has_checkpoints
from odkeras.project import Project, read_jsonl, read_status
from odkeras.session.image_ids import ImageIds
from odkeras.session.sources import resolve_source
from odkeras.version_names import VersionNames
from odkeras.web.location import find_database
from odkeras.work import totals

ODD = {
    "empty": b"",
    "cut": b'{"state": "pau',
    "binary": bytes(range(256)) * 20,
    "nested": b"[" * 100_000 + b"]" * 100_000,
    "nested object": b'{"state":' * 100_000 + b"1" + b"}" * 100_000,
    "list": b"[]",
    "number": b"7",
    "null": b"null",
    "huge number": b'{"state": 1' + b"0" * 5000 + b"}",
    "surrogates": b'{"state": "\\ud800", "id": "\\ud800", "image": "\\ud800"}',
    "wrong types": json.dumps(
        {"state": [], "kind": {}, "version": "x", "round": [], "id": 5, "image": None, "labels": 3, "step": {}}
    ).encode(),
    "NaN": b'{"state": NaN, "version": Infinity}',
}


def export_info(path: Path) -> object:
    (path.parent / EXPORT_INFO_PATH).parent.mkdir(exist_ok=True)
    (path.parent / EXPORT_INFO_PATH).write_bytes(path.read_bytes())
    return read_export_info(path.parent)


def databases(path: Path) -> object:
    project = Project(path.parent, path.parent, path.parent)
    project.databases_path.write_bytes(path.read_bytes())
    find_database(None, path.parent, "things", data_dir=path.parent)
    return None


READERS: dict[str, Callable[[Path], object]] = {
    "status.json": read_status,
    "control.json": lambda path: Control(path).state == RUNNING and None,
    "metrics.jsonl": lambda path: VersionNames(read_jsonl(path)) and None,
    "image_ids.jsonl": lambda path: ImageIds(path).id_of("x"),
    "work.jsonl": lambda path: totals([row for row in read_jsonl(path) if "images" in row], lambda row: 1) and None,
    "export info": export_info,
    "databases.json": databases,
}


@pytest.mark.parametrize("name", list(READERS))
@pytest.mark.parametrize("kind", list(ODD))
def test_it_is_read_as_if_it_were_missing(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(ODD[kind])
    got = READERS[name](path)
    assert got is None or isinstance(got, dict)
    assert not has_checkpoints(tmp_path)


def test_links_to_one_picture_are_one_image(tmp_path: Path, png_bytes: bytes) -> None:
    """100,000 of them took two minutes, for one answer."""
    (tmp_path / "b.png").write_bytes(png_bytes)
    (tmp_path / "a.png").symlink_to("b.png")
    (tmp_path / "c.png").hardlink_to(tmp_path / "b.png")
    (tmp_path / "copy.png").write_bytes(png_bytes)
    (tmp_path / "dangling.png").symlink_to("nowhere.png")
    files = resolve_source(tmp_path)
    assert [path.name for path in files] == ["a.png", "copy.png", "dangling.png"]  # type: ignore[union-attr]
