from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from pictures import TRUTH_XYXY_PX, draw_pixels, encode
from PIL import Image
from typer.testing import CliRunner

from odkeras.annotation import Annotation, Task
from odkeras.boxes import Groundtruth, to_xyxy_px
from odkeras.cli import app
from odkeras.data.conversion import RecordsReport, labels_to_records, prodigy_to_records
from odkeras.data.records import (
    annotation_from_example,
    example_from_annotation,
    read_records,
    with_masks,
    write_records,
)
from odkeras.errors import ImageError, LabelMapError, RecordError
from odkeras.formats.prodigy import write_task
from odkeras.images import EncodedImage, encode_image, read_image
from odkeras.labels import LabelMap
from tests import poison
from tests.odd_pngs import UNCLEAN

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
LABEL_MAP = LabelMap.from_names(["car", "person"])
IMAGE = encode_image(encode(draw_pixels(), "JPEG"), source="x")


def annotations_in(path: Path) -> list[Annotation]:
    return [annotation_from_example(serialized) for serialized in read_records(path)]


# --- one example


unit = st.floats(0, 1, width=32)


@given(
    st.lists(st.tuples(unit, unit, unit, unit, st.integers(1, 2)), max_size=4),
    st.text(max_size=9),
    st.text(min_size=1, max_size=9),
    st.text(max_size=9),
    st.sampled_from(["", "train", "val", "test"]),
)
def test_any_annotation_survives_an_example(
    rows: list[tuple], file: str, image_id: str, batch: str, split: str
) -> None:
    truth = Groundtruth(
        np.array([row[:4] for row in rows]).reshape(-1, 4), np.array([row[4] for row in rows], np.int32)
    )
    annotation = Annotation(IMAGE, truth, image_id, file, batch, split=split)
    assert annotation_from_example(example_from_annotation(annotation, LABEL_MAP).SerializeToString()) == annotation


def test_the_api_reads_our_examples(annotations: dict[str, Annotation], label_map: LabelMap, tmp_path: Path) -> None:
    from odkeras import compat

    compat.prepare()
    from object_detection.data_decoders import tf_example_decoder

    label_map.save(tmp_path / "map.pbtxt")
    decoder = tf_example_decoder.TfExampleDecoder(label_map_proto_file=str(tmp_path / "map.pbtxt"))
    for annotation in annotations.values():
        decoded = decoder.decode(tf.constant(example_from_annotation(annotation, label_map).SerializeToString()))
        np.testing.assert_allclose(decoded["groundtruth_boxes"], annotation.groundtruth.boxes)
        np.testing.assert_array_equal(decoded["groundtruth_classes"], annotation.groundtruth.classes)
        assert decoded["image"].shape == (48, 64, 3)
        assert decoded["source_id"] == annotation.image_id.encode()


# --- masks


TRIANGLE_PX = [[8.0, 6.0], [40.0, 6.0], [8.0, 30.0]]  # of the box "one"
TRIANGLE = np.array(TRIANGLE_PX)[:, ::-1] / (48, 64)


@pytest.fixture
def with_polygon(annotations: dict[str, Annotation]) -> Annotation:
    """Three objects, of which the second is a triangle."""
    return dataclasses.replace(annotations["three"], polygons=(None, TRIANGLE, None))


@pytest.fixture
def decoder(label_map: LabelMap, tmp_path: Path) -> Any:
    """The Object Detection API's, as a reader with `load_instance_masks: true mask_type: PNG_MASKS` builds it."""
    from object_detection.data_decoders import tf_example_decoder
    from object_detection.protos import input_reader_pb2

    label_map.save(tmp_path / "map.pbtxt")
    return tf_example_decoder.TfExampleDecoder(
        load_instance_masks=True,
        instance_mask_type=input_reader_pb2.PNG_MASKS,
        label_map_proto_file=str(tmp_path / "map.pbtxt"),
    )


def decoded_masks(decoder: Any, serialized: bytes) -> np.ndarray:
    return np.asarray(decoder.decode(tf.constant(serialized))["groundtruth_instance_masks"])


