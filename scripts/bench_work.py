"""How much of the drawing time suggestions and candidates save: known boxes play the annotator.

A session does not depend on what the annotator was shown, because the answers are the true boxes whatever it was. So
each data set is played once for each order of its pictures, and what an annotator would have done is counted
afterwards, for each way to show the model's boxes:

  shown       suggestions with a score of at least 0.5; a missing box is drawn.
  picked      the same; a missing box is picked where one of the first three candidates under its middle has an IoU of
              at least 0.8 with it, else drawn.
  auto        suggestions above a threshold for each class that is learned from the answers so far; no picking.
  auto-picked both: what a new project does.

The saved share is that of the seconds which drawing every box takes, as `odkeras stats` estimates them. A suggestion is
kept from an IoU of 0.8 on; with --keep-iou 0.9 only where it is nearly exact.

Examples:
    python scripts/bench_work.py --runs work/ --raccoon raccoon/ --cards cards/ --weights mobilenet_v2/ckpt-1
    python scripts/bench_work.py --runs work/ --data shapes --seeds 1

A session is played as with the page: five answers start a round, the annotator takes ten seconds for an image, each
image comes with the suggestions of the newest version, and the trainer trains further in between. So it takes as long
as the annotator, seven to twelve minutes; with --seconds-per-image 0, each round waits for the one before it, in two to
five minutes. --runs keeps the sessions: what it has is not played again, and an interrupted benchmark continues. The
last line is JSON.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, groupby, product
from pathlib import Path
from typing import Any

import numpy as np

from compare_orders import Quiet
from demo import make_project
from measuring import Row, report, say
from odkeras.annotation import Answer, EditCounts, detections_from_spans
from odkeras.boxes import Detections, Groundtruth, iou
from odkeras.config import SimulationSettings
from odkeras.config.cost import CostModel
from odkeras.config.downloads import DownloadSettings
from odkeras.formats.prodigy import read_answer, write_answer
from odkeras.groundtruth_csv import read_truth_csv
from odkeras.init_project import init_project
from odkeras.labels import LabelMap
from odkeras.metrics import KEEP_IOU, can_be_picked, count_edits
from odkeras.pipeline import load_pipeline, save_pipeline
from odkeras.pretrained.cache import WeightsCache
from odkeras.pretrained.starting_point import find_starting_point
from odkeras.project import read_jsonl
from odkeras.session.thresholds import AutoThreshold, FixedThreshold, Threshold
from odkeras.simulation.report import read_curve
from odkeras.simulation.simulate import simulate
from odkeras.work import Work
from training_variants import VARIANTS
from work_curves import draw

DATA = ("raccoon", "cards", "shapes")
ANNOTATIONS = {"raccoon": 40, "cards": 60, "shapes": 60}
POLICIES = ("shown", "picked", "auto", "auto-picked")
DEFAULT_POLICY = "auto-picked"
LAST = 10
GOALS = {"raccoon": (35.0, 50.0), "cards": (35.0, 50.0), "shapes": (None, None)}
MIN_ROUND = -2.0
EXPENSIVE = CostModel(draw_seconds=25.5)


@dataclass(frozen=True)
class Session:
    """A played session.

    Args:
        rounds: the answers of each round, with the suggestions that the model made for them.
        mAP, mAP50: of the last version, on the held-out pictures.
        train_s: seconds of training in all.
    """

    data: str
    seed: int
    label_map: LabelMap
    rounds: tuple[tuple[Answer, ...], ...]
    mAP: float
    mAP50: float
    train_s: float


def main() -> None:
    args = parse_arguments()
    folder = args.runs or Path(tempfile.mkdtemp(prefix="odkeras-bench-work-"))
    print(f"the sessions are kept in {folder}; with --runs {folder} the benchmark continues", file=sys.stderr)
    plans = [(data, seed) for seed in range(args.seeds) for data in available(args)]
    sessions = [play(folder / name_of(data, seed, args), data, seed, args) for data, seed in plans]
    found = results_of(sessions, args.keep_iou)
    if args.picture is not None:
        curves = {data: curves_of(of_data, args.keep_iou) for data, of_data in by_data(sessions).items()}
        draw(curves, args.picture)
    asked = ("seeds", "keep_iou", "variant", "steps", "extra_steps", "seconds_per_image", "batch_size")
    about = {name: getattr(args, name) for name in asked}
    report("work", rows_of(found, sessions), found, **about)


def name_of(data: str, seed: int, args: argparse.Namespace) -> str:
    """The folder of a session: sessions with other settings have other folders."""
    pace = f"{args.batch_size}x{args.seconds_per_image:g}s"
    steps, extra = args.steps and f"{args.steps}-steps", args.extra_steps and f"{args.extra_steps}-extra"
    given = (data != "shapes" and _name_of_weights(args.weights), args.variant, steps, extra, pace)
    return "-".join([data, str(seed), *(str(part) for part in given if part)])


def _name_of_weights(weights: str) -> str:
    path = Path(weights)
    return path.name if path.is_dir() or path.parent == Path() else path.parent.name


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA), help="default: all that are given")
    for name in ("raccoon", "cards"):
        parser.add_argument(f"--{name}", type=Path, metavar="DIR", help="train.csv, test.csv and images/")
    parser.add_argument(
        "--weights",
        help="what the model for the photographs starts from; as `odkeras init --weights`, without downloads",
    )
    parser.add_argument("--seeds", type=int, default=3, help="orders of the pictures (default: %(default)s)")
    parser.add_argument("--annotations", type=int, help="pictures to annotate (default: raccoon 40, the others 60)")
    parser.add_argument(
        "--variant", choices=sorted(VARIANTS), help="a change to the training; see training_variants.py"
    )
    parser.add_argument("--steps", type=int, help="training steps per round")
    parser.add_argument("--extra-steps", type=int, default=200, help="while the annotator works (default: %(default)s)")
    parser.add_argument(
        "--seconds-per-image", type=float, default=10.0, help="that the annotator takes (default: %(default)s)"
    )
    parser.add_argument("--batch-size", type=int, default=5, help="images per round (default: %(default)s)")
    parser.add_argument("--keep-iou", type=float, default=KEEP_IOU, help="default: %(default)s")
    parser.add_argument("--picture", type=Path, metavar="PNG", help="draw what was saved after each image")
    parser.add_argument("--runs", type=Path, metavar="DIR", help="the played sessions: read first, then added to")
    args = parser.parse_args()
    for name in ("raccoon", "cards"):
        if getattr(args, name) is not None and args.weights is None:
            parser.error(f"--{name} needs --weights")
    return args


def available(args: argparse.Namespace) -> Iterator[str]:
    for name in args.data:
        if name == "shapes" or getattr(args, name) is not None:
            yield name
        else:
            print(f"{name} is left out: give --{name} DIR and --weights", file=sys.stderr)


def play(project: Path, data: str, seed: int, args: argparse.Namespace) -> Session:
    """Play a session, or the rest of it; one that is complete is only read."""
    wanted = args.annotations or ANNOTATIONS[data]
    config, curve = project / "pipeline.config", project / "report" / "curve.json"
    points = read_curve(curve) if curve.exists() else []
    if not points or points[-1].annotations < wanted:
        say(f"{data}, order {seed}")
        train_csv, test_csv, images_dir = prepare(project, data, args)
        if args.variant is not None:
            changed = load_pipeline(config)
            VARIANTS[args.variant](changed)
            save_pipeline(changed, config)
        settings = SimulationSettings(
            config=config,
            annotations=wanted,
            order="random",
            order_seed=seed,
            extra_steps=args.extra_steps,
            seconds_per_image=args.seconds_per_image,
            images_per_round=args.batch_size,
            **({"steps_per_epoch": args.steps} if args.steps else {}),
        )
        simulate(train_csv, settings, images_dir, test_csv=test_csv, display=Quiet())
        points = read_curve(curve)
    rows = read_jsonl(project / "report" / "answers.jsonl")
    rounds = [tuple(map(read_answer, batch)) for _, batch in groupby(rows, key=lambda row: row["batch"])]
    return Session(
        data,
        seed,
        LabelMap.load(project / "label_map.pbtxt"),
        tuple(rounds),
        points[-1].mAP,
        points[-1].mAP50,
        sum(point.train_s for point in points),
    )


def prepare(project: Path, data: str, args: argparse.Namespace) -> tuple[Path, Path, Path]:
    """Create the project if there is none; returns train.csv, test.csv and the directory of the images."""
    if data == "shapes":
        dataset = make_project(project)
        return dataset.train_csv, dataset.test_csv, dataset.images_dir
    folder: Path = getattr(args, data)
    train_csv, images_dir = folder / "train.csv", folder / "images"
    labels = sorted({label for image in read_truth_csv(train_csv, images_dir) for label in image.labels})
    if not (project / "pipeline.config").exists():
        cache = WeightsCache(settings=DownloadSettings(offline=True))
        start = partial(find_starting_point, args.weights, template=None, cache=cache)
        init_project(project, labels, find_start=start)
    return train_csv, folder / "test.csv", images_dir


def edits_by_image(session: Session, policy: str, keep_iou: float) -> list[list[EditCounts]]:
    """The edits that the annotator of a policy makes in each image, by round."""
    with tempfile.TemporaryDirectory() as folder:
        threshold: Threshold = FixedThreshold(0.5)
        if policy.startswith("auto"):
            threshold = AutoThreshold(
                session.label_map, Path(folder) / "thresholds.json", can_pick=policy.endswith("picked")
            )
        found = []
        for answers in session.rounds:
            found.append([edits_of(answer, session.label_map, threshold, policy, keep_iou) for answer in answers])
            threshold.note([write_answer(answer) for answer in answers])
    return found


def edits_of(answer: Answer, label_map: LabelMap, threshold: Threshold, policy: str, keep_iou: float) -> EditCounts:
    task, size_hw = answer.task, answer.task.size_hw
    true = detections_from_spans(task.spans, label_map, size_hw)
    truth = Groundtruth(true.boxes, true.classes)
    candidates = task.suggestions.candidates if task.suggestions is not None else ()
    detected = detections_from_spans(candidates, label_map, size_hw)
    lowest = np.array([threshold.of(int(class_id)) for class_id in detected.classes], np.float32)
    shown = detected.scores >= lowest
    suggested = Detections(detected.boxes[shown], detected.scores[shown], detected.classes[shown])
    picked = can_be_picked(truth, detected) if policy.endswith("picked") else None
    edits = count_edits(truth, suggested, picked)
    return replace(edits, kept_80=edits.kept) if keep_iou > KEEP_IOU else edits


def saved_percent(edits: Sequence[EditCounts], cost: CostModel) -> float:
    work = Work(len(edits), sum(edits, EditCounts()))
    without = work.seconds_without(cost)
    return 100 * work.seconds_saved(cost) / without if without else 0.0


def results_of(sessions: Sequence[Session], keep_iou: float) -> dict[str, Any]:
    """The results as `DATA_POLICY_...`: medians over the orders, and the range."""
    found: dict[str, Any] = {}
    for data, of_data in by_data(sessions).items():
        for name in ("mAP", "mAP50", "train_s"):
            found |= spread(f"{data}_{name}", [getattr(session, name) for session in of_data])
        found |= spread(f"{data}_reachable", [100 * reachable(session) for session in of_data])
        for policy in POLICIES:
            rounds = [edits_by_image(session, policy, keep_iou) for session in of_data]
            images = [list(chain.from_iterable(each)) for each in rounds]
            percents = [[saved_percent(edits, CostModel()) for edits in each] for each in rounds]
            key = f"{data}_{policy}"
            found |= spread(f"{key}_saved", [saved_percent(each, CostModel()) for each in images])
            found |= spread(f"{key}_saved_last", [saved_percent(each[-LAST:], CostModel()) for each in images])
            found |= spread(f"{key}_saved_expensive", [saved_percent(each, EXPENSIVE) for each in images])
            found |= spread(f"{key}_worst_round", [min(each) for each in percents])
            found[f"{key}_rounds"] = [[round(percent, 1) for percent in each] for each in percents]
    return found


def curves_of(sessions: Sequence[Session], keep_iou: float) -> dict[str, list[list[float]]]:
    """For each policy and order, the percent saved up to each image."""
    curves: dict[str, list[list[float]]] = {policy: [] for policy in POLICIES}
    for session, policy in product(sessions, POLICIES):
        images = list(chain.from_iterable(edits_by_image(session, policy, keep_iou)))
        ends = range(1, len(images) + 1)
        curves[policy].append([saved_percent(images[:end], CostModel()) for end in ends])
    return curves


def by_data(sessions: Sequence[Session]) -> dict[str, list[Session]]:
    names = dict.fromkeys(session.data for session in sessions)
    return {name: [session for session in sessions if session.data == name] for name in names}


def reachable(session: Session) -> float:
    """Share of the objects after half of the images for which a candidate is as good as a box that people keep."""
    answers = list(chain.from_iterable(session.rounds))
    late = answers[len(answers) // 2 :]
    hits: list[bool] = []
    for answer in late:
        size_hw = answer.task.size_hw
        true = detections_from_spans(answer.task.spans, session.label_map, size_hw)
        candidates = answer.task.suggestions.candidates if answer.task.suggestions is not None else ()
        detected = detections_from_spans(candidates, session.label_map, size_hw)
        best = np.nan_to_num(iou(true.boxes, detected.boxes)).max(axis=1, initial=0.0)
        hits += (best >= KEEP_IOU).tolist()
    return statistics.fmean(hits) if hits else 0.0


def spread(key: str, values: Sequence[float]) -> dict[str, float]:
    return {key: statistics.median(values), f"{key}_lowest": min(values), f"{key}_highest": max(values)}


def rows_of(found: dict[str, Any], sessions: Sequence[Session]) -> list[Row]:
    """The table's rows. The goals are those of a new project with default options."""
    rows = []
    for data, of_data in by_data(sessions).items():
        row = partial(row_of, found, data, len(of_data))
        count = sum(map(len, of_data[0].rounds))
        goal, goal_last = GOALS[data]
        for policy in POLICIES:
            goals = (goal, goal_last, MIN_ROUND) if policy == DEFAULT_POLICY else (None, None, None)
            rows += [
                row(f", {policy}: drawing time saved over {count} images", f"{policy}_saved", "%", goals[0]),
                row(f", {policy}: in the last {LAST} images", f"{policy}_saved_last", "%", goals[1]),
                row(f", {policy}: in the worst round", f"{policy}_worst_round", "%", goals[2]),
            ]
        rows += [
            row(f", {DEFAULT_POLICY}: saved where drawing takes 25.5 s", f"{DEFAULT_POLICY}_saved_expensive", "%"),
            row(": objects of the second half with a candidate of IoU 0.8", "reachable", "%", 80),
            row(f": mAP after {count} images", "mAP", "", 0.55 if data != "shapes" else None),
            row(": mAP at IoU 0.5", "mAP50", ""),
            row(": seconds of training", "train_s", "s"),
        ]
    return rows


def row_of(
    found: dict[str, Any], data: str, orders: int, text: str, key: str, unit: str, at_least: float | None = None
) -> Row:
    name = f"{data}_{key}"
    low, high = found[f"{name}_lowest"], found[f"{name}_highest"]
    ending = f" ({low:.3g} to {high:.3g} in {orders} orders)" if orders > 1 else ""
    return Row(f"{data}{text}{ending}", name, unit, at_least=at_least, shown=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
