"""`odkeras export-labels`: which images and objects it writes, where, and what it says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import label_exports
import pytest
from label_exports import BOXES, CAR, EDGE, add, answer, export, fill, picture, rect
from PIL import Image
from typer.testing import CliRunner

from odkeras.cli import app
from odkeras.errors import ConfigError, LabelMapError, OdkerasError, RecordError
from odkeras.images import read_image
from odkeras.labels import LabelMap
from odkeras.splits import is_held_out
from odkeras.web.database import AnswerDatabase
from odkeras.web.label_export import ExportOptions, export_labels
from odkeras.web.label_writers import WRITERS

ROOT = Path(__file__).parents[2]
# tfrecord needs TensorFlow: tests/integration/test_label_records.py; yolo-pose needs keypoints.
FORMATS = [name for name in WRITERS if name not in ("tfrecord", "yolo-pose")]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ODKERAS_DB", raising=False)
    return tmp_path


def refusal(kind: type[OdkerasError], *arguments: str) -> str:
    error = CliRunner().invoke(app, ["export-labels", "pets", "out", *arguments]).exception
    assert isinstance(error, kind), error
    return str(error)


def manifest(folder: Path) -> Any:
    return json.loads((folder / "out" / "odkeras-export.json").read_text("ascii"))


def coco(folder: Path, split: str = "train") -> Any:
    return json.loads((folder / "out" / "annotations" / f"instances_{split}.json").read_text("ascii"))


def files(folder: Path, place: str = "out") -> set[str]:
    return {path.relative_to(folder / place).as_posix() for path in (folder / place).rglob("*") if not path.is_dir()}


# --- what is exported


def test_accepted_images_are_counted_and_others_left_out(folder: Path) -> None:
    fill(folder)
    result = export("--format", "coco")
    assert result.stdout == "out: 5 images, 6 objects, 1 images without objects\n"
    counts = {"car": 4, "person": 1, "traffic light": 1}
    train = {"images": 5, "without_objects": 1, "objects": 6, "objects_by_class": counts}
    assert manifest(folder)["splits"] == {"train": train}
    assert manifest(folder)["labels"] == {"car": 1, "person": 2, "traffic light": 3}
    assert manifest(folder)["left_out"] == []


def test_the_latest_answer_of_all_annotators_counts(folder: Path) -> None:
    path = picture(folder / "a.jpg", 1)
    with AnswerDatabase.open("annotations.db") as database:
        from odkeras.web.stored import StoredAnswer

        for session, spans, at in (("anna", [rect(*CAR)], 2), ("ben", [rect(*EDGE)], 3), ("carl", [], 1)):
            example = answer(path, *spans)
            database.add("pets", [StoredAnswer(example, example["image_id"], session, at)])
    export("--format", "coco")
    assert [each["name"] for each in coco(folder)["categories"]] == ["person"]


@pytest.mark.parametrize("format", FORMATS)
def test_one_bad_answer_costs_itself_alone(folder: Path, format: str) -> None:
    fill(folder)
    outside = rect("car", (100, 100, 120, 120))
    broken = {"label": "car", "points": [["a", 1], [2, 3]]}
    add(
        folder,
        answer(picture(folder / "outside.jpg", 31), outside, at=2000),
        answer(picture(folder / "half.jpg", 32), outside, broken, rect(*CAR), at=2001),
        {**answer(picture(folder / "broken.jpg", 33), at=2002), "spans": "none"},
    )
    result = export("--format", format)
    assert "out: 6 images, 7 objects" in result.stdout
    left_out = [(Path(each["image"]).name, each["reason"]) for each in manifest(folder)["left_out"]]
    assert [name for name, _ in left_out] == ["outside.jpg", "half.jpg", "half.jpg", "broken.jpg"]
    assert left_out[0][1].startswith("accepted, but none of its 1 spans is usable: span 1: 'car' has no area inside")
    assert left_out[2][1].startswith("span 2: coordinates must be finite numbers")
    for name, reason in left_out:
        assert f"{name}: {reason}" in result.stderr


def test_many_left_out_images_are_listed_in_the_manifest(folder: Path) -> None:
    fill(folder)
    for number in range(25):
        add(folder, {**answer(picture(folder / f"{number}.jpg", 40 + number)), "spans": "none"})
    result = export("--format", "coco")
    assert result.stderr.count("skipped ") == 20
    assert "5 more were left out; out/odkeras-export.json lists them" in result.stderr
    assert len(manifest(folder)["left_out"]) == 25


def test_boxes_are_clipped_to_the_image(folder: Path) -> None:
    add(folder, answer(picture(folder / "a.jpg", 1), rect("car", (-5, -5, 70, 20))))
    export("--format", "coco")
    assert coco(folder)["annotations"][0]["bbox"] == [0, 0, 64, 20]


# --- splits


def many(folder: Path, count: int = 40) -> None:
    names = [f"clip{number % 4}_{number:03}.jpg" for number in range(count)]
    add(folder, *(answer(picture(folder / "photos" / name, n), rect(*CAR), at=n) for n, name in enumerate(names)))


def test_val_is_what_eval_split_holds_out(folder: Path) -> None:
    many(folder)
    export("--format", "coco", "--split", "0.7/0.2/0.1", "--copy-images")
    held_out = {path.name for path in (folder / "photos").iterdir() if is_held_out(read_image(path).image_id, 0.2)}
    assert held_out and {path.name for path in (folder / "out" / "images" / "val").iterdir()} == held_out
    assert {each["file_name"] for each in coco(folder, "val")["images"]} == held_out
    counts = {name: split["images"] for name, split in manifest(folder)["splits"].items()}
    assert list(counts) == ["train", "val", "test"] and sum(counts.values()) == 40


def test_frames_of_one_video_stay_together(folder: Path) -> None:
    many(folder)
    result = export("--format", "coco", "--split", "0.5/0.5", "--group-by", "^(clip.)")
    clips = [{each["file_name"][:5] for each in coco(folder, split)["images"]} for split in ("train", "val")]
    assert not clips[0] & clips[1] and clips[0] | clips[1] == {"clip0", "clip1", "clip2", "clip3"}
    assert "4 groups of images" in result.stderr
    assert manifest(folder)["options"]["group_by"] == "^(clip.)"


def test_a_folder_can_be_a_group(folder: Path) -> None:
    for number in range(12):
        path = picture(folder / f"video{number % 3}" / f"{number}.jpg", number)
        add(folder, answer(path, rect(*CAR)))
    export("--format", "coco", "--split", "0.5/0.5", "--group-by", "folder")
    places = [{each["file_name"].split("/")[0] for each in coco(folder, split)["images"]} for split in ("train", "val")]
    assert not places[0] & places[1]


def test_images_without_group_and_empty_splits_are_said(folder: Path) -> None:
    add(folder, answer(picture(folder / "a.jpg", 1)))
    result = export("--format", "coco", "--split", "0.4/0.3/0.3", "--group-by", "^(clip.)")
    assert "1 images are in no group, each is split by itself" in result.stderr
    assert " got no image: with few images or groups, shares are not met" in result.stderr


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ((), ["train", "test"]),
        (("--split", "0/1"), ["train", "val", "test"]),
        (("--split", "0/1", "--group-by", "folder"), ["train", "val", "test"]),
    ],
)
def test_images_keep_the_split_that_they_were_imported_with(
    folder: Path, options: tuple[str, ...], names: list[str]
) -> None:
    """Images that a benchmark keeps for its test came into train."""
    splits = {"a.jpg": "test", "b.jpg": "train", "c.jpg": "nonsense", "d.jpg": None}
    for number, (name, split) in enumerate(splits.items()):
        add(folder, {**answer(picture(folder / name, number), rect(*CAR)), "split": split})
    result = export("--format", "coco", *options)
    assert "2 images keep the split that they were imported with" in result.stderr
    assert list(manifest(folder)["splits"]) == names and manifest(folder)["imported_with_split"] == 2
    found = {each["file_name"]: split for split in names for each in coco(folder, split)["images"]}
    rest = "val" if options else "train"
    assert found == {"a.jpg": "test", "b.jpg": "train", "c.jpg": rest, "d.jpg": rest}


# --- images


def test_by_default_labels_have_the_paths(folder: Path) -> None:
    fill(folder)
    result = export("--format", "coco")
    assert files(folder) == {"odkeras-export.json", "annotations/instances_train.json"}
    assert {each["file_name"] for each in coco(folder)["images"]} == set(BOXES)
    assert manifest(folder)["images"] == {"referred": 5, "turned": 1}
    assert "1 image whose files have an EXIF orientation" in result.stderr


@pytest.mark.parametrize("option", ["--copy-images", "--link-images"])
def test_images_are_copied_or_linked_and_upright(folder: Path, option: str) -> None:
    fill(folder)
    result = export("--format", "coco", option)
    images = folder / "out" / "images" / "train"
    assert {path.name for path in images.iterdir()} == {*BOXES} - {"Ünïcode ☃ & <1>.jpg"} | {"Ünïcode ☃ & _1_.jpg"}
    for path in images.iterdir():
        original = folder / "photos" / path.name.replace("_1_", "<1>")
        if path.name == "turned.jpg":
            with Image.open(path) as image:
                assert image.size == (48, 64) and not image.getexif()
        else:
            assert path.read_bytes() == original.read_bytes()
            assert path.samefile(original) == (option == "--link-images")
    assert "1 image converted to JPEG or PNG" in result.stderr
    by_name = {each["file_name"]: each for each in coco(folder)["images"]}
    assert (by_name["turned.jpg"]["width"], by_name["turned.jpg"]["height"]) == (48, 64)


def test_a_link_to_another_disk_is_symbolic(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    path = picture(folder / "a.jpg", 1)
    add(folder, answer(path))
    export("--format", "coco", "--link-images")
    link = folder / "out" / "images" / "train" / "a.jpg"
    assert link.is_symlink() and link.samefile(path)
    assert manifest(folder)["images"] == {"symbolic_link": 1}
    monkeypatch.setattr(Path, "symlink_to", refuse)
    export("--format", "coco", "--link-images", "--overwrite")
    assert not link.is_symlink() and link.read_bytes() == path.read_bytes()


def test_an_image_that_is_only_in_the_database_is_always_copied(folder: Path) -> None:
    image = read_image(picture(folder / "a.jpg", 1))
    inside = {**answer(folder / "a.jpg"), "image": image.data_uri, "meta": {"file": "pasted.jpg"}}
    del inside["path"]
    add(folder, inside)
    export("--format", "coco")
    assert (folder / "out" / "images" / "train" / "pasted.jpg").read_bytes() == image.data


def test_an_image_of_the_web_comes_from_the_project(folder: Path) -> None:
    (folder / "pipeline.config").touch()
    image = read_image(picture(folder / "a.jpg", 1))
    example = {**answer(folder / "a.jpg"), "image": "https://me:secret@example.com/x/b.jpg?size=1", "path": None}
    add(folder, example)
    export("--format", "coco")
    assert coco(folder)["images"][0]["coco_url"] == "https://example.com/x/b.jpg?size=1"
    message = refusal(RecordError, "--format", "coco", "--copy-images", "--overwrite")
    assert "https://example.com/x/b.jpg?size=1: the image is a URL, which is not fetched" in message
    store = folder / "data" / "images"
    store.mkdir(parents=True)
    shutil.move(folder / "a.jpg", store / f"{image.image_id}.jpeg")
    export("--format", "coco", "--copy-images", "--overwrite")
    assert (folder / "out" / "images" / "train" / "b.jpg").read_bytes() == image.data


def test_the_project_keeps_an_image_whose_file_was_replaced(folder: Path) -> None:
    (folder / "pipeline.config").touch()
    path = picture(folder / "a.jpg", 1)
    original = read_image(path)
    add(folder, answer(path, rect(*CAR)))
    store = folder / "data" / "images"
    store.mkdir(parents=True)
    (store / f"{original.image_id}.jpeg").write_bytes(original.data)
    picture(path, 2)
    result = export("--format", "coco", "--copy-images")
    assert (folder / "out" / "images" / "train" / "a.jpg").read_bytes() == original.data
    assert "converted" not in result.stderr


def test_images_that_are_gone_or_were_replaced(folder: Path) -> None:
    fill(folder)
    (folder / "photos" / "one.jpg").unlink()
    (folder / "photos" / "none.png").write_bytes(b"no image")
    Image.new("RGB", (20, 30)).save(folder / "photos" / "three.jpg")
    result = export("--format", "coco")
    assert "5 images, 6 objects" in result.stdout and "1 image whose files are missing" in result.stderr
    result = export("--format", "coco", "--copy-images", "--overwrite")
    assert "2 images, 2 objects" in result.stdout
    reasons = {Path(each["image"]).name: each["reason"] for each in manifest(folder)["left_out"]}
    assert reasons["one.jpg"] == "cannot be read: No such file or directory"
    assert reasons["none.png"].startswith("not an image of a known format")
    assert reasons["three.jpg"] == "the file holds another picture than the one that was annotated"


def test_a_file_that_holds_another_picture_is_not_exported_with_the_old_boxes(folder: Path) -> None:
    path = picture(folder / "a.jpg", 1)
    add(folder, answer(path, rect(*CAR)), answer(picture(folder / "b.jpg", 3), rect(*CAR)))
    picture(path, 2)
    result = export("--format", "coco", "--copy-images")
    assert "out: 1 images, 1 objects" in result.stdout
    assert "a.jpg: the file holds another picture than the one that was annotated" in result.stderr


def test_of_two_answers_about_one_file_the_later_one_is_about_what_is_there(folder: Path) -> None:
    path = picture(folder / "a.jpg", 1)
    first = answer(path, rect(*CAR), at=1)
    add(folder, first, answer(picture(path, 2), rect(*EDGE), at=2))
    export("--format", "coco")
    assert [each["name"] for each in coco(folder)["categories"]] == ["car", "person"]
    assert [each["category_id"] for each in coco(folder)["annotations"]] == [2]
    assert manifest(folder)["left_out"][0]["reason"].startswith("a later answer is about the same file")


def test_answers_for_a_smaller_copy_are_scaled(folder: Path) -> None:
    """As Prodigy and other tools may have them."""
    path = picture(folder / "a.jpg", 1)
    small = {**answer(path, rect("car", (2, 3, 10, 12))), "width": 32, "height": 24, "image_id": "of another tool"}
    add(folder, small)
    export("--format", "coco", "--copy-images")
    assert coco(folder)["annotations"][0]["bbox"] == [4, 6, 16, 18]
    turned = {**small, "width": 24, "height": 32, "_timestamp": 3000}
    add(folder, turned)
    message = refusal(RecordError, "--format", "coco", "--copy-images", "--overwrite")
    assert message.endswith("its boxes are for 24 x 32 pixels, but the image has 64 x 48")


def test_names_are_unique_and_valid_on_every_system(folder: Path) -> None:
    names = ["a/img.jpg", "b/img.jpg", "c/IMG.png", "d/con.jpg", "e/ a?b:c.jpg", "f/x.y.jpg", f"g/{'ü' * 100}.jpg"]
    for number, name in enumerate(names):
        add(folder, answer(picture(folder / name, number), at=number))
    export("--format", "yolo", "--copy-images")
    images = {path.name for path in (folder / "out" / "images" / "train").iterdir()}
    labels = {path.name for path in (folder / "out" / "labels" / "train").iterdir()}
    ids = [read_image(folder / name).image_id[:8] for name in names]
    expected = {"img.jpg", f"img-{ids[1]}.jpg", f"IMG-{ids[2]}.png", "_con.jpg", "a_b_c.jpg", "x.y.jpg"}
    assert images == {*expected, f"{'ü' * 60}.jpg"}
    assert labels == {f"{Path(name).stem}.txt" for name in images}


def test_a_format_that_needs_the_images_links_them(folder: Path) -> None:
    fill(folder)
    export("--format", "yolo")
    assert (folder / "out" / "images" / "train" / "one.jpg").samefile(folder / "photos" / "one.jpg")


# --- labels


def test_the_label_map_of_annotate_gives_names_and_ids(folder: Path) -> None:
    fill(folder)
    LabelMap.from_names(["person", "car", "traffic light", "bus"]).save(folder / "label_map.pbtxt")
    result = export("--format", "coco")
    assert "class ids: label_map.pbtxt, which is beside the database" in result.stderr
    names = {each["name"]: each["id"] for each in coco(folder)["categories"]}
    assert names == {"person": 1, "car": 2, "traffic light": 3, "bus": 4}


def test_a_label_that_the_named_label_map_lacks_is_refused_or_left_out(folder: Path) -> None:
    fill(folder)
    LabelMap.from_names(["car", "traffic light"]).save(folder / "map.pbtxt")
    message = refusal(LabelMapError, "--format", "coco", "--label-map", "map.pbtxt")
    assert message.startswith("map.pbtxt lacks labels of the dataset: 'person' (1 objects, first in ")
    assert message.endswith("or leave these objects out with --skip-other-labels")
    assert not (folder / "out").exists()
    result = export("--format", "coco", "--label-map", "map.pbtxt", "--skip-other-labels")
    assert "5 images, 5 objects" in result.stdout
    assert "three.jpg: span 1: label 'person' is not in the label map" in result.stderr


def test_a_dataset_without_any_object_can_be_exported(folder: Path) -> None:
    for format in ("coco", "yolo"):
        add(folder, answer(picture(folder / "a.jpg", 1)))
        export("--format", format, "--overwrite")
    assert "names: {}" in (folder / "out" / "data.yaml").read_text()


# --- the folder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "pascal"], "--format must be one of coco, "),
        (["--format", "coco", "--copy-images", "--link-images"], "--copy-images and --link-images: give one of them"),
        (["--format", "coco", "--skip-other-labels"], "--skip-other-labels works with --label-map only"),
        (["--format", "coco", "--split", "0.5"], "--split must sum to 1"),
        (["--format", "coco", "--group-by", "("], "--group-by must be 'folder' or a regular expression"),
    ],
)
def test_options_that_cannot_work_are_refused(folder: Path, arguments: list[str], message: str) -> None:
    fill(folder)
    assert message in refusal(ConfigError, *arguments)
    assert not (folder / "out").exists()


def test_an_unknown_dataset_is_refused(folder: Path) -> None:
    fill(folder)
    result = CliRunner().invoke(app, ["export-labels", "dogs", "out", "--format", "coco"])
    assert str(result.exception).endswith("has no dataset 'dogs' (known: 'pets')")


def test_a_dataset_without_accepted_images_is_refused(folder: Path) -> None:
    add(folder, answer(picture(folder / "a.jpg", 1), decision="reject"))
    assert "no accepted image" in refusal(RecordError, "--format", "coco")
    assert not (folder / "out").exists()


def test_other_files_are_never_replaced(folder: Path) -> None:
    fill(folder)
    (folder / "out").mkdir()
    (folder / "out" / "thesis.txt").touch()
    assert "has other files" in refusal(ConfigError, "--format", "coco", "--overwrite")
    assert files(folder) == {"thesis.txt"}


def test_the_images_of_the_dataset_are_never_replaced(folder: Path) -> None:
    fill(folder)
    export("--format", "coco", "--copy-images")
    path = folder / "out" / "images" / "train" / "one.jpg"
    add(folder, answer(path, rect(*EDGE), at=3000))
    assert "out has images of the dataset, for example" in refusal(ConfigError, "--format", "coco", "--overwrite")
    assert path.is_file()


@pytest.mark.parametrize("format", FORMATS)
def test_a_full_disk_leaves_nothing(folder: Path, format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(folder)
    before = sorted(folder.iterdir())

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(WRITERS[format](), "write", fail)
    message = refusal(RecordError, "--format", format)
    assert message == f"cannot write {folder / 'out'}: No space left on device; nothing was written"
    assert sorted(folder.iterdir()) == before


def test_ctrl_c_leaves_nothing(folder: Path) -> None:
    fill(folder)
    before = sorted(folder.iterdir())
    program = (
        "import os, signal, sys\n"
        "from odkeras.cli import main\n"
        "from odkeras.formats.writers.coco import CocoWriter\n"
        "CocoWriter.write = lambda self, image: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.argv[1:] = ['export-labels', 'pets', 'out', '--format', 'coco']\n"
        "main()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (result.returncode, result.stdout) == (130, "") and "Traceback" not in result.stderr
    assert sorted(folder.iterdir()) == before


def test_answers_that_come_meanwhile_change_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The classes were numbered without the label of an answer that came between the two passes."""
    fill(folder)
    late = answer(picture(folder / "late.jpg", 50), rect("zebra", CAR[1]), at=5000)
    survey = label_exports.AnswerDatabase.iter_latest
    calls = []

    def iter_latest(self: Any, *arguments: Any, **options: Any) -> Any:
        yield from survey(self, *arguments, **options)
        if not calls:
            calls.append(add(folder, late))

    monkeypatch.setattr(AnswerDatabase, "iter_latest", iter_latest)
    export("--format", "coco")
    assert len(coco(folder)["images"]) == 5 and manifest(folder)["left_out"] == []


def test_progress_counts_the_images_of_both_passes(folder: Path) -> None:
    fill(folder)
    calls: list[Any] = []
    with AnswerDatabase.open("annotations.db") as database:
        options = ExportOptions("coco")
        export_labels(database, "pets", folder / "out", options, progress=lambda *values: calls.append(values))
    reading = [(number, None, "reading the labels") for number in range(1, 6)]
    assert calls == [*reading, *((number, 5, "writing coco") for number in range(1, 6))]


def test_the_examples_of_the_help_are_there() -> None:
    result = CliRunner().invoke(app, ["export-labels", "--help"])
    assert "odkeras export-labels pets pets-yolo --format yolo --split 0.8/0.2" in " ".join(result.stdout.split())