def box_mask(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    mask = np.zeros((48, 64), np.float32)
    mask[top:bottom, left:right] = 1
    return mask


def test_the_api_reads_our_masks(with_polygon: Annotation, label_map: LabelMap, decoder: Any) -> None:
    """A polygon as it is, the rectangles beside it filled."""
    example = example_from_annotation(with_polygon, label_map)
    decoded = decoder.decode(tf.constant(example.SerializeToString()))
    masks = np.asarray(decoded["groundtruth_instance_masks"])
    assert (masks.shape, masks.dtype) == ((3, 48, 64), np.float32)
    np.testing.assert_array_equal(masks[0], box_mask(0, 10, 20, 34))
    np.testing.assert_array_equal(masks[2], box_mask(30, 20, 64, 48))
    ys, xs = np.mgrid[0:48, 0:64] + 0.5
    triangle = (xs > 8) & (ys > 6) & ((xs - 8) / 32 + (ys - 6) / 24 < 1)
    np.testing.assert_array_equal(masks[1], triangle)
    assert decoded["groundtruth_instance_mask_weights"].numpy().tolist() == [1, 1, 1]
    assert len(decoded["groundtruth_boxes"]) == 3


@pytest.mark.parametrize("kind", TRUTH_XYXY_PX)
def test_masks_are_added_to_an_example_stored_without(
    annotations: dict[str, Annotation], label_map: LabelMap, kind: str
) -> None:
    bare = example_from_annotation(annotations[kind], label_map).SerializeToString()
    asked_for = example_from_annotation(annotations[kind], label_map, masks=True)
    assert tf.train.Example.FromString(with_masks(bare)) == asked_for
    assert annotation_from_example(with_masks(bare)) == annotations[kind]


def foreign(**features: Any) -> bytes:
    made = {}
    for name, values in features.items():
        kind = {bytes: "bytes_list", int: "int64_list", float: "float_list"}[type(values[0])]
        made[name.replace("__", "/")] = tf.train.Feature(**{kind: {"value": values}})
    return tf.train.Example(features=tf.train.Features(feature=made)).SerializeToString(deterministic=True)


def box_features(**changed: Any) -> dict[str, Any]:
    sides = {
        f"image__object__bbox__{side}": [value]
        for side, value in zip(("ymin", "xmin", "ymax", "xmax"), (0.0, 0.25, 0.5, 1.0), strict=True)
    }
    return {"image__encoded": [IMAGE.data], **sides, "image__object__class__label": [2], **changed}


def test_an_example_of_another_tool() -> None:
    annotation = annotation_from_example(foreign(**box_features(image__format=[b"JPG"])))
    assert annotation.image == IMAGE
    assert annotation.image_id == IMAGE.image_id
    assert annotation.groundtruth == Groundtruth(np.array([[0, 0.25, 0.5, 1]]), np.array([2]))
    assert (annotation.file, annotation.batch) == ("", "")


@pytest.mark.parametrize(
    ("serialized", "message"),
    [
        (b"junk", "not a serialized tf.train.Example"),
        (foreign(image__filename=[b"a.jpg"]), "example 'a.jpg' has no image/encoded"),
        (foreign(image__filename=[b"a.jpg"], image__encoded=[b"junk"]), "example 'a.jpg': not an image"),
        (foreign(**box_features(image__object__class__label=[1, 2])), "have [1, 1, 1, 1, 2] values"),
        (foreign(**box_features(image__object__bbox__xmax=[float("nan")])), "boxes must be finite"),
    ],
    ids=["no example", "no image", "a broken image", "numbers of values", "not finite"],
)
def test_examples_that_cannot_be_read(serialized: bytes, message: str) -> None:
    with pytest.raises(RecordError) as raised:
        annotation_from_example(serialized)
    assert message in str(raised.value)


# --- files


def test_records_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "a.record"
    assert write_records(path, iter([b"one", b"", b"three" * 1000])) == 3
    assert [*read_records(path)] == [b"one", b"", b"three" * 1000]
    assert [*tmp_path.iterdir()] == [path]


def test_a_failure_in_the_middle_leaves_the_old_record(tmp_path: Path) -> None:
    path = tmp_path / "a.record"
    write_records(path, [b"old"])

    def failing() -> Any:
        yield b"new"
        assert [*read_records(path)] == [b"old"]
        raise KeyError("in the middle")

    with pytest.raises(KeyError):
        write_records(path, failing())
    assert [*read_records(path)] == [b"old"]
    assert [*tmp_path.iterdir()] == [path]


def test_records_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"cannot read .*missing\.record: .*No such file"):
        next(read_records(tmp_path / "missing.record"))
    path = tmp_path / "a.record"
    write_records(path, [b"one" * 100, b"two" * 100])
    path.write_bytes(path.read_bytes()[:-20])
    reading = read_records(path)
    assert next(reading) == b"one" * 100
    with pytest.raises(RecordError, match="cannot read"):
        next(reading)


