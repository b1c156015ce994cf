"""How long a round takes, from answers in the inbox to a new version that is served, beside the Object Detection
API's own tools.

Three parts, on the same pictures and in the same run:
  round      our loop with its real processes: cold start, then rounds of STEPS steps.
  evaluation the same with --run-eval.
  odapi      model_lib_v2.train_loop for STEPS steps and exporter_lib_v2, as people run them, in a process of their own.

Example:
    python scripts/bench_round.py
    python scripts/bench_round.py --truth train.csv --images images/ --label raccoon

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measuring import DEFAULT_TEMPLATE, Row, quiet_environment, report, say
from odkeras.annotation import Task
from odkeras.config.settings import SessionSettings
from odkeras.formats.prodigy import write_answer
from odkeras.images import read_image
from odkeras.init_project import init_project
from odkeras.labels import LabelMap
from odkeras.pipeline import Overrides, apply_overrides, load_pipeline, save_pipeline
from odkeras.project import read_jsonl
from odkeras.session.events import Listener
from odkeras.session.session import AnnotationSession
from odkeras.session.setup import SessionSetup
from odkeras.shapes import CLASSES, generate_shapes
from odkeras.simulation.truth import LabeledImage, answer_task, read_labeled_images

BATCH_SIZE = 4
IMAGES_PER_ROUND = 10
EVALUATED = 20
POLL_S = 0.02


def main() -> None:
    args = parse_arguments()
    if args.part:
        print(json.dumps(PARTS[args.part](args.directory, args)))
        return
    with tempfile.TemporaryDirectory(prefix="odkeras-bench-") as folder:
        directory = Path(folder)
        prepare(directory, args)
        found: dict[str, Any] = {}
        for part in PARTS:
            say(part)
            found.update(run_part(part, directory, args))
    found["ratio_vs_odapi"] = found["odapi_s"] / found["round_s"]
    found["overhead_ratio_vs_odapi"] = (found["odapi_s"] - found["steps_s"]) / found["overhead_s"]
    about = {"template": args.template, "batch_size": args.batch_size, "steps": args.steps, "rounds": args.rounds}
    report("round", ROWS, found, **about, pictures="shapes" if args.truth is None else args.truth.name)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--truth", type=Path, help="CSV of known boxes (default: pictures of shapes, drawn on the spot)"
    )
    parser.add_argument("--images", type=Path, help="where the paths in the CSV start")
    parser.add_argument("--label", action="append", help="labels of the CSV")
    parser.add_argument("--template", default=DEFAULT_TEMPLATE, help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=10, help="steps of a round (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="rounds after the first (default: %(default)s)")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def prepare(directory: Path, args: argparse.Namespace) -> None:
    """Create a project, and the pictures."""
    labels = args.label or list(CLASSES)
    init_project(directory, labels, template=args.template)
    config = load_pipeline(directory / "pipeline.config")
    save_pipeline(apply_overrides(config, Overrides(batch_size=args.batch_size)), directory / "pipeline.config")
    if args.truth is None:
        generate_shapes(directory / "pictures")


def truth_of(directory: Path, args: argparse.Namespace) -> tuple[Path, Path]:
    if args.truth is None:
        return directory / "pictures" / "train.csv", directory / "pictures" / "images"
    return args.truth, args.images or args.truth.parent


def run_part(part: str, directory: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Run a part in a separate process, so that it does not profit from another part's imports and caches."""
    command = [sys.executable, __file__, "--part", part, "--directory", str(directory)]
    command += ["--steps", str(args.steps), "--rounds", str(args.rounds)]
    if args.truth is not None:
        command += ["--truth", str(args.truth), "--images", str(args.images or args.truth.parent)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=quiet_environment())
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def bench_round(directory: Path, args: argparse.Namespace) -> dict[str, Any]:
    options = SessionSettings(config=directory / "pipeline.config", steps_per_epoch=args.steps)
    known, label_map = known_images(directory, args)
    started = time.perf_counter()
    with AnnotationSession.start(SessionSetup.of(options), Listener()) as session:
        wait_for_version(session, 1)
        cold_start_s = time.perf_counter() - started
        wait_until_ready(session)
        rounds = [play_round(session, pick(known, number), label_map) for number in range(args.rounds + 1)]
    later = rounds[1:]
    median = {name: statistics.median(row[name] for row in later) for name in later[0]}
    return {"cold_start_s": cold_start_s, "first_round_s": rounds[0]["round_s"], **median}


