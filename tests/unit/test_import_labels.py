"""`odkeras import`: labels are matched with their images, fitted to them, and stored all or not at all."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from image_server import image_server
from label_sets import BOXES, SIZE_HW, WRITERS, coco, voc, write_coco, write_csv, write_images, write_yolo
from pictures import draw_pixels, encode
from PIL import Image
from typer.testing import CliRunner

from odkeras.cli import app
from odkeras.errors import ConfigError, DatabaseError, OdkerasError, RecordError
from odkeras.images import encode_image, inspect_image, read_image
from odkeras.labels import Label, LabelMap
from odkeras.orientation import UPRIGHT, swaps_sides, to_upright
from odkeras.pipeline import load_pipeline
from odkeras.session.image_ids import ImageIds
from odkeras.session.sources import Item
from odkeras.web.database import AnswerDatabase
from odkeras.web.stored import StoredAnswer


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ODKERAS_DB", raising=False)
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(app, ["import", "cars", *map(str, arguments)])


def imported(database: Path | str = "annotations.db") -> dict[str, list[tuple[list[float], str]]]:
    with AnswerDatabase.open(database, create=False) as opened:
        return {
            example["meta"]["file"]: [
                ([s["x"], s["y"], s["x"] + s["width"], s["y"] + s["height"]], s["label"]) for s in example["spans"]
            ]
            for example in opened.examples("cars")
        }


def raise_error(result: Result) -> None:
    if isinstance(result.exception, OdkerasError):
        raise result.exception


@pytest.mark.parametrize("format", WRITERS)
class TestEveryFormat:
    def test_becomes_answers_once(self, folder: Path, format: str) -> None:
        path = WRITERS[format](folder)
        write_images(folder)
        first, second = run(path), run(path)
        assert (first.exit_code, second.exit_code) == (0, 0), first.output
        assert imported() == BOXES
        assert "objects     3 (car 2, person 1)" in first.output
        assert "2 added, 0 known" in first.output and "0 added, 2 known" in second.output

    def test_check_changes_nothing(self, folder: Path, format: str) -> None:
        path = WRITERS[format](folder)
        write_images(folder)
        before = sorted(Path().rglob("*"))
        result = run(path, "--check")
        assert result.exit_code == 0 and "images      2" in result.output
        assert sorted(Path().rglob("*")) == before

    def test_answers_have_what_annotate_needs(self, folder: Path, format: str) -> None:
        """The id of the image as the page has it, so that the image is not asked again, and its absolute path."""
        path = WRITERS[format](folder)
        write_images(folder)
        run(path)
        with AnswerDatabase.open("annotations.db") as database:
            answers = dict(database.iter_examples("cars"))
            assert database.counts("cars") == {"imported": {"accept": 2, "reject": 0, "ignore": 0}}
        for image_id, example in answers.items():
            image = read_image(example["path"])
            assert Path(example["path"]).is_absolute()
            assert image.image_id == image_id == example["image_id"]
            assert (example["height"], example["width"]) == image.image_size_hw


class TestFindingImages:
    def test_below_images(self, folder: Path) -> None:
        write_coco(folder)
        write_images(Path("elsewhere/deep"))
        assert run(folder).exit_code == 1
        assert run(folder, "--images", "elsewhere").exit_code == 0
        assert imported() == BOXES

    def test_a_folder_of_labels_beside_that_of_the_images(self, folder: Path) -> None:
        (folder / "annotations").mkdir()
        write_coco(folder / "annotations")
        write_images(folder / "train2017")
        assert run(folder / "annotations" / "instances.json").exit_code == 0
        assert imported() == BOXES

    def test_missing_images_are_listed(self, folder: Path) -> None:
        write_coco(folder)
        write_images(folder)
        (folder / "a.jpg").unlink()
        result = run(folder)
        assert result.exit_code == 0 and "not found   1 images: a.jpg" in result.output
        assert list(imported()) == ["b.jpg"]
        assert run(folder, "--check").exit_code == 1

    def test_ambiguous_images_are_listed(self, folder: Path) -> None:
        write_coco(folder)
        for seed, name in enumerate(("one", "two")):
            (folder / name).mkdir()
            (folder / name / "a.jpg").write_bytes(encode(draw_pixels(SIZE_HW, 10 + seed), "JPEG"))
        write_images(folder / "one")
        result = run(folder)
        assert "ambiguous   1 images" in result.output and list(imported()) == ["b.jpg"]

    def test_the_path_decides_between_images_of_one_name(self, folder: Path) -> None:
        document = coco()
        document["images"][0]["file_name"] = "C:\\data\\one\\a.jpg"
        (folder / "c.json").write_text(json.dumps(document))
        for name, seed in (("one", 10), ("two", 11)):
            (folder / "x" / name).mkdir(parents=True)
            (folder / "x" / name / "a.jpg").write_bytes(encode(draw_pixels(SIZE_HW, seed), "JPEG"))
        run(folder)
        with AnswerDatabase.open("annotations.db") as database:
            assert [Path(example["path"]).parent.name for example in database.examples("cars")] == ["one"]

    @pytest.mark.parametrize(
        "name", ["../secret/a.jpg", "/secret/a.jpg", "../../../../etc/passwd", "file:///etc/passwd"]
    )
    def test_paths_that_climb_out_are_not_followed(self, folder: Path, name: str) -> None:
        write_images(Path("secret"))
        document = coco()
        document["images"] = [{**document["images"][0], "file_name": name}]
        (folder / "c.json").write_text(json.dumps(document))
        assert run(folder).exit_code == 1
        assert not Path("annotations.db").exists()

    def test_another_suffix_and_case(self, folder: Path) -> None:
        write_coco(folder)
        (folder / "A.PNG").write_bytes(encode(draw_pixels(SIZE_HW), "PNG"))
        run(folder)
        assert list(imported()) == ["A.PNG"]

    def test_images_without_labels(self, folder: Path) -> None:
        write_coco(folder)
        write_images(folder)
        (folder / "more.jpg").write_bytes(encode(draw_pixels(SIZE_HW, 5), "JPEG"))
        assert "no labels   1 image files: " in run(folder, "--check").output

    def test_a_file_that_is_no_image(self, folder: Path) -> None:
        write_coco(folder)
        write_images(folder)
        (folder / "a.jpg").write_bytes(b"<html>")
        result = run(folder)
        assert "refused" in result.stderr and "an HTML page" in result.stderr and list(imported()) == ["b.jpg"]


class TestFitting:
    def write(self, folder: Path, box: list[float], **image: Any) -> Path:
        document = coco(bbox=[box[0], box[1], box[2] - box[0], box[3] - box[1]])
        document["images"][0] |= image
        (folder / "c.json").write_text(json.dumps(document))
        write_images(folder)
        return folder

    def test_boxes_for_another_size_are_scaled(self, folder: Path) -> None:
        result = run(self.write(folder, [16, 12, 80, 60], width=128, height=96))
        assert imported()["a.jpg"] == BOXES["a.jpg"] and "1 objects scaled" in result.output

    def test_another_shape_is_refused(self, folder: Path) -> None:
        result = run(self.write(folder, [1, 2, 30, 40], width=48, height=64))
        assert "the labels are for 48 x 64 pixels, but the image has 64 x 48" in result.stderr
        assert list(imported()) == ["b.jpg"]

    def test_a_box_beyond_the_edge_is_clipped(self, folder: Path) -> None:
        result = run(self.write(folder, [-3, 10, 30, 50]))
        assert imported()["a.jpg"] == [([0, 10, 30, 48], "car")] and "1 objects clipped" in result.output

    @pytest.mark.parametrize(
        ("box", "said"),
        [
            ([300, 10, 330, 20], "far outside the image of 64 x 48"),
            ([64, 10, 66, 20], "no area inside"),
            ([0.1, 0.2, 0.3, 0.4], "are from 0 to 1; this format needs pixels"),
            ([10, 10, 10, 20], "no area inside"),
        ],
    )
    def test_a_box_that_does_not_fit_is_refused(self, folder: Path, box: list[float], said: str) -> None:
        result = run(self.write(folder, box))
        assert said in result.stderr and list(imported()) == ["b.jpg"]


class TestPhotographsOnTheirSide:
    @pytest.mark.parametrize("orientation", UPRIGHT)
    def test_points_move_as_the_pixels(self, orientation: int) -> None:
        stored = Image.new("L", (6, 4))
        stored.putpixel((1, 0), 255)
        upright = stored.transpose(UPRIGHT[orientation])
        x, y = to_upright((1.5, 0.5), (4, 6), orientation)
        assert upright.getpixel((int(x), int(y))) == 255
        assert (upright.size == (4, 6)) == swaps_sides(orientation)

    def write(self, folder: Path, orientation: int, width: int, height: int, box: list[float]) -> Path:
        exif = Image.Exif()
        exif[0x0112] = orientation
        picture = Image.fromarray(draw_pixels(SIZE_HW))
        picture.save(folder / "a.jpg", exif=exif)
        document = coco(bbox=[box[0], box[1], box[2] - box[0], box[3] - box[1]])
        document["images"] = [{**document["images"][0], "width": width, "height": height}]
        (folder / "c.json").write_text(json.dumps(document))
        return folder / "c.json"

    @pytest.mark.parametrize(
        ("size", "box", "expected"),
        [
            ((64, 48), [8, 6, 40, 30], [18, 8, 42, 40]),  # of the stored picture: turned clockwise by 90 degrees
            ((48, 64), [8, 6, 40, 30], [8, 6, 40, 30]),  # of the upright one
        ],
    )
    def test_the_size_tells_which_way_up(
        self, folder: Path, size: tuple[int, int], box: list[float], expected: list[float]
    ) -> None:
        run(self.write(folder, 6, *size, box))
        assert imported()["a.jpg"] == [(expected, "car")]

    @pytest.mark.parametrize(
        ("exif", "expected"), [("auto", [8, 6, 40, 30]), ("upright", [8, 6, 40, 30]), ("stored", [24, 18, 56, 42])]
    )
    def test_what_the_size_does_not_tell(self, folder: Path, exif: str, expected: list[float]) -> None:
        """A picture on its head is as wide as the upright one."""
        result = run(self.write(folder, 3, 64, 48, [8, 6, 40, 30]), "--exif", exif)
        assert imported()["a.jpg"] == [(expected, "car")]
        assert ("do not tell which way up" in result.output) == (exif == "auto")

    def test_the_option_is_checked(self, folder: Path) -> None:
        with pytest.raises(ConfigError, match="--exif must be one of auto, upright, stored; got 'no'"):
            raise_error(run(self.write(folder, 3, 64, 48, [8, 6, 40, 30]), "--exif", "no"))

    @pytest.mark.parametrize("orientation", [1, 6])
    @pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP"])
    def test_inspecting_an_image_finds_what_encoding_it_does(self, orientation: int, format: str) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encode(draw_pixels(SIZE_HW), format, **({"exif": exif} if format != "BMP" else {}))
        facts, image = inspect_image(data, source="x"), encode_image(data, source="x")
        assert facts[:2] == (image.image_id, image.image_size_hw)


class TestLabels:
    def project(self, folder: Path, *labels: Label) -> None:
        LabelMap(labels).save(folder.parent / "label_map.pbtxt")

    def test_names_that_are_alike_are_taken_and_said(self, folder: Path) -> None:
        self.project(folder, Label(1, "Car"), Label(2, "person "), Label(3, "dog"))
        write_coco(folder)
        write_images(folder)
        result = run(folder)
        assert "'car' is taken for 'Car' (2 objects)" in result.output
        assert [label for _, label in imported()["b.jpg"]] == ["person ", "Car"]

    def test_other_names_import_nothing(self, folder: Path) -> None:
        self.project(folder, Label(1, "car"))
        write_coco(folder)
        write_images(folder)
        with pytest.raises(
            ConfigError, match=r"not in the label map: 'person' \(1 objects\); it has 'car'. Give .* --ren"
        ):
            raise_error(run(folder))
        assert not Path("annotations.db").exists()

    def test_names_can_be_renamed_or_left_out(self, folder: Path) -> None:
        self.project(folder, Label(1, "car"))
        write_coco(folder)
        write_images(folder)
        run(folder, "--skip-other-labels")
        assert imported()["b.jpg"] == BOXES["b.jpg"][1:]
        run(folder, "--rename", "person=car")
        assert [label for _, label in imported()["b.jpg"]] == ["car", "car"]

    @pytest.mark.parametrize("text", ["car", "=car", "car="])
    def test_a_rename_that_is_none(self, folder: Path, text: str) -> None:
        write_coco(folder)
        with pytest.raises(ConfigError, match=r"--rename must be NAME=LABEL"):
            raise_error(run(folder, "--rename", text))

    def test_keypoints_that_the_label_map_lacks_are_left_out(self, folder: Path) -> None:
        self.project(folder, Label(1, "car", None, ((0, "wheel"),)), Label(2, "person"))
        document = coco(keypoints=[10, 10, 2, 12, 12, 2])
        document["categories"][0]["keypoints"] = ["wheel", "roof"]
        (folder / "c.json").write_text(json.dumps(document))
        write_images(folder)
        result = run(folder)
        with AnswerDatabase.open("annotations.db") as database:
            (point,) = database.examples("cars")[0]["spans"][0]["keypoints"]
        assert point["name"] == "wheel" and "1 keypoints that the label map lacks" in result.output


class TestAllOrNothing:
    def test_a_file_that_cannot_be_read_imports_nothing(self, folder: Path) -> None:
        path = WRITERS["cvat"](folder)
        write_images(folder)
        path.write_text(path.read_text().replace("</annotations>", ""))
        with pytest.raises(RecordError, match=r"annotations.xml:10: not XML: no element found"):
            raise_error(run(folder))
        assert not Path("annotations.db").exists()

    def test_an_error_while_storing_leaves_the_database_as_it_was(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_coco(folder)
        write_images(folder)
        with AnswerDatabase.open("annotations.db") as database:
            database.add("cars", [StoredAnswer({"answer": "accept", "image": "x.jpg"}, "ab" * 16, "anna")])
        insert, calls = AnswerDatabase._insert, []

        def fail_at_the_second(self: AnswerDatabase, *arguments: Any, **named: Any) -> bool:
            calls.append(arguments)
            if len(calls) == 2:
                raise sqlite3.OperationalError("disk is full")
            return insert(self, *arguments, **named)

        monkeypatch.setattr(AnswerDatabase, "_insert", fail_at_the_second)
        with pytest.raises(DatabaseError, match="cannot store the answers: disk is full"):
            raise_error(run(folder))
        with AnswerDatabase.open("annotations.db") as database:
            assert list(database.counts("cars")) == ["anna"]

    def test_control_c_while_storing(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_coco(folder)
        write_images(folder)

        def interrupt(*_: Any, **__: Any) -> bool:
            raise KeyboardInterrupt

        monkeypatch.setattr(AnswerDatabase, "_insert", interrupt)
        assert run(folder).exit_code != 0
        with AnswerDatabase.open("annotations.db") as database:
            assert database.datasets == []

    def test_images_that_a_person_answered_stay_as_they_are(self, folder: Path) -> None:
        write_coco(folder)
        write_images(folder)
        image_id = read_image(folder / "a.jpg").image_id
        with AnswerDatabase.open("annotations.db") as database:
            example = {"answer": "accept", "image": "a.jpg", "spans": []}
            database.add("cars", [StoredAnswer(example, image_id, "anna", answered_at=1000)])
        result = run(folder)
        assert "kept        1 images that a person has answered" in result.output
        with AnswerDatabase.open("annotations.db") as database:
            assert database.counts("cars")["imported"]["accept"] == 1

    def test_corrected_labels_replace_the_earlier_ones(self, folder: Path) -> None:
        write_coco(folder)
        write_images(folder)
        run(folder)
        (folder / "instances.json").write_text(json.dumps(coco(bbox=[1, 2, 30, 40])))
        assert "1 added, 1 known" in run(folder).output
        assert imported()["a.jpg"] == [([1, 2, 31, 42], "car")]


def test_splits_are_kept_and_leakage_is_reported(folder: Path) -> None:
    for split in ("train", "valid"):
        (folder / split).mkdir()
        write_csv(folder / split)
        write_images(folder / split)
    (folder / "valid" / "b.jpg").write_bytes(encode(draw_pixels(SIZE_HW, 9), "JPEG"))
    result = run(folder)
    assert "images      3 (train 2, val 1)" in result.output
    assert "leakage     1 images in two splits" in result.output and "twice       1 images" in result.output
    with AnswerDatabase.open("annotations.db") as database:
        assert [example["split"] for example in database.examples("cars")] == ["train", "train", "val"]


def test_images_of_tfrecords_are_written_where_they_have_no_file(folder: Path) -> None:
    from odkeras.formats.tfrecord_reader import _example_class

    data = encode(draw_pixels(SIZE_HW), "JPEG")
    message = _example_class()()
    values = {"image/encoded": [data], "image/filename": [b"../a.jpg"], "image/object/class/text": [b"car"],
              "image/object/bbox/xmin": [0.125], "image/object/bbox/xmax": [0.625],
              "image/object/bbox/ymin": [0.125], "image/object/bbox/ymax": [0.625]}  # fmt: skip
    for name, row in values.items():
        feature = message.features.feature.add(key=name).value
        (feature.bytes_list if isinstance(row[0], bytes) else feature.float_list).value.extend(row)
    record = message.SerializeToString()
    path = folder / "train.record"
    path.write_bytes(len(record).to_bytes(8, "little") + b"\0" * 4 + record + b"\0" * 4)
    assert run(path, "--check").exit_code == 0
    assert not Path("imported_images").exists()
    assert run(path).exit_code == 0
    (written,) = Path("imported_images/cars").iterdir()
    assert written.read_bytes() == data and list(imported().values()) == [BOXES["a.jpg"]]


def test_a_project_gets_the_answers_and_the_ids_of_the_images(folder: Path) -> None:
    """So that `annotate` need not read all images to see that they are answered."""
    from odkeras.init_project import init_project

    init_project("project", ["car", "person"])
    write_yolo(folder)
    write_images(folder)
    result = run(folder, "--project", "project")
    assert result.exit_code == 0 and imported("project/annotations.db") == BOXES
    ids = ImageIds(Path("project/data/image_ids.jsonl"))
    path = (folder / "a.jpg").absolute()
    assert ids.id_of(Item(str(path), path).fingerprint) == read_image(path).image_id


def test_labels_for_the_same_picture_count_once(folder: Path) -> None:
    (folder / "a.xml").write_text(voc("a.jpg", BOXES["a.jpg"]))
    (folder / "c.xml").write_text(voc("a.jpg", []))
    write_images(folder)
    result = run(folder)
    assert "the labels of the same picture are in" in result.stderr
    assert imported() == {"a.jpg": BOXES["a.jpg"]}


class TestInit:
    def init(self, *arguments: Any, answer: str = "") -> Result:
        return CliRunner().invoke(app, ["init", "project", *map(str, arguments)], input=answer)

    def names(self) -> tuple[str, ...]:
        return LabelMap.load("project/label_map.pbtxt").names

    def categories(self, folder: Path, *names: str) -> Path:
        document = coco()
        document["categories"] = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
        (folder / "c.json").write_text(json.dumps(document))
        return folder / "c.json"

    @pytest.mark.parametrize("format", WRITERS)
    def test_takes_the_classes_in_the_order_of_the_files(self, folder: Path, format: str) -> None:
        result = self.init("--label", "dog", "--labels", WRITERS[format](folder))
        assert result.exit_code == 0 and self.names() == ("dog", "car", "person")

    @pytest.mark.parametrize(
        ("similar", "names"), [("merge", ("car", "traffic light")), ("keep", ("car", "traffic light", "Car"))]
    )
    def test_names_that_are_alike(self, folder: Path, similar: str, names: tuple[str, ...]) -> None:
        path = self.categories(folder, "car", "traffic light", "Car", "car ")
        self.init("--labels", path, "--similar", similar)
        assert self.names() == names

    def test_they_are_asked_about_in_one_question(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = self.categories(folder, "car", "Car", "bus stop", "Bus_Stop")
        with pytest.raises(ConfigError, match=r"2 groups of names are alike: 'car' and 'Car'; 'bus stop' and .*merge"):
            raise_error(self.init("--labels", path))
        asked = []
        monkeypatch.setattr("typer.confirm", lambda text, **_: asked.append(text) or True)
        monkeypatch.setattr("odkeras.cli.project.sys", type("sys", (), {"stdin": Terminal()}))
        assert self.init("--labels", path).exit_code == 0
        assert self.names() == ("car", "bus stop") and len(asked) == 1

    def test_keypoints_come_from_the_files_if_asked_for(self, folder: Path) -> None:
        path = self.categories(folder, "car", "person")
        document = json.loads(path.read_text())
        document["categories"][1] |= {"keypoints": ["head", "hand"], "skeleton": [[1, 2], [2, 3], ["a", 1], 5]}
        path.write_text(json.dumps(document))
        result = self.init("--labels", path)
        assert "the labels have keypoints (person: 2), which are left out; --keypoints labels takes" in result.stdout
        assert LabelMap.load("project/label_map.pbtxt").num_keypoints == 0
        result = self.init("--labels", path, "--keypoints", "labels", "--keypoints", "car=wheel", "--force")
        assert result.exit_code == 0 and "left out" not in result.stdout
        assert LabelMap.load("project/label_map.pbtxt").keypoint_names == ("wheel", "head", "hand")
        edges = load_pipeline("project/pipeline.config").eval_config.keypoint_edge
        assert [(edge.start, edge.end) for edge in edges] == [(1, 2)]

    def test_without_keypoints_in_the_files_that_is_an_error(self, folder: Path) -> None:
        with pytest.raises(ConfigError, match="--keypoints labels: no file of --labels names keypoints"):
            raise_error(self.init("--labels", self.categories(folder, "car"), "--keypoints", "labels"))

    def test_the_option_is_checked(self, folder: Path) -> None:
        with pytest.raises(ConfigError, match="--similar must be one of ask, merge, keep; got 'no'"):
            raise_error(self.init("--labels", folder, "--similar", "no"))


class Terminal:
    def isatty(self) -> bool:
        return True


class TestAnnotate:
    def annotate(self, monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> tuple[Result, list[Any]]:
        from odkeras.init_project import init_project

        started: list[Any] = []
        monkeypatch.setattr("odkeras.web.server.run_annotate", started.append)
        init_project("project", ["car", "person"], force=True)
        return CliRunner().invoke(app, ["annotate", "cars", *map(str, arguments)]), started

    def test_imports_first_and_then_starts(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_images(Path("images"))
        path = write_coco(folder)
        for added in (2, 0):
            result, (settings,) = self.annotate(monkeypatch, "images", "project", "--labels", path)
            assert result.exit_code == 0 and f"{added} imported, {2 - added} known already" in result.stderr
            assert imported("project/annotations.db") == BOXES
            assert (settings.dataset, settings.config) == ("cars", Path("project/pipeline.config").absolute())

    def test_a_file_of_json_lines_is_not_taken_for_a_second_source(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_images(Path("images"))
        (folder / "tasks.jsonl").write_text(json.dumps({"image": str(Path("images/a.jpg").absolute())}))
        path = WRITERS["jsonl"](folder)
        result, started = self.annotate(monkeypatch, folder / "tasks.jsonl", "project", "--labels", path)
        assert len(started) == 1, result.output

    def test_starts_nothing_if_the_labels_do_not_fit(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_images(Path("images"))
        document = coco()
        document["categories"][0]["name"] = "lorry"
        (folder / "c.json").write_text(json.dumps(document))
        result, started = self.annotate(monkeypatch, "images", "project", "--labels", folder)
        with pytest.raises(ConfigError, match="not in the label map: 'lorry'"):
            raise_error(result)
        assert started == []


class TestUrls:
    @pytest.mark.parametrize("format", ["coco", "jsonl"])
    def test_images_at_urls_are_fetched_once_and_kept(self, folder: Path, format: str) -> None:
        """Labels with URLs were refused as missing images."""
        write_images(folder.parent / "elsewhere")
        with image_server() as web:
            urls = {name: web.put(f"/{name}", (folder.parent / "elsewhere" / name).read_bytes()) for name in BOXES}
            gone = web.url("/gone.jpg")
            path = write_urls(folder, format, {**urls, "gone.jpg": gone})
            checked = run(path, "--check")
            assert "gone.jpg: the server answers with status 404" in checked.output and checked.exit_code == 1
            assert not Path("annotations.db").exists() and not Path("imported_images").exists()
            result = run(path)
            assert result.exit_code == 0 and "2 added, 0 known already" in result.output, result.output
            assert "written     2 images of TFRecords and URLs" in result.output
            assert "0 added, 2 known already" in run(path).output
        assert sorted(imported().values()) == sorted(BOXES.values())
        with AnswerDatabase.open("annotations.db") as opened:
            for example in opened.examples("cars"):
                assert read_image(example["path"]).image_id == example["image_id"]
                assert Path(example["path"]).parent == Path("imported_images/cars").absolute()
        assert len(list(Path("imported_images/cars").iterdir())) == 2

    def test_an_image_of_that_name_in_the_folder_is_not_fetched(self, folder: Path) -> None:
        write_images(folder)
        with image_server() as web:
            path = write_urls(folder, "coco", {name: web.url(f"/{name}") for name in BOXES})
            assert "2 added" in run(path).output and web.requests == []


def write_urls(folder: Path, format: str, urls: dict[str, str]) -> Path:
    """The labels of `BOXES`, with URLs for the names of the images; those of other names have no objects."""
    if format == "coco":
        document = coco()
        for image in document["images"]:
            image["file_name"] = urls[image["file_name"]]
        for number, name in enumerate([name for name in urls if name not in BOXES], start=50):
            document["images"].append({"id": number, "file_name": urls[name], "width": 64, "height": 48})
        (folder / "instances.json").write_text(json.dumps(document))
        return folder / "instances.json"
    lines = []
    for name, url in urls.items():
        spans = [
            {"label": label, "points": [[x1, y1], [x1, y2], [x2, y2], [x2, y1]]}
            for (x1, y1, x2, y2), label in BOXES.get(name, [])
        ]
        lines.append({"image": url, "spans": spans, "answer": "accept", "width": 64, "height": 48})
    (folder / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "answers.jsonl"
