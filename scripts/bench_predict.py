"""How long a prediction takes: in process, over REST, while the trainer trains, and with the API's own export.

All of it on 1-megapixel photographs, with the client that the loop uses, on a connection that is kept. What is compared
is measured in turn.
  single    one image a call: the SavedModel in this process, and `odkeras serve`, a process of its own.
  batches   ten images a call, the same two.
  api       the same weights exported by the Object Detection API's exporter_lib_v2, behind the same server.
  training  one image a request, while the trainer trains on the same cores.

Example:
    python scripts/bench_predict.py

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import urllib3

from measuring import (
    DEFAULT_TEMPLATE,
    HEIGHT,
    WIDTH,
    Row,
    milliseconds,
    quiet_environment,
    report,
    say,
    summary_of,
    wait_until,
    write_photographs,
)
from odkeras.annotation import Task
from odkeras.boxes import Detections
from odkeras.config.serving import ServerSettings
from odkeras.config.settings import SessionSettings
from odkeras.formats.prodigy import write_task
from odkeras.images import read_image
from odkeras.init_project import init_project
from odkeras.labels import LabelMap
from odkeras.pipeline import load_pipeline
from odkeras.serving.client import ServingClient
from odkeras.serving.launch import server_command
from odkeras.session.events import Listener
from odkeras.session.session import AnnotationSession
from odkeras.session.setup import SessionSetup
from odkeras.session.supervisor import log_tail
from odkeras.version_dirs import list_versions

MODEL_NAME = "odkeras"
PHOTOGRAPHS = 21
TOGETHER = 10
SERVER_POLL_S = 0.25  # the same as in the loop
WARM_CALLS = 2
CALLS_IN_TURN = 5
START_TIMEOUT_S = 90
SPAN = {"label": "thing", "points": [[10, 10], [10, 60], [80, 60], [80, 10]]}
Predict = Callable[[Sequence[bytes]], Any]


@dataclass(frozen=True)
class Server:
    """A running `odkeras serve`."""

    url: str
    process: subprocess.Popen[str]


def main() -> None:
    args = parse_arguments()
    if args.export_in:
        export_both(args.export_in)
        return
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="odkeras-bench-") as folder:
        project = Path(folder)
        init_project(project, ["thing"], template=args.template)
        photographs = [path.read_bytes() for path in write_photographs(project / "images", PHOTOGRAPHS)]
        say("exporting")
        run_quietly([__file__, "--export-in", str(project)])
        with serving(project / "export") as server, asking(server) as client:
            found |= measure_idle(project, client, photographs, args)
            say("training")
            found |= measure_while_training(project, server, client, photographs, args)
    found["training_ratio"] = found["training_p99_ms"] / found["rest_p50_ms"]
    report("predict", ROWS, found, template=args.template, image_px=[WIDTH, HEIGHT], requests=args.requests)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--template", default=DEFAULT_TEMPLATE, help="configuration to use (default: %(default)s)")
    parser.add_argument("--requests", type=int, default=150, help="single images, each way (default: %(default)s)")
    parser.add_argument("--batches", type=int, default=10, help="batches, each way (default: %(default)s)")
    parser.add_argument("--api-requests", type=int, default=30, help="single images (default: %(default)s)")
    parser.add_argument("--export-in", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def run_quietly(command: Sequence[str]) -> None:
    """Run a Python program in a separate process, so that it does not affect the measuring one. Its output is shown
    only if it fails."""
    done = subprocess.run(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=quiet_environment()
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-4000:]}")


def export_both(project: Path) -> None:
    """Export the same weights twice as version 1: below `export` with odkeras, below `api` with the API's exporter."""
    from odkeras import compat

    compat.prepare()
    import tensorflow as tf
    from object_detection import exporter_lib_v2

    from odkeras.export.publish import Publisher
    from odkeras.model.inference import InferenceModel

    config = load_pipeline(project / "pipeline.config")
    inference = InferenceModel(config.model)
    randomise(inference.variables, np.random.default_rng(0))
    label_map = LabelMap.load(project / "label_map.pbtxt")
    Publisher(inference, project / "export", label_map, clock=lambda: 1).publish(step=0)
    checkpoints = project / "checkpoint"
    tf.train.CheckpointManager(tf.train.Checkpoint(model=inference.model), str(checkpoints), max_to_keep=1).save()
    output = project / "exported"
    exporter_lib_v2.export_inference_graph("encoded_image_string_tensor", config, str(checkpoints), str(output))
    (project / "api").mkdir()
    (output / "saved_model").rename(project / "api" / "1")


def randomise(variables: Sequence[Any], generator: np.random.Generator) -> None:
    """Random weights under which all numbers in a response differ, as after training. Freshly built weights give all
    boxes the same score, and such a response is unrealistically short."""
    for variable in variables:
        shape = tuple(variable.shape)
        if len(shape) == 4:
            inputs = np.prod(shape[:2] if shape[3] == 1 else shape[:3])  # a depthwise kernel sees one channel
            variable.assign(generator.standard_normal(shape, np.float32) * np.float32(1 / np.sqrt(inputs)))