# --- from a CSV file


def test_a_csv_becomes_a_record(truth_dir: Path, label_map: LabelMap, tmp_path: Path) -> None:
    out, steps = tmp_path / "out.record", []
    report = labels_to_records(
        truth_dir / "truth.csv",
        out,
        label_map=label_map,
        images_dir=truth_dir,
        progress=lambda *step: steps.append(step),
    )
    assert report == RecordsReport(images=3, boxes=4, negatives=1, skipped=[])
    assert steps == [(1, 3), (2, 3), (3, 3)]
    for annotation, (kind, rows) in zip(annotations_in(out), TRUTH_XYXY_PX.items(), strict=True):
        image = read_image(truth_dir / f"{kind}.jpg")
        assert (annotation.image, annotation.image_id, annotation.file) == (image, image.image_id, f"{kind}.jpg")
        boxes_px = to_xyxy_px(annotation.groundtruth.boxes, (48, 64))
        np.testing.assert_allclose(boxes_px, np.array([box for box, _ in rows]).reshape(-1, 4), atol=1e-4)
        assert [label_map.name_of(class_id) for class_id in annotation.groundtruth.classes] == [
            label for _, label in rows
        ]


def test_what_cannot_be_used_is_skipped_and_reported(truth_dir: Path, label_map: LabelMap, tmp_path: Path) -> None:
    (truth_dir / "broken.jpg").write_bytes(b"<html>")
    with (truth_dir / "truth.csv").open("a") as file:
        file.write("missing.jpg,1,2,3,4,car\nbroken.jpg,,,,,\none.jpg,66,2,68,9,car\none.jpg,-5,40,9,52,person\n")
        file.write(f"{truth_dir}/../truth/none.jpg,3,3,3,9,car\n")
    report = labels_to_records(
        truth_dir / "truth.csv", tmp_path / "out.record", label_map=label_map, images_dir=truth_dir
    )
    assert (report.images, report.boxes, report.negatives) == (3, 5, 1)
    assert dict(report.skipped) == {
        str(truth_dir / "missing.jpg"): "cannot be read: No such file or directory",
        str(truth_dir / "broken.jpg"): "no image data: an HTML page (a failed download?)",
        str(truth_dir / "one.jpg"): "box [66.0, 2.0, 68.0, 9.0] has no area inside the image",
        f"{truth_dir}/../truth/none.jpg": "box [3.0, 3.0, 3.0, 9.0] has no area inside the image",
    }
    one = annotations_in(tmp_path / "out.record")[1]
    np.testing.assert_allclose(to_xyxy_px(one.groundtruth.boxes, (48, 64))[1], [0, 40, 9, 48], atol=1e-4)  # clipped


