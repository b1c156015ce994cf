"""Whether new versions are taken up quickly and without a failed request, and whether memory grows with them.

  swaps   a served export directory gets one new version after the other (the same graph, other weights) while clients
          ask for predictions all the time; then the server's memory. What a request costs must not hide what a swap
          costs, so the images are small. The versions are written beforehand, about 12 MB each.
  rounds  the loop with its processes, a new answer and a step or two each round; then the trainer's memory.

Memory is the resident memory of the process, the median of three readings: after swaps or rounds 3 to 5, and after the
last three.

Example:
    python scripts/bench_swap.py

The last line is JSON.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench_predict import MODEL_NAME, SERVER_POLL_S, Server, answers_about, asking, randomise, run_quietly, serving
from measuring import DEFAULT_TEMPLATE, Row, memory_mb, percentile, report, say, summary_of, wait_until
from odkeras.config.settings import SessionSettings
from odkeras.errors import OdkerasError
from odkeras.init_project import init_project
from odkeras.labels import LabelMap
from odkeras.pipeline import Overrides, apply_overrides, load_pipeline, save_pipeline
from odkeras.project import find_round, read_jsonl
from odkeras.serving.client import ServingClient
from odkeras.session.events import Listener
from odkeras.session.session import AnnotationSession
from odkeras.session.setup import SessionSetup
from odkeras.shapes import generate_shapes

CLIENTS = 3
EARLY = 5
READINGS = 3
BATCH_SIZE = 2
LOOK_S = 0.01
STAGES = ("records_s", "train_s", "checkpoint_s", "publish_s")


@dataclass
class Asked:
    """Latencies in ms and error messages of the clients' requests."""

    times_ms: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def main() -> None:
    args = parse_arguments()
    if args.write_versions_in:
        write_versions(args.write_versions_in, args.swaps + 1)
        return
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="odkeras-bench-") as folder:
        directory = Path(folder)
        pictures = generate_shapes(directory, train_images=args.rounds, test_images=0)
        paths = sorted(pictures.images_dir.iterdir())
        found |= measure_swaps(make_project(directory / "swaps", args), paths, args)
        found |= measure_rounds(make_project(directory / "rounds", args), paths, args)
    about = {"template": args.template, "clients": CLIENTS, "poll_s": SERVER_POLL_S, "batch_size": BATCH_SIZE}
    report("swap", rows(args), found, **about, swaps=args.swaps, rounds=args.rounds, steps=args.steps)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--template", default=DEFAULT_TEMPLATE, help="configuration to use (default: %(default)s)")
    parser.add_argument("--swaps", type=int, default=50, help="new versions (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=50, help="rounds of the trainer (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=1, help="steps of a round (default: %(default)s)")
    parser.add_argument("--write-versions-in", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if min(args.swaps, args.rounds) <= EARLY:
        parser.error(f"--swaps and --rounds must be more than {EARLY}, with which the last ones are compared")
    return args


def make_project(directory: Path, args: argparse.Namespace) -> Path:
    init_project(directory, ["thing"], template=args.template)
    config = load_pipeline(directory / "pipeline.config")
    save_pipeline(apply_overrides(config, Overrides(batch_size=BATCH_SIZE)), directory / "pipeline.config")
    return directory


def measure_swaps(project: Path, paths: Sequence[Path], args: argparse.Namespace) -> dict[str, Any]:
    say("swaps")
    images = [path.read_bytes() for path in paths]
    run_quietly([__file__, "--swaps", str(args.swaps), "--write-versions-in", str(project)])
    export_dir = project / "export"
    export_dir.mkdir()
    (project / "written" / "1").rename(export_dir / "1")
    with serving(export_dir) as server, asking(server) as client, many_asking(server, images) as asked:
        found = swap_again_and_again(project, server, client, images[0], args.swaps)
    for failure in sorted(set(asked.failures)):
        print(f"failed: {failure}", file=sys.stderr)
    return (
        found
        | summary_of(asked.times_ms, "request")
        | {
            "request_max_ms": max(asked.times_ms),
            "requests": len(asked.times_ms) + len(asked.failures),
            "failed_requests": len(asked.failures),
        }
    )


def write_versions(project: Path, number: int) -> None:
    """Write versions 1 to `number` below `written`, each with different random weights."""
    from odkeras import compat

    compat.prepare()
    from odkeras.export.publish import Publisher
    from odkeras.model.inference import InferenceModel

    inference = InferenceModel(load_pipeline(project / "pipeline.config").model)
    label_map = LabelMap.load(project / "label_map.pbtxt")
    publisher = Publisher(inference, project / "written", label_map, clock=lambda: 1)
    generator = np.random.default_rng(0)
    for _ in range(number):
        randomise(inference.variables, generator)
        publisher.publish(step=0)


@contextmanager
def many_asking(server: Server, images: Sequence[bytes]) -> Iterator[Asked]:
    """Run clients that send requests without pause and without retries while the block runs."""
    asked, stop = Asked(), threading.Event()

    def ask() -> None:
        with ServingClient(server.url, MODEL_NAME, retries=0) as client:
            while not stop.is_set():
                for image in images:
                    ask_once(client, image, asked)
                    if stop.is_set():
                        break

    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(ask) for _ in range(CLIENTS)]
        try:
            yield asked
        finally:
            stop.set()
    for each in clients:
        each.result()


def ask_once(client: ServingClient, image: bytes, asked: Asked) -> None:
    started = time.perf_counter()
    try:
        client.predict([image])
    except OdkerasError as error:
        asked.failures.append(f"{type(error).__name__}: {error}")
    else:
        asked.times_ms.append(1000 * (time.perf_counter() - started))


def swap_again_and_again(
    project: Path, server: Server, client: ServingClient, image: bytes, swaps: int
) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    scores = client.predict([image])[0].scores
    available, answered, memory = [], [], []
    for version in range(2, swaps + 2):
        time.sleep(generator.uniform(0, 2 * SERVER_POLL_S))  # a random moment between two polls of the server
        started = time.perf_counter()
        (project / "written" / str(version)).rename(project / "export" / str(version))
        wait_until(lambda wanted=version: (client.available_version() or 0) >= wanted, poll_s=LOOK_S)  # type: ignore[misc]
        available.append(time.perf_counter() - started)
        before, scores = scores, client.predict([image], version=version)[0].scores
        answered.append(time.perf_counter() - started)
        assert not np.array_equal(before, scores), f"version {version} answers like the one before it"
        memory.append(memory_mb(server.process.pid))
    return {
        "available_p50_s": statistics.median(available),
        "available_p95_s": percentile(available, 95),
        "answered_p50_s": statistics.median(answered),
        "answered_p95_s": percentile(answered, 95),
        "answered_max_s": max(answered),
    } | growth_of(memory, "server")


def measure_rounds(project: Path, paths: Sequence[Path], args: argparse.Namespace) -> dict[str, Any]:
    say("rounds")
    options = SessionSettings(config=project / "pipeline.config", steps_per_epoch=args.steps)
    with AnnotationSession.start(SessionSetup.of(options), Listener()) as session:
        wait_until(lambda: state_of(session) == "waiting" and session.available_version())
        pid = trainer_pid(session)
        played = [play_round(session, path) for path in paths]
        assert trainer_pid(session) == pid, "the trainer was started again meanwhile"
    found = {f"round_{name}": statistics.median(each[name] for each in played) for name in ("s", *STAGES)}
    return found | growth_of([each["memory_mb"] for each in played], "trainer")


def play_round(session: AnnotationSession, path: Path) -> dict[str, float]:
    """Submit one answer for a new image and wait until the version trained on it is served. Returns seconds by stage,
    and the trainer's memory once it is idle again."""
    answers = answers_about([path])
    started = time.perf_counter()
    batch = session.submit(answers)
    assert batch is not None, "each image is answered once"
    wait_until(lambda: round_of(session, batch), poll_s=LOOK_S)
    row = round_of(session, batch)
    assert row is not None
    wait_until(lambda: (session.available_version() or 0) >= row["version"], poll_s=LOOK_S)
    seconds = time.perf_counter() - started
    wait_until(lambda: state_of(session) == "waiting", poll_s=LOOK_S)
    return {"s": seconds, "memory_mb": memory_mb(trainer_pid(session)), **{name: float(row[name]) for name in STAGES}}


def round_of(session: AnnotationSession, batch: Path) -> dict[str, Any] | None:
    if (failure := session.failure()) is not None:
        raise failure
    row = find_round(read_jsonl(session.project.metrics_path), batch.name)
    if row is not None and row.get("failed"):
        raise RuntimeError(f"the round failed: {row['failed']}")
    return row


def state_of(session: AnnotationSession) -> str:
    return str((session.trainer_status() or {}).get("state"))


def trainer_pid(session: AnnotationSession) -> int:
    return int((session.trainer_status() or {})["pid"])


def growth_of(readings_mb: Sequence[float], name: str) -> dict[str, Any]:
    early_mb, late_mb = (statistics.median(readings_mb[end - READINGS : end]) for end in (EARLY, len(readings_mb)))
    return {
        f"{name}_early_mb": early_mb,
        f"{name}_late_mb": late_mb,
        f"{name}_growth_percent": 100 * (late_mb / early_mb - 1),
        f"{name}_readings_mb": list(readings_mb),
    }


def rows(args: argparse.Namespace) -> list[Row]:
    steps = "1 step" if args.steps == 1 else f"{args.steps} steps"
    return [
        Row(f"version appears to AVAILABLE, {CLIENTS} clients asking: median", "available_p50_s", "s", shown=True),
        Row("  95th percentile", "available_p95_s", "s"),
        Row("version appears to its first answer: median", "answered_p50_s", "s"),
        Row("  95th percentile", "answered_p95_s", "s", shown=True),
        Row("  longest", "answered_max_s", "s"),
        Row(f"failed requests in {args.swaps} swaps", "failed_requests", "", at_most=0, shown=True),
        Row("  of so many", "requests", ""),
        Row("a client's request meanwhile: median", "request_p50_ms", "ms"),
        Row("  99th percentile", "request_p99_ms", "ms"),
        Row("  longest", "request_max_ms", "ms"),
        Row(f"server's memory after swap {EARLY}", "server_early_mb", "MB"),
        Row(f"  after swap {args.swaps}", "server_late_mb", "MB"),
        Row("  growth", "server_growth_percent", "%", at_most=5, shown=True),
        Row(f"trainer's memory after round {EARLY}", "trainer_early_mb", "MB"),
        Row(f"  after round {args.rounds}", "trainer_late_mb", "MB"),
        Row("  growth", "trainer_growth_percent", "%", at_most=5, shown=True),
        Row(f"round of {steps}: answer to version AVAILABLE, median", "round_s", "s", shown=True),
        Row("  records", "round_records_s", "s"),
        Row("  training", "round_train_s", "s"),
        Row("  checkpoint", "round_checkpoint_s", "s"),
        Row("  publishing", "round_publish_s", "s"),
    ]


if __name__ == "__main__":
    main()
