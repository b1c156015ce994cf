"""Makes docs/annotate.png: the page of `odkeras annotate` after some rounds of training on the demo's pictures.

Everything in it is real: the trainer and the model server run, known boxes are posted as a person's answers, and the
picture is what Chromium shows then. Needs Debian's chromium and the Python package playwright. Takes two to three
minutes. Example:
    python scripts/screenshot_annotate.py docs/annotate.png
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from bench_web import CHROMIUM, CHROMIUM_FLAGS, Annotator, Page, annotate
from demo import make_project, write_evaluation_record, write_source
from measuring import wait_until
from odkeras.images import read_image
from odkeras.project import read_jsonl
from odkeras.shapes import ShapesDataset

TOGETHER = 5
STEPS = 120
BOXES_TO_SHOW = 2
Span = dict[str, Any]


def main() -> None:
    args = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="odkeras-screenshot-") as folder:
        project = Path(folder)
        dataset = make_project(project)
        write_evaluation_record(project, dataset)
        source = project / "shapes" / "train.jsonl"
        write_source(source, dataset.train_csv)
        options = ["--steps-per-epoch", str(STEPS), "--run-eval", "--eval-steps", "40"]
        with annotate(project, {}, dataset="shapes", source=str(source), options=options) as page:
            play(page, read_truth(dataset), args.rounds)
            take(page, args.out, width=args.width, height=args.height)
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
    wait_until(lambda: list((page.project / "export").glob("[0-9]*")))
    for number in range(1, rounds + 1):
        print(f"round {number} of {rounds}", flush=True)
        for task in annotator.tasks(TOGETHER):
            annotator.answer(task, [corrected(span, task["spans"]) for span in truth[task["image_id"]]])
        annotator.post("/api/save")
        wait_until(lambda number=number: evaluated(page) >= number)  # type: ignore[misc]
        time.sleep(1.0)


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


def take(page: Page, out: Path, *, width: int, height: int) -> None:
    """Take a screenshot of a picture with suggestions, while the trainer trains on the last answers."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(CHROMIUM_FLAGS))
        tab = browser.new_page(viewport={"width": width, "height": height})
        tab.goto(page.url)
        for _ in range(20):
            tab.wait_for_selector("[data-testid=stage][data-ready=true]")
            tab.wait_for_timeout(1500)
            if tab.get_by_test_id("box-item").count() >= BOXES_TO_SHOW:
                break
            tab.keyboard.press("Space")
        tab.keyboard.press("Escape")
        tab.screenshot(path=str(out))
        browser.close()


if __name__ == "__main__":
    main()
