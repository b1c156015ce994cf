"""Make a TFRecord from a CSV file with one row per box: path,xmin,ymin,xmax,ymax,label (pixels).

Example:
    python scripts/create_tfrecord.py train.csv train.record --label-map label_map.pbtxt --images images/
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from odkeras.errors import OdkerasError
from odkeras.labels import LabelMap


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        label_map = LabelMap.load(options.label_map)
        _convert(options, label_map)
    except OdkerasError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path, help="rows path,xmin,ymin,xmax,ymax,label; coordinates in pixels")
    parser.add_argument("out", type=Path, help="the TFRecord file to write")
    parser.add_argument("--label-map", type=Path, required=True, help="label map (.pbtxt)")
    parser.add_argument("--images", type=Path, help="where relative paths start (default: the CSV file's directory)")
    return parser


def _convert(options: argparse.Namespace, label_map: LabelMap) -> None:
    from odkeras.data.records import csv_to_records  # TensorFlow takes seconds to import

    images_dir = options.images or options.csv.parent
    show = _show_progress if sys.stderr.isatty() else None
    report = csv_to_records(options.csv, options.out, label_map=label_map, images_dir=images_dir, progress=show)
    for file, reason in report.skipped:
        print(f"skipped {file}: {reason}", file=sys.stderr)
    print(f"{options.out}: {report.images} images, {report.boxes} boxes, {report.negatives} without boxes")


def _show_progress(done: int, total: int) -> None:
    print(f"\r{done}/{total}", end="\n" if done == total else "", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
