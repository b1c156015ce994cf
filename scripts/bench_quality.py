"""How good the model gets, for each annotation and for each second of training: known boxes play the annotator.

Two data sets: pictures of shapes, drawn on the spot, and, with --raccoon and --backbone, the Raccoon data set (a folder
with train.csv, test.csv and images/) from a MobileNetV2 backbone. Four policies:
  replay      what odkeras does: each round trains on all answers so far.
  newest      each round trains on its own answers alone, as the 2019 recipe did.
  zoo         replay with the stock training of the TensorFlow 2 model zoo, from the pipeline.config of its
              ssd_mobilenet_v2_fpnlite_320x320_coco17_tpu-8: momentum 0.9, a cosine schedule (0.08, warm-up from
              0.026666 over 1,000 of 50,000 steps), batch-norm decay 0.997, L2 weight 0.00004, no clipping of gradients.
              The model and the batch size stay ours, and no weights are frozen. (The shapes' hourglass has its norm and
              no L2 built in: only the optimizer and the clipping differ there.)
  newest-zoo  both: the 2019 recipe with a stock pipeline.config, as people ran it.

Besides, --policies takes the names of `training_variants.py`, replay with one hyper-parameter changed, and these after
"newest-".

A seed is a random order of the pictures, the same for each policy. mAP is measured on the held-out pictures, with the
version that is served after each round; a training that fails counts with the last version that it made.

Examples:
    python scripts/bench_quality.py --raccoon raccoon/ --backbone mobilenet_v2/ckpt-1 --plot docs/quality.png
    python scripts/bench_quality.py --data shapes --seeds 1 --annotations 10 --steps 5

A run takes one to three minutes on two cores, all of them 45. Each is kept in a file, whose name is said at the start:
given with --runs, what it has of the same settings is not run again. The last line is JSON.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compare_orders import Quiet
from demo import make_project
from measuring import DEFAULT_TEMPLATE, Row, environment, report, rounded, say
from odkeras.config import SimulationSettings
from odkeras.errors import ServingError, TrainingError
from odkeras.groundtruth_csv import read_truth_csv
from odkeras.init_project import init_project
from odkeras.pipeline import load_pipeline, save_pipeline
from odkeras.project import append_jsonl, read_jsonl
from odkeras.simulation.report import read_curve
from odkeras.simulation.simulate import simulate
from quality_curves import Run, curve_of, draw, names_in, runs_of
from training_variants import VARIANTS

DATA = ("raccoon", "shapes")
POLICIES = ("replay", "newest", "zoo", "newest-zoo")
NEWEST = "newest"
BATCH_SIZE = 10
COMPARED_AT = 40
COMPARED_WITH = {"newest": "ratio", "newest-zoo": "ratio_2019"}  # policy that replay is compared with -> result's name
MIN_MAP50 = 0.01  # lower bound of mAP50 in a ratio, which could otherwise become huge


@dataclass(frozen=True)
class Pictures:
    """The data of a simulation.

    Args:
        prepare: creates a project in a directory; returns train.csv, test.csv and the directory of the images.
        annotations: number of pictures to annotate.
        steps: training steps per round.
    """

    prepare: Callable[[Path], tuple[Path, Path, Path]]
    annotations: int
    steps: int


@dataclass(frozen=True)
class Plan:
    """The settings of one run, by which the file of runs identifies it."""

    data: str
    policy: str
    seed: int
    annotations: int
    batch_size: int
    steps: int


def main() -> None:
    args = parse_arguments()
    pictures = pictures_of(args)
    path = args.runs or new_file()
    print(f"the runs are kept in {path}; with --runs {path} an interrupted benchmark goes on", file=sys.stderr)
    runs = run_all(plans_of(args, pictures), pictures, path)
    if args.plot:
        draw(runs, args.plot)
    found = results_of(runs)
    commits = sorted({run["commit"] for run in runs if run.get("commit")})
    about = {"seeds": args.seeds, "batch_size": args.batch_size, "commits": commits}
    about |= {
        name: {"annotations": runs_of(runs, name)[0]["annotations"], "steps": runs_of(runs, name)[0]["steps"]}
        for name in pictures
    }
    is_default = (args.annotations, args.steps, args.batch_size) == (None, None, BATCH_SIZE)
    report("quality", rows_of(runs, is_default=is_default), found, **about)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA), help="default: both")
    parser.add_argument(
        "--policies",
        nargs="+",
        choices=sorted({*POLICIES, *VARIANTS, *(f"{NEWEST}-{name}" for name in VARIANTS)}),
        default=list(POLICIES),
        help="default: the four",
    )
    parser.add_argument("--raccoon", type=Path, metavar="DIR", help="the Raccoon data set; left out if not given")
    parser.add_argument("--backbone", metavar="CHECKPOINT", help="what the model for the raccoons starts from")
    parser.add_argument("--seeds", type=int, default=3, help="orders of the pictures (default: %(default)s)")
    parser.add_argument("--annotations", type=int, help="pictures to annotate (default: raccoon 40, shapes 60)")
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE, help="pictures per round (default: %(default)s)")
    parser.add_argument("--steps", type=int, help="training steps per round (default: raccoon 100, shapes 120)")
    parser.add_argument("--runs", type=Path, metavar="FILE", help="the runs, a line each: read first, then added to")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the curves into this PNG file")
    args = parser.parse_args()
    if (args.raccoon is None) != (args.backbone is None):
        parser.error("--raccoon and --backbone go together")
    if min(args.seeds, args.batch_size, args.annotations or 1, args.steps or 1) < 1:
        parser.error("--seeds, --annotations, --batch-size and --steps must be at least 1")
    return args


def pictures_of(args: argparse.Namespace) -> dict[str, Pictures]:
    """The available data sets by name."""
    found = {}
    if "raccoon" in args.data and args.raccoon is None:
        print("the raccoons are left out: give --raccoon DIR and --backbone CHECKPOINT", file=sys.stderr)
    elif "raccoon" in args.data:
        found["raccoon"] = Pictures(lambda project: raccoons(project, args.raccoon, args.backbone), 40, 100)
    if "shapes" in args.data:
        found["shapes"] = Pictures(shapes, 60, 120)
    if not found:
        sys.exit("nothing to measure")
    return found


def raccoons(project: Path, data: Path, backbone: str) -> tuple[Path, Path, Path]:
    train_csv, test_csv, images_dir = data / "train.csv", data / "test.csv", data / "images"
    labels = sorted({label for image in read_truth_csv(train_csv, images_dir) for label in image.labels})
    init_project(project, labels, template=DEFAULT_TEMPLATE, fine_tune_checkpoint=backbone)
    return train_csv, test_csv, images_dir


def shapes(project: Path) -> tuple[Path, Path, Path]:
    dataset = make_project(project)
    return dataset.train_csv, dataset.test_csv, dataset.images_dir


def new_file() -> Path:
    handle, name = tempfile.mkstemp(prefix="odkeras-bench-quality-", suffix=".jsonl")
    os.close(handle)
    return Path(name)


def plans_of(args: argparse.Namespace, pictures: dict[str, Pictures]) -> Iterator[Plan]:
    """All runs, with the policies interleaved, so that a slow phase of the machine affects all of them."""
    for seed in range(args.seeds):
        for name, data in pictures.items():
            for policy in args.policies:
                annotations, steps = args.annotations or data.annotations, args.steps or data.steps
                yield Plan(name, policy, seed, annotations, args.batch_size, steps)


def run_all(plans: Iterator[Plan], pictures: dict[str, Pictures], path: Path) -> list[Run]:
    done = {plan_of(run): run for run in read_jsonl(path)} if path.exists() else {}
    runs = []
    for plan in plans:
        if plan not in done:
            say(f"{plan.data}, {plan.policy}, seed {plan.seed}")
            run = {**asdict(plan), **play(plan, pictures[plan.data]), "commit": environment()["commit"]}
            append_jsonl(path, [rounded(run)])
            done[plan] = run
            print(f"  {summary_of_run(run)}", file=sys.stderr, flush=True)
        runs.append(done[plan])
    return runs


def plan_of(run: Run) -> Plan:
    return Plan(**{name: run[name] for name in Plan.__dataclass_fields__})


def play(plan: Plan, pictures: Pictures) -> Run:
    """Run a simulation; returns its curve and its failures."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="odkeras-bench-") as folder:
        project = Path(folder)
        train_csv, test_csv, images_dir = pictures.prepare(project)
        config = project / "pipeline.config"
        if change := VARIANTS.get(plan.policy.removeprefix(f"{NEWEST}-")):
            changed = load_pipeline(config)
            change(changed)
            save_pipeline(changed, config)
        settings = SimulationSettings(
            config=config,
            annotations=plan.annotations,
            images_per_round=plan.batch_size,
            steps_per_epoch=plan.steps,
            replay="off" if plan.policy.startswith(NEWEST) else "on",
            order="random",
            order_seed=plan.seed,
        )
        failure = ""
        try:
            simulate(train_csv, settings, images_dir, test_csv=test_csv, display=Quiet())
        except (TrainingError, ServingError) as error:
            failure = str(error).splitlines()[0]
        points = [asdict(point) for point in read_curve(project / "report" / "curve.json")]
        rounds = [row for row in read_jsonl(project / "model" / "metrics.jsonl") if row.get("kind") == "round"]
    if not points:
        raise SystemExit(f"{plan.data}, {plan.policy}: {failure}")
    failed_rounds = sum(bool(row.get("failed")) for row in rounds)
    wall_s = time.monotonic() - started
    return {"points": points, "failure": failure, "failed_rounds": failed_rounds, "wall_s": wall_s}


