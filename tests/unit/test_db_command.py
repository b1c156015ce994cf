"""`odkeras db`: answers out of the database, into it, and in numbers."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from pictures import draw_pixels, encode
from typer.testing import CliRunner

from odkeras.annotation import Decision, EditCounts
from odkeras.cli import app
from odkeras.errors import ConfigError, DatabaseError, OdkerasError, RecordError
from odkeras.images import read_image
from odkeras.web.database import AnswerDatabase
from odkeras.web.dataset_labels import keep_label_map
from odkeras.web.deliveries import Deliveries
from odkeras.web.gallery_rows import TaskFacts
from odkeras.web.imports import SESSION, import_answers
from odkeras.web.stats import DatasetStats
from odkeras.web.stored import StoredAnswer
from tests import poison

ROOT = Path(__file__).parents[2]
A, B, C = (f"{letter * 32}" for letter in "abc")
SIZE_HW = (48, 64)


def rect(x: float, y: float, width: float, height: float, label: Any = "car") -> dict[str, Any]:
    points = [[x, y], [x, y + height], [x + width, y + height], [x + width, y]]
    return {"label": label, "type": "rect", "x": x, "y": y, "width": width, "height": height, "points": points}


def polygon(*points: list[float], label: str = "car") -> dict[str, Any]:
    return {"label": label, "type": "polygon", "points": list(points)}


def example_of(image_id: str, *spans: Any, answer: str = "accept", at: int = 1000, session: str = "anna") -> Any:
    place = f"/images/{image_id[0]}.jpg"
    return {"image": place, "path": place, "width": 64, "height": 48, "image_id": image_id,
            "meta": {"file": f"{image_id[0]}.jpg"}, "spans": list(spans), "answer": answer,
            "_timestamp": at, "_session_id": f"shapes-{session}"}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ODKERAS_DB", raising=False)
    return tmp_path


@pytest.fixture
def database(folder: Path) -> Iterator[AnswerDatabase]:
    with AnswerDatabase.open(folder / "annotations.db") as opened:
        yield opened


def add(database: AnswerDatabase, *examples: Any, dataset: str = "shapes", **more: Any) -> None:
    database.add(
        dataset,
        [
            StoredAnswer(each, each["image_id"], each["_session_id"].split("-")[1], each["_timestamp"] + 0.5, **more)
            for each in examples
        ],
    )


def invoke(*arguments: str, **options: Any) -> Result:
    return CliRunner().invoke(app, ["db", *arguments], **options)


def run(*arguments: str, **options: Any) -> Result:
    result = invoke(*arguments, **options)
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def refusal(kind: type[OdkerasError], *arguments: str) -> str:
    error = invoke(*arguments).exception
    assert isinstance(error, kind), error
    return str(error)


def rows(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


# --- out: JSONL


def test_out_writes_a_line_per_answer(database: AnswerDatabase, folder: Path) -> None:
    examples = [example_of(A, rect(1, 2, 3, 4)), example_of(B, answer="reject", at=1001)]
    add(database, *examples)
    result = run("out", "shapes")
    assert rows(result.stdout) == examples
    assert result.stderr == "standard output: 2 answers\n"
    result = run("out", "shapes", "new/answers.jsonl")
    assert rows((folder / "new" / "answers.jsonl").read_text("ascii")) == examples
    assert (result.stdout, result.stderr) == ("", "new/answers.jsonl: 2 answers\n")
    assert [path.name for path in (folder / "new").iterdir()] == ["answers.jsonl"]


def test_out_filters_by_decision_and_includes_replaced_answers(database: AnswerDatabase) -> None:
    add(database, example_of(A, at=1), example_of(A, at=2, answer="reject"), example_of(B, at=3))
    answers = {
        (): ["reject", "accept"],
        ("--all",): ["accept", "reject", "accept"],
        ("--answer", "accept"): ["accept"],
        ("--answer", "accept", "--all"): ["accept", "accept"],
        ("--answer", "ignore"): [],
    }
    for arguments, expected in answers.items():
        assert [each["answer"] for each in rows(run("out", "shapes", *arguments).stdout)] == expected


def test_out_embeds_images_that_still_exist(database: AnswerDatabase, folder: Path) -> None:
    (folder / "a.jpg").write_bytes(encode(draw_pixels(), "JPEG"))
    (folder / "other.jpg").write_bytes(encode(draw_pixels(seed=1), "JPEG"))
    image = read_image(folder / "a.jpg")
    there = {**example_of(A), "image": "a.jpg", "path": "a.jpg", "image_id": image.image_id}
    changed = {**example_of(B), "image": "other.jpg", "path": "other.jpg"}
    inside = {**example_of(C), "image": image.data_uri}
    add(database, there, changed, inside)
    assert [each["image"] for each in rows(run("out", "shapes").stdout)] == ["a.jpg", "other.jpg", image.data_uri]
    result = run("out", "shapes", "--images")
    assert rows(result.stdout) == [{**there, "image": image.data_uri}, changed, inside]
    assert result.stderr.endswith("3 answers, 1 of them without an image, because its file is missing\n")


def test_an_unknown_dataset_or_database_is_an_error(database: AnswerDatabase) -> None:
    add(database, example_of(A))
    add(database, example_of(A), dataset="cars")
    for command in (("out", "shape"), ("stats", "shape")):
        assert refusal(ConfigError, *command).endswith("has no dataset 'shape' (known: 'cars', 'shapes')")
    assert "no such database" in refusal(DatabaseError, "out", "shapes", "--db", "b.db")


def test_the_database_is_found_by_option_environment_or_place(database: AnswerDatabase, folder: Path) -> None:
    with AnswerDatabase.open(folder / "other.db") as other:
        add(other, example_of(B))
    add(database, example_of(A))
    environment = {"ODKERAS_DB": "other.db"}
    assert rows(run("out", "shapes").stdout)[0]["image_id"] == A
    assert rows(run("out", "shapes", env=environment).stdout)[0]["image_id"] == B
    assert rows(run("out", "shapes", "--db", "annotations.db", env=environment).stdout)[0]["image_id"] == A


def test_a_project_on_the_command_line_beats_the_environment(database: AnswerDatabase, folder: Path) -> None:
    """ODKERAS_DB won silently: the answers of another project were shown, or added to."""
    (folder / "cars").mkdir()
    (folder / "cars" / "pipeline.config").touch()
    with AnswerDatabase.open(folder / "cars" / "annotations.db") as other:
        add(other, example_of(B))
    add(database, example_of(A))
    environment = {"ODKERAS_DB": "annotations.db"}
    assert rows(run("out", "shapes", "--project", "cars", env=environment).stdout)[0]["image_id"] == B
    both = ("--project", "cars", "--db", "annotations.db")
    assert refusal(ConfigError, "out", "shapes", *both).endswith("give one of them")


def test_the_project_file_names_the_database(database: AnswerDatabase, folder: Path) -> None:
    (folder / "cars").mkdir()
    (folder / "cars" / "pipeline.config").touch()
    (folder / "cars" / "odkeras.toml").write_text('db = "../annotations.db"')
    add(database, example_of(A))
    assert rows(run("out", "shapes", "--project", "cars").stdout)[0]["image_id"] == A


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "yolo"], "--format must be one of jsonl, coco, tfrecord; got 'yolo'"),
        (["--answer", "yes"], "--answer must be one of accept, reject, ignore; got 'yes'"),
        (["--format", "tfrecord"], "needs a file"),
        (["x.record", "--format", "tfrecord"], "needs --label-map"),
        (["--format", "coco", "--all", "--images"], "leave out --all, --images"),
        (["--format", "coco", "--answer", "reject"], "leave out --answer"),
        (["--masks"], "--masks works with --format tfrecord"),
    ],
)
def test_conflicting_options_are_refused(database: AnswerDatabase, arguments: list[str], message: str) -> None:
    add(database, example_of(A))
    assert message in refusal(ConfigError, "out", "shapes", *arguments)


def test_an_unwritable_output_file_is_an_error(database: AnswerDatabase, folder: Path) -> None:
    add(database, example_of(A))
    (folder / "file").touch()
    assert "cannot write file/a.jsonl" in refusal(RecordError, "out", "shapes", "file/a.jsonl")


def test_a_failed_export_keeps_the_old_file(
    database: AnswerDatabase, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(database, example_of(A))
    (folder / "a.jsonl").write_text("old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("odkeras.project.sync_to_disk", fail)
    message = refusal(RecordError, "out", "shapes", "a.jsonl")
    assert message == "cannot write a.jsonl: No space left on device"
    assert (folder / "a.jsonl").read_text() == "old"
    assert not list(folder.glob(".tmp-*"))


def test_a_device_is_written_to_and_not_replaced(database: AnswerDatabase) -> None:
    """An atomic rename would have put a file in the place of /dev/null."""
    add(database, example_of(A))
    run("out", "shapes", os.devnull)
    assert not Path(os.devnull).is_file()


def test_a_reader_that_closes_the_pipe_is_no_error(database: AnswerDatabase, folder: Path) -> None:
    """As `odkeras db out shapes | head -1` does."""
    add(database, *(example_of(f"{number:032x}", rect(1, 2, 3, 4)) for number in range(500)))
    command = [sys.executable, "-m", "odkeras", "db", "out", "shapes"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    readers = [
        subprocess.Popen([*command, "--format", format], cwd=folder, stdout=-1, stderr=-1, env=environment)
        for format in ("jsonl", "coco")
    ]
    for process in readers:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read(10).startswith(b"{")
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 0


# --- out: COCO


def coco(folder: Path, *arguments: str) -> Any:
    pytest.importorskip("pycocotools")
    from pycocotools.coco import COCO

    run("out", "shapes", "answers.json", "--format", "coco", *arguments)
    return COCO(str(folder / "answers.json"))


def test_coco_has_the_accepted_images_and_their_boxes(database: AnswerDatabase, folder: Path) -> None:
    add(
        database,
        example_of(A, rect(8, 6, 32, 24, "dog"), rect(-10, 30, 30.25, 40, "car")),  # one reaches over two edges
        example_of(B, at=1001),
        example_of(C, rect(0, 0, 9, 9), answer="reject", at=1002),
    )
    loaded = coco(folder)
    assert [loaded.imgs[id] for id in (1, 2)] == [
        {"id": 1, "file_name": "a.jpg", "width": 64, "height": 48},
        {"id": 2, "file_name": "b.jpg", "width": 64, "height": 48},
    ]
    assert [(id, each["name"]) for id, each in loaded.cats.items()] == [(1, "car"), (2, "dog")]
    assert loaded.loadAnns(loaded.getAnnIds(imgIds=[1])) == [
        {"id": 1, "image_id": 1, "category_id": 2, "bbox": [8.0, 6.0, 32.0, 24.0], "area": 768.0, "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 1, "bbox": [0.0, 30.0, 20.25, 18.0], "area": 364.5, "iscrowd": 0},
    ]
    assert loaded.getAnnIds(imgIds=[2]) == []


def test_coco_polygons_keep_their_area_and_bounds(database: AnswerDatabase, folder: Path) -> None:
    add(database, example_of(A, polygon([10, 10], [40, 10], [40, 30]), polygon([50, 40], [70, 40], [70, 44], [50, 44])))
    loaded = coco(folder)
    triangle, cut = loaded.loadAnns([1, 2])
    assert triangle["segmentation"] == [[10.0, 10.0, 40.0, 10.0, 40.0, 30.0]]
    assert (triangle["bbox"], triangle["area"]) == ([10.0, 10.0, 30.0, 20.0], 300.0)
    assert loaded.annToMask(triangle).shape == SIZE_HW
    assert abs(int(loaded.annToMask(triangle).sum()) - 300) <= 30
    assert cut["bbox"] == [50.0, 40.0, 14.0, 4.0]  # an upright rectangle, whatever its type says
    assert "segmentation" not in cut


def test_the_label_map_gives_the_categories(database: AnswerDatabase, folder: Path) -> None:
    (folder / "map.pbtxt").write_text(
        "item { id: 7 name: 'n01' display_name: 'dog' } item { id: 3 name: 'car' } item { id: 9 name: 'cat' }"
    )
    add(database, example_of(A, rect(1, 2, 3, 4, "dog"), rect(1, 2, 3, 4, "car"), rect(1, 2, 3, 4, "bird")))
    result = run("out", "shapes", "x.json", "--format", "coco", "--label-map", "map.pbtxt")
    assert "skipped /images/a.jpg: span 3: label 'bird' is not in the label map" in result.stderr
    assert result.stderr.endswith("x.json: 1 images, 2 boxes, 0 without boxes\n")
    loaded = coco(folder, "-lmp", "map.pbtxt")
    assert {id: each["name"] for id, each in loaded.cats.items()} == {7: "n01", 3: "car", 9: "cat"}
    assert [each["category_id"] for each in loaded.anns.values()] == [7, 3]


def test_coco_has_the_last_answer_about_an_image_of_any_session(database: AnswerDatabase, folder: Path) -> None:
    add(
        database,
        example_of(A, rect(1, 1, 5, 5), at=1),
        example_of(A, rect(2, 2, 5, 5), at=2, session="ben"),
        example_of(B, at=3),
        example_of(B, at=4, session="ben", answer="ignore"),
    )
    loaded = coco(folder)
    assert [image["file_name"] for image in loaded.imgs.values()] == ["a.jpg"]
    assert [each["bbox"] for each in loaded.anns.values()] == [[2.0, 2.0, 5.0, 5.0]]


def test_coco_reports_and_skips_unusable_spans(database: AnswerDatabase) -> None:
    bad = [rect(70, 6, 9, 9), rect(1, 1, 0, 9), rect(1, 1, 3, 3, None), "text", polygon([1, 1], ["a", 2], [3, 4])]
    add(database, example_of(A, *bad, rect(1, 2, 3, 4)), example_of(B, *bad, at=1001))
    add(database, {**example_of(C, at=1002), "spans": "no"})
    result = run("out", "shapes", "--format", "coco")
    document = json.loads(result.stdout)
    assert [image["file_name"] for image in document["images"]] == ["a.jpg"]
    assert [each["bbox"] for each in document["annotations"]] == [[1.0, 2.0, 3.0, 4.0]]
    lines = result.stderr.splitlines()
    assert lines[0] == "skipped /images/a.jpg: span 1: no area inside the image"
    assert lines[4] == "skipped /images/a.jpg: span 5: coordinates must be finite numbers; got 'a'"
    assert lines[5].startswith("skipped /images/b.jpg: accepted, but none of its 5 spans is usable: span 1:")
    assert lines[6] == "skipped /images/c.jpg: 'spans' must be a list; got str"
    assert lines[-1] == "standard output: 1 images, 1 boxes, 0 without boxes"


def test_coco_reads_image_sizes_that_are_not_stored(database: AnswerDatabase, folder: Path) -> None:
    (folder / "a.jpg").write_bytes(encode(draw_pixels(), "JPEG"))

    def without_size(image_id: str, image: str, at: int) -> Any:
        example = {**example_of(image_id, at=at), "image": image}
        return {key: value for key, value in example.items() if key not in ("width", "height", "path")}

    uri = read_image(folder / "a.jpg").data_uri
    places = ["a.jpg", uri, "gone.jpg", "http://a.org/b.jpg"]
    add(database, *(without_size(f"{number:032x}", place, at=number) for number, place in enumerate(places)))
    result = run("out", "shapes", "--format", "coco")
    sizes = [(image["file_name"], image["width"], image["height"]) for image in json.loads(result.stdout)["images"]]
    assert sizes == [("a.jpg", 64, 48), ("0.jpg", 64, 48)]
    assert "skipped gone.jpg: " in result.stderr
    assert "skipped http://a.org/b.jpg: its width and height are not known" in result.stderr


OTHER_ORDER = "item { id: 1 name: 'dog' } item { id: 2 name: 'car' } item { id: 3 name: 'cat' }"


def categories(result: Result) -> dict[str, int]:
    return {each["name"]: each["id"] for each in json.loads(result.stdout)["categories"]}


def test_coco_has_the_ids_of_the_label_map_that_annotate_used(database: AnswerDatabase, folder: Path) -> None:
    """They were numbered alphabetically, so that a model trained on them disagreed with the project's own."""
    add(database, example_of(A, rect(1, 2, 3, 4, "car")))
    (folder / "map.pbtxt").write_text(OTHER_ORDER)
    keep_label_map(database, "shapes", folder / "map.pbtxt")
    (folder / "map.pbtxt").unlink()  # what was used counts
    (folder / "label_map.pbtxt").write_text("item { id: 5 name: 'car' }")
    result = run("out", "shapes", "--format", "coco")
    assert categories(result) == {"dog": 1, "car": 2, "cat": 3}
    assert [each["category_id"] for each in json.loads(result.stdout)["annotations"]] == [2]
    assert f"category ids: {folder}/map.pbtxt, which `annotate` used last\n" in result.stderr
    assert f"Category ids: {folder}/map.pbtxt" in json.loads(result.stdout)["info"]["description"]
    result = run("out", "shapes", "--format", "coco", "--label-map", "label_map.pbtxt")
    assert categories(result) == {"car": 5}
    assert "category ids: label_map.pbtxt\n" in result.stderr


