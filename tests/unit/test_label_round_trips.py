"""Labels that `odkeras export-labels` wrote, read again by our own readers: what a format can hold comes back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePath

import pytest
from label_exports import BOXES, CAR, EDGE, TRIANGLE, TRIANGLE_BOX, add, answer, export, fill, picture, rect
from typer.testing import CliRunner

from odkeras.annotation import Span
from odkeras.cli import app
from odkeras.formats.label_files import SPLIT, ReadNotes
from odkeras.formats.label_formats import class_names, find_label_files, read_label_files
from odkeras.formats.prodigy import read_task
from odkeras.labels import LabelMap
from odkeras.splits import Splits
from odkeras.web.database import AnswerDatabase
from odkeras.web.label_writers import WRITERS

# tfrecord needs TensorFlow: tests/integration/test_label_records.py; yolo-pose needs keypoints.
FORMATS = [name for name in WRITERS if name not in ("tfrecord", "yolo-pose")]
WHOLE_PIXELS = {"voc"}
BOXES_ONLY = {"voc", "csv"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ODKERAS_DB", raising=False)
    return tmp_path


@dataclass
class Read:
    """An image that was read: its spans in pixels, and its split."""

    spans: list[Span]
    split: str | None


def read(folder: Path, format: str) -> dict[str, Read]:
    """The images by their stem; the format is recognised."""
    files = find_label_files([folder / "out"])
    assert {file.format for file in files} == {format}
    notes = ReadNotes()
    images = {}
    for file, _, labelled in read_label_files(files, notes):
        task = labelled.task
        assert task.path is not None
        stem = PurePath(task.path).stem if PurePath(task.path).suffix in (".jpg", ".png") else PurePath(task.path).name
        height, width = (64, 48) if stem == "turned" else (48, 64)
        scale = (width, height) if task.image_size_hw == (1, 1) else (1, 1)
        assert task.image_size_hw in ((1, 1), (height, width), None)
        spans = [
            Span(span.label, tuple((x * scale[0], y * scale[1]) for x, y in span.points_xy_px)) for span in task.spans
        ]
        images[stem] = Read(spans, task.other.get(SPLIT) or file.split)  # type: ignore[arg-type]
    assert (notes.refused, notes.repaired, notes.left_out) == ([], {}, {})
    return images


def stem_in(format: str, name: str) -> str:
    stem = PurePath(name.replace("<", "_").replace(">", "_")).stem
    return stem.replace(" ", "_") if format == "voc" else stem


@pytest.mark.parametrize("format", FORMATS)
def test_boxes_come_back(folder: Path, format: str) -> None:
    fill(folder)
    export("--format", format, "--copy-images")
    images = read(folder, format)
    assert set(images) == {stem_in(format, name) for name in BOXES}
    for name, boxes in BOXES.items():
        spans = images[stem_in(format, name)].spans
        assert [span.label for span in spans] == [label for label, _ in boxes]
        for span, (_, box) in zip(spans, boxes, strict=True):
            assert span.xyxy_px == pytest.approx(box, abs=0.51 if format in WHOLE_PIXELS else 0.01)
            assert not span.is_polygon


@pytest.mark.parametrize("format", FORMATS)
def test_polygons_come_back_or_their_boxes(folder: Path, format: str) -> None:
    fill(folder, polygons=True)
    add(folder, answer(picture(folder / "both.jpg", 30), rect(*CAR), {**rect(*EDGE), "points": TRIANGLE}, at=2000))
    export("--format", format, "--copy-images")
    images = read(folder, format)
    spans = [*images["triangle"].spans, *images["both"].spans]
    assert [span.label for span in spans] == ["car", "car", "person"]
    for span, is_triangle in zip(spans, (True, False, True), strict=True):
        assert span.is_polygon == (is_triangle and format not in BOXES_ONLY)
        box = TRIANGLE_BOX[1] if is_triangle else CAR[1]
        assert span.xyxy_px == pytest.approx(box, abs=0.51 if format in WHOLE_PIXELS else 0.01)
        if span.is_polygon:
            assert span.points_xy_px == tuple(pytest.approx(point, abs=0.01) for point in TRIANGLE)


@pytest.mark.parametrize("format", FORMATS)
def test_splits_come_back(folder: Path, format: str) -> None:
    answers = [answer(picture(folder / f"{number}.jpg", number), rect(*CAR)) for number in range(20)]
    add(folder, *answers)
    export("--format", format, "--split", "0.5/0.3/0.2", "--copy-images")
    splits = Splits.parse("0.5/0.3/0.2")
    expected = {str(number): splits.of(each["image_id"]) for number, each in enumerate(answers)}
    assert {stem: image.split for stem, image in read(folder, format).items()} == expected


@pytest.mark.parametrize("format", ["coco", "yolo", "cvat"])
def test_classes_come_back_in_their_order(folder: Path, format: str) -> None:
    fill(folder)
    names = ["person", "zebra", "traffic light", "car"]
    LabelMap.from_names(names).save(folder / "map.pbtxt")
    export("--format", format, "--label-map", "map.pbtxt", "--copy-images")
    assert class_names(find_label_files([folder / "out"])) == names


@pytest.mark.parametrize("format", [name for name in FORMATS if name != "yolo"])
def test_labels_with_paths_come_back(folder: Path, format: str) -> None:
    fill(folder)
    export("--format", format)
    images = read(folder, format)
    stems = {PurePath(name).stem for name in BOXES}
    assert set(images) == stems


def stored(folder: Path, dataset: str) -> dict[str, tuple[list[str], list[tuple[float, ...]]]]:
    """The labels and boxes of each accepted image in the database, by the image's id."""
    with AnswerDatabase.open(folder / "annotations.db") as database:
        tasks = [read_task(example, id) for id, example in database.iter_latest(dataset, decision="accept")]
    return {
        task.image_id: ([span.label for span in task.spans], [span.xyxy_px for span in task.spans]) for task in tasks
    }


