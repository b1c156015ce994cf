"""What a step of work costs when much work has been done: CPU seconds and bytes at n, and at less.

  replay   a round of the trainer without its steps (record, index, order of 8 examples, compaction), and its start.
  page     an accept in `odkeras annotate`: CPU time of the page's process; its start with as many answers, and with ten
           times as many lines in the source. Training is stopped. The answers are about images outside the source.
  inbox    batches of 5 answers: writing them, and taking them all.
  import   `odkeras db in` of n answers, of one more, and `odkeras db stats`.
  predict  photographs with `odkeras serve` and the code of `odkeras predict`, and batches of 32 in this process.

Each measurement runs in a process of its own. Example:
    python scripts/bench_scale.py --answers 100000

The last line is JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench_predict import asking, load_in_process, randomise, serving
from bench_web import Annotator, annotate
from measuring import DEFAULT_TEMPLATE, Row, memory_mb, quiet_environment, report, say, write_photographs

ROUNDS = 20
IMAGES_PER_ROUND = 5
ACCEPTS = 200
IMAGE_BYTES = 20_000
OLD_IMAGE_BYTES = 2_000  # of the examples that a round must not touch
LABEL = "thing"
BOX = {"label": LABEL, "x": 10, "y": 10, "width": 30, "height": 20}


def main() -> None:
    args = parse_arguments()
    if args.part:
        from odkeras import compat

        compat.prepare()
        print(json.dumps(PARTS[args.part](args.folder, args.count)))
        return
    found: dict[str, Any] = {}
    for part in args.only or ("replay", "page", "inbox", "import", "predict"):
        found |= globals()[f"measure_{part}"](args)
    report("scale", ROWS, found, answers=args.answers, image_bytes=IMAGE_BYTES, images_per_round=IMAGES_PER_ROUND)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=100_000, help="answers and images at the large end")
    parser.add_argument("--photographs", type=int, default=128, help="photographs to predict")
    parser.add_argument("--only", nargs="+", choices=("replay", "page", "inbox", "import", "predict"))
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def run_part(part: str, folder: Path, count: int) -> dict[str, float]:
    """One measurement in a process of its own, by its last line."""
    say(f"{part}, {count}")
    command = [sys.executable, __file__, "--part", part, "--folder", str(folder), "--count", str(count)]
    done = subprocess.run(command, env=quiet_environment(), stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


@contextmanager
def temporary_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="odkeras-bench-") as folder:
        yield Path(folder)


def measure_replay(args: argparse.Namespace) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, count in (("few", args.answers // 100), ("many", args.answers)):
        with temporary_folder() as folder:
            found[f"takeover_{name}_s"] = run_part("fill_replay", folder, count)["cpu_s"]
            found |= {f"{key}_{name}": value for key, value in run_part("replay", folder, count).items()}
    return found | {"round_ratio": found["round_ms_many"] / found["round_ms_few"]}


def fill_replay(folder: Path, count: int) -> dict[str, float]:
    """A replay.record as earlier versions wrote it, and the CPU time of the first start, which indexes it."""
    from odkeras.data import records
    from odkeras.data.replay import ReplayStore

    project = project_in(folder)
    examples = (example(number, number // IMAGES_PER_ROUND, OLD_IMAGE_BYTES) for number in range(count))
    records.write_records(project.replay_record, examples)
    started = time.process_time()
    ReplayStore(project).close()
    return {"cpu_s": time.process_time() - started}


def replay(folder: Path, count: int) -> dict[str, float]:
    from odkeras.data import records
    from odkeras.data.example_set import shuffle_and_repeat
    from odkeras.data.replay import ReplayStore

    project = project_in(folder)
    example(0, 0, 10)  # loads what the first one loads
    before_mb, started = memory_mb(), time.process_time()
    store = ReplayStore(project)
    start_s, start_mb = time.process_time() - started, memory_mb() - before_mb
    written, new_bytes, cpu_s = written_bytes(), 0, 0.0
    for number in range(ROUNDS):
        first = count + number * IMAGES_PER_ROUND
        images = [example(first + each, first, IMAGE_BYTES) for each in range(IMAGES_PER_ROUND)]
        new_bytes += sum(map(len, images))
        started = time.process_time()
        record = project.data_dir / f"{number + 1}_train.record"
        records.write_records(record, images)
        store.add_record(record)
        assert len(list(itertools.islice(shuffle_and_repeat(store.training_set), 8))) == 8
        store.compact(5)
        cpu_s += time.process_time() - started
    return {
        "start_s": start_s,
        "start_mb": start_mb,
        "round_ms": 1000 * cpu_s / ROUNDS,
        "round_bytes": (written_bytes() - written) / new_bytes,
    }


def written_bytes() -> int:
    """Bytes that this process has written to files (Linux only)."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["wchar"])