def test_coco_falls_back_to_the_project_s_label_map_then_to_numbering(database: AnswerDatabase, folder: Path) -> None:
    """The project's, which is beside the database; else the labels are numbered, which is said with the way out."""
    add(database, example_of(A, rect(1, 2, 3, 4, "dog"), rect(1, 2, 3, 4, "car")))
    result = run("out", "shapes", "--format", "coco")
    assert categories(result) == {"car": 1, "dog": 2}
    assert (
        "no label map is known for this dataset, so the labels are numbered alphabetically; give --l" in result.stderr
    )
    (folder / "label_map.pbtxt").write_text(OTHER_ORDER)
    result = run("out", "shapes", "--format", "coco")
    assert categories(result) == {"dog": 1, "car": 2, "cat": 3}
    assert "category ids: label_map.pbtxt, which is beside the database" in result.stderr


def test_a_database_of_an_older_version_is_migrated(database: AnswerDatabase, folder: Path) -> None:
    add(database, example_of(A, rect(1, 2, 3, 4)))
    database.close()
    with sqlite3.connect(folder / "annotations.db") as old:
        old.executescript("DROP TABLE label_maps; PRAGMA user_version = 1;")
    old.close()
    assert "numbered alphabetically" in run("out", "shapes", "--format", "coco").stderr
    with AnswerDatabase.open(folder / "annotations.db") as again:
        assert len(again.examples("shapes")) == 1
        again.keep_label_map("shapes", folder / "map.pbtxt", OTHER_ORDER)
        assert again.label_map("shapes") == (folder / "map.pbtxt", OTHER_ORDER)


