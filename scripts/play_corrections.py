"""Plays a person who corrects suggested boxes in the page, and counts the boxes that nobody meant.

Known boxes of photographs are the truth. The page gets them moved and resized, as a model that has learnt little would
suggest them: some end beyond the image, some at its border. Each is corrected in a real Chromium by dragging two
opposite corners to the truth, with a hand that misses the corners by some pixels, also to the outside. The answers that
are stored then must have the true boxes and no others.

The page and its server are real; the trainer is the tests' fake one, and no model server runs. Needs Debian's chromium
and the Python package playwright. 30 corrections take about a minute. Example:
    python scripts/play_corrections.py --images raccoon/images --csv raccoon/train.csv

The exit status is 1 if a box was left that nobody meant, if one is missing, or if one is worse than --least-iou.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import CDPSession, Page, sync_playwright

from bench_web import CHROMIUM, CHROMIUM_FLAGS
from measuring import wait_until
from odkeras import boxes as box_ops
from odkeras.boxes import FloatArray
from odkeras.groundtruth_csv import GroundtruthImage, check_some_exist, read_truth_csv
from odkeras.images import read_image
from odkeras.labels import LabelMap
from odkeras.web.database import AnswerDatabase

RUN_PAGE = Path(__file__).parents[1] / "tests" / "browser" / "run_page.py"
DATASET = "corrections"
MISSED_PX = 5  # screen pixels between a corner and the point where the hand presses, per axis
LEFT_PX = 1  # additional error at the point where it lets go
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
LAPTOP = {"viewport": {"width": 1280, "height": 720}}
Point = tuple[float, float]


@dataclass(frozen=True)
class Photo:
    """An image with its true boxes and the wrong ones that the page shows: both float32 (N, 4), xyxy, in pixels."""

    image_id: str
    path: Path
    size_wh: tuple[int, int]
    truth: FloatArray
    suggested: FloatArray
    labels: tuple[str, ...]


def main() -> None:
    args = parse_arguments()
    rng = np.random.default_rng(args.seed)
    photos = choose(args, rng)
    with tempfile.TemporaryDirectory(prefix="odkeras-corrections-") as folder:
        project = Path(folder)
        write_project(project, photos)
        with annotate(project) as url:
            play(url, photos, rng, touch=args.touch)
            wait_until(lambda: len(answers_of(project)) == len(photos))
        sys.exit(0 if judge(photos, answers_of(project), args.least_iou) else 1)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of the images")
    parser.add_argument("--csv", type=Path, required=True, help="their boxes: path,xmin,ymin,xmax,ymax,label")
    parser.add_argument("--number", type=int, default=30, help="boxes to correct")
    parser.add_argument("--least-iou", type=float, default=0.9, help="each corrected box must be as good as this")
    parser.add_argument("--touch", action="store_true", help="with a finger on a phone, not with a mouse on a laptop")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def choose(args: argparse.Namespace, rng: np.random.Generator) -> list[Photo]:
    """Choose photos until they have enough boxes."""
    truths = read_truth_csv(args.csv, args.images)
    check_some_exist(truths, args.csv, args.images)
    photos: list[Photo] = []
    boxes = 0
    for truth in truths:
        if boxes >= args.number:
            break
        if len(truth.labels) and truth.path.exists():
            photos.append(suggest(truth, rng, first=boxes))
            boxes += len(truth.labels)
    return photos


def suggest(truth: GroundtruthImage, rng: np.random.Generator, first: int) -> Photo:
    """Make suggestions from the true boxes: every third box ends at the image border and every third beyond it, at the
    edges that are close to the border."""
    image = read_image(truth.path)
    height, width = image.image_size_hw
    size = np.array([width, height, width, height], np.float32)
    true = np.clip(truth.boxes_xyxy_px, 0, size)
    wrong = [shift(box, size, rng, kind=(first + number) % 3) for number, box in enumerate(true)]
    return Photo(image.image_id, truth.path, (width, height), true, np.array(wrong, np.float32), truth.labels)


def shift(box: FloatArray, size: FloatArray, rng: np.random.Generator, kind: int) -> FloatArray:
    """Move a box's edges. kind 0: by random amounts; 1: edges close to the border go onto it; 2: beyond it."""
    sides = np.tile(box[2:] - box[:2], 2)
    wrong = box + rng.uniform(-0.15, 0.15, 4).astype(np.float32) * sides
    if kind:
        low = box[:2] < 0.2 * size[:2]
        high = size[2:] - box[2:] < 0.2 * size[2:]
        beyond = rng.uniform(0.02, 0.1) * size[:2] * (kind - 1)
        wrong[:2][low] = -beyond[low]
        wrong[2:][high] = (size[2:] + beyond)[high]
    return wrong.astype(np.float32)


def write_project(project: Path, photos: Sequence[Photo]) -> None:
    (project / "pipeline.config").write_text("# the fake trainer does not read it\n")
    LabelMap.from_names(sorted({label for photo in photos for label in photo.labels})).save(project / "label_map.pbtxt")
    lines = [json.dumps({"image": str(photo.path.resolve()), "spans": spans_of(photo)}) for photo in photos]
    (project / "tasks.jsonl").write_text("\n".join(lines))


def spans_of(photo: Photo) -> list[dict[str, Any]]:
    spans = []
    for label, box in zip(photo.labels, photo.suggested.round(2).tolist(), strict=True):
        left, top, right, bottom = box
        place = {"x": left, "y": top, "width": right - left, "height": bottom - top}
        corners = [[left, top], [left, bottom], [right, bottom], [right, top]]
        spans.append({"label": label, "type": "rect", "score": 0.7, **place, "points": corners})
    return spans


