"""How long until things are there: `odkeras annotate` as a process, the way people start it, again and again.

  help     `odkeras --help`.
  new      a new project: from the command to the first task over HTTP (page, task and image), to the first version
           AVAILABLE, and to the first trained one: 10 answers are given as soon as there are tasks.
  resume   Ctrl-C, then the same command: to the first task, to the old version AVAILABLE, to a task with what that
           version suggests, and until the trainer is ready to train.

Example:
    python scripts/bench_start.py

The last line is JSON.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from bench_web import Annotator, Page, annotate
from measuring import DEFAULT_TEMPLATE, HEIGHT, WIDTH, Row, report, say, wait_until, write_photographs
from odkeras.init_project import init_project
from odkeras.project import Project, read_jsonl, read_status
from odkeras.serving.client import ServingClient

PHOTOGRAPHS = 15
ANSWERS = 10
MODEL_NAME = "odkeras"
ASK_TIMEOUT_S = 0.3
Condition = Callable[[], Any]


def main() -> None:
    args = parse_arguments()
    found: dict[str, Any] = {"help_s": measure_help()}
    runs = []
    with tempfile.TemporaryDirectory(prefix="odkeras-bench-") as folder:
        for number in range(args.repeats):
            say(f"start {number + 1} of {args.repeats}")
            runs.append(measure_project(Path(folder) / str(number), args))
    found |= {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    about = {"template": args.template, "steps": args.steps, "answers": ANSWERS, "image_px": [WIDTH, HEIGHT]}
    report("start", rows_of(args.steps), {**found, "runs": runs}, **about)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--template", default=DEFAULT_TEMPLATE, help="configuration to use (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=10, help="steps of the first round (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="projects to start (default: %(default)s)")
    return parser.parse_args()


def measure_help(repeats: int = 5) -> float:
    say("help")
    times = []
    for _ in range(repeats):
        started = time.monotonic()
        subprocess.run([sys.executable, "-m", "odkeras", "--help"], stdout=subprocess.DEVNULL, check=True)
        times.append(time.monotonic() - started)
    return statistics.median(times)


def measure_project(directory: Path, args: argparse.Namespace) -> dict[str, float]:
    init_project(directory, ["thing"], template=args.template)
    write_photographs(directory / "images", PHOTOGRAPHS)
    options = ("--steps-per-epoch", str(args.steps))
    return {**measure_new(directory, options), **measure_resume(directory, options)}


def measure_new(directory: Path, options: tuple[str, ...]) -> dict[str, float]:
    found: dict[str, float] = {}
    started = time.monotonic()
    with annotate(directory, found, options=options) as page:
        annotator = Annotator.of(page, "first")
        for task in annotator.tasks(ANSWERS):
            annotator.answer(task)
        annotator.post("/api/save")
        with closing(serving_client(directory)) as client:
            seconds = moments(
                {
                    "first_version_s": client.available_version,
                    "trained_version_s": lambda: (client.available_version() or 0) >= trained_version(directory),
                },
                started,
            )
    return {"page_s": found["page_s"], "first_task_s": found["first_image_s"], **seconds, "stop_s": found["stop_s"]}


def measure_resume(directory: Path, options: tuple[str, ...]) -> dict[str, float]:
    found: dict[str, float] = {}
    started, started_at = time.monotonic(), time.time()
    with annotate(directory, found, options=options) as page, closing(serving_client(directory)) as client:
        seconds = moments(
            {
                "resume_version_s": client.available_version,
                "resume_suggestions_s": read_suggestions(page),
                "resume_ready_s": lambda: is_ready(directory, started_at),
            },
            started,
        )
    return {"resume_first_task_s": found["first_image_s"], **seconds}


def moments(conditions: Mapping[str, Condition], started: float) -> dict[str, float]:
    """Seconds from `started` until each condition was first true."""
    seen: dict[str, float] = {}

    def look() -> bool:
        for name, condition in conditions.items():
            if name not in seen and condition():
                seen[name] = time.monotonic() - started
        return len(seen) == len(conditions)

    wait_until(look)
    return seen


def serving_client(directory: Path) -> ServingClient:
    """A client for the model server of the last started `odkeras annotate`; the URL is in the trainer's log."""
    log = project_in(directory).logs_dir / "trainer.log"
    url = re.findall(r"--serving-url (\S+)", log.read_text(encoding="utf-8"))[-1]
    return ServingClient(url, MODEL_NAME, timeout_s=ASK_TIMEOUT_S, retries=0)


def trained_version(directory: Path) -> float:
    """The version of the first round; infinity before that round is finished."""
    rows = [row for row in read_jsonl(project_in(directory).metrics_path) if row.get("kind") == "round"]
    if rows and rows[0].get("failed"):
        raise RuntimeError(f"the round failed: {rows[0]['failed']}")
    return float(rows[0]["version"]) if rows else float("inf")


def read_suggestions(page: Page) -> Condition:
    """A condition: the first task has a model's suggestions, either at once or after polling for newer ones."""
    annotator = Annotator.of(page, "first")
    task = annotator.tasks(1)[0]

    def has_suggestions() -> bool:
        found = annotator.post("/api/suggestions", image_ids=[task["image_id"]])["tasks"]
        return any(each["version"] is not None for each in (task, *found))

    return has_suggestions


def is_ready(directory: Path, started_at: float) -> bool:
    status = read_status(project_in(directory).status_path) or {}
    return status.get("state") == "waiting" and float(status.get("updated") or 0) >= started_at


def project_in(directory: Path) -> Project:
    return Project(directory / "data", directory / "model", directory / "export")


def rows_of(steps: int) -> tuple[Row, ...]:
    return (
        Row("command to first task, new project", "first_task_s", "s", at_most=2, shown=True),
        Row("command to first version AVAILABLE, new project", "first_version_s", "s", at_most=12, shown=True),
        Row(
            f"command to first trained version, {ANSWERS} answers, {steps} steps", "trained_version_s", "s", shown=True
        ),
        Row("started again: command to first task", "resume_first_task_s", "s"),
        Row("started again: command to the old version AVAILABLE", "resume_version_s", "s", at_most=6),
        Row("started again: command to a task with suggestions", "resume_suggestions_s", "s", at_most=6, shown=True),
        Row("started again: command to ready to train", "resume_ready_s", "s", shown=True),
        Row("odkeras --help", "help_s", "s", shown=True),
    )


if __name__ == "__main__":
    main()
