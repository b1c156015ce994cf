"""The whole loop on pictures of shapes that are drawn on the spot: `python scripts/demo.py DIR`.

Makes a data set and a project in DIR and opens the page in which you label: the model suggests, is corrected, is
trained, suggests better. With --simulate known boxes play the annotator, and a learning curve is drawn.
Started again with the same DIR it goes on; --fresh begins anew.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from odkeras.config import AnnotateSettings, SimulationSettings
from odkeras.errors import OdkerasError
from odkeras.init_project import init_project
from odkeras.project import write_atomically
from odkeras.shapes import CLASSES, ShapesDataset, generate_shapes
from odkeras.simulation.simulate import simulate
from odkeras.web.server import run_annotate

MADE_HERE = ("shapes", "data", "model", "export", "report", "pipeline.config", "label_map.pbtxt")
MADE_BY_THE_PAGE = ("annotations.db", "annotations.db-wal", "annotations.db-shm")
DATASET = "shapes"


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
    parser.add_argument("--steps", type=int, default=120, help="training steps per round (default: %(default)s)")
    page = parser.add_argument_group("the page")
    page.add_argument("--web-port", type=int, default=8080, help="0 selects a free port (default: %(default)s)")
    page.add_argument("--no-open", action="store_true", help="do not open a browser")
    played = parser.add_argument_group("the simulated annotator")
    played.add_argument("--simulate", action="store_true", help="simulate the annotator with known boxes")
    played.add_argument("--annotations", type=int, default=60, help="pictures to annotate (default: %(default)s)")
    played.add_argument("--batch-size", type=int, default=10, help="pictures per round (default: %(default)s)")
    return parser.parse_args()


def run_demo(args: argparse.Namespace) -> None:
    """Run the demo.

    Raises:
        OdkerasError: as the odkeras commands.
    """
    directory: Path = args.directory.absolute()
    config = directory / "pipeline.config"
    if args.fresh:
        remove_earlier_demo(directory)
    print(f"drawing pictures of shapes in {directory / 'shapes'}")
    dataset = make_project(directory)
    if args.simulate:
        play(args, directory, config, dataset)
    else:
        open_page(args, directory, config, dataset)


def make_project(directory: Path, scale: int = 1) -> ShapesDataset:
    """Draw pictures of shapes in `directory/shapes`, and create a project in `directory` unless there is one."""
    dataset = generate_shapes(directory / "shapes", scale=scale)
    if not (directory / "pipeline.config").exists():
        init_project(directory, CLASSES, template="shapes_96")
    return dataset


def open_page(args: argparse.Namespace, directory: Path, config: Path, dataset: ShapesDataset) -> None:
    write_evaluation_record(directory, dataset)
    source = directory / "shapes" / "train.jsonl"
    write_source(source, dataset.train_csv)
    print(
        "\nIn the page: press 1, 2 or 3 for circle, triangle or square, drag a box around each shape, press a to\n"
        f"accept. After five pictures the first training starts ({args.steps} steps, well under a minute); from then\n"
        "on the model suggests boxes, and is better after every five. Press h in the page for all keys.\n"
    )
    run_annotate(
        AnnotateSettings(
            dataset=DATASET,
            source=str(source),
            config=config,
            steps_per_epoch=args.steps,
            extra_steps=200,
            run_eval=True,
            eval_steps=50,
            web_port=args.web_port,
            no_open=args.no_open,
            db=directory / "annotations.db",
        )
    )


def write_evaluation_record(directory: Path, dataset: ShapesDataset) -> None:
    """Write the evaluation record in a separate process: it needs TensorFlow, and the page's process does not."""
    record = directory / "data" / "test_eval.record"
    if record.exists():
        return
    record.parent.mkdir(parents=True, exist_ok=True)
    print("writing the pictures that the model is measured on, once")
    command = [sys.executable, "-m", "odkeras", "records", "from-csv", str(dataset.test_csv), str(record)]
    label_map = directory / "label_map.pbtxt"
    command += ["--label-map", str(label_map), "--images", str(dataset.images_dir)]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise OdkerasError(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stderr}")


def write_source(path: Path, truth_csv: Path) -> None:
    """Write the pictures to label as JSON lines, without their known boxes."""
    with truth_csv.open(newline="", encoding="utf-8") as file:
        names = dict.fromkeys(row["path"] for row in csv.DictReader(file))
    write_atomically(path, "".join(json.dumps({"path": f"images/{name}"}) + "\n" for name in names))


def play(args: argparse.Namespace, directory: Path, config: Path, dataset: ShapesDataset) -> None:
    started = time.monotonic()
    print("playing the annotator; Ctrl-C stops, the same command continues")
    settings = SimulationSettings(
        config=config,
        annotations=args.annotations,
        images_per_round=args.batch_size,
        steps_per_epoch=args.steps,
    )
    result = simulate(dataset.train_csv, settings, dataset.images_dir, test_csv=dataset.test_csv)
    first, last = result.points[0], result.points[-1]
    print(
        f"\n{time.monotonic() - started:.0f} s; mAP at IoU 0.5 on {dataset.test_csv.name}: "
        f"{first.mAP50:.2f} before, {last.mAP50:.2f} after {last.annotations} annotations"
    )
    print(f"learning curve: {result.curve_png}\n                {result.curve_json}")
    print(f"TensorBoard:    tensorboard --logdir {directory / 'model'}")


def remove_earlier_demo(directory: Path) -> None:
    """Remove the files of an earlier demo. Does nothing in a directory without a demo, and touches no other files."""
    if not (directory / "shapes" / "train.csv").exists():
        return
    for name in (*MADE_HERE, *MADE_BY_THE_PAGE):
        path = directory / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
