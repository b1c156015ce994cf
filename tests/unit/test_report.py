from __future__ import annotations

import io
import json
import warnings
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from odkeras.annotation import EditCounts
from odkeras.errors import RecordError
from odkeras.simulation.report import (
    TABLE_HEADER,
    ConsoleDisplay,
    CurvePoint,
    draw_curve,
    read_curve,
    status_text,
    table_row,
    write_curve,
)

POINTS = [
    CurvePoint(0, 0.01, 0.03, version=1700000000),
    CurvePoint(10, 0.123456, 0.3, EditCounts(1, 2, 3, 0, 9, 20), 12.3456, 1.5, 1700000020),
    CurvePoint(15, 0.3, 0.6, EditCounts(4, 6, 3, 0, 1, 2), 11.0, 1.4, 1700000040),
]


def test_curve_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "curve.json"
    write_curve(path, POINTS)
    rows = json.loads(path.read_text())
    assert rows[1] == {
        "annotations": 10,
        "mAP": 0.1235,
        "mAP50": 0.3,
        "kept": 1,
        "kept_80": 2,
        "adjusted": 3,
        "relabelled": 0,
        "deleted": 9,
        "added": 20,
        "picked": 0,
        "train_s": 12.3456,
        "publish_s": 1.5,
        "version": 1700000020,
    }
    assert read_curve(path)[0] == POINTS[0]
    assert len(read_curve(path)) == 3


def test_a_curve_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    """Counts of edits had other names in version 0.1.0."""
    row = {"annotations": 5, "mAP": 0.1, "mAP50": 0.2, "kept_90": 1, "kept_70": 2, "moved": 3, "deleted": 4, "drawn": 5}
    (tmp_path / "curve.json").write_text(json.dumps([row]))
    assert read_curve(tmp_path / "curve.json")[0].edits == EditCounts(1, 1, 3, 0, 4, 5)


@pytest.mark.parametrize("text", ["not json", "{}x", "[1]", '[{"mAP": 1}]', "3"])
def test_an_invalid_curve_file_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "curve.json").write_text(text)
    with pytest.raises(RecordError, match="not a learning curve"):
        read_curve(tmp_path / "curve.json")


@pytest.mark.parametrize("count", [1, 2, 3])
def test_picture_of_a_curve_of_any_length(tmp_path: Path, count: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_curve(POINTS[:count], tmp_path / "curve.png", title="shapes")
    with Image.open(tmp_path / "curve.png") as picture:
        picture.load()
        assert picture.format == "PNG"
        assert min(picture.size) > 800
        assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 10
    assert [path.name for path in tmp_path.iterdir()] == ["curve.png"]


def test_what_the_suggestions_saved() -> None:
    """Of 24 boxes at 7 s: 13 looked at, 3 moved, 9 deleted, 20 drawn."""
    assert POINTS[1].saved_s == pytest.approx(24 * 7 - (13 * 2.4 + 2 * 3.5 + 9 * 1.6 + 20 * 7))
    assert POINTS[1].saved_share == pytest.approx(POINTS[1].saved_s / (24 * 7))
    assert POINTS[0].saved_share is None


def test_rows_line_up_with_the_header() -> None:
    rows = [table_row(point) for point in POINTS]
    assert {len(row) for row in rows} == {len(TABLE_HEADER)}
    assert rows[1].split() == ["10", "0.123", "0.300", "1", "2", "3", "0", "9", "20", "0", "-25", "12.3", "1.5"]


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (None, "the trainer is starting"),
        ({"state": "building"}, "building the model"),
        ({"state": "training", "round_step": 40, "round_steps": 100, "loss": None}, "training step 40/100"),
        (
            {"state": "training", "round_step": 40, "round_steps": 100, "loss": 0.5312},
            "training step 40/100, loss 0.531",
        ),
        ({"state": "something new"}, "something new"),
    ],
)
def test_status_in_words(status: dict[str, object] | None, text: str) -> None:
    assert status_text(status) == text


def test_without_a_terminal_only_lines_are_printed() -> None:
    out = io.StringIO()
    with ConsoleDisplay(Console(file=out, width=60)) as display:
        display.say("skipped [a].jpg: truncated")
        display.progress("training step 1/2")
        display.point(POINTS[0])
        display.point(POINTS[1])
    lines = out.getvalue().splitlines()
    assert lines[0] == "skipped [a].jpg: truncated"
    assert lines[1:] == [TABLE_HEADER, table_row(POINTS[0]), table_row(POINTS[1])]


def test_on_a_terminal_there_is_a_live_line() -> None:
    out = io.StringIO()
    with ConsoleDisplay(Console(file=out, width=80, force_terminal=True)) as display:
        display.progress("building the model")
        display.progress("training [a] step 1/2")
        display.point(POINTS[0])
    assert "training [a] step 1/2" in out.getvalue()
    assert table_row(POINTS[0]) in out.getvalue()