def placed(image_id: str, **where: str) -> Any:
    example = {key: value for key, value in example_of(image_id).items() if key not in ("image", "path", "meta")}
    return {**example, **where, "_timestamp": int(image_id[0], 16)}


def test_coco_file_names_are_relative_and_unique(database: AnswerDatabase, folder: Path) -> None:
    """Readers join them to a folder of images; absolute ones were of no use on another machine."""
    uri = "data:image/png;base64,AAAA"
    add(
        database,
        placed("a" * 32, path=str(folder / "photos" / "x" / "1.jpg")),
        placed("b" * 32, path="photos/y/../y/1.jpg"),  # relative to the working directory
        placed("c" * 32, image=f"file://{folder}/photos/2.jpg"),
        placed("d" * 32, path=str(folder / "photos" / "2.jpg")),  # another image, later, in the same file
        placed("e" * 32, image="https://anna:secret@a.org/b/p%20q.jpg?size=2"),
        {**placed("f" * 32, image=uri), "meta": {"file": "/elsewhere/3.png"}},
    )
    result = run("out", "shapes", "--format", "coco")
    images = json.loads(result.stdout)["images"]
    names = [image["file_name"] for image in images]
    assert names == ["x/1.jpg", "y/1.jpg", "2-cccccccc.jpg", "2.jpg", "p q.jpg", "3.png"]
    assert [image.get("coco_url") for image in images] == [None] * 4 + ["https://a.org/b/p%20q.jpg?size=2", None]
    assert f"file names: relative to {folder}/photos\n" in result.stderr