def summary_of_run(run: Run) -> str:
    problem = f"; failed: {run['failure']}" if run["failure"] else ""
    problem += f"; {run['failed_rounds']} failed rounds" if run["failed_rounds"] else ""
    return f"mAP50 {run['points'][-1]['mAP50']:.3f}, {run['wall_s']:.0f} s in all{problem}"


def compared_at(runs: Sequence[Run], data: str) -> int:
    """Number of annotations at which the policies are compared."""
    return min(COMPARED_AT, *(run["annotations"] for run in runs_of(runs, data)))


def until(run: Run, annotations: int) -> list[dict[str, Any]]:
    return [point for point in run["points"] if point["annotations"] <= annotations]


def results_of(runs: Sequence[Run]) -> dict[str, Any]:
    """The results as `DATA_POLICY_...`, and the curve of each run under `curves`."""
    found: dict[str, Any] = {}
    for data in names_in(runs, "data"):
        at = compared_at(runs, data)
        for policy in names_in(runs, "policy"):
            found |= {
                f"{data}_{policy}_{key}": value for key, value in result_of(runs_of(runs, data, policy), at).items()
            }
        replay = found.get(f"{data}_replay_mAP50")
        for policy, key in COMPARED_WITH.items():
            other = found.get(f"{data}_{policy}_mAP50")
            if replay is not None and other is not None:
                found[f"{data}_{key}"] = max(replay, MIN_MAP50) / max(other, MIN_MAP50)
    found["curves"] = [
        {"data": run["data"], "policy": run["policy"], "seed": run["seed"], **curve_of(run)} for run in runs
    ]
    return found


