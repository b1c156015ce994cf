"""What a million images cost with `odkeras bulk`: CPU time of the workers, without the loading of the model.

  predict  with the model of `make demo`, untrained, on its pictures; and with the default template on photographs of
           one megapixel.
  records  of the pictures, from CSV.
  hash     of the photographs.

Example:
    python scripts/bench_bulk.py

The last line is JSON.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from measuring import DEFAULT_TEMPLATE, HEIGHT, WIDTH, Row, quiet_environment, report, say, write_photographs
from odkeras.bulk.job import Entry
from odkeras.bulk.listing import list_images, list_labelled
from odkeras.bulk.run import Plan, run_plan
from odkeras.bulk.transforms import Hash, MakeRecords, Predict
from odkeras.bulk.work import Transform
from odkeras.config.bulk import BulkSettings
from odkeras.config.settings import DEFAULT_MAX_PIXELS
from odkeras.formats.label_formats import find_label_files
from odkeras.init_project import init_project
from odkeras.serving.local import newest_version_dir
from odkeras.shapes import CLASSES, generate_shapes

PICTURES = 1000
PHOTOGRAPHS = 200
SHARD_IMAGES = 100


def main() -> None:
    args = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="odkeras-bench-") as folder:
        found = measure(Path(folder), args.workers)
    about = {"pictures": PICTURES, "photographs": PHOTOGRAPHS, "image_px": [WIDTH, HEIGHT], "workers": args.workers}
    report("bulk", rows(), found, **about)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=1, help="worker processes (default: %(default)s)")
    return parser.parse_args()


def measure(folder: Path, workers: int) -> dict[str, Any]:
    """The results by key."""
    found: dict[str, Any] = {}
    shapes = generate_shapes(folder / "shapes", train_images=PICTURES, test_images=1)
    photographs = folder / "photographs"
    write_photographs(photographs, PHOTOGRAPHS)
    label_map = ""
    for key, template, images in (("shapes", "shapes_96", shapes.images_dir), ("ssd", DEFAULT_TEMPLATE, photographs)):
        project = folder / key
        init_project(project, CLASSES, template=template)
        label_map = (project / "label_map.pbtxt").read_text(encoding="utf-8")
        export(project)
        version = newest_version_dir(project / "export")
        transform = Predict(str(version), 0.5, "jsonl", 1.0, DEFAULT_MAX_PIXELS)
        found |= run(f"predict_{key}", folder, transform, images_of(images), "jsonl", workers)
    files = find_label_files([shapes.train_csv])
    found |= run(
        "records",
        folder,
        MakeRecords(label_map, False, DEFAULT_MAX_PIXELS),
        lambda: list_labelled(files, shapes.images_dir),
        "record",
        workers,
    )
    return found | run("hash", folder, Hash(DEFAULT_MAX_PIXELS), images_of(photographs), "jsonl", workers)


def images_of(folder: Path) -> Callable[[], Iterable[Entry]]:
    return lambda: list_images([str(folder)])


def export(project: Path) -> None:
    command = [sys.executable, "-m", "odkeras", "export", str(project)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=quiet_environment())


def run(
    key: str, folder: Path, transform: Transform, entries: Callable[[], Iterable[Entry]], suffix: str, workers: int
) -> dict[str, Any]:
    """CPU hours of a million images, and images a second of the whole run."""
    say(f"measuring {key}")
    plan = Plan(str(folder / f"out-{key}"), {"benchmark": key}, entries, transform, suffix)
    started = time.monotonic()
    settings = BulkSettings(workers=workers, shard_images=SHARD_IMAGES)
    _, done = run_plan(plan, settings, progress=lambda done, total: None)
    assert done is not None
    seconds = time.monotonic() - started
    return {f"{key}_cpu_h": done.cpu_s / done.images * 1e6 / 3600, f"{key}_per_s": done.images / seconds}


def rows() -> tuple[Row, ...]:
    names = {
        "predict_shapes": "predict, model of make demo, 160 x 120",
        "predict_ssd": f"predict, {DEFAULT_TEMPLATE}, {WIDTH} x {HEIGHT}",
        "records": "records, 160 x 120",
        "hash": f"hash, {WIDTH} x {HEIGHT}",
    }
    return tuple(Row(f"a million images: {text}", f"{key}_cpu_h", "CPU h", shown=True) for key, text in names.items())


if __name__ == "__main__":
    main()
