"""The whole loop in a few minutes, on pictures of shapes that are drawn on the spot: `python scripts/demo.py DIR`.

Makes a data set and a project in DIR, then plays an annotator who knows all boxes: the model suggests, is corrected,
is trained, suggests better. What is left: a learning curve in DIR/report, checkpoints in DIR/model, exported models in
DIR/export.
Started again with the same DIR it goes on; --fresh begins anew.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path

from odkeras.errors import OdkerasError
from odkeras.hosts.simulate import simulate
from odkeras.init_project import init_project
from odkeras.shapes import CLASSES, generate_shapes

MADE_HERE = ("shapes", "data", "model", "export", "report", "pipeline.config", "label_map.pbtxt")


def main() -> int:
    args = parse_arguments()
    try:
        run_demo(args)
    except OdkerasError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def parse_arguments() -> argparse.Namespace:
    description, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(description=description, epilog=more)
    parser.add_argument("directory", metavar="DIR", type=Path, help="made if it is not there")
    parser.add_argument("--fresh", action="store_true", help="remove what an earlier demo left in DIR")
    parser.add_argument("--annotations", type=int, default=60, help="pictures to annotate (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=10, help="pictures per round (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=120, help="training steps per round (default: %(default)s)")
    return parser.parse_args()


def run_demo(args: argparse.Namespace) -> None:
    """
    Raises:
        OdkerasError: whatever an odkeras command raises.
    """
    started = time.monotonic()
    directory: Path = args.directory.absolute()
    config = directory / "pipeline.config"
    if args.fresh:
        remove_earlier_demo(directory)
    print(f"drawing pictures of shapes in {directory / 'shapes'}")
    dataset = generate_shapes(directory / "shapes")
    if not config.exists():
        init_project(directory, CLASSES, template="shapes_96")
    print("playing the annotator; Ctrl-C stops, the same command goes on")
    result = simulate(
        dataset.train_csv,
        config,
        dataset.images_dir,
        annotations=args.annotations,
        batch_size=args.batch_size,
        test_csv=dataset.test_csv,
        steps_per_epoch=args.steps,
    )
    first, last = result.points[0], result.points[-1]
    print(
        f"\n{time.monotonic() - started:.0f} s; mAP at IoU 0.5 on {dataset.test_csv.name}: "
        f"{first.mAP50:.2f} before, {last.mAP50:.2f} after {last.annotations} annotations"
    )
    print(f"learning curve: {result.curve_png}\n                {result.curve_json}")
    print(f"TensorBoard:    tensorboard --logdir {directory / 'model'}")


def remove_earlier_demo(directory: Path) -> None:
    """Only in a directory that holds a demo, and there only what a demo makes."""
    if not (directory / "shapes" / "train.csv").exists():
        return
    for name in MADE_HERE:
        path = directory / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
