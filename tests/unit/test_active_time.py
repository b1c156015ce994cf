"""Measured seconds of work: with suggestions, on control images, and what `odkeras stats` says about them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from odkeras.active_time import MeasuredTime
from odkeras.cli import app

SHOWN = [(4.0, 1), (6.0, 2), (5.0, 1), (9.0, 3), (6.0, 2), (6.0, 1)]
CONTROL = [(12.0, 1), (18.0, 2), (14.0, 1), (20.0, 2), (16.0, 2)]
Timed = Sequence[tuple[float | None, int]]


def rows(shown: Timed = (), control: Timed = ()) -> list[dict[str, Any]]:
    """Rows of work.jsonl with these seconds and numbers of boxes."""
    return [
        {"image_id": f"{kind} {number}", "session": "anna", "version": 7, "added": boxes}
        | ({"control": True} if kind == "control" else {})
        | ({} if seconds is None else {"active_s": seconds})
        for kind, timed in (("shown", shown), ("control", control))
        for number, (seconds, boxes) in enumerate(timed)
    ]


def stats(folder: Path, written: list[dict[str, Any]], *options: str) -> str:
    config = folder / "pipeline.config"
    config.touch()
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data" / "work.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in written))
    result = CliRunner().invoke(app, ["stats", str(config), *options], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


class TestMeasuredTime:
    def test_means_and_medians_of_both_groups(self) -> None:
        measured = MeasuredTime.of(rows(SHOWN, CONTROL))
        assert measured.suggested is not None and measured.control is not None
        assert (measured.suggested.images, measured.suggested.boxes, measured.suggested.median_s) == (6, 10, 6.0)
        assert measured.suggested.per_image.value == pytest.approx(36 / 6)
        assert measured.suggested.per_box is not None and measured.control.per_box is not None
        assert measured.suggested.per_box.value == pytest.approx(36 / 10)
        assert measured.control.per_image.value == pytest.approx(80 / 5)
        assert measured.control.per_box.value == pytest.approx(80 / 8)

    def test_the_difference_is_what_suggestions_saved(self) -> None:
        measured = MeasuredTime.of(rows(SHOWN, CONTROL))
        assert measured.missing == ""
        assert measured.saved_per_image is not None and measured.saved_per_box is not None
        assert measured.saved_per_image.value == pytest.approx(16 - 6)
        assert measured.saved_per_box.value == pytest.approx(10 - 3.6)
        assert MeasuredTime.of(rows(SHOWN, CONTROL)).saved_per_image.interval == measured.saved_per_image.interval

    def test_the_interval_is_that_of_the_mean(self) -> None:
        """Of many normal values, the bootstrap interval is close to mean +- 1.96 standard errors."""
        random = np.random.default_rng(1)
        shown, control = random.normal(20, 4, 400), random.normal(30, 8, 400)
        measured = MeasuredTime.of(rows([(s, 1) for s in shown], [(s, 1) for s in control]))
        assert measured.suggested is not None and measured.saved_per_image is not None
        error = shown.std() / 20
        expected = (shown.mean() - 1.96 * error, shown.mean() + 1.96 * error)
        assert measured.suggested.per_image.interval == pytest.approx(expected, abs=0.1 * error)
        error = float(np.hypot(shown.std(), control.std())) / 20
        difference = control.mean() - shown.mean()
        expected = (difference - 1.96 * error, difference + 1.96 * error)
        assert measured.saved_per_image.interval == pytest.approx(expected, abs=0.1 * error)

    def test_images_without_boxes_have_no_seconds_per_box(self) -> None:
        measured = MeasuredTime.of(rows([(2.0, 0)] * 5, CONTROL))
        assert measured.suggested is not None
        assert measured.suggested.per_box is None
        assert measured.saved_per_image is not None
        assert measured.saved_per_box is None

    def test_a_resample_without_boxes_does_not_count(self) -> None:
        measured = MeasuredTime.of(rows([(2.0, 0)] * 5 + [(4.0, 1)]))
        assert measured.suggested is not None and measured.suggested.per_box is not None
        assert measured.suggested.per_box.interval is not None
        assert np.isfinite(measured.suggested.per_box.interval).all()

    @pytest.mark.parametrize(
        ("shown", "control", "missing"),
        [
            ((), (), "no measured seconds: only answers from the page"),
            ([(None, 1)] * 9, [(None, 1)] * 9, "no measured seconds: only answers from the page"),
            (SHOWN, (), "no control images: --control 0.1 shows some images without suggestions"),
            (SHOWN, CONTROL[:4], "6 images with suggestions and 4 control images were measured"),
            (SHOWN[:1], CONTROL, "1 images with suggestions and 5 control images were measured"),
        ],
    )
    def test_what_is_missing_for_a_comparison(self, shown: Timed, control: Timed, missing: str) -> None:
        measured = MeasuredTime.of(rows(shown, control))
        assert measured.missing.startswith(missing)
        assert (measured.saved_per_image, measured.saved_per_box) == (None, None)

    def test_few_images_have_no_interval(self) -> None:
        measured = MeasuredTime.of(rows(SHOWN[:4]))
        assert measured.suggested is not None
        assert measured.suggested.per_image.value == pytest.approx(6.0)
        assert measured.suggested.per_image.interval is None


class TestCommand:
    def test_the_table_is_beside_the_estimate(self, tmp_path: Path) -> None:
        lines = [" ".join(line.split()) for line in stats(tmp_path, rows(SHOWN, CONTROL)).splitlines()]
        at = lines.index("measured: seconds of work")
        assert lines[at + 2].startswith("with suggestions 6 10 6.0 6.0 (")
        assert lines[at + 3].startswith("control images 5 8 16.0 16.0 (")
        assert lines[at + 4].startswith("saved 10.0 (")
        assert lines[at - 2].startswith("estimated: ")
        assert lines[-1].startswith("saved per image: measured 10.0 (")
        assert lines[-1].endswith("s, estimated 0.0 s")

    def test_without_control_images_it_says_how_to_get_them(self, tmp_path: Path) -> None:
        lines = stats(tmp_path, rows(SHOWN)).splitlines()
        assert lines[-1].startswith("measured: no control images: --control 0.1 ")

    def test_the_last_row_of_an_image_counts(self, tmp_path: Path) -> None:
        """The row of a correction has the seconds of the first answer, too."""
        corrected = {**rows(SHOWN)[0], "active_s": 10.0}
        measured = json.loads(stats(tmp_path, [*rows(SHOWN, CONTROL), corrected], "--json"))["measured"]
        assert measured["with_suggestions"]["images"] == 6
        assert measured["with_suggestions"]["seconds_per_image"]["mean"] == 7.0

    def test_json_has_the_same_figures(self, tmp_path: Path) -> None:
        measured = json.loads(stats(tmp_path, rows(SHOWN, CONTROL), "--json"))["measured"]
        expected = MeasuredTime.of(rows(SHOWN, CONTROL))
        assert expected.saved_per_image is not None and expected.saved_per_image.interval is not None
        low, high = expected.saved_per_image.interval
        assert measured["control"]["seconds_per_box"]["mean"] == 10.0
        assert measured["control"]["median_seconds_per_image"] == 16.0
        assert measured["saved"]["seconds_per_image"] == {"mean": 10.0, "interval": [round(low, 2), round(high, 2)]}
        assert measured["missing"] == ""
        few = json.loads(stats(tmp_path, rows(SHOWN[:2]), "--json"))["measured"]
        assert few["with_suggestions"]["seconds_per_image"] == {"mean": 5.0, "interval": None}
        assert (few["control"], few["saved"]) == (None, None)
        assert few["missing"].startswith("no control images")