def test_coco_file_names_are_relative_to_the_folder_that_is_given(database: AnswerDatabase, folder: Path) -> None:
    add(database, placed(A, path=str(folder / "photos" / "1.jpg")), placed(B, path=str(folder / "2.jpg")))
    result = run("out", "shapes", "--format", "coco", "--images-dir", "photos")
    assert [image["file_name"] for image in json.loads(result.stdout)["images"]] == ["1.jpg", "../2.jpg"]
    assert f"file names: relative to {folder}/photos\n" in result.stderr
    assert "--images-dir works with --format coco" in refusal(ConfigError, "out", "shapes", "--images-dir", "photos")


# --- in


def write(path: Path, *examples: Any) -> str:
    path.write_text("".join(each if isinstance(each, str) else json.dumps(each) + "\n" for each in examples))
    return str(path)


def test_exporting_an_imported_export_gives_the_same(database: AnswerDatabase, folder: Path) -> None:
    suggested = {"_suggestions": {"version": 5, "threshold": 0.5, "spans": [rect(1, 2, 3, 4), rect(20, 20, 9, 9)]}}
    accepted = {**example_of(A, rect(1, 2, 3, 4), at=7), **suggested, "_active_s": 12.3}
    add(database, accepted, example_of(A, session="ben", at=3), example_of(B, answer="ignore", at=5))
    add(database, example_of(B, at=9), example_of(B, answer="reject", at=9))
    run("out", "shapes", "one.jsonl", "--all")
    result = run("in", "shapes", "one.jsonl", "--db", "two.db")
    assert result.stdout == "two.db, shapes: 5 added, 0 known already, 0 skipped\n"
    for options in ([], ["--all"]):
        out = run("out", "shapes", *options).stdout
        assert run("out", "shapes", *options, "--db", "two.db").stdout == out
    with AnswerDatabase.open("two.db") as two:
        assert two.counts("shapes") == database.counts("shapes")
        assert Deliveries(two, "shapes").count_pending() == 3  # the trainer has none of them
        (row,) = two.version_edits("shapes")
        assert (row.version, row.edits) == (5, EditCounts(kept=1, kept_80=1, deleted=1))
        assert (two.active_s("shapes", A), two.active_s("shapes", B)) == (12.3, None)