@pytest.mark.parametrize("format", FORMATS)
def test_exported_labels_can_be_imported(folder: Path, format: str) -> None:
    """The same images, also those that were converted for the export: an import recognises what was answered."""
    fill(folder)
    export("--format", format, "--copy-images", "--split", "0.6/0.4")
    result = CliRunner().invoke(app, ["import", "again", "out"])
    assert result.exit_code == 0, (result.output, result.exception)
    before, after = stored(folder, "pets"), stored(folder, "again")
    assert set(before) == set(after) and len(after) == len(BOXES)
    for image_id, (labels, boxes) in before.items():
        assert after[image_id][0] == labels
        within_px = 0.51 if format in WHOLE_PIXELS else 0.011
        assert after[image_id][1] == [pytest.approx(box, abs=within_px) for box in boxes]


@pytest.mark.parametrize(
    ("format", "held"),
    [
        ("coco", {"iscrowd"}),
        ("voc", {"difficult", "truncated", "occluded"}),
        ("cvat", {"occluded"}),
        ("jsonl", {"iscrowd", "difficult", "truncated", "occluded"}),
        ("yolo", set()),
        ("csv", set()),
        ("labelstudio", set()),
    ],
)
def test_marks_come_back_or_are_said_to_be_lost(folder: Path, format: str, held: set[str]) -> None:
    """A box of a crowd was exported as one object, and nothing said so."""
    marks = ("iscrowd", "difficult", "truncated", "occluded")
    path = picture(folder / "a.jpg", 1)
    add(folder, answer(path, *({**rect(*CAR), mark: 1} for mark in marks), {**rect(*EDGE), "iscrowd": 0}))
    result = export("--format", format, "--copy-images")
    assert (f"lost in {format}: {4 - len(held)} objects are written without a mark" in result.stderr) == (len(held) < 4)
    (labelled,) = [each for _, _, each in read_label_files(find_label_files([folder / "out"]), ReadNotes())]
    found = [{mark for mark in marks if span.other.get(mark)} for span in labelled.task.spans]
    assert found == [*({mark} & held for mark in marks), set()]
