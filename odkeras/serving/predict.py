"""Predictions for image files, as `odkeras predict` prints and draws them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from odkeras import boxes as box_ops
from odkeras.boxes import Detections
from odkeras.errors import ImageError, LabelMapError
from odkeras.images import EncodedImage, decode_rgb, read_image
from odkeras.labels import LabelMap
from odkeras.serving.client import ServingClient

START_TIMEOUT_S = 30.0  # a server that was just started needs some seconds to load its model
_COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000")


def predict_files(
    paths: Sequence[Path],
    url: str,
    model_name: str,
    *,
    threshold: float,
    label_map: LabelMap | None = None,
    draw_dir: Path | None = None,
) -> Iterator[dict[str, Any]]:
    """One row per image: `path`, `width`, `height` and `boxes`, each with pixel coordinates, `label` and `score`.

    An image that cannot be read gives a row with `error`.

    Args:
        paths: image files of any kind that Pillow reads.
        url: the model server.
        model_name: its model.
        threshold: lowest score of a box.
        label_map: for names; the ids are given without it.
        draw_dir: where to write the images with their boxes; made when missing.

    Raises:
        ServingError: the server does not come up within half a minute, or refuses.
    """
    with ServingClient(url, model_name) as client:
        client.wait_for_version(1, timeout_s=START_TIMEOUT_S)
        for path in paths:
            try:
                image = read_image(path)
            except ImageError as error:
                yield {"path": str(path), "error": error.reason}
                continue
            found = client.predict([image.data])[0].above(threshold)
            rows = _rows(found, image, label_map)
            if draw_dir is not None:
                _draw(image, rows, draw_dir / f"{path.stem}.png")
            height, width = image.image_size_hw
            yield {"path": str(path), "width": width, "height": height, "boxes": rows}


def _rows(found: Detections, image: EncodedImage, label_map: LabelMap | None) -> list[dict[str, Any]]:
    boxes_xyxy_px = box_ops.to_xyxy_px(box_ops.clip(found.boxes), image.image_size_hw)
    rows = []
    for box, score, class_id in zip(boxes_xyxy_px, found.scores, found.classes, strict=True):
        xmin, ymin, xmax, ymax = (round(float(value), 1) for value in box)
        row = {"xmin": xmin, "ymin": ymin, "xmax": xmax, "ymax": ymax, "label": _name(int(class_id), label_map)}
        rows.append({**row, "score": round(float(score), 4)})
    return rows


def _name(class_id: int, label_map: LabelMap | None) -> str:
    try:
        return label_map.name_of(class_id) if label_map else str(class_id)
    except LabelMapError:
        return str(class_id)


def _draw(image: EncodedImage, rows: Sequence[dict[str, Any]], path: Path) -> None:
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.fromarray(decode_rgb(image))
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=max(11, picture.height // 30))
    labels = sorted({row["label"] for row in rows})
    for row in rows:
        colour = _COLOURS[labels.index(row["label"]) % len(_COLOURS)]
        corner = (row["xmin"], row["ymin"])
        pen.rectangle([corner, (row["xmax"], row["ymax"])], outline=colour, width=max(2, picture.height // 200))
        text = f"{row['label']} {row['score']:.2f}"
        pen.rectangle(pen.textbbox(corner, text, font=font), fill=colour)
        pen.text(corner, text, fill="white", font=font)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
