"""How long a round takes, from answers in the inbox to a new version that is served, beside the Object Detection
API's own tools.

Three parts, on the same pictures and in the same run:
  round   our loop with its real processes: cold start, then rounds of STEPS steps.
  odapi   model_lib_v2.train_loop for STEPS steps and exporter_lib_v2, as people run them, in one process of their own.
  steps   our traced step and the API's under tf.function, on one batch in memory, in turn.

Example:
    python scripts/bench_round.py
    python scripts/bench_round.py --truth train.csv --images images/ --label raccoon

The last line is JSON: overhead_s, cold_start_s, ratio_vs_odapi, step_ratio_vs_odapi, help_s and what they come from.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from odkeras.hosts.truth import KnownImage, answer_task, read_known_images
from odkeras.images import read_image
from odkeras.init_project import init_project
from odkeras.labels import LabelMap
from odkeras.loop.components import Loop, LoopOptions
from odkeras.pipeline import Overrides, apply_overrides, load_pipeline, save_pipeline
from odkeras.project import read_jsonl
from odkeras.shapes import CLASSES, generate_shapes
from odkeras.tasks import make_task

BATCH_SIZE = 4
IMAGES_PER_ROUND = 10
POLL_S = 0.02


def main() -> None:
    args = parse_arguments()
    if args.part:
        print(json.dumps(PARTS[args.part](args.directory, args)))
        return
    with tempfile.TemporaryDirectory(prefix="odkeras-bench-") as folder:
        directory = Path(folder)
        prepare(directory, args)
        found: dict[str, Any] = {"help_s": measure_help()}
        for part in PARTS:
            print(f"measuring: {part}", file=sys.stderr, flush=True)
            found.update(run_part(part, directory, args))
    found["ratio_vs_odapi"] = found["odapi_s"] / found["round_s"]
    odapi_overhead_s = found["odapi_s"] - args.steps / found["odapi_steps_per_s"]
    found["overhead_ratio_vs_odapi"] = odapi_overhead_s / found["overhead_s"]
    report(found, args)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--truth", type=Path, help="CSV of known boxes (default: pictures of shapes, drawn on the spot)"
    )
    parser.add_argument("--images", type=Path, help="where the paths in the CSV start")
    parser.add_argument("--label", action="append", help="labels of the CSV")
    parser.add_argument("--template", default="ssd_mobilenet_v2_fpnlite_320", help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=10, help="steps of a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=6, help="rounds after the first (default: %(default)s)")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def prepare(directory: Path, args: argparse.Namespace) -> None:
    """A project with batch size 4, and the pictures."""
    labels = args.label or list(CLASSES)
    init_project(directory, labels, template=args.template)
    config = load_pipeline(directory / "pipeline.config")
    save_pipeline(apply_overrides(config, Overrides(batch_size=BATCH_SIZE)), directory / "pipeline.config")
    if args.truth is None:
        generate_shapes(directory / "pictures")


def truth_of(directory: Path, args: argparse.Namespace) -> tuple[Path, Path]:
    if args.truth is None:
        return directory / "pictures" / "train.csv", directory / "pictures" / "images"
    return args.truth, args.images or args.truth.parent


def run_part(part: str, directory: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Each part in a process of its own, so that none profits from what another has imported or cached."""
    command = [sys.executable, __file__, "--part", part, "--directory", str(directory)]
    command += ["--steps", str(args.steps), "--rounds", str(args.rounds)]
    if args.truth is not None:
        command += ["--truth", str(args.truth), "--images", str(args.images or args.truth.parent)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=quiet_environment())
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def quiet_environment() -> dict[str, str]:
    return {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "TF_USE_LEGACY_KERAS": "1", "PYTHONWARNINGS": "ignore"}


def measure_help(repeats: int = 5) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "odkeras", "--help"], stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def bench_round(directory: Path, args: argparse.Namespace) -> dict[str, Any]:
    csv, images_dir = truth_of(directory, args)
    label_map = LabelMap.load(directory / "label_map.pbtxt")
    known = read_known_images(csv, images_dir, label_map, on_skip=lambda file, reason: None).annotate
    options = LoopOptions(config=directory / "pipeline.config", steps_per_epoch=args.steps)
    started = time.perf_counter()
    rounds: list[dict[str, float]] = []
    with Loop(options, say=lambda line: None) as loop:
        wait_for_version(loop, 1)
        cold_start_s = time.perf_counter() - started
        wait_until_ready(loop)
        for number in range(args.rounds + 1):
            rounds.append(play_round(loop, pick(known, number), label_map))
    later = rounds[1:]
    median = {name: statistics.median(row[name] for row in later) for name in later[0]}
    return {
        "cold_start_s": cold_start_s,
        "overhead_s": median["overhead_s"],
        "round_s": median["round_s"],
        "first_round_s": rounds[0]["round_s"],
        "stages_s": {name: median[name] for name in ("records_s", "train_s", "checkpoint_s", "publish_s", "swap_s")},
    }


def pick(known: tuple[KnownImage, ...], number: int) -> list[KnownImage]:
    start = number * IMAGES_PER_ROUND
    return [known[index % len(known)] for index in range(start, start + IMAGES_PER_ROUND)]


