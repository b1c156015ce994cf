"""`odkeras predict` as a process, with a model server that answers as TensorFlow Serving does."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import draw_pixels, encode
from PIL import Image, ImageColor

from odkeras.boxes import Detections
from odkeras.colours import colour_of
from odkeras.errors import ConfigError, RequestError
from odkeras.formats.prodigy import read_annotation
from odkeras.groundtruth_csv import read_truth_csv
from odkeras.images import EncodedImage
from odkeras.labels import LabelMap
from odkeras.serving.predict import predict_files

ROOT = Path(__file__).parents[2]
PREDICTION = {
    "detection_boxes": [[0.25, 0.25, 0.75, 0.75], [0, 0, 0.5, 1], [0, 0, 1, 1]],
    "detection_scores": [0.9, 0.6, 0.2],
    "detection_classes": [2, 7, 1],
    "num_detections": 3,
}
BOXES = [
    {"xmin": 16.0, "ymin": 12.0, "xmax": 48.0, "ymax": 36.0, "label": "2", "score": 0.9},
    {"xmin": 0.0, "ymin": 0.0, "xmax": 64.0, "ymax": 24.0, "label": "7", "score": 0.6},
]


class Server(ThreadingHTTPServer):
    """One model, `cars`. `names` is None for a TensorFlow Serving, which does not tell them."""

    names: list[str] | None = None
    states: tuple[str, ...] = ("AVAILABLE",)
    slow_s = 0.0
    asked = threading.Event()
    """Set by each request for predictions."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        if self.path == "/odkeras/models" and self.server.names is not None:
            self.answer(200, {"models": self.server.names})
        elif self.path != "/v1/models/cars":
            self.answer(404, {"error": f"Could not find any versions of model {self.path.rpartition('/')[2]}"})
        else:
            states = [{"version": "3", "state": state, "status": {}} for state in self.server.states]
            self.answer(200, {"model_version_status": states})

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.set()
        time.sleep(self.server.slow_s)
        self.answer(200, {"predictions": [PREDICTION] * len(request["instances"])})

    def answer(self, status: int, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None: ...


@contextmanager
def serving(port: int = 0) -> Iterator[Server]:
    server = Server(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with photos, some in a folder of a folder, one of them broken."""
    (tmp_path / "photos" / "more").mkdir(parents=True)
    for seed, name in enumerate(("2.jpg", "10.jpg", "more/2.png")):
        kind = "PNG" if name.endswith("png") else "JPEG"
        (tmp_path / "photos" / name).write_bytes(encode(draw_pixels(seed=seed), kind))
    (tmp_path / "map.pbtxt").write_text("item { id: 2 name: 'car' } item { id: 5 name: 'bus' }")
    return tmp_path


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "odkeras", "predict", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=-1, stderr=-1, text=True)


def run(folder: Path, *arguments: str) -> tuple[int, str, str]:
    process = start(folder, *arguments)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


class TestErrorsAreReportedEarly:
    def refusal(self, folder: Path, url: str, name: str = "cars", *more: str) -> str:
        started = time.monotonic()
        status, out, err = run(folder, "photos", "--model-name", name, "--url", url, *more)
        taken_s = time.monotonic() - started
        assert (status, out) == (1, "")
        (line,) = err.splitlines()
        assert taken_s < 8, "3 s on a machine with nothing else to do; it was half a minute"
        return line.removeprefix("error: ")

    def test_a_missing_server_is_reported(self, folder: Path) -> None:
        url = f"http://127.0.0.1:{free_port()}"
        line = self.refusal(folder, url)
        assert line.startswith(f"no model server at {url}: ")
        assert line.endswith("; start one with `odkeras serve`, or load a version without a server: --export-dir")

    def test_an_unknown_model_name_is_reported_with_the_known_ones(self, folder: Path, server: Server) -> None:
        server.names = ["cars", "boats"]
        line = self.refusal(folder, server.url, "car")
        assert line == "no model 'car'; this server serves 'cars', 'boats': pass that as --model-name"

    def test_a_server_that_is_being_started_is_waited_for(self, folder: Path) -> None:
        port = free_port()
        process = start(
            folder, "photos/2.jpg", "--model-name", "cars", "--url", f"http://127.0.0.1:{port}", "--wait", "30"
        )
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.5)
        with serving(port) as server:
            server.states = ("LOADING",)
            time.sleep(0.3)
            server.states = ("AVAILABLE",)
            out, err = process.communicate(timeout=30)
        assert (process.returncode, err) == (0, "")
        assert json.loads(out)["boxes"] == BOXES

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("photos",), "give --model-name, for a model server, or --export-dir, for a version without a server"),
            (
                ("photos", "--model-name", "a", "--export-dir", "b"),
                "give --model-name, for a model server, or --export",
            ),
            (("photos", "--model-name", "a", "--format", "csv"), "--format is for --out FILE"),
            (("photos", "--model-name", "a", "--out", "x.txt"), "--out x.txt: unknown suffix"),
            (
                ("photos", "--model-name", "a", "--out", "x.csv", "--format", "yolo"),
                "--format must be one of jsonl, csv",
            ),
            (("none/*.jpg", "--model-name", "a"), "none/*.jpg: no file matches this pattern"),
            (("empty", "--model-name", "a"), "empty: no images in this folder"),
        ],
    )
    def test_conflicting_arguments_are_refused(self, folder: Path, arguments: tuple[str, ...], message: str) -> None:
        (folder / "empty").mkdir()
        status, out, err = run(folder, *arguments)
        assert (status, out) == (ConfigError.exit_code, "")
        assert err.startswith(f"error: {message}") and len(err.splitlines()) == 1

    def test_a_missing_export_directory_is_reported(self, folder: Path) -> None:
        for place, message in (
            ("gone", "gone: no such directory"),
            ("photos", "photos has no version; `odkeras export`"),
        ):
            status, _, err = run(folder, "photos", "--export-dir", place)
            assert status == 1 and err.startswith(f"error: {message}")


class TestPredictions:
    def predict(self, folder: Path, server: Server, *more: str) -> tuple[int, str, str]:
        return run(folder, "photos", "--model-name", "cars", "--url", server.url, *more)

    def test_a_line_for_each_image_of_a_folder(self, folder: Path, server: Server) -> None:
        (folder / "photos" / "bad.jpg").write_bytes(b"<html>")
        status, out, err = self.predict(folder, server, "--draw", "drawn")
        rows = {row["path"]: row for row in map(json.loads, out.splitlines())}
        assert list(rows) == ["photos/2.jpg", "photos/10.jpg", "photos/bad.jpg", "photos/more/2.png"]
        assert rows["photos/2.jpg"] == {"path": "photos/2.jpg", "width": 64, "height": 48, "boxes": BOXES}
        assert "HTML" in rows["photos/bad.jpg"]["error"]
        assert (status, err) == (1, "")
        assert sorted(path.name for path in (folder / "drawn").iterdir()) == ["10.png", "2-2.png", "2.png"]

    def test_the_drawn_boxes_have_the_colours_of_the_page(self, folder: Path, server: Server) -> None:
        """They had a palette of their own, by the order of the labels in each image."""
        self.predict(folder, server, "--draw", "drawn", "--label-map", "map.pbtxt")
        picture = Image.open(folder / "drawn" / "2.png")
        assert picture.getpixel((16, 36)) == ImageColor.getrgb(colour_of(0))  # car, the first of the label map
        assert picture.getpixel((0, 24)) == ImageColor.getrgb(colour_of(6))  # class id 7, which it does not have

    def test_csv_is_read_by_records(self, folder: Path, server: Server) -> None:
        status, out, err = self.predict(folder, server, "--label-map", "map.pbtxt", "--out", "new/boxes.csv")
        assert (status, out, err) == (0, "", "new/boxes.csv: 3 images, 6 boxes\n")
        truths = read_truth_csv(folder / "new" / "boxes.csv", "/nowhere")
        assert [truth.path for truth in truths] == [
            folder / "photos" / name for name in ("2.jpg", "10.jpg", "more/2.png")
        ]
        assert truths[0].labels == ("car", "7")
        assert truths[0].boxes_xyxy_px.tolist() == [[16, 12, 48, 36], [0, 0, 64, 24]]
        assert (folder / "new" / "boxes.csv").read_text().splitlines()[1].endswith(",car,0.9")

    def test_jsonl_is_a_source_and_answers(self, folder: Path, server: Server) -> None:
        status, _, err = self.predict(folder, server, "--label-map", "map.pbtxt", "--out", "tasks.jsonl", "-t", "0.7")
        assert (status, err) == (0, "tasks.jsonl: 3 images, 3 boxes\n")
        tasks = [json.loads(line) for line in (folder / "tasks.jsonl").read_text().splitlines()]
        label_map = LabelMap.load(folder / "map.pbtxt")
        annotation = read_annotation({**tasks[0], "answer": "accept"}, label_map).annotation
        assert annotation is not None
        assert annotation.groundtruth.boxes.tolist() == [[0.25, 0.25, 0.75, 0.75]]
        assert annotation.groundtruth.classes.tolist() == [2]
        command = [sys.executable, "-m", "odkeras", "db", "in", "cars", "../tasks.jsonl", "--db", "a.db"]
        done = subprocess.run(
            command, cwd=folder / "photos", env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
        )
        assert "3 added" in done.stdout, done.stderr

    def test_coco_has_the_ids_of_the_label_map(self, folder: Path, server: Server) -> None:
        (folder / "photos" / "bad.jpg").write_bytes(b"<html>")
        status, out, err = self.predict(folder, server, "--label-map", "map.pbtxt", "--out", "coco.json")
        assert (status, out) == (1, "")
        assert err.splitlines()[0].startswith("skipped photos/bad.jpg: ")
        assert err.splitlines()[1] == "coco.json: 3 images, 6 boxes, 1 skipped"
        document = json.loads((folder / "coco.json").read_text())
        assert document["categories"] == [{"id": 2, "name": "car"}, {"id": 5, "name": "bus"}, {"id": 7, "name": "7"}]
        assert [image["file_name"] for image in document["images"]] == [
            str(folder / "photos" / name) for name in ("2.jpg", "10.jpg", "more/2.png")
        ]
        assert document["annotations"][0] == {
            "id": 1, "image_id": 1, "category_id": 2, "bbox": [16.0, 12.0, 32.0, 24.0], "area": 768.0, "iscrowd": 0,
            "score": 0.9,
        }  # fmt: skip

    def test_ctrl_c(self, folder: Path, server: Server) -> None:
        server.slow_s = 1.0
        for more in ((), ("--out", "boxes.csv")):
            server.asked = threading.Event()
            process = start(folder, "photos", "--model-name", "cars", "--url", server.url, *more)
            assert server.asked.wait(60)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=20)
            assert process.returncode == 130
            assert err in ("", "stopped\n"), "versions of typer differ in who ends the process"
        assert not (folder / "boxes.csv").exists() and not list(folder.glob(".tmp-*"))


def test_a_damaged_image_has_its_reason_though_the_model_decodes(folder: Path) -> None:
    """Every image was decoded twice, by Pillow first."""
    cut = folder / "photos" / "cut.jpg"
    whole = (folder / "photos" / "2.jpg").read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    found = Detections(np.array([[0.1, 0.1, 0.9, 0.9]]), np.ones(1), np.array([5]))

    def predict(images: Sequence[EncodedImage]) -> list[Detections]:
        if any(image.data == cut.read_bytes() for image in images):
            raise RequestError(400, "cannot decode")
        return [found] * len(images)

    paths = [folder / "photos" / name for name in ("2.jpg", "cut.jpg", "10.jpg")]
    for draw_dir in (None, folder / "drawn"):
        predictions = list(predict_files(paths, predict, threshold=0.5, draw_dir=draw_dir))
        assert [len(each.boxes) for each in predictions] == [1, 0, 1]
        assert predictions[1].error.startswith("truncated or damaged")


def test_boxes_without_an_area_are_left_out(folder: Path) -> None:
    """A version of an older odkeras fills up with them, at --threshold 0; `records from-csv` refused the file, and NaN
    is no JSON."""
    boxes = [[0.25, 0.25, 0.75, 0.75], [0, 0.5, 1, 0.5], [0.5, 0, 0.5, 1], [1.1, 0, 1.2, 1], [0, np.nan, 1, 1]]
    found = Detections(np.array(boxes), np.full(5, 0.9), np.ones(5))
    (prediction,) = predict_files([folder / "photos" / "2.jpg"], lambda images: [found], threshold=0.0)
    assert [(row["xmin"], row["ymin"], row["xmax"], row["ymax"]) for row in prediction.boxes] == [(16, 12, 48, 36)]


def test_an_unwritable_draw_folder_is_reported(folder: Path) -> None:
    """It was a traceback, or was blamed on --out."""
    (folder / "drawn").touch()
    found = Detections(np.array(PREDICTION["detection_boxes"]), np.full(3, 0.9), np.ones(3))
    with pytest.raises(ConfigError, match=r"cannot write the drawn image .*drawn/2\.png: .*; see --draw"):
        list(predict_files([folder / "photos" / "2.jpg"], lambda _: [found], threshold=0.5, draw_dir=folder / "drawn"))
