"""The tutorial's commands begin a project with labels of each format. TFRecords: tests/integration."""

from __future__ import annotations

from pathlib import Path

import pytest
from label_sets import BOXES, CLASSES, WRITERS, documented_starts, run_start

from odkeras.labels import LabelMap

FORMATS = {
    "COCO": "coco",
    "Pascal VOC": "voc",
    "YOLO": "yolo",
    "CSV": "csv",
    "Label Studio": "labelstudio",
    "CVAT": "cvat",
    "JSON lines": "jsonl",
}
STARTS = [(title, commands) for title, commands in documented_starts() if not title.startswith("TFRecord")]


def test_every_format_is_shown() -> None:
    assert len(documented_starts()) == len(WRITERS) + 1


@pytest.mark.parametrize(("title", "commands"), STARTS, ids=[title for title, _ in STARTS])
def test_begin_with_labels(title: str, commands: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ODKERAS_DB", raising=False)
    (format,) = (format for name, format in FORMATS.items() if title.startswith(name))
    assert run_start(commands, tmp_path, WRITERS[format]) == BOXES
    assert sorted(LabelMap.load(tmp_path / "pets" / "label_map.pbtxt").names) == CLASSES