def test_importing_one_s_own_export_adds_nothing(database: AnswerDatabase, folder: Path) -> None:
    """An export that was read back into its own dataset replaced every answer by a copy, and trained on it again."""
    add(database, example_of(A), delivered=True)
    run("out", "shapes", "a.jsonl")
    assert "0 added, 1 known already" in run("in", "shapes", "a.jsonl").stdout
    assert Deliveries(database, "shapes").count_pending() == 0


def test_in_keeps_session_and_time(database: AnswerDatabase, folder: Path) -> None:
    ids = {
        "shapes-anna": "anna",
        "shapes-2024-01-01_10-00-00": "2024-01-01_10-00-00",
        "other-ben": "other-ben",
        "shapes-": "shapes-",
        "": "imported",
        None: "imported",
    }
    examples = [{**example_of(f"{number:032x}"), "_session_id": session} for number, session in enumerate(ids)]
    run("in", "shapes", write(folder / "a.jsonl", *examples))
    assert set(database.counts("shapes")) == set(ids.values())
    assert database.history("shapes", "anna")[0].answered_at == 1000.0


def test_answers_without_a_time_keep_the_order_of_the_file(database: AnswerDatabase, folder: Path) -> None:
    def timeless(image_id: str, answer: str) -> Any:
        return {**example_of(image_id, answer=answer), "_timestamp": None}

    late = {**example_of(C), "_timestamp": 1.7e12}  # milliseconds: it would win for ever
    examples = [timeless(A, "accept"), timeless(B, "accept"), timeless(A, "reject"), late]
    run("in", "shapes", write(folder / "a.jsonl", *examples))
    assert [(each["image_id"], each["answer"]) for each in database.examples("shapes")] == [
        (B, "accept"),
        (A, "reject"),
        (C, "accept"),
    ]
    times = [entry.answered_at for entry in database.history("shapes", "anna")]
    assert times == sorted(times, reverse=True) and times[0] - times[-1] < 1
    run("in", "shapes", write(folder / "b.jsonl", {**example_of(C, answer="ignore"), "_timestamp": None}))
    answer = database.answer("shapes", "anna", C)
    assert answer is not None
    assert answer.decision is Decision.IGNORE


def test_examples_without_an_answer_get_one(database: AnswerDatabase, folder: Path) -> None:
    bare = {key: value for key, value in example_of(A).items() if key != "answer"}
    run("in", "one", write(folder / "a.jsonl", bare, example_of(B, answer="ignore")))
    run("in", "two", str(folder / "a.jsonl"), "--answer", "reject")
    assert [each["answer"] for each in database.examples("one")] == ["accept", "ignore"]
    assert [each["answer"] for each in database.examples("two")] == ["reject", "ignore"]
    assert "--answer must be" in refusal(ConfigError, "in", "one", "a.jsonl", "--answer", "yes")


