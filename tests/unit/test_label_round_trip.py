"""What `odkeras export-labels` writes, `odkeras import` reads to the same labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from label_exports import BOXES, TRIANGLE_BOX, export, fill
from typer.testing import CliRunner

from odkeras.cli import app
from odkeras.web.database import AnswerDatabase

EXPECTED = {**BOXES, "triangle.jpg": [TRIANGLE_BOX]}
TOLERANCE_PX = {"voc": 1.0, "yolo": 0.01, "labelstudio": 0.01, "tfrecord": 1.0}
"""VOC has whole pixels; the masks of TFRecords show the pixels that an object covers."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ODKERAS_DB", raising=False)
    fill(tmp_path, polygons=True)
    return tmp_path


def again() -> dict[str, dict[str, Any]]:
    with AnswerDatabase.open("again.db", create=False) as database:
        return dict(database.iter_examples("pets"))


def exported() -> dict[str, dict[str, Any]]:
    with AnswerDatabase.open("annotations.db", create=False) as database:
        return dict(database.iter_latest("pets", decision="accept"))


@pytest.mark.parametrize("options", [(), ("--copy-images", "--split", "0.5/0.5")], ids=["alone", "with images"])
@pytest.mark.parametrize("format", ["coco", "voc", "yolo", "csv", "tfrecord", "labelstudio", "cvat", "jsonl"])
def test_out_and_in_again(folder: Path, format: str, options: tuple[str, ...]) -> None:
    if format == "tfrecord":  # has the images inside
        options = tuple(option for option in options if option != "--copy-images")
    export("--format", format, *options)
    images = () if options or format == "yolo" else ("--images", "photos")  # for YOLO they are linked
    result = CliRunner().invoke(app, ["import", "pets", "out", *images, "--db", "again.db"])
    assert result.exit_code == 0, (result.output, result.exception)
    assert "refused" not in result.output and "not found" not in result.output, result.output
    before, after = exported(), again()
    assert after.keys() == before.keys(), "the pictures are the same, and so are their ids"
    for image_id, example in before.items():
        tolerance_px = TOLERANCE_PX.get(format, 0.006)
        compare(example["spans"], after[image_id]["spans"], tolerance_px, has_polygons=format != "csv")
    if options:
        splits = {example.get("split") for example in after.values()}
        assert splits == {"train", "val"}


def compare(before: list[Any], after: list[Any], tolerance_px: float, *, has_polygons: bool) -> None:
    assert [span["label"] for span in before] == [span["label"] for span in after]
    for one, other in zip(before, after, strict=True):
        assert bounds(one) == pytest.approx(bounds(other), abs=tolerance_px)
        if one["type"] == "polygon" and has_polygons and tolerance_px < 1:
            assert sorted(map(tuple, one["points"])) == [
                pytest.approx(point, abs=tolerance_px) for point in sorted(map(tuple, other["points"]))
            ]


def bounds(span: Any) -> list[float]:
    xs, ys = zip(*span["points"], strict=True)
    return [min(xs), min(ys), max(xs), max(ys)]
