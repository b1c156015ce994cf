"""Makes docs/annotate.png: the page of `odkeras annotate` after some rounds of training on the demo's pictures.

Everything in it is real: the trainer and the model server run, known boxes are posted as a person's answers, and the
picture is what Chromium shows then, with the mouse over an object that the model detected but does not suggest. The
demo's pictures are drawn larger, because they would look blurred. Needs Debian's chromium and the Python package
playwright. Takes three minutes, or more on a busy machine. Example:
    python scripts/screenshot_annotate.py docs/annotate.png
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Page as Tab
from playwright.sync_api import Route, sync_playwright

from bench_web import CHROMIUM, CHROMIUM_FLAGS, Annotator, Page, annotate
from demo import make_project, write_evaluation_record, write_source
from measuring import wait_until
from odkeras.images import read_image
from odkeras.project import read_jsonl
from odkeras.shapes import CLASSES, SUPERSAMPLING, ShapesDataset
from odkeras.version_dirs import list_versions

TOGETHER = 5
STEPS = 120
BOXES_TO_SHOW = 2
GOOD_IOU = 0.7
ATTEMPTS = 8
WAIT_S = 1800.0
"""For a round of training. It takes twenty seconds where nothing else runs."""
NOTICE_MS = 6_000
"""After so long, the page's messages are gone."""
Span = dict[str, Any]
Task = dict[str, Any]


@dataclass(frozen=True)
class Scene:
    """A task that shows what the page is about: suggestions that are right, and an object that can be picked."""

    file: str
    candidate: Span
    """Its label is the right one, which a person chooses before picking."""


def main() -> None:
    args = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="odkeras-screenshot-") as folder:
        project = Path(folder)
        dataset = make_project(project, scale=SUPERSAMPLING)
        write_evaluation_record(project, dataset)
        source = project / "shapes" / "train.jsonl"
        write_source(source, dataset.train_csv)
        options = ["--steps-per-epoch", str(STEPS), "--run-eval", "--eval-steps", "40"]
        with annotate(project, {}, dataset="shapes", source=str(source), options=options) as page:
            truth = read_truth(dataset)
            play(page, truth, args.rounds)
            take(page, truth, args.out, width=args.width, height=args.height)
    print(f"{args.out}: {args.out.stat().st_size // 1024} KiB")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?", default=Path("docs/annotate.png"))
    parser.add_argument("--rounds", type=int, default=7, help="rounds of training before the picture is taken")
    parser.add_argument("--width", type=int, default=1440)
    parser.add_argument("--height", type=int, default=960)
    return parser.parse_args()


def read_truth(dataset: ShapesDataset) -> dict[str, list[Span]]:
    """True boxes by image id."""
    ids = {path.name: read_image(path).image_id for path in dataset.images_dir.iterdir()}
    found: dict[str, list[Span]] = defaultdict(list)
    with dataset.train_csv.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            left, top, right, bottom = (float(row[name]) for name in ("xmin", "ymin", "xmax", "ymax"))
            span = {"label": row["label"], "x": left, "y": top, "width": right - left, "height": bottom - top}
            found[ids[row["path"]]].append(span)
    return found


def play(page: Page, truth: dict[str, list[Span]], rounds: int) -> None:
    """Answer a few pictures per round; keep good suggestions unchanged, as a person would."""
    annotator = Annotator.of(page, "default")
    wait_for(page, lambda: list_versions(page.project / "export"))
    for number in range(1, rounds + 1):
        print(f"round {number} of {rounds}", flush=True)
        answer(annotator, annotator.tasks(TOGETHER), truth)
        annotator.post("/api/save")
        wait_for(page, lambda number=number: evaluated(page) >= number)  # type: ignore[misc]


def answer(annotator: Annotator, tasks: Iterable[Task], truth: dict[str, list[Span]]) -> None:
    for task in tasks:
        annotator.answer(task, [corrected(span, task["spans"]) for span in truth[task["image_id"]]])


def wait_for(page: Page, condition: Callable[[], Any]) -> None:
    """Wait for the trainer.

    Raises:
        RuntimeError: the page has ended.
    """

    def is_met() -> bool:
        if page.process.poll() is not None:
            raise RuntimeError(f"odkeras annotate ended with status {page.process.returncode}")
        return bool(condition())

    wait_until(is_met, timeout_s=WAIT_S, poll_s=0.5)


def evaluated(page: Page) -> int:
    rows = read_jsonl(page.project / "model" / "metrics.jsonl")
    return sum(row.get("kind") == "evaluation" for row in rows)


def corrected(span: Span, suggestions: list[Span]) -> Span:
    """The matching suggestion if it needs no correction, else the true box."""
    return next((made for made in suggestions if made["label"] == span["label"] and iou(made, span) >= 0.85), span)


