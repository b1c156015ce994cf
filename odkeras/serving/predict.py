"""Predictions for image files, as `odkeras predict` prints, writes and draws them.

with ServingClient("http://127.0.0.1:8501", "raccoon") as client:
    wait_for_model(client)
    for prediction in predict_files(image_files(["photos/"]), served(client), threshold=0.5):
        print(prediction.to_json())
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from odkeras import boxes as box_ops
from odkeras.boxes import Detections
from odkeras.colours import colour_of
from odkeras.errors import ConfigError, ImageError, RequestError, ServerUnavailableError
from odkeras.images import EncodedImage, decode_rgb, list_image_files, read_image
from odkeras.serving.client import ServingClient

CONNECT_S = 1.0  # with the start of the command less than the 3 s within which a mistake is to be told
LOAD_S = 60.0  # TensorFlow's import, and the model's
_POLL_S = 0.1

Predict = Callable[[EncodedImage], Detections]
Row = dict[str, Any]


@dataclass(frozen=True)
class FilePrediction:
    """What was found in an image file.

    Args:
        path: as it was given.
        image: as the model saw it; None if there is an error.
        boxes: each with `xmin`, `ymin`, `xmax`, `ymax` in pixels, `label`, `class_id` and `score`.
        error: why the image was skipped; "" if it was not.
    """

    path: Path
    image: EncodedImage | None = None
    boxes: tuple[Row, ...] = ()
    error: str = ""

    def to_json(self) -> Row:
        if self.image is None:
            return {"path": str(self.path), "error": self.error}
        height, width = self.image.image_size_hw
        boxes = [{key: value for key, value in box.items() if key != "class_id"} for box in self.boxes]
        return {"path": str(self.path), "width": width, "height": height, "boxes": boxes}


def image_files(places: Iterable[Path | str]) -> list[Path]:
    """The files, and for each folder the images below it.

    Raises:
        ConfigError: a folder without images, or a pattern that the shell did not write out.
    """
    files: list[Path] = []
    for place in map(Path, places):
        if place.is_dir():
            found = list_image_files(place)
            if not found:
                raise ConfigError(f"{place}: no images in this folder")
            files += found
        elif not place.exists() and set(str(place)) & set("*?["):
            raise ConfigError(f"{place}: no file matches this pattern")
        else:
            files.append(place)
    return files


def wait_for_model(client: ServingClient, *, connect_s: float = CONNECT_S, load_s: float = LOAD_S) -> None:
    """Wait until the model can be asked: a short time for a server that answers and has a version, longer for one that
    is loading it. That a server has no model of that name is said at once, if it can tell.

    Raises:
        ServerUnavailableError: nobody listens, or there is no version (in time); says what is served there.
        RequestError: a server without a model of that name, or something else than a model server.
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
    """Why it cannot be asked yet ("" if it can), and how long to wait for that to change."""
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
        told = "; ".join(f"version {state.version}: {state.error or state.state}" for state in states)
        return f"no version of {name} can be served ({told})", connect_s
    names = client.model_names()
    if names is None:
        unknown = "TensorFlow Serving's REST API does not tell which models it has: see the --model_name that it got"
        return f"no model {name!r} there, or no version of it yet; {unknown}", connect_s
    if name not in names:
        served = ", ".join(map(repr, names)) or "nothing"
        raise RequestError(404, f"no model {name!r} there; this server serves {served}: give that with --model-name")
    return f"the model server has no version of {name} yet: its directory of versions is empty", connect_s


def served(client: ServingClient) -> Predict:
    """Predictions by a model server."""
    return lambda image: client.predict([image.data])[0]


def predict_files(
    paths: Sequence[Path],
    predict: Predict,
    *,
    threshold: float,
    names: Mapping[int, str] | None = None,
    draw_dir: Path | None = None,
) -> Iterator[FilePrediction]:
    """One prediction per image, in order. An image that cannot be read, or that the model refuses, has an `error`.

    Args:
        paths: image files of any kind that Pillow reads.
        predict: finds the boxes in an image.
        threshold: lowest score of a box.
        names: of the class ids; the id is the label of one without.
        draw_dir: where to write the images with their boxes; made when missing.

    Raises:
        ServerUnavailableError: the model server went away.
        ConfigError: `draw_dir` cannot be written to.
    """
    drawn: set[str] = set()
    for path in paths:
        try:
            image = read_image(path)
            found = predict(image).above(threshold)
        except ImageError as error:
            yield FilePrediction(path, error=error.reason)
            continue
        except RequestError as error:
            yield FilePrediction(path, error=f"the model refuses it: {error}")
            continue
        boxes = _rows(found, image, names or {})
        if draw_dir is not None:
            _draw(image, boxes, names or {}, draw_dir / _unused_name(path.stem, drawn))
        yield FilePrediction(path, image, tuple(boxes))


def _rows(found: Detections, image: EncodedImage, names: Mapping[int, str]) -> list[Row]:
    """Boxes that can be drawn and trained on: finite, and with an area inside the image at the precision that is
    written. Versions of an older odkeras fill up with others."""
    boxes_xyxy_px = box_ops.to_xyxy_px(box_ops.clip(found.boxes), image.image_size_hw)
    rows = []
    for box, score, class_id in zip(boxes_xyxy_px, found.scores, found.classes, strict=True):
        xmin, ymin, xmax, ymax = (round(float(value), 1) for value in box)
        if not (math.isfinite(xmin + ymin + xmax + ymax) and xmin < xmax and ymin < ymax):
            continue
        label = names.get(int(class_id), str(int(class_id)))
        row = {"xmin": xmin, "ymin": ymin, "xmax": xmax, "ymax": ymax, "label": label, "class_id": int(class_id)}
        rows.append({**row, "score": round(float(score), 4)})
    return rows


def _unused_name(stem: str, taken: set[str]) -> str:
    """Images of one name may come from several folders."""
    name, number = f"{stem}.png", 2
    while name in taken:
        name, number = f"{stem}-{number}.png", number + 1
    taken.add(name)
    return name


def _draw(image: EncodedImage, rows: Sequence[Row], names: Iterable[int], path: Path) -> None:
    """In the colours of the page and of TensorBoard, which follow the order of the label map, `names`."""
    from PIL import Image

    from odkeras.drawing import LabelledBox, draw_boxes

    picture = Image.fromarray(decode_rgb(image))
    places = {class_id: place for place, class_id in enumerate(names)}
    boxes = [
        LabelledBox(
            (row["xmin"], row["ymin"], row["xmax"], row["ymax"]),
            f"{row['label']} {row['score']:.2f}",
            colour_of(places.get(row["class_id"], max(0, row["class_id"] - 1))),
        )
        for row in rows
    ]
    draw_boxes(picture, boxes, line_px=max(2, picture.height // 200), font_px=max(11, picture.height // 30))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    except OSError as error:
        raise ConfigError(f"cannot write the drawn image {path}: {error.strerror or error}; see --draw") from error
