"""When all images are answered: downloads, and commands that work as pasted."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from desk import DATASET, IMAGES, PHONE, Desk, Server
from playwright.sync_api import BrowserContext, expect
from test_accessibility import findings

ROOT = Path(__file__).parents[2]
FEW = 2


@pytest.fixture(autouse=True)
def few_images(project: Path) -> None:
    for number in range(FEW, IMAGES):
        (project / "images" / f"{number:02}.png").unlink()


def answer_all(desk: Desk) -> None:
    desk.draw((10, 8, 50, 36))
    desk.answer("a")
    desk.wait_ready()
    desk.press("x")
    expect(desk.by("done")).to_be_visible()


def download(desk: Desk, format: str) -> tuple[str, str]:
    """Its name and its text."""
    with desk.page.expect_download() as found:
        desk.by(f"download-{format}").click()
    return found.value.suggested_filename, Path(found.value.path()).read_text()


def test_downloads(desk: Desk) -> None:
    answer_all(desk)
    name, text = download(desk, "jsonl")
    assert name == f"{DATASET}.jsonl"
    assert sorted(json.loads(line)["answer"] for line in text.splitlines()) == ["accept", "reject"]
    name, text = download(desk, "coco")
    assert name == f"{DATASET}_coco.json"
    coco = json.loads(text)
    assert [each["name"] for each in coco["categories"]] == ["car", "person"]
    assert [each["category_id"] for each in coco["annotations"]] == [1]
    expect(desk.by("done")).to_be_visible()


def test_a_copied_command_works_in_another_directory(
    server: Server, contexts: Callable[..., BrowserContext], new_desk: Callable[..., Desk], tmp_path: Path
) -> None:
    """Copied with the mouse, and with the keyboard; the database is not where commands look for it."""
    server.options = [*server.options, "--db", str(server.directory / "my answers.db")]
    server.start()
    context = contexts()
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    desk = new_desk(context).open()
    answer_all(desk)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for title, file in (("as JSON lines", "answers.jsonl"), ("as COCO", "answers_coco.json")):
        step = desk.by("next-step").filter(has_text=title)
        button = step.get_by_role("button")
        if file.endswith("jsonl"):
            button.click()
        else:
            button.focus()
            desk.press("Enter")
        expect(step.get_by_role("status")).to_have_text("Copied")
        command = desk.page.evaluate("navigator.clipboard.readText()")
        assert command == step.locator("code").inner_text()
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run(["/bin/sh", "-c", command], cwd=elsewhere, env=environment, check=True, timeout=60)
        assert "car" in (server.directory / file).read_text()


def test_it_says_how_to_evaluate_and_export(desk: Desk, server: Server) -> None:
    (server.directory / "model" / "ckpt-1.index").touch()  # the fake trainer leaves none
    answer_all(desk)
    expect(desk.by("next-step").filter(has_text="Export the model")).to_contain_text(
        f"export {desk.server.directory}/pipeline.config"
    )
    expect(desk.by("next-step").filter(has_text="how good the suggestions were")).to_contain_text("--eval-split 0.2")
    desk.press("Backspace")
    desk.wait_ready()
    expect(desk.by("done")).to_be_hidden()


@pytest.mark.parametrize(
    "options",
    [
        PHONE,
        {"viewport": {"width": 1280, "height": 720}, "color_scheme": "dark"},
    ],
    ids=["phone", "laptop"],
)
def test_fits(server: Server, new_desk: Callable[..., Desk], options: dict[str, object]) -> None:
    server.start()
    desk = new_desk(**options).open()
    answer_all(desk)
    expect(desk.by("next-step").last).to_be_attached()
    assert findings(desk) == []
    wide = desk.page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    assert not wide, "the page scrolls sideways"
    for each in (desk.by("download-jsonl"), desk.by("next-step").last):
        each.scroll_into_view_if_needed()
        expect(each).to_be_in_viewport(ratio=0.9)
        box, over = each.bounding_box(), desk.by("done").bounding_box()
        assert box is not None and over is not None
        assert over["x"] <= box["x"] and box["x"] + box["width"] <= over["x"] + over["width"]