def iou(one: Span, other: Span) -> float:
    width = min(one["x"] + one["width"], other["x"] + other["width"]) - max(one["x"], other["x"])
    height = min(one["y"] + one["height"], other["y"] + other["height"]) - max(one["y"], other["y"])
    shared = max(0.0, width) * max(0.0, height)
    return float(shared / (one["width"] * one["height"] + other["width"] * other["height"] - shared))


def take(page: Page, truth: dict[str, list[Span]], out: Path, *, width: int, height: int) -> None:
    """Take a screenshot of a scene. Pictures that are none are answered, so that others come.

    Raises:
        RuntimeError: no scene was found.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(CHROMIUM_FLAGS))
        tab = browser.new_page(viewport={"width": width, "height": height})
        tab.set_default_timeout(1000 * WAIT_S)
        tasks: dict[str, Task] = {}
        tab.route("**/api/tasks", lambda route: note_tasks(route, tasks))
        for _ in range(ATTEMPTS):
            wait_for_tasks(page, tab, tasks)
            scene = next(
                (found for task in tasks.values() if (found := find_scene(task, truth[task["image_id"]]))), None
            )
            if scene and show(tab, scene):
                tab.wait_for_timeout(NOTICE_MS)
                tab.screenshot(path=str(out))
                browser.close()
                return
            answer(Annotator.of(page, "default"), tasks.values(), truth)
    raise RuntimeError("the model suggested too little, or nothing was left to pick; try other --rounds")


def note_tasks(route: Route, tasks: dict[str, Task]) -> None:
    reply = route.fetch()
    tasks.update({task["image_id"]: task for task in reply.json()["tasks"]})
    route.fulfill(response=reply, body=json.dumps(reply.json()))


def wait_for_tasks(page: Page, tab: Tab, tasks: dict[str, Task]) -> None:
    """Load the page when it serves the newest version, and wait until it has fetched its next pictures."""
    tab.goto(page.url)
    tab.wait_for_selector(f"[data-testid=version][data-version='{list_versions(page.project / 'export')[-1]}']")
    tasks.clear()
    tab.reload()
    tab.wait_for_selector("[data-testid=stage][data-ready=true]")
    for _ in range(30):
        if len(tasks) > 1:  # the first one is fetched alone
            return
        tab.wait_for_timeout(500)


def find_scene(task: Task, objects: list[Span]) -> Scene | None:
    """The scene that a task is; None if it is none."""
    shown: list[Span] = task["spans"]
    if len(shown) < BOXES_TO_SHOW or not all(best_match(span, objects) >= GOOD_IOU for span in shown):
        return None
    for missing in (span for span in objects if not any(iou(span, box) > 0.3 for box in shown)):
        for candidate in task["candidates"]:
            rect = dict(zip(("x", "y", "width", "height"), candidate["rect"], strict=True))
            if iou(rect, missing) >= GOOD_IOU:
                return Scene(task["file"], {"label": missing["label"], **rect})
    return None


def best_match(span: Span, objects: list[Span]) -> float:
    return max((iou(span, known) for known in objects if known["label"] == span["label"]), default=0.0)


def show(tab: Tab, scene: Scene) -> bool:
    """Open the picture and point at the candidate; whether its outline is shown."""
    tab.keyboard.press("g")
    tab.get_by_test_id("filter-name").fill(scene.file)
    tab.locator(f"[data-testid=gallery-image][data-file='{scene.file}']").click()
    tab.wait_for_function(
        "file => document.querySelector('[data-testid=image]')?.alt === file && "
        "document.querySelector('[data-testid=stage]').dataset.ready === 'true'",
        arg=scene.file,
    )
    hint = tab.get_by_test_id("picking").get_by_role("button")
    if hint.is_visible():
        hint.click()
    candidate = scene.candidate
    tab.keyboard.press(str(CLASSES.index(candidate["label"]) + 1))
    left, top, scale = tab.evaluate(
        "() => { const image = document.querySelector('[data-testid=image]'), at = image.getBoundingClientRect();"
        " return [at.left, at.top, at.width / image.naturalWidth]; }"
    )
    x, y = candidate["x"] + candidate["width"] / 2, candidate["y"] + candidate["height"] / 2
    tab.mouse.move(left + scale * x, top + scale * y)
    ghost = tab.get_by_test_id("ghost")
    rect = ghost.get_attribute("data-rect") if ghost.is_visible() else None
    return rect is not None and [float(number) for number in rect.split(",")] == [
        candidate[name] for name in ("x", "y", "width", "height")
    ]


if __name__ == "__main__":
    main()