@contextmanager
def annotate(project: Path) -> Iterator[str]:
    """Run the page; yields its URL. The model server's port is closed, so the boxes of the source are shown."""
    command = [sys.executable, str(RUN_PAGE), "annotate", DATASET, "tasks.jsonl", "pipeline.config", "127.0.0.1", "1"]
    command += ["--web-port", "0", "--no-open", "--db", "annotations.db", "--steps-per-epoch", "5"]
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, cwd=project, env=env, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = next(text for text in process.stdout if text.startswith("annotate at "))
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield line.split()[2]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def play(url: str, photos: Sequence[Photo], rng: np.random.Generator, *, touch: bool) -> None:
    by_id = {photo.image_id: photo for photo in photos}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(CHROMIUM_FLAGS))
        page = browser.new_page(**(PHONE if touch else LAPTOP))
        page.goto(url)
        hand = Hand(page, rng, page.context.new_cdp_session(page) if touch else None)
        before = ""
        for number in range(len(photos)):
            photo = by_id[wait_for_image(page, before)]
            print(f"{number + 1}/{len(photos)} {photo.path.name}", flush=True)
            correct(hand, photo)
            before = photo.image_id
            page.keyboard.press("a")
        page.get_by_test_id("done").wait_for()
        browser.close()


def wait_for_image(page: Page, before: str) -> str:
    ready = f"[data-testid=stage][data-ready=true]:not([data-image-id='{before}'])"
    return str(page.locator(ready).get_attribute("data-image-id"))


@dataclass
class Hand:
    """Drags with the mouse or, if there is a session of Chromium's DevTools protocol, by touch."""

    page: Page
    rng: np.random.Generator
    session: CDPSession | None

    def drag(self, start: Point, end: Point) -> None:
        """Drag from near one point of the window to near another. Both ends have almost the same error, because a
        person watches the corner, not the pointer."""
        missed = self.rng.uniform(-MISSED_PX, MISSED_PX, 2)
        left = missed + self.rng.uniform(-LEFT_PX, LEFT_PX, 2)
        points = np.linspace(np.add(start, missed), np.add(end, left), 8).tolist()
        self.touch(points) if self.session else self.mouse(points)

    def mouse(self, points: Sequence[Sequence[float]]) -> None:
        mouse = self.page.mouse
        mouse.move(*points[0])
        mouse.down()
        for x, y in points[1:]:
            mouse.move(x, y)
        mouse.up()

    def touch(self, points: Sequence[Sequence[float]]) -> None:
        assert self.session is not None
        for number, (x, y) in enumerate(points):
            kind = "touchMove" if number else "touchStart"
            self.session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
        self.session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def correct(hand: Hand, photo: Photo) -> None:
    """Drag two opposite corners of each box, at the positions where they are visible inside the image."""
    place = hand.page.get_by_test_id("image").bounding_box()
    assert place is not None
    scale = place["width"] / photo.size_wh[0]
    origin = np.array([place["x"], place["y"]])
    seen = np.clip(photo.suggested, 0, [*photo.size_wh, *photo.size_wh])
    for wrong, true in zip(seen, photo.truth, strict=True):
        corners = [(0, 1), (2, 3)] if hand.rng.random() < 0.5 else [(2, 1), (0, 3)]
        for corner in corners:
            start, end = origin + wrong[list(corner)] * scale, origin + true[list(corner)] * scale
            hand.drag((start[0], start[1]), (end[0], end[1]))


def answers_of(project: Path) -> dict[str, FloatArray]:
    """The stored boxes by image id."""
    with AnswerDatabase.open(project / "annotations.db") as database:
        return {answer["image_id"]: boxes_of(answer["spans"]) for answer in database.examples(DATASET)}


def boxes_of(spans: Sequence[dict[str, Any]]) -> FloatArray:
    rows = [[s["x"], s["y"], s["x"] + s["width"], s["y"] + s["height"]] for s in spans]
    return np.array(rows, np.float32).reshape(-1, 4)


def judge(photos: Sequence[Photo], answers: dict[str, FloatArray], least_iou: float) -> bool:
    """Print the result; returns whether each true box was stored with at least `least_iou`, and no other box was."""
    before = [float(iou) for photo in photos for iou in best_ious(photo.truth, photo.suggested)]
    after = [float(iou) for photo in photos for iou in best_ious(photo.truth, answers[photo.image_id])]
    unmeant = sum(max(0, len(answers[photo.image_id]) - len(photo.truth)) for photo in photos)
    for photo in photos:
        found = answers[photo.image_id]
        if len(found) != len(photo.truth) or min(best_ious(photo.truth, found)) < least_iou:
            print(f"{photo.path.name}: {found.round(1).tolist()} instead of {photo.truth.round(1).tolist()}")
    print(f"{len(after)} boxes in {len(photos)} images corrected by two corners each")
    print(f"IoU with the truth: {np.mean(before):.3f} before (least {min(before):.3f}), ", end="")
    print(f"{np.mean(after):.3f} after (least {min(after):.3f})")
    print(f"{unmeant} boxes left that nobody meant")
    counts = all(len(answers[photo.image_id]) == len(photo.truth) for photo in photos)
    return counts and min(after) >= least_iou


def best_ious(truth: FloatArray, found: FloatArray) -> FloatArray:
    """The highest IoU of each true box with any found box; 0 if there are none."""
    if not len(found):
        return np.zeros(len(truth), np.float32)
    best: FloatArray = box_ops.iou(truth, found).max(axis=1)
    return best


if __name__ == "__main__":
    main()