@contextmanager
def serving(base_path: Path) -> Iterator[Server]:
    """Run `odkeras serve` on a free port, the way the loop starts it."""
    settings = ServerSettings(
        model_name=MODEL_NAME,
        model_base_path=base_path,
        rest_api_port=0,
        file_system_poll_wait_seconds=SERVER_POLL_S,
        stop_on_stdin_eof=True,
    )
    command = server_command(settings)
    log_path = base_path.with_suffix(".log")
    with log_path.open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            command, env=quiet_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the model server ended with status {process.wait()}:\n{log_tail(log_path)}")
        yield Server(line.split()[2].partition("/v1/")[0], process)
    finally:
        process.terminate()
        process.wait(15)


@contextmanager
def asking(server: Server) -> Iterator[ServingClient]:
    """A client of the server; waits until a version is available."""
    with ServingClient(server.url, MODEL_NAME) as client:
        client.wait_for_version(1, timeout_s=START_TIMEOUT_S)
        yield client


def load_in_process(version_dir: Path) -> Predict:
    os.environ.update(quiet_environment())
    from odkeras import compat

    compat.prepare()
    import tensorflow as tf

    serve = tf.saved_model.load(str(version_dir)).signatures["serving_default"]
    return lambda images: {name: value.numpy() for name, value in serve(image_bytes=tf.constant(images)).items()}


def measure_idle(
    project: Path, client: ServingClient, photographs: Sequence[bytes], args: argparse.Namespace
) -> dict[str, Any]:
    newest = list_versions(project / "export")[-1]
    in_process = load_in_process(project / "export" / str(newest))
    say("single images")
    found = measure_single(in_process, client, photographs, args.requests)
    say("batches")
    found |= measure_batches(in_process, client, photographs, args.batches)
    say("the API's export")
    return found | measure_api(project, client, photographs, args.api_requests)


def measure_single(
    in_process: Predict, client: ServingClient, photographs: Sequence[bytes], requests: int
) -> dict[str, Any]:
    pairs = in_turn(in_process, client.predict, single(photographs), requests)
    direct, rest = zip(*pairs, strict=True)
    found = summary_of(direct, "in_process") | summary_of(rest, "rest")
    asked = [milliseconds(client.available_version) for _ in range(requests)]
    sent = exchange(client, photographs[0])
    return found | {
        "rest_ratio": found["rest_p50_ms"] / found["in_process_p50_ms"],
        "rest_ratio_of_pairs": statistics.median(b / a for a, b in pairs),
        "version_p50_ms": statistics.median(asked),
        "request_kb": sent.request_bytes / 1000,
        "response_kb": sent.response_bytes / 1000,
        "response_holds": sent.holds,
    }


def measure_batches(
    in_process: Predict, client: ServingClient, photographs: Sequence[bytes], batches: int
) -> dict[str, float]:
    tens = [photographs[start : start + TOGETHER] for start in range(len(photographs) - TOGETHER + 1)]
    pairs = in_turn(in_process, lambda images: client.predict(images, batch_size=TOGETHER), tens, batches)
    direct, rest = (statistics.median(times) / TOGETHER for times in zip(*pairs, strict=True))
    return {"batch_in_process_ms": direct, "batch_rest_ms": rest, "batch_ratio": rest / direct}


def measure_api(project: Path, client: ServingClient, photographs: Sequence[bytes], requests: int) -> dict[str, Any]:
    with serving(project / "api") as server, asking(server) as api_client:
        assert_alike(client.predict(photographs[:1])[0], api_client.predict(photographs[:1])[0])
        pairs = in_turn(client.predict, api_client.predict, single(photographs), requests)
        sent = exchange(api_client, photographs[0])
    ours, theirs = zip(*pairs, strict=True)
    return {
        "beside_api_p50_ms": statistics.median(ours),
        "api_p50_ms": statistics.median(theirs),
        "api_ratio": statistics.median(theirs) / statistics.median(ours),
        "api_response_kb": sent.response_bytes / 1000,
        "api_response_holds": sent.holds,
    }


def assert_alike(ours: Detections, theirs: Detections) -> None:
    """Check that the scores are equal up to rounding, because the weights are the same."""
    assert np.allclose(ours.scores, theirs.scores, rtol=1e-3), "the two exports find different things"


def measure_while_training(
    project: Path, server: Server, client: ServingClient, photographs: Sequence[bytes], args: argparse.Namespace
) -> dict[str, Any]:
    options = SessionSettings(
        config=project / "pipeline.config",
        ip="127.0.0.1",
        port=int(server.url.rpartition(":")[2]),
        model_name=MODEL_NAME,
        steps_per_epoch=100_000,
    )
    with AnnotationSession.start(SessionSetup.of(options), Listener()) as session:
        session.submit(answers_about(sorted((project / "images").iterdir())))
        wait_until(lambda: steps_done(session) > 1)
        before = steps_done(session)
        times = [timed(client.predict, images) for images in cycled(single(photographs), args.requests)]
        after = steps_done(session)
    assert after, "the training ended before the measurement did"
    return summary_of(times, "training") | {"training_steps_meanwhile": after - before}


