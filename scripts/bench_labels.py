"""How long `odkeras import` takes for a large COCO file, and how much memory.

  import   the command as a process: from COCO's JSON to answers in the database. It reads every image once.
  images   reading and hashing the same images alone, as the import does it.
  labels   the difference: what the labels take. While other programs use the machine, processor time tells more.

Example:
    python scripts/bench_labels.py --images 100000 --boxes 1000000

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image

from measuring import Row, report, say
from odkeras.images import inspect_image

_SIZE_HW = (480, 640)
_THREADS = 4
_CLASSES = 80


def main() -> None:
    args = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="odkeras-bench-") as folder:
        say(f"writing {args.images} images and {args.boxes} boxes")
        paths = write_images(Path(folder, "images"), args.images)
        write_coco(Path(folder, "instances.json"), paths, args.boxes)
        say("import")
        found: dict[str, Any] = dict(measure_import(Path(folder)))
        say("images")
        found |= measure_images(paths)
    found["labels_s"] = found["import_s"] - found["images_s"]
    found["labels_cpu_s"] = found["cpu_s"] - found["images_cpu_s"]
    report("labels", ROWS, found, images=args.images, boxes=args.boxes)


ROWS = [
    Row("import of a COCO file", "import_s", "s"),
    Row("  of these: reading the images", "images_s", "s"),
    Row("  the labels", "labels_s", "s", at_most=60),
    Row("processor time of the import", "cpu_s", "s"),
    Row("  of these: reading the images", "images_cpu_s", "s"),
    Row("  the labels", "labels_cpu_s", "s", at_most=60),
    Row("memory at most", "memory_mb", "MB", at_most=500),
]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000, help="number of images (default: %(default)s)")
    parser.add_argument("--boxes", type=int, default=100_000, help="number of boxes (default: %(default)s)")
    return parser.parse_args()


def write_images(folder: Path, number: int) -> list[Path]:
    """Grey JPEG files that differ in a comment only."""
    folder.mkdir()
    height, width = _SIZE_HW
    first = folder / "first.jpg"
    Image.new("L", (width, height), 128).save(first, quality=5)
    data = first.read_bytes()
    first.unlink()
    paths = []
    for index in range(number):
        comment = f"{index:08}".encode()
        path = folder / f"{index:08}.jpg"
        path.write_bytes(data[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + data[2:])
        paths.append(path)
    return paths


def write_coco(path: Path, images: list[Path], boxes: int) -> None:
    """Boxes at random places; their order in the file is not that of the images."""
    chance = random.Random(0)
    height, width = _SIZE_HW
    with path.open("w") as file:
        rows = (
            {"id": number, "file_name": image.name, "height": height, "width": width}
            for number, image in enumerate(images)
        )
        file.write('{"images": [' + ",".join(map(json.dumps, rows)) + '], "annotations": [')
        for number in range(boxes):
            x, y = round(chance.uniform(0, width - 100), 2), round(chance.uniform(0, height - 100), 2)
            size = [round(chance.uniform(5, 99), 2), round(chance.uniform(5, 99), 2)]
            row = {
                "id": number,
                "image_id": chance.randrange(len(images)),
                "category_id": 1 + number % _CLASSES,
                "bbox": [x, y, *size],
                "area": round(size[0] * size[1], 2),
                "iscrowd": 0,
                "segmentation": [],
            }
            file.write(("," if number else "") + json.dumps(row))
        categories = [{"id": number, "name": f"class {number}"} for number in range(1, _CLASSES + 1)]
        file.write('], "categories": ' + json.dumps(categories) + "}")


def measure_import(folder: Path) -> Mapping[str, float]:
    command = [sys.executable, "-m", "odkeras", "import", "bench", "instances.json", "--db", "bench.db"]
    started = time.monotonic()
    process = subprocess.Popen(command, cwd=folder)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"the import failed with {status}")
    memory_kb = usage.ru_maxrss if sys.platform != "darwin" else usage.ru_maxrss / 1024
    return {
        "import_s": time.monotonic() - started,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "memory_mb": memory_kb / 1024,
    }


def measure_images(paths: list[Path]) -> Mapping[str, float]:
    started, cpu_s = time.monotonic(), time.process_time()
    with ThreadPoolExecutor(_THREADS) as pool:
        for _ in pool.map(lambda path: inspect_image(path.read_bytes(), source=path.name), paths):
            pass
    return {"images_s": time.monotonic() - started, "images_cpu_s": time.process_time() - cpu_s}


if __name__ == "__main__":
    main()
