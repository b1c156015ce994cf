"""A browser, the real trainer and the real model server: label until the trained model suggests boxes."""

from __future__ import annotations

import csv
import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
from desk import Box, Desk, Server
from playwright.sync_api import expect

from odkeras.images import read_image
from odkeras.init_project import init_project
from odkeras.shapes import CLASSES, generate_shapes

Truth = dict[str, list[tuple[str, Box]]]
KEYS = {label: str(number) for number, label in enumerate(CLASSES, start=1)}


def read_truth(path: Path, images_dir: Path) -> Truth:
    """Labels and boxes by image id."""
    found: Truth = defaultdict(list)
    ids = {path.name: read_image(path).image_id for path in images_dir.iterdir()}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            box = (float(row["xmin"]), float(row["ymin"]), float(row["xmax"]), float(row["ymax"]))
            found[ids[row["path"]]].append((row["label"], box))
    return found


@pytest.mark.e2e
@pytest.mark.timeout(600)
def test_annotate_until_a_trained_version_suggests(tmp_path: Path, new_desk: Callable[..., Desk]) -> None:
    folder = tmp_path / "shapes_project"
    folder.mkdir()
    dataset = generate_shapes(folder / "shapes")
    init_project(folder, CLASSES, template="shapes_96")
    truth = {**read_truth(dataset.train_csv, dataset.images_dir), **read_truth(dataset.test_csv, dataset.images_dir)}
    server = Server(
        folder,
        options=["--steps-per-epoch", "20", "--threshold", "0.02"],
        program=(sys.executable, "-m", "odkeras"),
    )
    try:
        desk = new_desk()
        desk.server = server.start(str(dataset.images_dir))
        desk.open()
        first_version = _wait_for_version(desk, 0)
        for _ in range(10):
            _label(desk, truth)
        desk.press("Control+s")
        _wait_for_version(desk, first_version)
        _label_until_suggested(desk, truth, first_version)
        expect(desk.by("trainer-state")).to_be_visible()
        desk.screenshot("loop-suggested")
    finally:
        server.stop()
    assert re.search(r"stopped; all answers are in /\S+/annotations\.db\.", "".join(server.output))


def _label(desk: Desk, truth: Truth) -> None:
    """Away with the suggestions, the true boxes in their place, accept."""
    desk.wait_ready()
    if desk.by("box-item").count():
        desk.press("d")
        expect(desk.by("box-item")).to_have_count(0)
    for label, box in truth[desk.image_id]:
        desk.press("Escape", KEYS[label])
        desk.draw(box, across=True)
    desk.answer("a")


def _label_until_suggested(desk: Desk, truth: Truth, first_version: int) -> None:
    for _ in range(30):
        desk.wait_ready()
        version = int(desk.stage.get_attribute("data-version") or 0)
        if version > first_version and desk.by("box-item").count():
            return
        _label(desk, truth)
        time.sleep(1.0)  # a person takes longer
    pytest.fail("no version that was trained suggests anything")


def _wait_for_version(desk: Desk, after: int) -> int:
    """The number of the version that is served, once it is a newer one."""
    desk.page.wait_for_function(
        "after => Number(document.querySelector('[data-testid=version]')?.dataset.version || 0) > after",
        arg=after,
        timeout=300_000,
    )
    return int(desk.by("version").get_attribute("data-version") or 0)