def bench_evaluation(directory: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Measure evaluation; continues in the directories of `bench_round`."""
    known, label_map = known_images(directory, args)
    config = load_pipeline(directory / "pipeline.config")
    overrides = Overrides(eval_records=(str(write_record(directory, args)),))
    save_pipeline(apply_overrides(config, overrides), directory / "evaluated.config")
    options = SessionSettings(
        config=directory / "evaluated.config", steps_per_epoch=args.steps, run_eval=True, eval_steps=EVALUATED
    )
    with AnnotationSession.start(SessionSetup.of(options), Listener()) as session:
        wait_until_ready(session)
        seconds = []
        for number in range(2):
            play_round(session, pick(known, args.rounds + 1 + number), label_map)
            started = time.perf_counter()
            wait_until_ready(session)
            seconds.append(time.perf_counter() - started)
    return {"evaluate_s": seconds[-1]}


def known_images(directory: Path, args: argparse.Namespace) -> tuple[tuple[LabeledImage, ...], LabelMap]:
    csv, images_dir = truth_of(directory, args)
    label_map = LabelMap.load(directory / "label_map.pbtxt")
    return read_labeled_images(csv, images_dir, label_map, on_skip=lambda file, reason: None).annotate, label_map


def pick(known: tuple[LabeledImage, ...], number: int) -> list[LabeledImage]:
    start = number * IMAGES_PER_ROUND
    return [known[index % len(known)] for index in range(start, start + IMAGES_PER_ROUND)]


def play_round(session: AnnotationSession, images: list[LabeledImage], label_map: LabelMap) -> dict[str, float]:
    """Submit answers and wait until the version trained on them is served; returns seconds by stage."""
    answers = []
    for known in images:
        task = Task.of(read_image(known.path), file=known.path.name)
        answers.append(write_answer(answer_task(task, known, label_map)))
    started = time.perf_counter()
    batch = session.submit(answers)
    assert batch is not None, "each image is answered once"
    row = wait_for_round(session, batch.name)
    reported = time.perf_counter()
    wait_for_version(session, int(row["version"]))
    round_s = time.perf_counter() - started
    steps_s = float(row["train_s"]) - float(row["input_s"])
    stages = {name: float(row[name]) for name in ("records_s", "input_s", "checkpoint_s", "publish_s")}
    stages["swap_s"] = time.perf_counter() - reported
    overhead_s = round_s - steps_s
    rest_s = overhead_s - sum(stages.values())
    return {**stages, "rest_s": rest_s, "steps_s": steps_s, "round_s": round_s, "overhead_s": overhead_s}


def wait_for_version(session: AnnotationSession, at_least: int) -> None:
    while (session.available_version() or 0) < at_least:
        raise_failure(session)
        time.sleep(POLL_S)


def wait_until_ready(session: AnnotationSession) -> None:
    """Wait until the trainer has built its training step, which in practice happens while the first images are
    annotated."""
    while (session.trainer_status() or {}).get("state") != "waiting":
        raise_failure(session)
        time.sleep(POLL_S)


def wait_for_round(session: AnnotationSession, batch: str) -> dict[str, Any]:
    while True:
        for row in read_jsonl(session.project.metrics_path):
            if batch in row.get("batches", ()):
                return row
        raise_failure(session)
        time.sleep(POLL_S)


def raise_failure(session: AnnotationSession) -> None:
    failure = session.failure()
    if failure is not None:
        raise failure


def bench_odapi(directory: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Measure the API's own tools on the same pictures: everything a user would wait for, including the import."""
    started = time.perf_counter()
    from odkeras import compat

    compat.prepare()
    from object_detection import exporter_lib_v2, model_lib_v2
    from object_detection.utils import config_util

    imported_s = time.perf_counter() - started
    record = write_record(directory, args)
    config_path, model_dir = directory / "odapi.config", directory / "odapi_model"
    overrides = Overrides(train_records=(str(record),), eval_records=(str(record),))
    config = apply_overrides(load_pipeline(directory / "pipeline.config"), overrides)
    save_pipeline(config, config_path)
    started = time.perf_counter()
    model_lib_v2.train_loop(
        pipeline_config_path=str(config_path),
        model_dir=str(model_dir),
        train_steps=args.steps,
        checkpoint_every_n=args.steps,
        num_steps_per_iteration=1,
    )
    trained_s = time.perf_counter() - started
    started = time.perf_counter()
    pipeline = config_util.create_pipeline_proto_from_configs(
        config_util.get_configs_from_pipeline_file(str(config_path))
    )
    exporter_lib_v2.export_inference_graph(
        "encoded_image_string_tensor", pipeline, str(model_dir), str(directory / "odapi_export")
    )
    exported_s = time.perf_counter() - started
    return {
        "odapi_s": imported_s + trained_s + exported_s,
        "odapi_stages_s": {"import_s": imported_s, "train_loop_s": trained_s, "export_s": exported_s},
    }


def write_record(directory: Path, args: argparse.Namespace) -> Path:
    from odkeras.data.conversion import labels_to_records

    csv, images_dir = truth_of(directory, args)
    record = directory / "all.record"
    labels_to_records(csv, record, label_map=LabelMap.load(directory / "label_map.pbtxt"), images_dir=images_dir)
    return record


PARTS = {"round": bench_round, "evaluation": bench_evaluation, "odapi": bench_odapi}


ROWS = (
    Row("cold start: until the first version is AVAILABLE", "cold_start_s", "s", shown=True),
    Row("round: answers in the inbox to AVAILABLE (median)", "round_s", "s"),
    Row("  of which not in training steps", "overhead_s", "s", at_most=1.0, shown=True),
    Row("    answers into a record", "records_s", "s"),
    Row("    until batches are there, drawing examples of them", "input_s", "s"),
    Row("    checkpoint", "checkpoint_s", "s"),
    Row("    publish", "publish_s", "s"),
    Row("    swap in the server", "swap_s", "s"),
    Row("    the rest: polling, status, summaries", "rest_s", "s"),
    Row("  in training steps", "steps_s", "s"),
    Row(f"evaluation on {EVALUATED} pictures, where asked for", "evaluate_s", "s", shown=True),
    Row(
        "the API's own tools, started anew as they are each time: as many steps, and an export",
        "odapi_s",
        "s",
        shown=True,
    ),
    Row("  times as long as a round", "ratio_vs_odapi", "x", shown=True),
    Row(
        "  times the overhead, training steps left out of both", "overhead_ratio_vs_odapi", "x", at_least=40, shown=True
    ),
)


if __name__ == "__main__":
    main()
