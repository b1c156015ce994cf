"""How long an annotator in Prodigy waits for the recipe: for the first task, for answers to be taken, for predictions.

Prodigy itself is not needed: the test double in tests/ takes its place, and adds its own time. Three parts:
  start    from the command `prodigy image.trainmodel` to the first task over HTTP, in a new project and in one with a
           model.
  update   `update` with 10 answers of 1-megapixel photographs, while the trainer trains on both cores; beside it, the
           same answers written with their images, as they would be without the store beside the inbox.
  predict  10 images in one request, and the same 10 in this process with the same SavedModel, in turn.

Example:
    python scripts/bench_recipe.py

The last line is JSON.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench_predict import load_in_process
from measuring import (
    DEFAULT_TEMPLATE,
    HEIGHT,
    ROOT,
    WIDTH,
    Row,
    mark_as_learned,
    milliseconds,
    percentile,
    report,
    say,
    wait_until,
    write_photographs,
)
from odkeras.config.settings import SessionSettings
from odkeras.init_project import init_project
from odkeras.session.session import AnnotationSession
from odkeras.session.setup import SessionSetup
from odkeras.version_dirs import list_versions, version_dir

RECIPE = ROOT / "recipes" / "image_train.py"
DOUBLE = ROOT / "tests" / "prodigy_double"
IMAGES = 20
TOGETHER = 10
Task = dict[str, Any]


def main() -> None:
    args = parse_arguments()
    if not DOUBLE.is_dir():
        sys.exit("this needs a source checkout: Prodigy's place is taken by tests/prodigy_double")
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="odkeras-bench-") as folder:
        project = Path(folder)
        prepare(project, args.template)
        for name, part in (("start", measure_start), ("update", measure_update), ("predict", measure_predictions)):
            say(name)
            found.update(part(project, args))
    report("recipe", ROWS, found, template=args.template, image_px=[WIDTH, HEIGHT])


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--template", default=DEFAULT_TEMPLATE, help="configuration to use")
    parser.add_argument("--updates", type=int, default=200, help="how many calls of update")
    parser.add_argument("--requests", type=int, default=15, help="how many prediction requests")
    return parser.parse_args()


def prepare(project: Path, template: str) -> None:
    init_project(project, ["thing"], template=template)
    write_photographs(project / "images", IMAGES)


def measure_start(project: Path, args: argparse.Namespace) -> dict[str, Any]:
    cold_s = first_task_s(project, wait_for_model=True)
    mark_as_learned(project / "export")
    return {
        "first_task_new_project_s": cold_s,
        "first_task_with_a_model_s": first_task_s(project, wait_for_model=False),
    }


def first_task_s(project: Path, *, wait_for_model: bool) -> float:
    """Seconds from the start of the command to the first batch of tasks."""
    env = {**os.environ, "PRODIGY_HOME": str(project), "PRODIGY_HOST": "127.0.0.1", "PRODIGY_PORT": "0"}
    env |= {"PYTHONPATH": str(DOUBLE), "PYTHONUNBUFFERED": "1"}
    line = ["image.trainmodel", "bench", str(project / "images"), str(project / "pipeline.config"), "-F", str(RECIPE)]
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "prodigy", *line], env=env, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = next(text.split()[-2] for text in process.stdout if "Starting the web server" in text)
        request = urllib.request.Request(f"{url}/get_session_questions", b'{"session_id": null}', method="POST")
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=60) as response:
            assert json.load(response)["tasks"]
        seconds = time.monotonic() - started
        if wait_for_model:
            wait_until(lambda: list_versions(project / "export"))
        return seconds
    finally:
        process.terminate()
        process.wait(30)


def measure_update(project: Path, args: argparse.Namespace) -> dict[str, Any]:
    components = recipe_components(project)
    try:
        tasks = [next(components["stream"]) for _ in range(IMAGES)]
        session = components["on_exit"].__self__._session
        components["update"]([answer_of(task, 0) for task in tasks])
        wait_until(lambda: (session.trainer_status() or {}).get("state") == "training")
        batches = [
            [answer_of(tasks[(start + k) % IMAGES], start + k + 1) for k in range(TOGETHER)]
            for start in range(args.updates)
        ]
        light = [milliseconds(lambda batch=batch: components["update"](batch)) for batch in paced(batches)]  # type: ignore[misc]
        training = (session.trainer_status() or {}).get("state") == "training"
        heavy = [milliseconds(lambda batch=batch: put_with_images(project, batch)) for batch in paced(batches[:60])]  # type: ignore[misc]
    finally:
        components["on_exit"](None)
    assert training, "the training ended before the measurement did"
    size = sum(len(json.dumps(task)) for task in tasks[:TOGETHER])
    return {
        "update_p50_ms": statistics.median(light),
        "update_p99_ms": percentile(light, 99),
        "update_max_ms": max(light),
        "update_with_images_p50_ms": statistics.median(heavy),
        "update_with_images_p99_ms": percentile(heavy, 99),
        "update_batch_mb": size / 1e6,
    }


def recipe_components(project: Path) -> dict[str, Any]:
    """The components returned by the recipe file, created in this process the way Prodigy would."""
    sys.path.insert(0, str(DOUBLE))
    os.environ["PRODIGY_HOME"] = str(project)
    spec = importlib.util.spec_from_file_location("bench_image_train", RECIPE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    components: dict[str, Any] = module.image_trainmodel(
        "bench", str(project / "images"), str(project / "pipeline.config"), steps_per_epoch=100_000
    )
    return components


def answer_of(task: Task, timestamp: int) -> Task:
    span = {"label": "thing", "points": [[100, 100], [100, 300], [400, 300], [400, 100]]}
    return {**task, "spans": [span], "answer": "accept", "_timestamp": timestamp}


def put_with_images(project: Path, answers: Sequence[Task]) -> None:
    from odkeras.inbox import put_batch

    put_batch(project / "elsewhere", answers).unlink()


def paced(batches: Sequence[list[Task]]) -> Iterator[list[Task]]:
    """Yield batches with pauses in between, as an annotator would send them, instead of all at once."""
    for batch in batches:
        time.sleep(0.05)
        yield batch


def measure_predictions(project: Path, args: argparse.Namespace) -> dict[str, Any]:
    images = [path.read_bytes() for path in sorted((project / "images").iterdir())[:TOGETHER]]
    with served(project) as session:
        in_process = load_in_process(version_dir(project / "export", list_versions(project / "export")[-1]))
        call = lambda: in_process(images)  # noqa: E731
        request = lambda: session.model.client.predict(images, batch_size=TOGETHER)  # noqa: E731
        for _ in range(2):
            call()
            request()
        pairs = [(milliseconds(call), milliseconds(request)) for _ in range(args.requests)]
    direct, rest = zip(*pairs, strict=True)
    return {
        "predict_in_process_ms": statistics.median(direct),
        "predict_rest_ms": statistics.median(rest),
        "predict_ratio": statistics.median(b / a for a, b in pairs),
    }


@contextmanager
def served(project: Path) -> Iterator[AnnotationSession]:
    """Serve the newest version with the embedded server, without a trainer."""
    with AnnotationSession.start(
        SessionSetup.of(SessionSettings(config=project / "pipeline.config", external_trainer=True))
    ) as session:
        wait_until(session.available_version)
        yield session


ROWS = (
    Row("command to first task, new project", "first_task_new_project_s", "s", at_most=3),
    Row("command to first task, with a model", "first_task_with_a_model_s", "s", at_most=3),
    Row("update, 10 answers, while training: median", "update_p50_ms", "ms"),
    Row("  99th percentile", "update_p99_ms", "ms", at_most=20),
    Row("  longest", "update_max_ms", "ms"),
    Row("the same with the images in the batch: median", "update_with_images_p50_ms", "ms"),
    Row("  99th percentile", "update_with_images_p99_ms", "ms"),
    Row("10 images in this process", "predict_in_process_ms", "ms"),
    Row("10 images in one REST request", "predict_rest_ms", "ms"),
    Row("  ratio (median of pairs)", "predict_ratio", "x", at_most=1.2),
)


if __name__ == "__main__":
    main()