def answers_about(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Accepted answers with one box each."""
    tasks = [write_task(Task.of(read_image(path), file=path.name)) for path in paths]
    return [{**task, "spans": [SPAN], "answer": "accept"} for task in tasks]


def steps_done(session: AnnotationSession) -> int:
    """Number of steps done in the current training round; 0 if none is running."""
    if (failure := session.failure()) is not None:
        raise failure
    status = session.trainer_status() or {}
    return int(status.get("round_step") or 0) if status.get("state") == "training" else 0


def single(photographs: Sequence[bytes]) -> list[Sequence[bytes]]:
    return [[photograph] for photograph in photographs]


def cycled(inputs: Sequence[Sequence[bytes]], repeats: int) -> Iterator[Sequence[bytes]]:
    for number in range(repeats):
        yield inputs[number % len(inputs)]


def in_turn(one: Predict, other: Predict, inputs: Sequence[Sequence[bytes]], repeats: int) -> list[tuple[float, float]]:
    """Milliseconds of both on the same images, measured alternately: a few calls of one, then of the other, and the
    first one changes each time. A call right after the other's call would find cold processor caches, which costs 1 ms
    of 20 and does not happen in normal use."""
    images = list(cycled(inputs, repeats))
    pairs: list[tuple[float, float]] = []
    for number, start in enumerate(range(0, repeats, CALLS_IN_TURN)):
        turn = images[start : start + CALLS_IN_TURN]
        if number % 2:
            other_ms, one_ms = steady(other, turn), steady(one, turn)
        else:
            one_ms, other_ms = steady(one, turn), steady(other, turn)
        pairs += zip(one_ms, other_ms, strict=True)
    return pairs


def steady(predict: Predict, turn: Sequence[Sequence[bytes]]) -> list[float]:
    """Milliseconds of each call, after warm-up calls that are not counted."""
    for images in turn[:WARM_CALLS]:
        predict(images)
    return [timed(predict, images) for images in turn]


def timed(predict: Predict, images: Sequence[bytes]) -> float:
    return milliseconds(lambda: predict(images))


@dataclass
class Exchange:
    """Sizes of one request and its response.

    Args:
        request_bytes, response_bytes: sizes of the bodies on the wire.
        holds: number of values in the response, by output name.
    """

    request_bytes: int = 0
    response_bytes: int = 0
    holds: dict[str, int] | None = None


def exchange(client: ServingClient, photograph: bytes) -> Exchange:
    """Record the request and response of a prediction for one image."""
    seen = Exchange()

    request = client._request

    def note(method: str, path: str, body: bytes | None, timeout: urllib3.Timeout) -> urllib3.BaseHTTPResponse:
        response = request(method, path, body, timeout)
        document = json.loads(response.data)
        seen.request_bytes = len(body or b"")
        seen.response_bytes = len(response.data)
        seen.holds = {name: int(np.size(value)) for name, value in document["predictions"][0].items()}
        return response

    with mock.patch.object(client, "_request", note):
        client.predict([photograph])
    return seen


ROWS = (
    Row("1 image in this process: median", "in_process_p50_ms", "ms", shown=True),
    Row("  95th percentile", "in_process_p95_ms", "ms"),
    Row("  99th percentile", "in_process_p99_ms", "ms"),
    Row("1 image over REST: median", "rest_p50_ms", "ms", shown=True),
    Row("  95th percentile", "rest_p95_ms", "ms"),
    Row("  99th percentile", "rest_p99_ms", "ms"),
    Row("  ratio of the medians", "rest_ratio", "x", at_most=1.15, shown=True),
    Row("1 image over REST while training: median", "training_p50_ms", "ms", shown=True),
    Row("  95th percentile", "training_p95_ms", "ms"),
    Row("  99th percentile", "training_p99_ms", "ms", shown=True),
    Row("  99th percentile to the median of before", "training_ratio", "x", at_most=3),
    Row(f"{TOGETHER} images in this process, each", "batch_in_process_ms", "ms"),
    Row(f"{TOGETHER} images in one REST request, each", "batch_rest_ms", "ms", shown=True),
    Row("  ratio of the medians", "batch_ratio", "x"),
    Row("asking which version is served: median", "version_p50_ms", "ms"),
    Row("body of a request, 1 image", "request_kb", "kB"),
    Row("body of a response, 1 image", "response_kb", "kB", at_most=10, shown=True),
    Row("the API's export, 1 image over REST: median", "api_p50_ms", "ms", shown=True),
    Row("  ours, in turn with it", "beside_api_p50_ms", "ms"),
    Row("  times as long as ours", "api_ratio", "x"),
    Row("  body of a response", "api_response_kb", "kB", shown=True),
)


if __name__ == "__main__":
    main()