def project_in(folder: Path) -> Any:
    from odkeras.project import Project

    project = Project(folder / "data", folder / "model", folder / "export")
    project.create()
    return project


def example(number: int, batch: int, size_bytes: int) -> bytes:
    """A serialized example with an image of so many bytes that need not be decoded."""
    import tensorflow as tf

    from odkeras.data.records import BATCH_FEATURE

    values = {
        "image/source_id": image_id_of(number).encode(),
        "image/encoded": os.urandom(size_bytes),
        "image/object/class/text": LABEL.encode(),
        BATCH_FEATURE: f"{batch:020}-1-{batch:08x}.jsonl".encode(),
    }
    features = {name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value])) for name, value in values.items()}
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def image_id_of(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()[:32]


def measure_page(args: argparse.Namespace) -> dict[str, float]:
    found: dict[str, float] = {}
    counts = {"none": 0, "many": args.answers, "fresh": args.answers}
    for name, count in counts.items():
        with temporary_folder() as folder:
            run_part("fill_undelivered" if name == "fresh" else "fill_page", folder, count)
            say(f"accepts, {name}")
            found |= {f"{key}_{name}": value for key, value in measure_accepts(folder).items()}
    return found | {"accept_ratio": found["accept_ms_many"] / found["accept_ms_none"]}


def fill_page(folder: Path, count: int, *, delivered: bool = True) -> dict[str, float]:
    """A project with some images, ten times as many lines in its source as answers, and answers about other images."""
    from odkeras.control import Control
    from odkeras.init_project import init_project
    from odkeras.web.data_directory import attach_data_directory
    from odkeras.web.database import AnswerDatabase
    from odkeras.web.deliveries import Deliveries

    init_project(folder, [LABEL], template="shapes_96")
    project = project_in(folder)
    Control(project.control_path).set("stop")
    (folder / "images").mkdir()
    generator = np.random.default_rng(0)
    for number in range(ACCEPTS + 20):
        (folder / "images" / f"{number}.jpg").write_bytes(small_jpeg(generator))
    with (folder / "source.jsonl").open("w") as file:
        for number in range(max(ACCEPTS + 20, 10 * count)):
            file.write(json.dumps({"image": f"images/{number}.jpg"}) + "\n")
    with AnswerDatabase.open(folder / "annotations.db") as database:
        if delivered:
            attach_data_directory(Deliveries(database, "bench"), "bench", project)
        for start in range(0, count, 10_000):
            numbers = range(start, min(count, start + 10_000))
            database.add("bench", [stored_answer(number, delivered=delivered) for number in numbers], shared=True)
    return {}


def fill_undelivered(folder: Path, count: int) -> dict[str, float]:
    """`fill_page` with a data directory that has none of the answers."""
    return fill_page(folder, count, delivered=False)


def small_jpeg(generator: np.random.Generator) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(generator.integers(0, 255, (96, 128, 3), np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def stored_answer(number: int, *, delivered: bool) -> Any:
    from odkeras.web.stored import StoredAnswer

    return StoredAnswer(answer_record(number), image_id_of(number), "anna", 1e9 + number, delivered=delivered)


def answer_record(number: int) -> dict[str, Any]:
    name = f"elsewhere/answered-{number}.jpg"
    record = {"image": name, "path": name, "image_id": image_id_of(number), "width": 128, "height": 96}
    return {**record, "spans": [BOX], "meta": {"file": name}, "answer": "accept", "_timestamp": 1e9 + number}


def measure_accepts(folder: Path) -> dict[str, float]:
    times: dict[str, Any] = {}
    with annotate(folder, times, source="source.jsonl", options=()) as page:
        pid = page.process.pid
        start_s, start_mb = process_cpu_s(pid), page.memory_mb()
        annotator = Annotator.of(page, "anna")
        before_s = settled_cpu_s(pid)
        for _ in range(ACCEPTS):
            while not (tasks := annotator.tasks(1)):
                pass
            annotator.answer(tasks[0], [BOX])
        accept_s = process_cpu_s(pid) - before_s
    found = {"accept_ms": 1000 * accept_s / ACCEPTS, "first_task_cpu_s": start_s, "settled_cpu_s": before_s}
    return {**found, "page_mb": start_mb, "stop_s": times["stop_s"]}


def settled_cpu_s(pid: int) -> float:
    """CPU seconds of a process once its start has no work left in the background, after two minutes at most."""
    for _ in range(40):
        before_s = process_cpu_s(pid)
        time.sleep(3)
        after_s = process_cpu_s(pid)
        if after_s - before_s < 0.15:  # less than a process gets on a busy machine
            break
    return after_s


def process_cpu_s(pid: int) -> float:
    """CPU seconds of a process, without its children (Linux only)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure_inbox(args: argparse.Namespace) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, count in (("few", args.answers // 50), ("many", args.answers // 5)):
        with temporary_folder() as folder:
            found |= {f"{key}_{name}": value for key, value in run_part("inbox", folder, count).items()}
    return found | {
        "write_ratio": found["write_ms_many"] / found["write_ms_few"],
        "take_ratio": found["take_ms_many"] / found["take_ms_few"],
    }


def inbox(folder: Path, count: int) -> dict[str, float]:
    from odkeras.data.ingest import ingest
    from odkeras.data.replay import ReplayStore
    from odkeras.inbox import put_batch
    from odkeras.labels import LabelMap

    project, generator = project_in(folder), np.random.default_rng(0)
    store, label_map, batches = ReplayStore(project), LabelMap.from_names([LABEL]), count // IMAGES_PER_ROUND
    last_ms = []
    for _ in range(batches):
        answers = [
            inbox_answer(small_jpeg(generator), folder / f"{uuid.uuid4().hex}.jpg") for _ in range(IMAGES_PER_ROUND)
        ]
        started = time.process_time()
        put_batch(project.inbox_dir, answers)
        last_ms.append(1000 * (time.process_time() - started))
    started = time.process_time()
    while ingest(project, store, label_map).batches:
        pass
    assert len(store) == count
    take_s = time.process_time() - started
    return {"write_ms": float(np.mean(last_ms[-100:])), "take_ms": 1000 * take_s / count}


def inbox_answer(data: bytes, path: Path) -> dict[str, Any]:
    path.write_bytes(data)
    return {"image": str(path), "width": 128, "height": 96, "spans": [BOX], "answer": "accept"}


def measure_import(args: argparse.Namespace) -> dict[str, float]:
    with temporary_folder() as folder:
        lines = [json.dumps(answer_record(number)) + "\n" for number in range(args.answers + 1)]
        (folder / "all.jsonl").write_text("".join(lines[:-1]))
        (folder / "one.jsonl").write_text(lines[-1])
        return {
            "db_in_s": run_command(folder, "db", "in", "bench", "all.jsonl"),
            "db_in_one_s": run_command(folder, "db", "in", "bench", "one.jsonl"),
            "db_stats_s": run_command(folder, "db", "stats", "bench"),
        }


def run_command(folder: Path, *command: str) -> float:
    """CPU seconds of a command of odkeras, with its start."""
    say(" ".join(command))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "odkeras", *command], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure_predict(args: argparse.Namespace) -> dict[str, float]:
    with temporary_folder() as folder:
        return run_part("predict", folder, args.photographs)


def predict(folder: Path, count: int) -> dict[str, float]:
    from odkeras.export.publish import Publisher
    from odkeras.init_project import init_project
    from odkeras.labels import LabelMap
    from odkeras.model.inference import InferenceModel
    from odkeras.pipeline import load_pipeline
    from odkeras.serving.predict import predict_files, served

    init_project(folder, [LABEL], template=DEFAULT_TEMPLATE)
    inference = InferenceModel(load_pipeline(folder / "pipeline.config").model)
    randomise(inference.variables, np.random.default_rng(0))
    label_map = LabelMap.load(folder / "label_map.pbtxt")
    Publisher(inference, folder / "export", label_map, clock=lambda: 1).publish(step=0)
    paths = write_photographs(folder / "photographs", 32) * (count // 32)
    in_process = load_in_process(folder / "export" / "1")
    direct_s, rest_s = [], []
    with serving(folder / "export") as server, asking(server) as client:
        for _ in range(3):
            started = time.monotonic()
            for first in range(0, count, 32):
                in_process([path.read_bytes() for path in paths[first : first + 32]])
            direct_s.append(time.monotonic() - started)
            started = time.monotonic()
            assert all(not each.error for each in predict_files(paths, served(client), threshold=0.5))
            rest_s.append(time.monotonic() - started)
    return {
        "predict_per_s": count / min(rest_s[1:]),
        "in_process_per_s": count / min(direct_s[1:]),
        "predict_ratio": min(direct_s[1:]) / min(rest_s[1:]),
    }


PARTS = {part.__name__: part for part in (fill_replay, replay, fill_page, fill_undelivered, inbox, predict)}

ROWS = (
    Row("a round without its steps, few images: CPU", "round_ms_few", "ms"),
    Row("a round without its steps, 100 times as many: CPU", "round_ms_many", "ms"),
    Row("  ratio", "round_ratio", "x", at_most=1.3, shown=True),
    Row("bytes written per round / bytes of the new images", "round_bytes_many", "x", at_most=3, shown=True),
    Row("start of the trainer with many images: CPU of reading the index", "start_s_many", "s", at_most=1, shown=True),
    Row("  memory", "start_mb_many", "MB", at_most=100, shown=True),
    Row("first start on a replay.record of an earlier version, many images: CPU", "takeover_many_s", "s", shown=True),
    Row("accept with no answers: CPU of the page", "accept_ms_none", "ms"),
    Row("accept with many answers: CPU of the page", "accept_ms_many", "ms", shown=True),
    Row("  ratio", "accept_ratio", "x", at_most=1.5, shown=True),
    Row("start with many answers: CPU until the first task", "first_task_cpu_s_many", "s", at_most=3, shown=True),
    Row("  CPU until its background work is done", "settled_cpu_s_many", "s", shown=True),
    Row("start with a new data directory: CPU until a task", "first_task_cpu_s_fresh", "s", at_most=3, shown=True),
    Row("  memory", "page_mb_fresh", "MB", at_most=200, shown=True),
    Row("  Ctrl-C to the end of all processes", "stop_s_fresh", "s", at_most=5, shown=True),
    Row("a write to the inbox, 10 times as many waiting: ratio of CPU", "write_ratio", "x", at_most=1.3, shown=True),
    Row("taking a waiting image, 10 times as many waiting: CPU", "take_ms_many", "ms", shown=True),
    Row("  ratio", "take_ratio", "x", at_most=1.3, shown=True),
    Row("db in of all answers: CPU", "db_in_s", "s", at_most=15, shown=True),
    Row("db in of one more: CPU", "db_in_one_s", "s", shown=True),
    Row("db stats: CPU", "db_stats_s", "s", at_most=2, shown=True),
    Row("odkeras predict: photographs per second", "predict_per_s", "/s", shown=True),
    Row("  ratio to batches of 32 in one process", "predict_ratio", "x", at_least=0.9, shown=True),
)


if __name__ == "__main__":
    main()
