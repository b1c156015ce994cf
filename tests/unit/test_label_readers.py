"""Every format of labels is recognised by its content and read to the same boxes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_sets import BOXES, CLASSES, SIZE_HW, WRITERS, coco, csv_text, voc, write_images
from pictures import draw_pixels, encode

from odkeras import polygons
from odkeras.annotation import Answer
from odkeras.errors import ConfigError, OdkerasError, RecordError
from odkeras.formats.label_files import CROWD, SPLIT, UNIT_SIZE_HW, ReadNotes
from odkeras.formats.label_formats import FORMATS, class_names, find_label_files, read_label_files, recognise
from odkeras.keypoints import Keypoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "labels_here").mkdir()
    return tmp_path / "labels_here"


def read(*paths: Path, format: str = "auto") -> tuple[list[Answer], ReadNotes]:
    notes = ReadNotes()
    answers = [answer for _, _, answer in read_label_files(find_label_files(paths, format), notes)]
    return answers, notes


def boxes_in_px(answer: Answer) -> list[tuple[list[float], str]]:
    size_hw = answer.task.image_size_hw or SIZE_HW
    scale = (SIZE_HW[1] / size_hw[1], SIZE_HW[0] / size_hw[0])
    return [([round(v * scale[at % 2], 6) for at, v in enumerate(s.xyxy_px)], s.label) for s in answer.task.spans]


def read_boxes(*paths: Path) -> dict[str, list[tuple[list[float], str]]]:
    answers, notes = read(*paths)
    assert notes.refused == []
    return {Path(answer.task.path or answer.task.file).stem.split("-")[-1]: boxes_in_px(answer) for answer in answers}


def write(folder: Path, name: str, content: Any) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content if isinstance(content, (str, bytes)) else json.dumps(content)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


EXPECTED = {Path(name).stem: boxes for name, boxes in BOXES.items()}


@pytest.mark.parametrize("format", WRITERS)
class TestEveryFormat:
    def test_is_recognised_and_read(self, folder: Path, format: str) -> None:
        path = WRITERS[format](folder)
        assert {file.format for file in find_label_files([path])} == {format}
        assert read_boxes(path) == EXPECTED

    def test_is_found_in_its_folder_beside_the_images(self, folder: Path, format: str) -> None:
        WRITERS[format](folder)
        write_images(folder)
        assert read_boxes(folder) == EXPECTED

    def test_names_the_classes(self, folder: Path, format: str) -> None:
        assert class_names(find_label_files([WRITERS[format](folder)])) == CLASSES

    def test_that_is_truncated(self, folder: Path, format: str) -> None:
        """A sentence with the file, never a traceback; what was complete before the end may be read."""
        written = WRITERS[format](folder)
        files = [written] if written.is_file() else sorted(folder.iterdir())
        for path in files:
            whole = path.read_bytes()
            for length in range(0, len(whole), max(1, len(whole) // 40)):
                path.write_bytes(whole[:length])
                check_said(folder, format)
            path.write_bytes(whole)

    @given(data=st.data())
    def test_with_other_bytes_in_it(self, tmp_path_factory: pytest.TempPathFactory, format: str, data: Any) -> None:
        folder = tmp_path_factory.mktemp("other_bytes")
        written = WRITERS[format](folder)
        path = written if written.is_file() else sorted(folder.iterdir())[0]
        whole = path.read_bytes()
        at = data.draw(st.integers(0, len(whole) - 1))
        junk = data.draw(
            st.sampled_from([b"\xff", b"\0", b"NaN", b"9" * 400, b"-", b'"', b"[", b"1e999", b"&x;", b"<"])
        )
        path.write_bytes(whole[:at] + junk + whole[at + data.draw(st.integers(0, 12)) :])
        check_said(folder, format)


def check_said(folder: Path, format: str) -> None:
    """Whatever is in the files: boxes are finite, and problems name the file."""
    try:
        answers, notes = read(folder, format=format)
    except OdkerasError as error:
        assert str(folder) in str(error) and "Traceback" not in str(error)
        return
    for answer in answers:
        assert np.isfinite([span.xyxy_px for span in answer.task.spans]).all()
        json.dumps([span.label for span in answer.task.spans], ensure_ascii=False).encode()
    assert all(str(folder) in place and reason for place, reason in notes.refused)


def test_the_formats_are_told_apart_together(folder: Path) -> None:
    for format in ("coco", "csv"):
        WRITERS[format](folder)
    with pytest.raises(
        ConfigError, match=r"2 formats: coco \(.*instances.json\), csv \(.*labels.csv\); choose .*--form"
    ):
        find_label_files([folder])
    assert [file.format for file in find_label_files([folder], "csv")] == ["csv"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notes.json", {"name": "x"}),
        ("detections.json", [{"image_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]),
        ("page.html", "<html></html>"),
        ("empty.csv", ""),
        ("a.csv", "a,b,c\n1,2,3\n"),
        ("README.txt", "some words\n"),
        ("old_mac.txt", "0 0\r1e0.375 -1e308"),
        ("one_quote.csv", '"' + "x" * 200_000),
    ],
)
def test_what_is_no_file_of_labels(folder: Path, name: str, content: Any) -> None:
    path = write(folder, name, content)
    assert recognise(path) is None
    with pytest.raises(ConfigError, match=rf"{name}: "):
        find_label_files([path])


def test_unknown_format_and_missing_file(folder: Path) -> None:
    with pytest.raises(ConfigError, match="--format must be auto or one of coco, voc"):
        find_label_files([folder], "pascal")
    with pytest.raises(ConfigError, match=r"gone.json: no such file or folder"):
        find_label_files([folder / "gone.json"])
    with pytest.raises(ConfigError, match=r"no labels in .*; known are COCO JSON, Pascal"):
        find_label_files([folder])
    assert list(FORMATS) == ["coco", "voc", "yolo", "csv", "tfrecord", "labelstudio", "cvat", "jsonl"]


class TestCoco:
    def test_of_pycocotools(self, folder: Path) -> None:
        """Its own reader reads the same boxes, and its run lengths become polygons that fill its masks."""
        from pycocotools import mask as coco_masks
        from pycocotools.coco import COCO

        drawn = np.zeros(SIZE_HW, np.uint8)
        drawn[10:30, 20:50] = drawn[35:45, 5:15] = 1
        drawn[15:20, 30:40] = 0
        runs = coco_masks.encode(np.asfortranarray(drawn))
        shape = {"size": runs["size"], "counts": runs["counts"].decode()}
        path = write(folder, "instances.json", coco(segmentation=shape))
        theirs = COCO(str(path))
        (first, second), notes = read(path)
        (span,) = first.task.spans
        filled = polygons.fill(polygons.from_xy_px(span.points_xy_px, SIZE_HW), SIZE_HW)
        assert np.array_equal(filled, theirs.annToMask(theirs.anns[1]).astype(bool))
        boxes = [list(theirs.anns[number]["bbox"]) for number in (2, 3)]
        assert boxes == [[x1, y1, x2 - x1, y2 - y1] for (x1, y1, x2, y2), _ in boxes_in_px(second)]
        assert notes.refused == []

    def test_crowds_and_uncompressed_run_lengths(self, folder: Path) -> None:
        shape = {"size": [48, 64], "counts": [48 * 4, 48 * 10, 48 * 50]}
        (first, _), notes = read(write(folder, "c.json", coco(segmentation=shape, iscrowd=1)))
        (span,) = first.task.spans
        assert span.xyxy_px == (4, 0, 14, 48) and span.other == {CROWD: 1}
        assert any("crowd" in kind for kind in notes.left_out)

    def test_polygons(self, folder: Path) -> None:
        triangle = [10, 10, 30, 10, 20, 25]
        (first, _), _ = read(write(folder, "c.json", coco(segmentation=[triangle])))
        assert first.task.spans[0].points_xy_px == ((10, 10), (30, 10), (20, 25))
        (first, _), _ = read(write(folder, "c.json", coco(segmentation=[triangle, [40, 30, 50, 30, 50, 40]])))
        assert first.task.spans[0].xyxy_px == (10, 10, 50, 40)

    def test_keypoints_have_the_names_of_their_category(self, folder: Path) -> None:
        document = coco(keypoints=[0, 0, 0, 12, 9, 1])
        document["categories"][0]["keypoints"] = ["nose", "tail"]
        (first, _), _ = read(write(folder, "c.json", document))
        assert first.task.spans[0].keypoints == (Keypoint("tail", 12, 9, 1),)
        document["annotations"][0]["keypoints"] = [1, 2, 2]
        _, notes = read(write(folder, "c.json", document))
        assert "2 keypoints need 6 numbers; got [1, 2, 2]" in notes.refused[0][1]

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"category_id": 99}, "annotation 1: unknown category_id 99 .known: 7, 8"),
            ({"category_id": [7]}, "unknown category_id"),
            ({"image_id": 5}, r"annotations\[0\]: image_id 5 is not in the list"),
            ({"image_id": [5]}, r"annotations\[0\]: image_id: its id must be"),
            ({"bbox": None}, "annotation 1: bbox: None is not"),
            ({"bbox": [1, 2, 3]}, r"bbox: \[1, 2, 3\] is not"),
            ({"bbox": [float("nan"), 2, 3, 4]}, "bbox: .*is not"),
            ({"bbox": [int("9" * 400), 2, 3, 4]}, "bbox: .*is not"),
            ({"segmentation": [[1, 2, 3]]}, "segmentation: a polygon needs an even number"),
            ({"segmentation": [[1, 2, 3, 4, 5, None]]}, "not a finite number"),
            ({"segmentation": {"size": [64, 48], "counts": [1, 2]}}, "its size is"),
            ({"segmentation": {"size": [48, 64], "counts": "###"}}, "segmentation"),
        ],
    )
    def test_an_object_that_cannot_be_used_costs_itself(self, folder: Path, changes: Any, said: str) -> None:
        answers, notes = read(write(folder, "c.json", coco(**changes)))
        assert [boxes_in_px(answer) for answer in answers][-1] == BOXES["b.jpg"]
        with pytest.raises(ValueError, match=f"c.json: .*{said}"):
            raise ValueError(": ".join(notes.refused[0]))

    def test_an_image_whose_objects_are_all_unusable_is_not_one_without_objects(self, folder: Path) -> None:
        answers, _ = read(write(folder, "c.json", coco(bbox=None)))
        assert [answer.task.path for answer in answers] == ["b.jpg"]

    def test_an_image_without_annotations_is_one_without_objects(self, folder: Path) -> None:
        document = coco()
        del document["annotations"][0]
        (first, _), _ = read(write(folder, "c.json", document))
        assert (first.task.path, first.task.spans) == ("a.jpg", ())

    def test_a_line_of_broken_json_is_named(self, folder: Path) -> None:
        text = json.dumps(coco(), indent=1).replace('"bbox": [', '"bbox": [,', 1)
        line = text[: text.index("[,")].count("\n") + 1
        with pytest.raises(RecordError, match=rf"c.json:{line} is not JSON"):
            read(write(folder, "c.json", text))


class TestVoc:
    @pytest.mark.parametrize(
        ("start", "said"),
        [
            (
                '<?xml version="1.0"?>\n<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>\n',
                ":2: has a document type",
            ),
            ('<!DOCTYPE annotation SYSTEM "file:///etc/passwd">\n', ":1: has a document type declaration"),
            ("<annotation>" + "<a>" * 100_000, "elements are nested more than 50 deep"),
            ("<annotation>\n<object>", ":5: not XML: no element found"),
            ("<annotations>", "the outer element must be <annotation>; got <annotations>"),
            ('<?xml version="1.0" encoding="klingon"?>', "not XML: unknown encoding"),
        ],
    )
    def test_a_file_that_cannot_be_read_costs_itself(self, folder: Path, start: str, said: str) -> None:
        """Bombs of entities, files from outside, and what is no XML."""
        path = write(folder, "a.xml", start + voc("a.jpg", BOXES["a.jpg"]))
        write(folder, "b.xml", voc("b.jpg", BOXES["b.jpg"]))
        (answer,), notes = read(path, folder / "b.xml", format="voc")
        ((place, reason),) = notes.refused
        assert answer.task.path == "b.jpg" and place == str(path) and said in reason

    def test_polygons_flags_and_floats(self, folder: Path) -> None:
        text = voc("a.jpg", [([1.5, 2, 3.25, 4], "car")])
        text = text.replace("<difficult>0", "<difficult>1").replace(
            "</annotation>",
            "<object><name>person</name><polygon><x1>1</x1><y1>2</y1><x2>9</x2><y2>2</y2><x3>5</x3><y3>8</y3></polygon>"
            "</object><object><name>person</name><polygon><pt><x>1</x><y>2</y></pt><pt><x>9</x><y>2</y></pt>"
            "<pt><x>5</x><y>8</y></pt></polygon></object></annotation>",
        )
        (answer,), _ = read(write(folder, "a.xml", text))
        first, *others = answer.task.spans
        assert first.xyxy_px == (1.5, 2, 3.25, 4) and first.other == {"difficult": 1}
        assert [span.points_xy_px for span in others] == [((1, 2), (9, 2), (5, 8))] * 2

    def test_an_object_without_a_box_costs_itself(self, folder: Path) -> None:
        text = voc("a.jpg", BOXES["a.jpg"]).replace("</annotation>", "\n<object><name>x</name></object></annotation>")
        (answer,), notes = read(write(folder, "a.xml", text))
        assert boxes_in_px(answer) == BOXES["a.jpg"]
        assert notes.refused == [(f"{folder / 'a.xml'}:5", "the object has no bndbox")]

    def test_image_sets_are_splits(self, folder: Path) -> None:
        for name, boxes in BOXES.items():
            write(folder, f"Annotations/{Path(name).stem}.xml", voc(name, boxes))
        write(folder, "ImageSets/Main/train.txt", "a\n")
        write(folder, "ImageSets/Main/val.txt", "b\n")
        answers, _ = read(folder)
        assert [answer.task.other for answer in answers] == [{SPLIT: "train"}, {SPLIT: "val"}]


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n + 1}: &a{n + 1} [*a{n}, *a{n}]\n" for n in range(40)) + "names: [*a40]\n"
"""A small file that stands for a list of a million million names."""


class TestYolo:
    def test_a_data_yaml_with_folders(self, folder: Path) -> None:
        """As Ultralytics writes it, and Roboflow with its paths that climb out."""
        write(folder, "data.yaml", "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['car', 'person']\n")
        write(folder, "train/labels/a.txt", "0 0.375 0.375 0.5 0.5\n")
        write(folder, "valid/labels/b.txt", "1 0.5 0.5 0.1 0.1\n")
        (folder / "train/images").mkdir()
        (folder / "valid/images").mkdir()
        answers, notes = read(folder)
        assert [(answer.task.path, answer.task.other) for answer in answers] == [
            ("train/images/a", {SPLIT: "train"}),
            ("valid/images/b", {SPLIT: "val"}),
        ]
        assert boxes_in_px(answers[0]) == [([8, 6, 40, 30], "car")] and notes.refused == []

    def test_names_by_number_lists_of_images_and_polygons(self, folder: Path) -> None:
        names = "path: .\ntrain: train.txt\ntest: held_out.txt\nnames:\n  0: car\n  5: person\n"
        write(folder, "my.yaml", names)
        write(folder, "train.txt", "./images/a.jpg\n")
        write(folder, "held_out.txt", "./images/b.jpg\n")
        write(folder, "labels/a.txt", "5 0.1 0.1 0.5 0.1 0.3 0.6\n")
        write(folder, "labels/b.txt", "")
        first, second = read(folder)[0]
        assert first.task.spans[0].points_xy_px == ((0.1, 0.1), (0.5, 0.1), (0.3, 0.6))
        assert first.task.image_size_hw == UNIT_SIZE_HW
        assert (first.task.other, second.task.other, second.task.spans) == ({SPLIT: "train"}, {SPLIT: "test"}, ())
        assert class_names(find_label_files([folder])) == ["car", "person"]

    @pytest.mark.parametrize(
        ("row", "said"),
        [
            ("7 0.5 0.5 0.1 0.1", "class 7 has no name; there are names for 2"),
            ("-1 0.5 0.5 0.1 0.1", "class -1 has no name"),
            ("0.5 0.5 0.5 0.1 0.1", "class 0.5 has no name"),
            ("0 0.5 0.5 0.1", "a row must be 'class x y width height'"),
            ("0 0.5 nan 0.1 0.1", "a coordinate must be a finite number; got 'nan'"),
            ("0 0.5 1e999 0.1 0.1", "a finite number"),
            ("car 0.5 0.5 0.1 0.1", "the class must be a finite number; got 'car'"),
            ("0 0.5 0.5 -0.1 0.1", "must not be negative"),
        ],
    )
    def test_a_row_that_cannot_be_used_costs_itself(self, folder: Path, row: str, said: str) -> None:
        write(folder, "classes.txt", "car\nperson\n")
        path = write(folder, "labels/a.txt", f"0 0.5 0.5 0.1 0.1\n{row}\n")
        (answer,), notes = read(folder)
        ((place, reason),) = notes.refused
        assert len(answer.task.spans) == 1 and place == f"{path}:2" and said in reason

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("names:\n- [1\n", r"data.yaml:\d: not YAML"),
            # 3 kB of it took seconds
            pytest.param(f"names: {'[' * 3000}", "not YAML: lists or mappings that are nested more than", id="deep"),
            pytest.param(f"names:\n{'- ' * 3000}a", "not YAML: lists or mappings that are nested", id="deep block"),
            ("names: 5\n", "has no 'names' of classes; got 5"),
            ("names: {a: b}\n", "keys of 'names' must be whole numbers"),
            ("names: ['']\n", "label must be text"),
            ("names: &a [*a]\n", "data.yaml: the names of classes must be text; got a list"),
            (BOMB, "data.yaml: the names of classes must be text; got a list"),
        ],
    )
    def test_names_that_cannot_be_used(self, folder: Path, text: str, said: str) -> None:
        write(folder, "data.yaml", text)
        write(folder, "labels/a.txt", "0 0.5 0.5 0.1 0.1\n")
        with pytest.raises(RecordError, match=said):
            read(folder)

    def test_a_text_file_of_labels_alone(self, folder: Path) -> None:
        with pytest.raises(ConfigError, match=r"give the folder with data.yaml or classes.txt"):
            find_label_files([write(folder, "a.txt", "0 0.5 0.5 0.1 0.1\n")])
        write(folder, "classes.txt", "car\n")
        (folder / "a.txt").unlink()
        with pytest.raises(RecordError, match=r"there are no .txt files with rows"):
            read(folder)

    def test_keypoints_are_left_out_and_counted(self, folder: Path) -> None:
        write(folder, "data.yaml", "kpt_shape: [1, 3]\nnames: [car]\n")
        write(folder, "labels/a.txt", "0 0.5 0.5 0.1 0.1 0.4 0.4 2\n")
        (answer,), notes = read(folder)
        assert len(answer.task.spans) == 1 and sum(notes.left_out.values()) == 1


def corners(delimiter: str) -> Any:
    return lambda name, box, label: delimiter.join([name, *map(str, box), label])


def sides(name: str, box: list[float], label: str) -> str:
    x1, y1, x2, y2 = box
    return f"{name},{x1},{y1},{x2 - x1},{y2 - y1},{label}"


def of_twice_the_size(name: str, box: list[float], label: str) -> str:
    return ",".join([name, "128", "96", label, *(str(2 * value) for value in box)])


def shares(name: str, box: list[float], label: str) -> str:
    x1, y1, x2, y2 = box
    return f"{name},x,{label},1,{x1 / 64},{x2 / 64},{y1 / 48},{y2 / 48},0"


def decimal_commas(name: str, box: list[float], label: str) -> str:
    return ";".join([name, *(f"{value:.1f}".replace(".", ",") for value in box), label])


class TestCsv:
    @pytest.mark.parametrize(
        ("header", "row"),
        [
            ("path,xmin,ymin,xmax,ymax,label", corners(",")),  # ours
            ('"image","xmin","ymin","xmax","ymax","label"', corners(",")),  # VoTT
            ("", corners(",")),  # without a header
            ("Path;XMin;YMin;XMax;YMax;Label", corners(";")),
            ("path\tx1\ty1\tx2\ty2\tclass", corners("\t")),
            (" path , xmin , ymin , xmax , ymax , label ", corners(" , ")),
            ("image_path,left,top,width,height,class_name", sides),
            ("filename,x,y,w,h,label", sides),
            ("filename,width,height,class,xmin,ymin,xmax,ymax", of_twice_the_size),
            ("ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsGroupOf", shares),
            ("path,xmin,ymin,xmax,ymax,label", lambda name, box, label: corners(",")(name, box[2:] + box[:2], label)),
            ("path;xmin;ymin;xmax;ymax;label", decimal_commas),
        ],
    )
    def test_shapes_that_people_have(self, folder: Path, header: str, row: Any) -> None:
        text = csv_text(header, row)
        assert read_boxes(write(folder, "labels.csv", text)) == EXPECTED
        assert (
            read_boxes(write(folder, "labels.csv", b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())) == EXPECTED
        )
        assert read_boxes(write(folder, "labels.csv", text.encode("utf-16"))) == EXPECTED

    def test_reversed_corners_are_counted(self, folder: Path) -> None:
        _, notes = read(write(folder, "a.csv", "path,xmin,ymin,xmax,ymax,label\na.jpg,30,2,10,40,car\n"))
        assert notes.repaired == {"corners in reversed order": 1}

    def test_a_row_with_a_path_alone(self, folder: Path) -> None:
        (answer,), _ = read(write(folder, "a.csv", "path,xmin,ymin,xmax,ymax,label\na.jpg,,,,,\n"))
        assert answer.task.spans == ()

    def test_descriptions_of_open_images_and_groups(self, folder: Path) -> None:
        write(folder, "class-descriptions-boxable.csv", "/m/01,Car\n")
        text = "ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf\n00ab,/m/01,0.1,0.2,0.3,0.4,1\n"
        (answer,), _ = read(write(folder, "train-annotations-bbox.csv", text))
        (span,) = answer.task.spans
        assert (span.label, span.other, answer.task.other) == ("Car", {CROWD: 1}, {SPLIT: "train"})

    @pytest.mark.parametrize(
        ("row", "said"),
        [
            ("a.jpg,1,2,nan,4,car", "xmax must be a finite number; got 'nan'"),
            ("a.jpg,1,2,,4,car", "xmax must be a finite number; got ''"),
            ("a.jpg,1,2,x,4,car", "xmax must be a finite number; got 'x'"),
            ("a.jpg,1,2,1e300,4,car", "xmax must be a finite number"),
            ("a.jpg,1,2,3,4,", "the label must be text"),
            (",1,2,3,4,car", "the path of the image is empty"),
            ("a.jpg,1", "the label must be text"),
        ],
    )
    def test_a_row_that_cannot_be_used_costs_itself(self, folder: Path, row: str, said: str) -> None:
        path = write(folder, "a.csv", f"path,xmin,ymin,xmax,ymax,label\nb.jpg,1,2,30,40,car\n{row}\n")
        (answer,), notes = read(path)
        ((place, reason),) = notes.refused
        assert answer.task.path == "b.jpg" and place == f"{path}:3" and said in reason

    def test_another_encoding_is_named_with_its_line(self, folder: Path) -> None:
        data = "path,xmin,ymin,xmax,ymax,label\na.jpg,1,2,3,4,Bär\n".encode("latin-1")
        with pytest.raises(RecordError, match=r"a.csv:2: not text in UTF-8; save the file in that encoding"):
            read(write(folder, "a.csv", data), format="csv")


class TestLabelStudio:
    def result(self, **value: Any) -> dict[str, Any]:
        return {"original_width": 64, "original_height": 48, "value": {"rectanglelabels": ["car"], **value}}

    def task(self, *results: Any, **more: Any) -> dict[str, Any]:
        return {"data": {"image": "http://x/a%20b.jpg"}, "annotations": [{"result": [*results]}], **more}

    def test_polygons_turned_boxes_and_names(self, folder: Path) -> None:
        polygon = {"original_width": 64, "original_height": 48,
                   "value": {"points": [[0, 0], [50, 0], [25, 50]], "polygonlabels": ["car"]}}  # fmt: skip
        turned = self.result(x=50, y=50, width=25, height=25, rotation=90)
        (answer,), _ = read(write(folder, "p.json", [self.task(polygon, turned)]))
        triangle, box = answer.task.spans
        assert answer.task.path == "/a b.jpg"
        assert triangle.points_xy_px == ((0, 0), (32, 0), (16, 24))
        assert box.xyxy_px == pytest.approx((20, 24, 32, 40))

    def test_tasks_without_an_annotation_are_not_images_without_objects(self, folder: Path) -> None:
        tasks = [
            self.task() | {"annotations": []},
            self.task() | {"annotations": [{"was_cancelled": True}]},
            self.task(),
        ]
        answers, notes = read(write(folder, "p.json", tasks))
        assert len(answers) == 1 and notes.unlabelled == 2

    def test_json_min(self, folder: Path) -> None:
        label = {"x": 12.5, "y": 12.5, "width": 50, "height": 50, "rectanglelabels": ["car"],
                 "original_width": 64, "original_height": 48}  # fmt: skip
        (answer,), _ = read(write(folder, "p.json", [{"image": "/data/local-files/?d=x/a.jpg", "label": [label]}]))
        assert answer.task.path == "x/a.jpg" and boxes_in_px(answer) == [([8, 6, 40, 30], "car")]

    @pytest.mark.parametrize(
        "result",
        [
            5,
            {"value": 5},
            {"value": {"rectanglelabels": []}},
            {"value": {"rectanglelabels": ["car"], "x": None}},
            {"value": {"polygonlabels": ["car"], "points": [[1]]}},
            {"value": {"rectanglelabels": [5], "x": 1, "y": 1, "width": 1, "height": 1}},
        ],
    )
    def test_a_result_that_cannot_be_used_costs_itself(self, folder: Path, result: Any) -> None:
        good = self.result(x=10, y=10, width=10, height=10)
        (answer,), notes = read(write(folder, "p.json", [self.task(good, result)]))
        assert len(answer.task.spans) == 1 and notes.refused[0][0].endswith("p.json: task 0, result 2")

    def test_other_kinds_are_counted(self, folder: Path) -> None:
        good, other = (
            self.result(x=10, y=10, width=10, height=10),
            {"type": "brushlabels", "value": {"brushlabels": []}},
        )
        _, notes = read(write(folder, "p.json", [self.task(good, other)]))
        assert notes.left_out == {"results of Label Studio's kind brushlabels": 1}


def test_cvat_polygons_turned_boxes_subsets_and_other_shapes(folder: Path) -> None:
    shapes = (
        '<polygon label="car" points="1,2;9,2;5,8"/>'
        '<box label="car" xtl="20" ytl="10" xbr="40" ybr="20" rotation="90"/>'
        '<polyline label="car" points="1,2;3,4"/><tag label="x"/>\n<box label="car" xtl="nan" ytl="1" xbr="2" ybr="3"/>'
    )
    text = f'<annotations><image name="a.jpg" subset="Validation" width="64" height="48">{shapes}</image></annotations>'
    path = write(folder, "annotations.xml", text)
    (answer,), notes = read(path)
    polygon, box = answer.task.spans
    assert polygon.points_xy_px == ((1, 2), (9, 2), (5, 8)) and box.xyxy_px == pytest.approx((25, 5, 35, 25))
    assert answer.task.other == {SPLIT: "val"}
    assert notes.left_out == {"shapes of CVAT's kind polyline": 1}
    assert notes.refused == [(f"{path}:2", "xtl must be a finite number; got 'nan'")]


def test_splits_in_names_of_files_and_folders(folder: Path) -> None:
    for split, name in (("train", "train/_annotations.coco.json"), ("val", "valid/_annotations.coco.json"),
                        ("test", "annotations/instances_test2017.json")):  # fmt: skip
        write(folder, name, {**coco(), "info": {"split": split}})
    answers, _ = read(folder)
    assert sorted({answer.task.other[SPLIT] for answer in answers}) == ["test", "train", "val"]


class TestTfrecord:
    def example(self, **changes: Any) -> bytes:
        """The serialized message, as TensorFlow writes it."""
        from odkeras.formats.tfrecord_reader import _example_class

        features: dict[str, list[Any]] = {
            "image/encoded": [encode(draw_pixels(SIZE_HW), "JPEG")],
            "image/filename": [b"a.jpg"],
            **{f"image/object/bbox/{side}": [value] for side, value in
               (("xmin", 0.125), ("ymin", 0.125), ("xmax", 0.625), ("ymax", 0.625))},
            "image/object/class/text": [b"car"],
            **changes,
        }  # fmt: skip
        message = _example_class()()
        for name, values in features.items():
            kind = {bytes: "bytes_list", float: "float_list", int: "int64_list"}[type(values[0])]
            getattr(message.features.feature.add(key=name).value, kind).value.extend(values)
        return bytes(message.SerializeToString())

    def write(self, folder: Path, *examples: bytes) -> Path:
        framed = [len(data).to_bytes(8, "little") + b"\0" * 4 + data + b"\0" * 4 for data in examples]
        return write(folder, "train.record-00000-of-00002", b"".join(framed))

    def test_boxes_and_image(self, folder: Path) -> None:
        path = self.write(folder, self.example())
        (answer,), notes = read(folder)
        assert recognise(path) == "tfrecord" and notes.refused == []
        assert boxes_in_px(answer) == BOXES["a.jpg"] and answer.task.other == {SPLIT: "train"}

    def test_masks_become_polygons(self, folder: Path) -> None:
        mask = np.zeros(SIZE_HW, np.uint8)
        mask[10:30, 10:30] = mask[10:20, 30:40] = 255
        (answer,), _ = read(self.write(folder, self.example(**{"image/object/mask": [encode(mask, "PNG")]})))
        filled = polygons.fill(polygons.from_xy_px(answer.task.spans[0].points_xy_px, SIZE_HW), SIZE_HW)
        assert np.array_equal(filled, mask > 0)

    def test_ids_with_a_label_map_beside(self, folder: Path) -> None:
        changes = {"image/object/class/text": [b""], "image/object/class/label": [3]}
        path = self.write(folder, self.example(**changes))
        assert "the label must be text" in read(path)[1].refused[0][1]

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"image/encoded": [b"no image"]}, "no image|not an image|damaged"),
            ({"image/object/bbox/xmin": [0.1, 0.2]}, "xmin, ymin, xmax and ymax have"),
            ({"image/object/bbox/xmin": [float("nan")]}, "finite numbers"),
            ({"image/object/mask": [b"x"]}, "the mask is not a PNG image"),
        ],
    )
    def test_an_example_that_cannot_be_used_costs_itself(self, folder: Path, changes: Any, said: str) -> None:
        path = self.write(folder, self.example(**changes), self.example())
        answers, notes = read(path, format="tfrecord")
        assert len(answers) == 1
        with pytest.raises(ValueError, match=said):
            raise ValueError(notes.refused[0][1])

    def test_that_is_truncated(self, folder: Path) -> None:
        path = self.write(folder, self.example(), self.example())
        path.write_bytes(path.read_bytes()[:-100])
        answers, notes = read(path)
        assert len(answers) == 1 and "is damaged at byte" in notes.refused[0][1]
