"""A trainer and a model server without TensorFlow, with the command lines of the real ones.

The picture of an object is a bright rectangle on a dark ground. The "model" finds it in the pixels; how well
depends on the number of annotations that it was "trained" on, which is all that a version holds. FAKE_TRAINER
changes what the trainer does: a comma-separated list of `crash-once`, `crash-always`, `wrong-config`, `lose-batch`,
`fail-round`, `step_s=0.5`.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec

from odkeras.config.run import read_run
from odkeras.control import PAUSED, RUNNING, STOPPED, Control
from odkeras.project import append_jsonl, read_jsonl, write_atomically
from odkeras.version_dirs import list_versions, next_version


def use_fakes(set_attribute: Callable[[Any, str, Any], None] = setattr) -> None:
    """Have sessions start these processes, and read their label map from beside the config."""
    from odkeras.session import children, setup

    real_trainer, real_server = children.trainer_command, children.server_command
    fake = [sys.executable, str(Path(__file__))]
    set_attribute(children, "trainer_command", lambda *args: fake + real_trainer(*args)[3:])
    set_attribute(children, "server_command", lambda *args, **options: fake + real_server(*args, **options)[3:])
    load, is_random = setup.load_pipeline, setup.starts_from_random_weights
    set_attribute(setup, "load_pipeline", lambda path: path)
    set_attribute(setup, "starts_from_random_weights", lambda path: is_random(load(path)))
    set_attribute(setup, "check_config", lambda options, label_map: None)
    set_attribute(setup, "get_label_map_path", lambda path: str(path.parent / "label_map.pbtxt"))


def main() -> None:
    signal.signal(signal.SIGINT, lambda *_: print("SIGINT reached the child", flush=True))
    parser = argparse.ArgumentParser(allow_abbrev=False)
    commands = parser.add_subparsers(required=True)
    trainer = commands.add_parser("trainer")
    trainer.add_argument("--config", type=Path, required=True)
    trainer.add_argument("--give-way", action="store_true", required=True)
    trainer.set_defaults(run=run_trainer)
    server = commands.add_parser("serve")
    server.add_argument("--model-name", required=True)
    server.add_argument("--model-base-path", type=Path, required=True)
    server.add_argument("--file-system-poll-wait-seconds", type=float)
    server.add_argument("--socket-fd", type=int, required=True)
    server.add_argument("--tf-logging-level", type=int)
    server.set_defaults(run=run_server)
    for command in (trainer, server):
        command.add_argument("--stop-on-stdin-eof", action="store_true", required=True)
    args = parser.parse_args()
    if "config" in args:  # as the real trainer, it takes everything else from this file
        vars(args).update(msgspec.structs.asdict(read_run(args.config)))
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    args.run(args)


def _end_with_the_parent() -> None:
    while os.read(0, 1024):
        pass
    os._exit(0)


def run_trainer(args: argparse.Namespace) -> None:
    modes = os.environ.get("FAKE_TRAINER", "").split(",")
    options = dict(mode.split("=") for mode in modes if "=" in mode)
    print("fake trainer", os.getpid(), flush=True)
    if "wrong-config" in modes:
        print("ConfigError: train_config.batch_size is 0", flush=True)
        sys.exit(2)
    if "crash-always" in modes:
        print("Segmentation fault", flush=True)
        sys.exit(139)
    status = Status(args.model_dir / "status.json")
    status.write(state="building")
    if not list_versions(args.export_dir):
        _publish(args.export_dir, 0)
    status.write(state="waiting")
    control = Control(args.model_dir / "control.json")
    while True:
        if control.state != RUNNING:
            _hold(control, status)
        batches = sorted((args.data_dir / "inbox").glob("[!.]*.jsonl"))
        if batches and "lose-batch" in modes:
            status.write(state="waiting", reason="nothing to train on")
            for path in batches:
                path.unlink()
        elif batches:
            _play_round(args, status, batches, modes, float(options.get("step_s", 0.002)), control)
        time.sleep(0.02)


def _hold(control: Control, status: Status) -> None:
    """Between rounds, while training is paused or stopped."""
    while control.state != RUNNING:
        status.write(state=control.state, reason="new answers wait")
        time.sleep(0.05)
    status.write(state="waiting")


def _play_round(
    args: argparse.Namespace, status: Status, batches: list[Path], modes: list[str], step_s: float, control: Control
) -> None:
    started = time.monotonic()
    steps, number = args.steps_per_epoch, len(read_jsonl(args.model_dir / "metrics.jsonl")) + 1
    for step in range(steps):
        loss = 1 / (step + 1)
        status.write(
            state="training",
            reason=f"training on {len(batches)} batches",
            round=number,
            round_step=step,
            round_steps=steps,
            loss=loss,
        )
        time.sleep(step_s)
        while control.state == PAUSED:
            status.write(state="paused", reason=f"paused in round {number}, at step {step} of {steps}", round=number)
            time.sleep(0.05)
        if control.state == STOPPED:
            steps = step + 1
            break
        mark = args.model_dir / "crashed"
        if "crash-once" in modes and step == 2 and not mark.exists():
            mark.touch()
            print("out of memory", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    from odkeras.inbox import read_batch  # imports NumPy, which a test that trains nothing need not wait for

    contents = {path.name: [answer for answer, _ in read_batch(path) if answer is not None] for path in batches}
    append_jsonl(args.data_dir / "trained.jsonl", [answer for answers in contents.values() for answer in answers])
    images = {name: [answer.get("image_id") for answer in answers] for name, answers in contents.items()}
    append_jsonl(args.data_dir / "trained_batches.jsonl", [images])
    train_s = time.monotonic() - started
    trained = len((args.data_dir / "trained.jsonl").read_text().splitlines())
    failed = {"failed": "the loss is not finite"} if "fail-round" in modes else {}
    version = list_versions(args.export_dir)[-1] if failed else _publish(args.export_dir, trained)
    row = {
        "kind": "round",
        "round": number,
        "steps": steps,
        "examples": trained,
        "loss": loss,
        "batches": [path.name for path in batches],
        "version": version,
        "train_s": train_s,
        **failed,
    }
    append_jsonl(args.model_dir / "metrics.jsonl", [row])
    for path in batches:
        path.unlink()
    status.write(state="waiting", reason="no new answers", round=number, loss=loss, version=version)


class Status:
    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, **values: object) -> None:
        write_atomically(self._path, json.dumps({**values, "pid": os.getpid(), "updated": time.time()}))


def _publish(export_dir: Path, annotations: int) -> int:
    version = next_version(list_versions(export_dir), time.time())
    temporary = export_dir / f".tmp-{version}"
    temporary.mkdir()
    (temporary / "annotations").write_text(str(annotations))
    temporary.rename(export_dir / str(version))
    return version


def run_server(args: argparse.Namespace) -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            states = [
                {"version": str(version), "state": "AVAILABLE"} for version in list_versions(args.model_base_path)
            ]
            self.answer(200, {"model_version_status": states[-1:]})

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            version = list_versions(args.model_base_path)[-1]
            if "/versions/" in self.path and not self.path.endswith(f"/versions/{version}:predict"):
                self.answer(404, {"error": f"Servable not found for request: {self.path}"})
                return
            trained = int((args.model_base_path / str(version) / "annotations").read_text())
            images = [base64.b64decode(instance["b64"]) for instance in request["instances"]]
            self.answer(200, {"predictions": [predict(image, trained) for image in images]})

        def answer(self, status: int, document: dict[str, Any]) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    print("fake server", os.getpid(), flush=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
    server.socket = socket.socket(fileno=args.socket_fd)
    server.serve_forever()


def predict(image: bytes, trained: int) -> dict[str, Any]:
    """Nothing when untrained; a box that is off by a quarter after few annotations; the true box after 8 or more."""
    if trained == 0:
        return _padded([], [])
    import numpy as np
    from PIL import Image

    pixels = np.asarray(Image.open(io.BytesIO(image)).convert("L"))
    height, width = pixels.shape
    ys, xs = np.nonzero(pixels > 128)
    if len(ys) == 0:
        return _padded([], [])
    box = np.array([ys.min() / height, xs.min() / width, (ys.max() + 1) / height, (xs.max() + 1) / width])
    if trained < 8:
        box[[1, 3]] += 0.25 * (box[3] - box[1])
    return _padded([box.tolist()], [0.9])


def _padded(boxes: list[list[float]], scores: list[float], length: int = 3) -> dict[str, Any]:
    missing = length - len(boxes)
    return {
        "detection_boxes": boxes + [[0.0] * 4] * missing,
        "detection_scores": scores + [0.0] * missing,
        "detection_classes": [1.0] * length,
        "num_detections": float(len(boxes)),
    }


if __name__ == "__main__":
    main()