def result_of(runs: Sequence[Run], at: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in ("mAP50", "mAP"):
        qualities = [until(run, at)[-1][name] for run in runs]
        found |= {name: statistics.median(qualities)}
        found |= {f"{name}_lowest": min(qualities), f"{name}_highest": max(qualities)}
    found["train_s"] = statistics.median(sum(point["train_s"] for point in until(run, at)) for run in runs)
    found["failed_runs"] = sum(bool(run["failure"] or run["failed_rounds"]) for run in runs)
    return found


def rows_of(runs: Sequence[Run], *, is_default: bool) -> list[Row]:
    """The table's rows. Goals apply only to the default settings."""
    rows = []
    for data in names_in(runs, "data"):
        at = compared_at(runs, data)
        has_goal = is_default and data == "raccoon"
        for policy in names_in(runs, "policy"):
            of_policy = runs_of(runs, data, policy)
            key, name = f"{data}_{policy}", f"{data}, {policy}"
            goal, goal_s = (0.65, 240) if has_goal and policy == "replay" else (None, None)
            found = result_of(of_policy, at)
            text = f"{name}: mAP at IoU 0.5 after {at} annotations"
            if len(of_policy) > 1:
                text += f" ({found['mAP50_lowest']:.2f} to {found['mAP50_highest']:.2f} in {len(of_policy)} orders)"
            rows.append(Row(text, f"{key}_mAP50", "", at_least=goal, shown=True))
            text = f"  mAP ({found['mAP_lowest']:.2f} to {found['mAP_highest']:.2f})"
            rows.append(Row(text, f"{key}_mAP", ""))
            text = f"  seconds of training for {at} annotations"
            rows.append(Row(text, f"{key}_train_s", "s", at_most=goal_s, shown=policy == "replay"))
            if found["failed_runs"]:
                rows.append(Row("  runs in which the training failed", f"{key}_failed_runs", "", shown=True))
        goal = 2.0 if has_goal else None
        for policy, key in COMPARED_WITH.items():
            text = f"{data}: replay to {policy}, ratio of the medians"
            rows.append(Row(text, f"{data}_{key}", "x", at_least=goal, shown=has_goal))
    return rows


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
