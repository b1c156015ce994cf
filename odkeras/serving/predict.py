"""Predictions for image files, as `odkeras predict` prints, writes and draws them.

    with ServingClient("http://127.0.0.1:8501", "raccoon") as client:
        wait_for_model(client)
        for prediction in predict_files(image_files(["photos/"]), served(client), threshold=0.5):
            print(prediction.to_json())

`serving.prediction_files` writes them to files.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from odkeras import boxes as box_ops
from odkeras.boxes import Detections, FloatArray
from odkeras.colours import colour_of
from odkeras.errors import ConfigError, ImageError, RequestError, ServerUnavailableError
from odkeras.image_files import list_image_files
from odkeras.images import DEFAULT_MAX_PIXELS, EncodedImage, absolute_path, decode_rgb, encode_image, read_image
from odkeras.keypoints import MIN_SCORE as MIN_KEYPOINT_SCORE
from odkeras.keypoints import DrawnKeypoint, Skeleton
from odkeras.serving.batches import Item, PredictBatch, SizedBatches, predict_in_batches
from odkeras.serving.client import ServingClient

CONNECT_S = 1.0  # plus the command's start-up time, less than the 3 s in which a wrong address must be reported
LOAD_S = 60.0  # for the import of TensorFlow and the loading of the model
_POLL_S = 0.1

Row = dict[str, Any]
ImageKey = tuple[Path | str, str]
"""Path or URL of an image, and why it cannot be read ("" if it can)."""


@dataclass(frozen=True)
class FilePrediction:
    """The predictions for one image file, or for one image at a URL.

    Args:
        path: the path as given; a text is a URL.
        image: the image that the model got; None if the file was skipped.
        boxes: dicts with `xmin`, `ymin`, `xmax`, `ymax` (pixels, one decimal), `label`, `class_id` and `score`; if the
            model predicts keypoints, also with `keypoints`: for each of them a dict with `name`, `x`, `y` (pixels) and
            `score`, or None if it was not found.
        error: why the file was skipped; "" if it was not.
    """

    path: Path | str
    image: EncodedImage | None = None
    boxes: tuple[Row, ...] = ()
    error: str = ""

    @property
    def place(self) -> str:
        """The absolute path, or the URL."""
        return self.path if isinstance(self.path, str) else str(absolute_path(self.path))

    @property
    def file(self) -> str:
        """Its name, without folders."""
        return self.path.partition("?")[0].rpartition("/")[2] if isinstance(self.path, str) else self.path.name

    def to_json(self) -> Row:
        """The line that `odkeras predict` prints: path, size in pixels and boxes, or path and error."""
        if self.image is None:
            return {"path": str(self.path), "error": self.error}
        height, width = self.image.image_size_hw
        boxes = [{key: value for key, value in box.items() if key != "class_id"} for box in self.boxes]
        return {"path": str(self.path), "width": width, "height": height, "boxes": boxes}


def image_files(places: Iterable[Path | str]) -> list[Path]:
    """Expand folders to the images below them. Paths of files are kept, whether they exist or not.

    Raises:
        ConfigError: a folder without images, or a glob pattern that matched nothing.
    """
    files: list[Path] = []
    for place in map(Path, places):
        if place.is_dir():
            files_below = list_image_files(place)
            if not files_below:
                raise ConfigError(f"{place}: no images in this folder")
            files += files_below
        elif not place.exists() and set(str(place)) & set("*?["):
            raise ConfigError(f"{place}: no file matches this pattern")
        else:
            files.append(place)
    return files


def wait_for_model(client: ServingClient, *, connect_s: float = CONNECT_S, load_s: float = LOAD_S) -> None:
    """Poll until the model is available.

    Args:
        client: a client of the model.
        connect_s: seconds to wait for a server that responds and has a version of the model.
        load_s: seconds to wait for a server that is loading the model.

    Raises:
        ServerUnavailableError: timeout; the message says what the server serves, if it lists its models.
        RequestError: the server has no model of that name (raised at once), or it is not a model server.
    """
    started = time.monotonic()
    while True:
        problem, may_take_s = _state_of_model(client, connect_s, load_s)
        if not problem:
            return
        if time.monotonic() - started >= may_take_s:
            raise ServerUnavailableError(problem)
        time.sleep(_POLL_S)


def _state_of_model(client: ServingClient, connect_s: float, load_s: float) -> tuple[str, float]:
    """Why the model is not available ("" if it is), and the seconds to wait for that to change."""
    try:
        states = client.versions()
    except ServerUnavailableError as error:
        return f"{error}; start one with `odkeras serve`, or load a version without a server: --export-dir", connect_s
    if any(state.state == "AVAILABLE" for state in states):
        return "", 0.0
    name = client.model_name
    if any(state.state in ("START", "LOADING") for state in states):
        return f"the model server was still loading {name} after {load_s:g} s", load_s
    if states:
        reasons = "; ".join(f"version {state.version}: {state.error or state.state}" for state in states)
        return f"no version of {name} can be served ({reasons})", connect_s
    names = client.model_names()
    if names is None:
        unknown = "TensorFlow Serving's REST API does not list its models: check its --model_name"
        return f"no model {name!r}, or no version of it yet; {unknown}", connect_s
    if name not in names:
        served = ", ".join(map(repr, names)) or "nothing"
        raise RequestError(404, f"no model {name!r}; this server serves {served}: pass that as --model-name")
    return f"the model server has no version of {name} yet: its directory of versions is empty", connect_s


def served(client: ServingClient) -> PredictBatch:
    """A function that predicts images with one request to a model server."""
    return lambda images: client.predict([image.data for image in images], batch_size=len(images))


def predict_files(
    paths: Sequence[Path],
    predict: PredictBatch,
    *,
    threshold: float,
    names: Mapping[int, str] | None = None,
    skeleton: Skeleton | None = None,
    draw_dir: Path | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Iterator[FilePrediction]:
    """Yields one prediction per file, in order. A file that cannot be read, or that the model refuses, has an `error`.

    Args:
        paths: image files of any kind that Pillow reads.
        predict: predicts the detections of each of several images.
        threshold: minimum score of a box, 0 to 1.
        names: class names by id. A class without a name is labelled with its id.
        skeleton: names and edges of the keypoints. Without a name, a keypoint is named by its number.
        draw_dir: directory for images with their boxes drawn, created if missing; None draws none.
        max_pixels: larger images are skipped.

    Raises:
        ServerUnavailableError: the model server became unavailable.
        ConfigError: `draw_dir` cannot be written to.
    """
    drawn: set[str] = set()
    for prediction in predict_images(
        _read_images(paths, max_pixels, check_pixels=draw_dir is not None),
        predict,
        threshold=threshold,
        names=names,
        skeleton=skeleton,
    ):
        if draw_dir is not None and prediction.image is not None:
            path = draw_dir / _unused_name(Path(prediction.path).stem, drawn)
            _draw(prediction.image, prediction.boxes, names or {}, skeleton or Skeleton(), path)
        yield prediction


def predict_images(
    items: Iterable[Item[ImageKey]],
    predict: PredictBatch | SizedBatches,
    *,
    threshold: float,
    names: Mapping[int, str] | None = None,
    skeleton: Skeleton | None = None,
) -> Iterator[FilePrediction]:
    """Yields one prediction per image, in order. One that could not be read, or that the model refuses, has an `error`.

    Args:
        items: the images, each with its path or URL and, if it could not be read, the reason.
        predict, threshold, names, skeleton: see `predict_files`.

    Raises:
        ServerUnavailableError: the model server became unavailable.
    """
    for item, detections in predict_in_batches(items, predict):
        path, image = item.key[0], item.image
        if image is None or detections is None:
            yield FilePrediction(path, error=item.key[1])
            continue
        if isinstance(detections, RequestError):
            yield FilePrediction(path, error=_damage(image) or f"the model rejects it: {detections}")
            continue
        detections = detections.above(threshold)
        boxes = _rows(detections, image, names or {}, skeleton or Skeleton())
        yield FilePrediction(path, image, tuple(boxes))


def _read_images(paths: Iterable[Path], max_pixels: int, *, check_pixels: bool) -> Iterator[Item[ImageKey]]:
    """The images with their path and why they cannot be read. The model decodes the pixels; doing that here, too, would
    take a tenth of its time."""
    for path in paths:
        try:
            yield Item((path, ""), read_image(path, max_pixels=max_pixels, check_pixels=check_pixels))
        except ImageError as error:
            yield Item((path, error.reason), None)


def _damage(image: EncodedImage) -> str:
    """What is wrong with the pixels of an image that the model rejects; "" if nothing is."""
    try:
        encode_image(image.data, source="image", max_pixels=0)
    except ImageError as error:
        return error.reason
    return ""


def _rows(detections: Detections, image: EncodedImage, names: Mapping[int, str], skeleton: Skeleton) -> list[Row]:
    """The boxes as dicts, without those that cannot be drawn or trained on.

    A box must be finite and have an area inside the image after rounding. Versions exported by an older odkeras pad
    their outputs with boxes that have none.
    """
    boxes_xyxy_px = box_ops.to_xyxy_px(box_ops.clip(detections.boxes), image.image_size_hw)
    rows = []
    for number, (box, score, class_id) in enumerate(
        zip(boxes_xyxy_px, detections.scores, detections.classes, strict=True)
    ):
        xmin, ymin, xmax, ymax = (round(float(value), 1) for value in box)
        if not (math.isfinite(xmin + ymin + xmax + ymax) and xmin < xmax and ymin < ymax):
            continue
        label = names.get(int(class_id), str(int(class_id)))
        row: Row = {"xmin": xmin, "ymin": ymin, "xmax": xmax, "ymax": ymax, "label": label, "class_id": int(class_id)}
        row["score"] = round(float(score), 4)
        if detections.keypoints is not None:
            row["keypoints"] = _keypoint_rows(detections.keypoints[number], image.image_size_hw, skeleton)
        rows.append(row)
    return rows


def _keypoint_rows(keypoints: FloatArray, image_size_hw: tuple[int, int], skeleton: Skeleton) -> list[Row | None]:
    height, width = image_size_hw
    return [
        {
            "name": skeleton.name_of(id),
            "x": round(x * width, 1),
            "y": round(y * height, 1),
            "score": round(score, 4),
        }
        if score > 0 and math.isfinite(x + y)
        else None
        for id, (y, x, score) in enumerate(keypoints.tolist())
    ]


def _unused_name(stem: str, taken: set[str]) -> str:
    """A PNG file name that is not in `taken`: images of the same name may come from several folders."""
    name, number = f"{stem}.png", 2
    while name in taken:
        name, number = f"{stem}-{number}.png", number + 1
    taken.add(name)
    return name


def _draw(image: EncodedImage, rows: Sequence[Row], names: Iterable[int], skeleton: Skeleton, path: Path) -> None:
    """Draw the boxes in the colours of the page and of TensorBoard: those of the class's position in `names`."""
    from PIL import Image

    from odkeras.drawing import LabelledBox, draw_boxes

    picture = Image.fromarray(decode_rgb(image))
    places = {class_id: place for place, class_id in enumerate(names)}
    boxes = [
        LabelledBox(
            (row["xmin"], row["ymin"], row["xmax"], row["ymax"]),
            f"{row['label']} {row['score']:.2f}",
            colour_of(places.get(row["class_id"], max(0, row["class_id"] - 1))),
            [
                point and DrawnKeypoint(point["x"], point["y"], point["score"] >= MIN_KEYPOINT_SCORE)
                for point in row.get("keypoints", ())
            ],
        )
        for row in rows
    ]
    line_px, font_px = max(2, picture.height // 200), max(11, picture.height // 30)
    draw_boxes(picture, boxes, line_px=line_px, font_px=font_px, edges=skeleton.edges)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    except OSError as error:
        raise ConfigError(f"cannot write the drawn image {path}: {error.strerror or error}; see --draw") from error
