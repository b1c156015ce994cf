"""How long an annotator in the page waits, and what many of them cost: `odkeras annotate` as a process, a real browser.

  start    from the command to the page with its first image, in a new project.
  accept   from the key press to the next image on the screen, in Chromium, while the trainer trains on the same cores.
  pointer  from a move of the pointer to the outline of the best of 100 candidates there, in Chromium.
  crowd    20 annotators who post an answer at the same moment, again and again, while the trainer trains.
  memory   resident memory of the page's process after 1,000 answered tasks.

Needs Debian's chromium and the Python package playwright. Example:
    python scripts/bench_web.py

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from measuring import (
    DEFAULT_TEMPLATE,
    HEIGHT,
    WIDTH,
    Row,
    draw_photograph,
    mark_as_learned,
    memory_mb,
    percentile,
    report,
    say,
    wait_until,
)
from odkeras.init_project import init_project
from odkeras.project import read_status
from odkeras.version_dirs import list_versions

DRAWN = 20
ANNOTATORS = 20
BOX = {"label": "thing", "x": 100, "y": 100, "width": 300, "height": 200}
CHROMIUM = "/usr/bin/chromium"
CHROMIUM_FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@dataclass(frozen=True)
class Page:
    """A running process of `odkeras annotate`."""

    url: str
    process: subprocess.Popen[str]
    project: Path

    def is_training(self) -> bool:
        return (read_status(self.project / "model" / "status.json") or {}).get("state") == "training"

    def memory_mb(self) -> float:
        return memory_mb(self.process.pid)


@dataclass
class Annotator:
    """A session that annotates over HTTP."""

    page: Page
    session: str
    client: httpx.Client

    @classmethod
    def of(cls, page: Page, session: str) -> Annotator:
        return cls(page, session, httpx.Client(base_url=page.url, timeout=60))

    def post(self, path: str, **body: Any) -> dict[str, Any]:
        response = self.client.post(path, json={"session": self.session, "tab": "bench", **body})
        response.raise_for_status()
        found: dict[str, Any] = response.json()
        return found

    def tasks(self, count: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.post("/api/tasks", count=count, have=[])["tasks"]
        return found

    def answer(self, task: dict[str, Any], spans: Sequence[dict[str, Any]] = (BOX,)) -> float:
        """Accept the task; returns the seconds until the answer is acknowledged."""
        answer = {"answer_id": uuid.uuid4().hex, "image_id": task["image_id"], "answer": "accept", "spans": list(spans)}
        started = time.perf_counter()
        done = self.post("/api/answers", answers=[answer])
        seconds = time.perf_counter() - started
        assert done["saved"] == [answer["answer_id"]], done
        return seconds


def main() -> None:
    args = parse_arguments()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="odkeras-bench-") as folder:
        project = Path(folder)
        prepare(project, args)
        with annotate(project, found) as page:
            start_training(page)
            for part in (measure_accept, measure_pointer, measure_crowd, measure_memory):
                say(part.__name__.removeprefix("measure_"))
                found.update(part(page, args))
                assert page.is_training(), "the training ended before the measurement did"
    report("web", ROWS, found, template=args.template, tasks=args.tasks, image_px=[WIDTH, HEIGHT])


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--template", default=DEFAULT_TEMPLATE, help="configuration to use")
    parser.add_argument("--accepts", type=int, default=60, help="how many images are accepted in the browser")
    parser.add_argument("--pause", type=float, default=1.0, help="seconds that a person looks at an image")
    parser.add_argument("--rounds", type=int, default=25, help="how often all annotators answer at once")
    parser.add_argument("--tasks", type=int, default=1000, help="tasks answered when memory is read")
    return parser.parse_args()


def prepare(project: Path, args: argparse.Namespace) -> None:
    """Write the project and its images: few distinct photographs, made unique by a comment in each JPEG file."""
    init_project(project, ["thing"], template=args.template)
    (project / "images").mkdir()
    generator = np.random.default_rng(0)
    path = project / "photograph.jpg"
    number = 0
    per_photograph = -(-(args.tasks + args.accepts + (args.rounds + 4) * ANNOTATORS) // DRAWN)
    for _ in range(DRAWN):
        draw_photograph(generator).save(path, quality=90)
        data = path.read_bytes()
        for _ in range(per_photograph):
            comment = f"{number:08}".encode()
            marked = data[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + data[2:]
            (project / "images" / f"{number:05}.jpg").write_bytes(marked)
            number += 1


@contextmanager
def annotate(
    project: Path,
    found: dict[str, Any],
    *,
    dataset: str = "bench",
    source: str = "images",
    options: Sequence[str] = ("--steps-per-epoch", "100000"),
) -> Iterator[Page]:
    """Run the page; records the seconds that starting and stopping take in `found`."""
    command = [sys.executable, "-m", "odkeras", "annotate", dataset, source, "pipeline.config"]
    command += ["--web-port", "0", "--no-open", *options]
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    started = time.monotonic()
    process = subprocess.Popen(command, cwd=project, env=env, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = next(text for text in process.stdout if text.startswith("annotate at "))
        threading.Thread(target=process.stdout.read, daemon=True).start()
        page = Page(line.split()[2], process, project)
        first = Annotator.of(page, "first")
        first.client.get("/").raise_for_status()
        found["page_s"] = time.monotonic() - started
        task = first.tasks(1)[0]
        first.client.get(task["image"]).raise_for_status()
        found["first_image_s"] = time.monotonic() - started
        yield page
    finally:
        asked = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.wait(30)
        found["stop_s"] = time.monotonic() - asked


def start_training(page: Page) -> None:
    wait_until(lambda: list_versions(page.project / "export"))
    mark_as_learned(page.project / "export")
    annotator = Annotator.of(page, "starter")
    for task in annotator.tasks(5):
        annotator.answer(task)
    annotator.post("/api/save")
    wait_until(page.is_training)


def measure_accept(page: Page, args: argparse.Namespace) -> dict[str, Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(CHROMIUM_FLAGS))
        tab = browser.new_page(viewport={"width": 1440, "height": 900})
        tab.add_init_script(
            "window.shownAt = 0; window.shown = 0; window.pressedAt = 0;"
            "addEventListener('keydown', () => { window.pressedAt = performance.now(); }, true);"
            "addEventListener('odkeras:shown', event => { window.shownAt = event.detail.at; window.shown += 1; });"
        )
        tab.goto(f"{page.url}?session=browser")
        tab.wait_for_function("() => window.shown > 0", timeout=60_000)
        waits = []
        for _ in range(args.accepts):
            tab.wait_for_timeout(1000 * args.pause)
            shown = tab.evaluate("window.shown")
            tab.keyboard.press("a")
            tab.wait_for_function("shown => window.shown > shown", arg=shown, timeout=60_000)
            waits.append(tab.evaluate("window.shownAt - window.pressedAt"))
        browser.close()
    return {
        "accept_p50_ms": statistics.median(waits),
        "accept_p95_ms": percentile(waits, 95),
        "accept_max_ms": max(waits),
    }


_MOVE_POINTER = """async () => {
  const times = [], ghost = document.querySelector('.ghost');
  const { left, top, width, height } = document.querySelector('.frame').getBoundingClientRect();
  while (times.length < 500) {
    await new Promise(requestAnimationFrame);
    const [clientX, clientY] = [left + Math.random() * width, top + Math.random() * height];
    const move = new PointerEvent('pointermove', { clientX, clientY, bubbles: true, pointerType: 'mouse' });
    const target = document.elementFromPoint(clientX, clientY), before = performance.now();
    target.dispatchEvent(move);
    ghost.getBoundingClientRect();  // waits for the layout
    if (!ghost.hidden) times.push(performance.now() - before);
  }
  return times;
}"""


def measure_pointer(page: Page, args: argparse.Namespace) -> dict[str, Any]:
    from playwright.sync_api import Route, sync_playwright

    generator = np.random.default_rng(0)
    corners = generator.uniform(0, 0.8, (100, 2)) * (WIDTH, HEIGHT)
    sides = generator.uniform(0.02, 0.2, (100, 2)) * (WIDTH, HEIGHT)
    rects = np.hstack([corners, sides]).round(1).tolist()
    candidates = [{"label": "thing", "rect": rect, "score": 0.3} for rect in rects]

    def add_candidates(route: Route) -> None:
        reply = route.fetch().json()
        for task in reply["tasks"]:
            task["candidates"] = candidates
        route.fulfill(body=json.dumps(reply), content_type="application/json")

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(CHROMIUM_FLAGS))
        tab = browser.new_page(viewport={"width": 1440, "height": 900})
        tab.route("**/api/tasks", add_candidates)
        tab.goto(f"{page.url}?session=pointer")
        tab.wait_for_selector("[data-testid=stage][data-ready=true]", timeout=60_000)
        times = tab.evaluate(_MOVE_POINTER)
        browser.close()
    return {"pointer_p50_ms": statistics.median(times), "pointer_p95_ms": percentile(times, 95)}


def measure_crowd(page: Page, args: argparse.Namespace) -> dict[str, Any]:
    annotators = [Annotator.of(page, f"annotator{number:02}") for number in range(ANNOTATORS)]
    together = threading.Barrier(ANNOTATORS)

    def play(annotator: Annotator) -> list[float]:
        waits: list[float] = []
        while len(waits) < args.rounds:
            for task in annotator.tasks(min(5, args.rounds - len(waits))):
                together.wait(timeout=120)
                waits.append(annotator.answer(task))
        return waits

    with ThreadPoolExecutor(ANNOTATORS) as pool:
        waits = [each for found in pool.map(play, annotators) for each in found]
    return {
        "crowd_p50_ms": 1000 * statistics.median(waits),
        "crowd_p99_ms": 1000 * percentile(waits, 99),
        "crowd_max_ms": 1000 * max(waits),
        "crowd_answers": len(waits),
        "crowd_errors": 0,  # an error would have raised an exception
    }


def measure_memory(page: Page, args: argparse.Namespace) -> dict[str, Any]:
    annotator = Annotator.of(page, "tireless")
    before_mb = page.memory_mb()
    left = args.tasks - args.accepts - args.rounds * ANNOTATORS
    while left > 0:
        tasks = annotator.tasks(min(10, left))
        for task in tasks:
            annotator.client.get(task["image"]).raise_for_status()
            annotator.answer(task)
        left -= len(tasks)
    return {"memory_before_mb": before_mb, "memory_mb": page.memory_mb()}


ROWS = (
    Row("command to page", "page_s", "s", at_most=3),
    Row("command to first image", "first_image_s", "s"),
    Row("accept to next image drawn, while training: median", "accept_p50_ms", "ms"),
    Row("  95th percentile", "accept_p95_ms", "ms", at_most=100),
    Row("  longest", "accept_max_ms", "ms"),
    Row("pointer to the outline of one of 100 candidates, while training: median", "pointer_p50_ms", "ms"),
    Row("  95th percentile", "pointer_p95_ms", "ms", at_most=16),
    Row(f"{ANNOTATORS} annotators at once, answer acknowledged: median", "crowd_p50_ms", "ms"),
    Row("  99th percentile", "crowd_p99_ms", "ms", at_most=200),
    Row("  longest", "crowd_max_ms", "ms"),
    Row("memory of the page's process after all tasks", "memory_mb", "MB", at_most=200),
    Row("Ctrl-C to the end of all processes", "stop_s", "s", at_most=5),
)


if __name__ == "__main__":
    main()