def test_an_unknown_label_stops_before_anything_is_written(truth_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(LabelMapError, match=r"three\.jpg: label 'person' is not in the label map \(known: car\)"):
        labels_to_records(
            truth_dir / "truth.csv", tmp_path / "out", label_map=LabelMap.from_names(["car"]), images_dir=truth_dir
        )
    assert not (tmp_path / "out").exists()


# --- from a Prodigy dataset


def answer(image: EncodedImage, decision: str, *boxes_px: list[float], **extra: Any) -> dict[str, Any]:
    spans = [
        {"label": "car", "points": [[x, y], [x, bottom], [right, bottom], [right, y]]}
        for x, y, right, bottom in boxes_px
    ]
    return {**write_task(Task.of(image, file="a.jpg")), "spans": spans, "answer": decision, **extra}


def write_jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def picture(seed: int) -> EncodedImage:
    return encode_image(encode(draw_pixels(seed=seed), "JPEG"), source="x")


def test_the_latest_answer_of_an_image_counts(tmp_path: Path, label_map: LabelMap) -> None:
    first, second, third = (picture(seed) for seed in range(3))
    jsonl = write_jsonl(
        tmp_path / "answers.jsonl",
        answer(first, "accept", [0, 0, 10, 10]),
        answer(second, "accept", [0, 0, 10, 10]),
        answer(third, "reject"),
        answer(first, "accept", [5, 5, 20, 20], [0, 0, 64, 48]),  # corrected
        answer(second, "ignore"),  # withdrawn
        "",
        answer(third, "accept"),  # after all, without objects
    )
    steps: list[tuple[int, int]] = []
    report = prodigy_to_records(jsonl, tmp_path / "out", label_map=label_map, progress=lambda *step: steps.append(step))
    assert report == RecordsReport(images=2, boxes=2, negatives=1, skipped=[])
    assert steps == [(number, 7) for number in range(1, 8)]
    written = {annotation.image_id: annotation for annotation in annotations_in(tmp_path / "out")}
    assert {*written} == {first.image_id, third.image_id}
    np.testing.assert_allclose(
        to_xyxy_px(written[first.image_id].groundtruth.boxes, (48, 64))[0], [5, 5, 20, 20], atol=1e-4
    )
    assert [path.name for path in tmp_path.iterdir()] == ["answers.jsonl", "out"] or len([*tmp_path.iterdir()]) == 2


def test_answers_that_cannot_be_used_are_reported(tmp_path: Path, label_map: LabelMap) -> None:
    jsonl = write_jsonl(
        tmp_path / "answers.jsonl",
        answer(picture(0), "accept", [0, 0, 10, 10], [70, 0, 90, 10]),
        "not json",
        answer(picture(1), "accept", [70, 0, 90, 10]),
        answer(picture(2), "maybe"),
        "[1, 2]",
    )
    report = prodigy_to_records(jsonl, tmp_path / "out", label_map=label_map)
    assert (report.images, report.boxes) == (1, 1)
    places, reasons = zip(*report.skipped, strict=True)
    assert places == tuple(f"{jsonl}:{number}" for number in range(1, 6))
    for reason, expected in zip(
        reasons, ["no area", "Expecting value", "none of its 1 spans", "'maybe'", "got list"], strict=True
    ):
        assert expected in reason


def test_a_dataset_without_accepted_answers(tmp_path: Path, label_map: LabelMap) -> None:
    jsonl = write_jsonl(tmp_path / "answers.jsonl", answer(picture(0), "reject"), "junk")
    with pytest.raises(RecordError, match=r"has no image to write; .*answers\.jsonl:2: not JSON: Expecting value"):
        prodigy_to_records(jsonl, tmp_path / "out", label_map=label_map)
    assert not (tmp_path / "out").exists()


def test_the_folder_of_the_record_is_made(truth_dir: Path, tmp_path: Path, label_map: LabelMap) -> None:
    """`odkeras records from-csv ... project/data/test_eval.record` failed in a new project."""
    jsonl = write_jsonl(tmp_path / "answers.jsonl", answer(IMAGE, "accept"))
    prodigy_to_records(jsonl, tmp_path / "a" / "b" / "out", label_map=label_map)
    labels_to_records(truth_dir / "truth.csv", tmp_path / "c" / "d" / "out", label_map=label_map, images_dir=truth_dir)
    assert len(annotations_in(tmp_path / "a" / "b" / "out")) == 1
    assert len(annotations_in(tmp_path / "c" / "d" / "out")) == 3


POLYGON_SPAN = {"label": "person", "type": "polygon", "points": TRIANGLE_PX}


def masks_in(path: Path) -> list[int | None]:
    """Number of masks of each example; None where it has no such feature."""
    found = [tf.train.Example.FromString(serialized).features.feature for serialized in read_records(path)]
    return [len(each["image/object/mask"].bytes_list.value) if "image/object/mask" in each else None for each in found]


def write_polygon_answers(folder: Path) -> Path:
    """Two objects of which one is a polygon; a box; nothing."""
    mixed = answer(picture(0), "accept", [0, 0, 10, 10])
    mixed["spans"].append(POLYGON_SPAN)
    others = answer(picture(1), "accept", [0, 0, 10, 10]), answer(picture(2), "accept")
    return write_jsonl(folder / "answers.jsonl", mixed, *others)


def test_polygons_bring_masks(tmp_path: Path, label_map: LabelMap, decoder: Any) -> None:
    report = prodigy_to_records(write_polygon_answers(tmp_path), tmp_path / "out", label_map=label_map)
    assert report == RecordsReport(images=3, boxes=3, negatives=1, skipped=[])
    assert masks_in(tmp_path / "out") == [2, None, None]
    box, triangle = decoded_masks(decoder, next(read_records(tmp_path / "out")))
    np.testing.assert_array_equal(box, box_mask(0, 0, 10, 10))
    assert triangle.sum() == pytest.approx(32 * 24 / 2, rel=0.05)


def test_the_command_brings_masks_for_all(tmp_path: Path, label_map: LabelMap) -> None:
    label_map.save(tmp_path / "map.pbtxt")
    paths = [str(write_polygon_answers(tmp_path)), str(tmp_path / "out")]
    command = ["records", "from-prodigy", *paths, "--label-map", str(tmp_path / "map.pbtxt"), "--masks"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert masks_in(tmp_path / "out") == [2, 1, 0]
    CliRunner().invoke(app, command[:-1])
    assert masks_in(tmp_path / "out") == [2, None, None]


# --- the script


def run_script(*arguments: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/create_tfrecord.py", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


def test_the_script(truth_dir: Path, label_map: LabelMap, tmp_path: Path) -> None:
    label_map.save(tmp_path / "map.pbtxt")
    (truth_dir / "one.jpg").unlink()
    result = run_script(truth_dir / "truth.csv", tmp_path / "out.record", "--label-map", tmp_path / "map.pbtxt")
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{tmp_path}/out.record: 2 images, 3 boxes, 1 without boxes\n"
    assert (
        result.stderr.strip().splitlines()[-1]
        == f"skipped {truth_dir}/one.jpg: cannot be read: No such file or directory"
    )
    assert len(annotations_in(tmp_path / "out.record")) == 2


@pytest.mark.parametrize("change", {**poison.UNUSABLE, **poison.HARMLESS}.values())
def test_one_answer_that_cannot_be_read_is_skipped(tmp_path: Path, change: dict[str, Any]) -> None:
    label_map = LabelMap.from_names([poison.LABEL])
    span = {"label": poison.LABEL, "x": 1, "y": 1, "width": 9, "height": 9}
    good = {"image": IMAGE.data_uri, "image_id": "good", "spans": [span], "answer": "accept"}
    lines = [json.dumps({**good, "image_id": "bad", **change}).encode(), *poison.NOT_RECORDS.values()]
    (tmp_path / "answers.jsonl").write_bytes(b"\n".join([*lines, json.dumps(good).encode()]))
    report = prodigy_to_records(tmp_path / "answers.jsonl", tmp_path / "out", label_map=label_map)
    assert report.images == 2 - (change in poison.UNUSABLE.values())
    assert len(report.skipped) == 6 + (change in poison.UNUSABLE.values())


def test_csv_images_whose_boxes_do_not_fit_are_left_out(tmp_path: Path) -> None:
    """A turned photograph's boxes, made for the stored pixels, were put on the upright image."""
    pixels = draw_pixels()
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "turned.jpg").write_bytes(encode(pixels, "JPEG", exif=exif))
    (tmp_path / "good.jpg").write_bytes(encode(pixels, "JPEG"))
    (tmp_path / "half.png").write_bytes(encode(pixels[::2, ::2], "PNG"))
    (tmp_path / "cut.png").write_bytes(encode(pixels[:24], "PNG"))
    names = ("turned.jpg", "good.jpg", "half.png", "cut.png")
    rows = [f"{name},64,48,car,16,12,32,24" for name in names]
    (tmp_path / "truth.csv").write_text("\n".join(["path,width,height,label,xmin,ymin,xmax,ymax", *rows]))
    report = labels_to_records(tmp_path / "truth.csv", tmp_path / "out", label_map=LABEL_MAP, images_dir=tmp_path)
    good, half = annotations_in(tmp_path / "out")
    np.testing.assert_allclose(good.groundtruth.boxes, [[0.25, 0.25, 0.5, 0.5]])
    np.testing.assert_allclose(half.groundtruth.boxes, [[0.25, 0.25, 0.5, 0.5]])
    assert half.image.image_size_hw == (24, 32)
    skipped = {Path(name).name: reason for name, reason in report.skipped}
    assert set(skipped) == {"turned.jpg", "cut.png"}
    assert ":2: the boxes are for 64 x 48 pixels, but the image has 48 x 64; its camera" in skipped["turned.jpg"]
    assert ":5: the boxes are for 64 x 48 pixels, but the image has 64 x 24" in skipped["cut.png"]


@pytest.mark.parametrize("file", UNCLEAN.values(), ids=UNCLEAN)
def test_an_example_has_an_image_that_tensorflow_decodes(file: bytes) -> None:
    """`encode_image` may keep what TensorFlow refuses; the image is checked again when the example is made."""
    annotation = Annotation(EncodedImage(file, (48, 64), "png"), Groundtruth.empty(), "id", "a.png")
    try:
        example = example_from_annotation(annotation, LABEL_MAP)
    except ImageError:
        return
    encoded = example.features.feature["image/encoded"].bytes_list.value[0]
    assert tf.io.decode_image(encoded, channels=3).shape[2] == 3
