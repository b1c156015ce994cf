"""Compares `simulate_scale.py` with a real page and 20 annotators: `simulate_scale.py --check`.

One annotator is measured first: the CPU time of the page for fetching tasks, an image and an answer. With these, the
model says what 20 will see. There is no model server and no trainer in this run: it is about the page and its leases.
The rounds of the model are not checked.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bench_web import Annotator, Page, annotate
from measuring import percentile, say
from odkeras.init_project import init_project
from odkeras.shapes import CLASSES, generate_shapes
from odkeras.web.queue import GONE_AFTER_S
from simulate_scale import AHEAD, Project, Simulation

ANNOTATORS = 20
PICTURES = 4000
CALIBRATION = 100
LEAVING = 4
"""Annotators who close the page in the first third, with tasks open, and do not come back."""
BOX = {"label": "circle", "x": 20, "y": 20, "width": 30, "height": 20}
WITHOUT_MODEL = ("127.0.0.1", "9", "none", "--external-trainer")


def check(seconds: float, think_s: float) -> dict[str, Any]:
    """The figures of the model and of the real run, printed and returned."""
    with tempfile.TemporaryDirectory(prefix="odkeras-check-") as folder:
        say("the page, 20 annotators")
        page = _check_page(_prepare(Path(folder, "page"), PICTURES), seconds, think_s)
    print(f"{'':45} {'real':>10} {'model':>10}")
    for text, (real, model) in page["compared"].items():
        print(f"{text:45} {real:10.2f} {model:10.2f}")
    return page


def _prepare(folder: Path, pictures: int) -> Path:
    """A project with pictures that differ."""
    init_project(folder, CLASSES, template="shapes_96")
    shapes = generate_shapes(folder / "shapes", train_images=40, test_images=1)
    files = sorted(shapes.images_dir.glob("train*"))
    (folder / "images").mkdir()
    for number in range(pictures):
        data = files[number % len(files)].read_bytes()
        comment = f"{number:08}".encode()
        marked = data[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + data[2:]
        (folder / "images" / f"{number:05}.jpg").write_bytes(marked)
    return folder


def _check_page(folder: Path, seconds: float, think_s: float) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with annotate(folder, found, options=WITHOUT_MODEL) as page:
        constants = _calibrate(page)
        real = _work(page, seconds, think_s)
    model = Project(
        tasks_s=constants["tasks_s"],
        image_s=constants["image_s"],
        answer_s=constants["answer_s"],
        annotators=ANNOTATORS - LEAVING,
        images=PICTURES - CALIBRATION,
        think_s=think_s,
        leave=0.0,
        pages=1,
        predict_s=0.0,
        duration_s=seconds,
        answers_per_round=10**9,
    )
    said = Simulation(model).run()
    compared = {
        "answers a second": (real["answers_per_s"], said["answers_per_s"]),
        "answer acknowledged: median, ms": (real["answer_p50_ms"], said["answer_p50_ms"]),
        "answer acknowledged: 99th percentile, ms": (real["answer_p99_ms"], said["answer_p99_ms"]),
        "load of the page's process": (real["page_load"], said["page_load"]),
        "images answered twice": (real["twice"], said["twice"]),
        "leases of those who left that others got": (real["expired"], real["left"]),
    }
    return {"project": asdict(model), "real": real, "model": said, "compared": compared}


def _calibrate(page: Page) -> dict[str, float]:
    """CPU seconds of the page for each kind of request."""
    annotator = Annotator.of(page, "alone")
    spent = dict.fromkeys(("tasks_s", "image_s", "answer_s"), 0.0)
    fetches = CALIBRATION // AHEAD

    def cpu_of(name: str, call: Any) -> Any:
        before = _cpu_s(page)
        result = call()
        spent[name] += _cpu_s(page) - before
        return result

    for _ in range(fetches):
        tasks = cpu_of("tasks_s", lambda: annotator.tasks(AHEAD))
        cpu_of("image_s", lambda tasks=tasks: [annotator.client.get(task["image"]) for task in tasks])
        cpu_of("answer_s", lambda tasks=tasks: [annotator.answer(task, (BOX,)) for task in tasks])
    return {name: value / (fetches if name == "tasks_s" else CALIBRATION) for name, value in spent.items()}


def _cpu_s(page: Page) -> float:
    fields = Path(f"/proc/{page.process.pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _work(page: Page, seconds: float, think_s: float) -> dict[str, Any]:
    """20 annotators work; some close the page, and their tasks must come to the others."""
    started, lock = time.monotonic(), threading.Lock()
    images: dict[str, int] = {}
    waits: list[float] = []
    left: list[str] = []

    def play(number: int) -> None:
        random, annotator = np.random.default_rng(number), Annotator.of(page, f"annotator{number:02}")
        leaves_at = seconds / 3 * (number + 1) / LEAVING if number < LEAVING else float("inf")
        while time.monotonic() - started < seconds:
            tasks = annotator.tasks(AHEAD)
            for place, task in enumerate(tasks):
                annotator.client.get(task["image"]).raise_for_status()
                time.sleep(random.exponential(think_s))
                if time.monotonic() - started >= min(seconds, leaves_at):
                    with lock:
                        left.extend(each["image_id"] for each in tasks[place:] if leaves_at < seconds)
                    return
                waited = annotator.answer(task, (BOX,))
                with lock:
                    waits.append(waited)
                    images[task["image_id"]] = images.get(task["image_id"], 0) + 1

    before = _cpu_s(page)
    with ThreadPoolExecutor(ANNOTATORS) as pool:
        list(pool.map(play, range(ANNOTATORS)))
    taken_s = time.monotonic() - started
    return {
        "answers": len(waits),
        "answers_per_s": len(waits) / taken_s,
        "answer_p50_ms": 1000 * percentile(waits, 50),
        "answer_p99_ms": 1000 * percentile(waits, 99),
        "page_load": (_cpu_s(page) - before) / taken_s,
        "twice": sum(count > 1 for count in images.values()),
        "left": len(left),
        "expired": sum(image in images for image in left),
        "gone_after_s": GONE_AFTER_S,
    }
