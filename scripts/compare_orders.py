"""Does the order of the images matter? Plays the annotator with each order and several seeds on pictures of shapes.

    python scripts/compare_orders.py [--annotations 30] [--seeds 3]

Prints mAP at IoU 0.5 on held-out pictures after each round, the mean over the seeds and the range, and how many boxes
had to be labelled to get there. The last line is JSON. About a minute for each run on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
from pathlib import Path
from typing import Any

from demo import make_project
from odkeras.config import SimulationSettings
from odkeras.config.settings import ORDERS
from odkeras.simulation.report import CurvePoint
from odkeras.simulation.simulate import simulate


class Quiet:
    """A display that shows nothing."""

    def say(self, text: str) -> None: ...

    def progress(self, text: str) -> None: ...

    def point(self, point: CurvePoint) -> None: ...


def main() -> None:
    args = parse_arguments()
    found: dict[str, list[list[CurvePoint]]] = {}
    for seed in range(args.seeds):  # orders interleaved, so that a slow phase of the machine affects all of them
        for order in args.orders:
            points = run(args, order, seed)
            found.setdefault(order, []).append(points)
            print(f"{order}, seed {seed}: mAP50 {points[-1].mAP50:.3f}", flush=True)
    report(args, found)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=10)
    parser.add_argument("--steps", type=int, default=100, help="training steps per round")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--orders", nargs="+", choices=ORDERS, default=["random", "uncertain"])
    return parser.parse_args()


def run(args: argparse.Namespace, order: str, seed: int) -> list[CurvePoint]:
    with tempfile.TemporaryDirectory(prefix="odkeras-orders-") as folder:
        project = Path(folder)
        dataset = make_project(project)
        settings = SimulationSettings(
            config=project / "pipeline.config",
            annotations=args.annotations,
            images_per_round=args.batch_size,
            steps_per_epoch=args.steps,
            order=order,
            order_seed=seed,
        )
        result = simulate(dataset.train_csv, settings, dataset.images_dir, test_csv=dataset.test_csv, display=Quiet())
        return list(result.points)


def boxes(points: list[CurvePoint]) -> list[int]:
    """Cumulative number of objects at each point."""
    total, found = 0, []
    for point in points:
        total += point.edits.objects
        found.append(total)
    return found


def report(args: argparse.Namespace, found: dict[str, list[list[CurvePoint]]]) -> None:
    rows: list[dict[str, Any]] = []
    print(f"\n{'order':12} {'annotations':>11} {'boxes':>6} {'mAP50':>7} {'lowest':>7} {'highest':>8}")
    for order, runs in found.items():
        for number in range(1, len(runs[0])):
            values = [points[number].mAP50 for points in runs]
            labelled = statistics.mean(boxes(points)[number] for points in runs)
            row = {"order": order, "annotations": runs[0][number].annotations, "boxes": round(labelled, 1)}
            row |= {"mAP50": statistics.mean(values), "lowest": min(values), "highest": max(values)}
            rows.append({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()})
            print(
                f"{order:12} {row['annotations']:11} {labelled:6.0f} {row['mAP50']:7.3f} {row['lowest']:7.3f} "
                f"{row['highest']:8.3f}"
            )
    about = {"seeds": args.seeds, "steps": args.steps, "machine": platform.machine(), "cpus": os.cpu_count()}
    print(json.dumps({"rows": rows, **about}))


if __name__ == "__main__":
    main()