def play_round(loop: Loop, images: list[KnownImage], label_map: LabelMap) -> dict[str, float]:
    """Answers into the inbox, wait for the version that was trained on them; seconds by stage."""
    answers = []
    for known in images:
        task = make_task(read_image(known.path), file=known.path.name)
        answers.append(answer_task(task, known, label_map))
    started = time.perf_counter()
    batch = loop.submit(answers)
    assert batch is not None, "each image is answered once"
    row = wait_for_round(loop, batch.name)
    reported = time.perf_counter()
    wait_for_version(loop, int(row["version"]))
    round_s = time.perf_counter() - started
    seconds = {name: float(row[name]) for name in ("records_s", "train_s", "checkpoint_s", "publish_s")}
    return {
        **seconds,
        "swap_s": time.perf_counter() - reported,
        "round_s": round_s,
        "overhead_s": round_s - seconds["train_s"],
    }


def wait_for_version(loop: Loop, at_least: int) -> None:
    while (loop.available_version() or 0) < at_least:
        raise_failure(loop)
        time.sleep(POLL_S)


def wait_until_ready(loop: Loop) -> None:
    """The trainer has built its step: what it does while a person looks at the first images."""
    while (loop.trainer_status() or {}).get("state") != "waiting":
        raise_failure(loop)
        time.sleep(POLL_S)


def wait_for_round(loop: Loop, batch: str) -> dict[str, Any]:
    while True:
        for row in read_jsonl(loop.project.metrics_path):
            if batch in row.get("batches", ()):
                return row
        raise_failure(loop)
        time.sleep(POLL_S)


def raise_failure(loop: Loop) -> None:
    failure = loop.failure()
    if failure is not None:
        raise failure


def bench_odapi(directory: Path, args: argparse.Namespace) -> dict[str, Any]:
    """The API's own tools on the same pictures: everything a person would wait for, the import included."""
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
    from odkeras.data.conversion import csv_to_records

    csv, images_dir = truth_of(directory, args)
    record = directory / "all.record"
    csv_to_records(csv, record, label_map=LabelMap.load(directory / "label_map.pbtxt"), images_dir=images_dir)
    return record


def bench_steps(directory: Path, args: argparse.Namespace, repeats: int = 8, steps: int = 30) -> dict[str, Any]:
    """Steps per second of both traced steps on one batch, in turn, so that a noisy machine hits both alike."""
    from odkeras.training.inputs import training_dataset
    from odkeras.training.trainer import Trainer

    record = write_record(directory, args)
    config = apply_overrides(load_pipeline(directory / "pipeline.config"), Overrides(train_records=(str(record),)))
    trainer = Trainer(config)
    batch = next(iter(training_dataset(config, trainer.model)))
    ours = iter(lambda: batch, None)

    def our_steps() -> None:
        trainer.train(ours, steps)

    def their_steps() -> None:
        for _ in range(steps):
            their_step(*batch)["Loss/total_loss"].numpy()

    their_step = make_odapi_step(config)
    our_steps()
    their_steps()
    rates = [pair_of_rates(our_steps, their_steps, steps, ours_first=number % 2 == 0) for number in range(repeats)]
    return {
        "step_ratio_vs_odapi": statistics.median(our / their for our, their in rates),
        "steps_per_s": statistics.median(our for our, _ in rates),
        "odapi_steps_per_s": statistics.median(their for _, their in rates),
    }


def make_odapi_step(config: Any) -> Any:
    import tensorflow as tf
    from object_detection import model_lib_v2
    from object_detection.builders import model_builder, optimizer_builder

    model = model_builder.build(config.model, is_training=True)
    step = tf.Variable(0, trainable=False, dtype=tf.int64)
    optimizer, _ = optimizer_builder.build(config.train_config.optimizer, global_step=step)

    @tf.function
    def train_step(features: Any, labels: Any) -> Any:
        losses = model_lib_v2.eager_train_step(
            model,
            features,
            labels,
            config.train_config.unpad_groundtruth_tensors,
            optimizer,
            training_step=step,
            clip_gradients_value=config.train_config.gradient_clipping_by_norm,
        )
        step.assign_add(1)
        return losses

    return train_step


def pair_of_rates(ours: Any, theirs: Any, steps: int, *, ours_first: bool) -> tuple[float, float]:
    if ours_first:
        return rate_of(ours, steps), rate_of(theirs, steps)
    their_rate = rate_of(theirs, steps)
    return rate_of(ours, steps), their_rate


def rate_of(run: Any, steps: int) -> float:
    started = time.perf_counter()
    run()
    return steps / (time.perf_counter() - started)


PARTS = {"round": bench_round, "odapi": bench_odapi, "steps": bench_steps}


def report(found: dict[str, Any], args: argparse.Namespace) -> None:
    rows = [
        ("cold start: command to first AVAILABLE version", found["cold_start_s"], "s"),
        (f"round of {args.steps} steps: inbox to AVAILABLE (median)", found["round_s"], "s"),
        ("  of which not in training steps", found["overhead_s"], "s"),
        *((f"    {name.removesuffix('_s')}", value, "s") for name, value in found["stages_s"].items()),
        (f"the API's own tools: {args.steps} steps and export", found["odapi_s"], "s"),
        ("  times as long as a round", found["ratio_vs_odapi"], "x"),
        ("  times the overhead, training steps left out of both", found["overhead_ratio_vs_odapi"], "x"),
        ("training steps, batch 4", found["steps_per_s"], "/s"),
        ("the API's step under tf.function", found["odapi_steps_per_s"], "/s"),
        ("  ratio of the rates (median of pairs)", found["step_ratio_vs_odapi"], "x"),
        ("odkeras --help", found["help_s"], "s"),
    ]
    for name, value, unit in rows:
        print(f"{name:55}{value:10.2f} {unit}")
    machine = {
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "template": args.template,
        "batch_size": BATCH_SIZE,
    }
    print(json.dumps({**rounded(found), "machine": machine, "steps": args.steps}))


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