def test_in_gives_images_the_same_ids_as_annotate(
    database: AnswerDatabase, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "data" / "images").mkdir(parents=True)
    names = ("data/images/a.png", "here.png", "other.png")
    for seed, name in enumerate(names):
        (folder / name).write_bytes(encode(draw_pixels(seed=seed), "PNG"))
    beside, here, other = (read_image(folder / name) for name in names)
    inside = other.data_uri
    places = ["images/a.png", "here.png", inside, "https://a.org/b.jpg", "gone.png"]
    lines = [json.dumps({"image": place, "answer": "accept", "image_id": "17"}) + "\n" for place in places]
    run("in", "shapes", write(folder / "data" / "a.jsonl", *lines))
    stored = list(database.iter_examples("shapes", replaced=True))
    assert [image_id for image_id, _ in stored[:3]] == [beside.image_id, here.image_id, other.image_id]
    digests = [hashlib.sha256(place.encode()).hexdigest()[:32] for place in places[3:]]
    assert [image_id for image_id, _ in stored[3:]] == digests
    # Files are found from anywhere now, wherever their relative paths started; all others are as they were.
    files = [str(folder / "data" / "images" / "a.png"), str(folder / "here.png")]
    assert [each["image"] for _, each in stored] == [*files, *places[2:]]
    monkeypatch.chdir(folder / "data")
    run("in", "again", "a.jsonl", "--db", "../annotations.db")
    assert database.examples("again")[0]["image"] == files[0]


