"""The loop with two-stage models on a machine without a GPU: the first version, where a round's seconds go, memory.

  round   the loop with its real processes, as `bench_round.py` measures it, with batches of one image.
  memory  the peak memory of a process that predicts one image, and of one that predicts eight in a request, with the
          same model at 1024 x 1024 pixels.

Example:
    python scripts/bench_two_stage.py
    python scripts/bench_two_stage.py --template mask_rcnn_resnet50_640

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import bench_round
from bench_predict import load_in_process
from measuring import Row, quiet_environment, report, say, write_photographs
from odkeras.init_project import init_project
from odkeras.labels import LabelMap
from odkeras.pipeline import load_pipeline, save_pipeline

TEMPLATES = ("faster_rcnn_resnet50_640", "mask_rcnn_resnet50_640")
TOGETHER = 8
LARGE_PX = 1024


def main() -> None:
    args = parse_arguments()
    if args.predict:
        print(json.dumps(predict(args.predict, args.count)))
        return
    if args.export_in:
        export(args.export_in)
        return
    with tempfile.TemporaryDirectory(prefix="odkeras-bench-") as folder:
        found = measure_rounds(Path(folder) / "round", args)
        found |= measure_memory(Path(folder) / "memory", args.template)
    report("two_stage", ROWS, found, template=args.template, steps=args.steps, rounds=args.rounds)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--template", choices=TEMPLATES, default=TEMPLATES[0], help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=4, help="steps of a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds after the first (default: %(default)s)")
    parser.add_argument("--export-in", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--predict", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def measure_rounds(directory: Path, args: argparse.Namespace) -> dict[str, Any]:
    say("round")
    settings = argparse.Namespace(**vars(args), truth=None, images=None, label=None, batch_size=1)
    bench_round.prepare(directory, settings)
    return bench_round.run_part("round", directory, settings)


def measure_memory(directory: Path, template: str) -> dict[str, Any]:
    say("memory")
    init_project(directory, ["thing"], template=template)
    config = load_pipeline(directory / "pipeline.config")
    size = config.model.faster_rcnn.image_resizer.fixed_shape_resizer
    size.height = size.width = LARGE_PX
    save_pipeline(config, directory / "pipeline.config")
    write_photographs(directory / "images", TOGETHER)
    run(["--export-in", str(directory)])
    one, eight = (run(["--predict", str(directory), "--count", str(count)]) for count in (1, TOGETHER))
    return {
        "one_gb": one["gb"],
        "together_gb": eight["gb"],
        "memory_ratio": eight["gb"] / one["gb"],
        "image_s": eight["seconds"] / TOGETHER,
    }


def run(arguments: list[str]) -> dict[str, Any]:
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=quiet_environment())
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def export(directory: Path) -> None:
    from odkeras import compat

    compat.prepare()
    from odkeras.export.publish import Publisher
    from odkeras.model.inference import InferenceModel

    inference = InferenceModel(load_pipeline(directory / "pipeline.config").model)
    label_map = LabelMap.load(directory / "label_map.pbtxt")
    Publisher(inference, directory / "export", label_map, clock=lambda: 1).publish(step=0)
    print("{}")


def predict(directory: Path, count: int) -> dict[str, float]:
    """Predict `count` images in one call, and return the peak memory of this process."""
    import time

    images = [path.read_bytes() for path in sorted((directory / "images").iterdir())[:count]]
    call = load_in_process(directory / "export" / "1")
    started = time.perf_counter()
    call(images)
    seconds = time.perf_counter() - started
    return {"gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, "seconds": seconds}


ROWS = (
    Row("cold start: until the first version is AVAILABLE", "cold_start_s", "s", at_most=60),
    *(row for row in bench_round.ROWS if row.key in ("round_s", "steps_s")),
    Row("  of which not in training steps", "overhead_s", "s", at_most=5),
    *(
        row
        for row in bench_round.ROWS
        if row.key in ("records_s", "input_s", "checkpoint_s", "publish_s", "swap_s", "rest_s")
    ),
    Row(f"peak memory, one image of {LARGE_PX} x {LARGE_PX}", "one_gb", "GB"),
    Row(f"  {TOGETHER} images in one request", "together_gb", "GB"),
    Row("  times as much", "memory_ratio", "x", at_most=1.5),
    Row("  seconds an image", "image_s", "s"),
)


if __name__ == "__main__":
    main()