def test_an_answer_is_the_same_wherever_its_image_is(
    database: AnswerDatabase, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same file from another folder, with other relative paths or with the images in it, added all once more."""
    (folder / "images").mkdir()
    (folder / "images" / "a.png").write_bytes(encode(draw_pixels(), "PNG"))
    line = {"image": "images/a.png", "answer": "accept", "spans": []}
    run("in", "shapes", write(folder / "a.jsonl", line))
    inside = read_image(folder / "images" / "a.png").data_uri
    write(folder / "images" / "b.jsonl", {**line, "image": "a.png"}, {**line, "image": inside})
    monkeypatch.chdir(folder / "images")
    result = run("in", "shapes", "b.jsonl", "--db", "../annotations.db")
    assert "0 added, 2 known already" in result.stdout


def test_in_reports_and_skips_broken_lines(database: AnswerDatabase, folder: Path) -> None:
    (folder / "bad.jpg").write_bytes(b"<html>")
    lines = [
        example_of(A),
        '{"image": "a.jpg", "answer":\n',
        "\n",
        "[1, 2]\n",
        {"text": "no image", "answer": "accept"},
        {**example_of(B), "answer": "maybe"},
        {**example_of(B), "spans": {"a": 1}},
        '{"image": "a.jpg", "answer": "accept", "x": NaN}\n',
        {"image": "bad.jpg", "answer": "accept"},
        {"image": "data:image/png;base64,AAAA", "answer": "accept"},
        '{"image": "\\ud800.jpg", "answer": "accept", "_session_id": "\\ud800"}\n',
        "[" * 100_000 + "\n",
        {**example_of(B), "_suggestions": {"version": 10**30, "spans": 3}, "spans": [3]},
    ]
    file = write(folder / "a.jsonl", *lines)
    with Path(file).open("ab") as raw:
        raw.write(b'{"image": "\xff.jpg", "answer": "accept"}\n')
    result = run("in", "shapes", file)
    assert result.stdout == "annotations.db, shapes: 3 added, 0 known already, 10 skipped\n"
    reasons = dict(line.removeprefix(f"skipped {file}:").split(": ", 1) for line in result.stderr.splitlines())
    assert list(reasons) == ["2", "4", "5", "6", "7", "8", "9", "10", "12", "14"]
    assert reasons["4"] == "a line must be a JSON object; got list"
    assert reasons["5"] == "the example has neither 'image' nor 'path'"
    assert reasons["6"] == "answer must be 'accept', 'reject' or 'ignore'; got 'maybe'"
    assert reasons["7"] == "'spans' must be a list; got dict"
    assert reasons["8"].startswith("not plain JSON")
    assert "HTML" in reasons["9"]
    assert len(database.examples("shapes")) == 3


def test_in_fails_when_no_line_is_usable(folder: Path) -> None:
    assert "cannot read a.jsonl" in refusal(RecordError, "in", "shapes", "a.jsonl")
    assert list(folder.iterdir()) == []
    for text in ("", "nonsense\n"):
        (folder / "a.jsonl").write_text(text)
        result = invoke("in", "shapes", "a.jsonl")
        assert result.exit_code == 1
        assert "0 added, 0 known already" in result.stdout


def test_in_reads_standard_input(folder: Path) -> None:
    text = json.dumps(example_of(A)) + "\n" + "nonsense\n"
    result = run("in", "shapes", "-", "--db", "new/a.db", input=text)
    assert result.stdout == "new/a.db, shapes: 1 added, 0 known already, 1 skipped\n"
    assert result.stderr.startswith("skipped stdin:2: not JSON")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_in_reads_a_named_pipe(folder: Path) -> None:
    """Its lines were counted first, for the progress bar, and were gone then."""
    os.mkfifo(folder / "pipe")
    writer = subprocess.Popen(
        [sys.executable, "-c", f"print('''{json.dumps(example_of(A))}''', file=open('pipe', 'w'))"]
    )
    assert "1 added" in run("in", "shapes", "pipe").stdout
    assert writer.wait(30) == 0


def test_in_stores_many_answers_in_batches(database: AnswerDatabase, folder: Path) -> None:
    examples = [example_of(f"{number:032x}", at=number + 1) for number in range(250)]
    assert "250 added" in run("in", "shapes", write(folder / "a.jsonl", *examples)).stdout
    assert database.examples("shapes") == examples


# --- stats


def filled(database: AnswerDatabase) -> None:
    did = EditCounts(kept=3, kept_80=3, adjusted=1, deleted=0, added=4, picked=1)
    add(database, example_of(A, rect(1, 2, 3, 4), rect(1, 2, 3, 4, "dog"), rect(5, 5, 5, 5)), version=5, edits=did)
    add(database, example_of(B, at=1100, session="ben", answer="reject"), delivered=True)
    add(database, example_of(C, at=1200), version=6, edits=EditCounts(added=0))


def test_stats_as_json(database: AnswerDatabase) -> None:
    filled(database)
    add(database, example_of(A), dataset="cars")
    cars, shapes = json.loads(run("stats", "--json").stdout)
    assert cars["dataset"] == "cars"
    assert json.loads(run("stats", "shapes", "--json").stdout) == [shapes]
    assert shapes == {
        "dataset": "shapes",
        "images": 3,
        "accept": 2,
        "reject": 1,
        "ignore": 0,
        "boxes": {"car": 2, "dog": 1},
        "sessions": {
            "anna": {"accept": 2, "reject": 0, "ignore": 0},
            "ben": {"accept": 0, "reject": 1, "ignore": 0},
        },
        "first_answer": "1970-01-01T00:16:40+00:00",
        "last_answer": "1970-01-01T00:20:00+00:00",
        "not_handed_on": 2,
        "versions": [
            {"version": 5, "images": 1, "kept": 3, "kept_80": 3, "adjusted": 1, "relabelled": 0, "deleted": 0,
             "added": 4, "picked": 1, "shares": {"kept": 0.75, "kept_80": 0.75, "adjusted": 0.25,
                                                 "relabelled": 0.0, "deleted": 0.0, "added": 0.5, "picked": 0.125}},
            {"version": 6, "images": 1, "kept": 0, "kept_80": 0, "adjusted": 0, "relabelled": 0, "deleted": 0,
             "added": 0, "picked": 0, "shares": dict.fromkeys(shapes["versions"][0]["shares"])},
        ],
    }  # fmt: skip


def test_stats_as_text(database: AnswerDatabase) -> None:
    filled(database)
    lines = [" ".join(line.split()) for line in run("stats", "shapes").stdout.splitlines()]
    assert lines[:5] == [
        "shapes",
        "images 3",
        "answers accept 2, reject 1, ignore 0",
        "boxes 3: car 2, dog 1",
        "sessions anna 2, ben 1",
    ]
    assert lines[6:] == [
        "not delivered 2",
        "suggestions, by model version",
        "version images kept adjusted relabelled deleted added",
        "5 1 3 (75%) 1 (25%) 0 (0%) 0 (0%) 4 (50%)",
        "6 1 0 (-) 0 (-) 0 (-) 0 (-) 0 (-)",
    ]


def test_stats_without_answers(database: AnswerDatabase) -> None:
    assert run("stats").stdout == "annotations.db: no answers yet\n"
    assert json.loads(run("stats", "--json").stdout) == []


# --- answers that no reader expects


LABEL_MAP = f'item {{ id: 1 name: "{poison.LABEL}" }}'
CHANGES = {**poison.UNUSABLE, **poison.HARMLESS}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("stored_by", ["import", "page"])
def test_one_answer_that_cannot_be_read_does_not_end_a_command(
    folder: Path, change: dict[str, Any], stored_by: str
) -> None:
    """Lone surrogates and broken URLs ended `db in`, `db stats` and `db out` with a traceback."""
    good, bad = ({**example_of(image_id, rect(1, 2, 9, 9, poison.LABEL))} for image_id in (A, B))
    bad = {**bad, **change}
    (folder / "map.pbtxt").write_text(LABEL_MAP)
    if stored_by == "import":
        (folder / "answers.jsonl").write_text("".join(json.dumps(each) + "\n" for each in (bad, good)))
        run("in", "shapes", "answers.jsonl")
    else:
        with AnswerDatabase.open("annotations.db") as database:
            decision = bad["answer"] if isinstance(bad["answer"], str) else "accept"
            database.add("shapes", [StoredAnswer({**bad, "answer": decision}, B, "anna")])
            add(database, good)
    for arguments in (
        ("stats", "--json"),
        ("out", "shapes"),
        ("out", "shapes", "o.jsonl", "--images"),
        ("out", "shapes", "o.json", "--format", "coco"),
        ("out", "shapes", "o.json", "--format", "coco", "--label-map", "map.pbtxt"),
    ):
        run(*arguments)
    files = [image["file_name"] for image in json.loads((folder / "o.json").read_text())["images"]]
    assert "a.jpg" in [Path(name).name for name in files]


def test_lines_that_are_no_records_are_skipped(database: AnswerDatabase, folder: Path) -> None:
    good = json.dumps(example_of(A)).encode()
    (folder / "answers.jsonl").write_bytes(b"\n".join([*poison.NOT_RECORDS.values(), good]))
    result = run("in", "shapes", "answers.jsonl")
    assert "1 added, 0 known already, 6 skipped" in result.stdout
    for number in range(1, 7):
        assert f"skipped answers.jsonl:{number}: " in result.stderr


def test_an_exception_that_nobody_expects_skips_one_line(
    database: AnswerDatabase, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(example: Any, dataset: str) -> str:
        if example["image_id"] == A:
            raise ZeroDivisionError("division by zero")
        return "anna"

    monkeypatch.setattr("odkeras.web.imports.read_session", fail)
    (folder / "answers.jsonl").write_text("".join(json.dumps(example_of(each)) + "\n" for each in (A, B)))
    result = run("in", "shapes", "answers.jsonl")
    assert "1 added, 0 known already, 1 skipped" in result.stdout
    assert "skipped answers.jsonl:1: ZeroDivisionError: division by zero" in result.stderr


def test_a_name_that_is_not_valid_text_is_printed(database: AnswerDatabase, folder: Path) -> None:
    """Labels with lone surrogates ended `db stats`; CliRunner's own output would hide that."""
    add(database, example_of(A, rect(1, 2, 3, 4, "\ud800")))
    command = [sys.executable, "-m", "odkeras", "db", "stats"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    assert "1: \\ud800 1" in result.stdout


def test_an_import_reads_the_stored_answers_about_its_images_alone(
    tmp_path: Path, database: AnswerDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It read and hashed every answer of the dataset. Answers of the page are recognised in their own export."""
    examples = [
        {"image_id": f"{number:032x}", "image": f"{number}.jpg", "answer": "accept", "spans": []} for number in range(9)
    ]
    database.add("big", [StoredAnswer(each, each["image_id"], SESSION, answered_at=1.0) for each in examples])
    asked = []
    read = AnswerDatabase.examples_of_image

    def counted(self: AnswerDatabase, dataset: str, image_id: str) -> Any:
        asked.append(image_id)
        return read(self, dataset, image_id)

    monkeypatch.setattr(AnswerDatabase, "examples_of_image", counted)
    changed = {**examples[3], "answer": "reject"}
    lines = [json.dumps(each).encode() for each in (examples[3], changed, changed)]
    report = import_answers(database, "big", lines, base_dir=tmp_path)
    assert (report.added, report.known, report.skipped) == (1, 2, [])
    assert asked == [examples[3]["image_id"]]


@pytest.mark.parametrize("limit", ["_TOGETHER", "_TOGETHER_CHARACTERS"])
def test_an_import_in_several_transactions_stores_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """Corrections and the answers of other sessions may come in later transactions than what they follow."""
    lines = [
        json.dumps({"image_id": image_id * 8, "image": "x.jpg", "_session_id": session, "_timestamp": at}).encode()
        for image_id, session, at in itertools.product(("aaaa", "bbbb"), ("s-anna", "s-ben"), (3, 1, 2, 3))
    ]
    rows = []
    for value in (1, 10**9):
        monkeypatch.setattr(f"odkeras.web.imports.{limit}", value)
        with AnswerDatabase.open(tmp_path / f"{value}.db") as database:
            report = import_answers(database, "s", lines, base_dir=tmp_path)
            assert (report.added, report.known) == (12, 4)
            latest = database.read("SELECT answer FROM gallery WHERE latest = 1 ORDER BY answer")
            replaced = database.read("SELECT id, replaced FROM answers ORDER BY id")
            rows.append(
                (latest, replaced, database.counts("s"), Deliveries(database, "s", shared=True).count_pending())
            )
    assert rows[0] == rows[1]
    assert rows[0][2:] == ({name: {"accept": 2, "reject": 0, "ignore": 0} for name in ("anna", "ben")}, 2)


def test_the_boxes_of_any_example_are_counted(database: AnswerDatabase) -> None:
    """In SQL; a span without a label, or what is no span, counts nothing."""
    spans: list[Any] = [
        [rect(1, 2, 3, 4), {**rect(1, 2, 3, 4), "label": "\u00e4 'quoted' \n"}],
        [{"label": 3}, {}, None, "cat", [{"label": "cat"}], {"label": None}],
        {"a": {"label": "cat"}},
        None,
        "cat",
        [],
    ]
    answers = []
    for number, value in enumerate(spans):
        image_id = f"{number:032x}"
        example = {"image_id": image_id, "image": "x.jpg", "answer": "accept", "spans": value}
        answers.append(StoredAnswer(example, image_id, SESSION, answered_at=1.0))
    for decision in ("reject", "ignore"):
        answers.append(StoredAnswer({**answers[0].example, "answer": decision}, decision * 5, SESSION, answered_at=1.0))
    with database.transaction("cannot store") as connection:  # without the checks of an import
        for number, answer in enumerate(answers):
            text = json.dumps(answer.example)
            facts = TaskFacts(str(number), "x.jpg", "", None)
            database._insert(connection, "odd", answer, text, facts)
    label = rect(1, 2, 3, 4)["label"]
    assert DatasetStats.of(database, "odd").boxes == {label: 1, "\u00e4 'quoted' \n": 1}
