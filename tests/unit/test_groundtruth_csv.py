from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from odkeras.errors import RecordError
from odkeras.groundtruth_csv import check_some_exist, read_truth_csv
from odkeras.labels import LabelMap
from odkeras.simulation.truth import read_labeled_images

HEADER = "path,xmin,ymin,xmax,ymax,label"
IMAGES = Path("/images")


@pytest.fixture
def write(tmp_path: Path):
    def write(*lines: str, encoding: str = "utf-8") -> Path:
        path = tmp_path / "truth.csv"
        path.write_bytes("\n".join(lines).encode(encoding))
        return path

    return write


def test_rows_are_gathered_by_image_in_order_of_first_appearance(write) -> None:
    csv_path = write(HEADER, "b.jpg,1,2,3,4,car", "a.jpg,5.5,6,7,8,person", "b.jpg,9,10,11,12,person", "c.jpg,,,,,")
    b, a, c = read_truth_csv(csv_path, IMAGES)
    assert [image.path for image in (b, a, c)] == [IMAGES / "b.jpg", IMAGES / "a.jpg", IMAGES / "c.jpg"]
    assert b.boxes_xyxy_px.tolist() == [[1, 2, 3, 4], [9, 10, 11, 12]]
    assert b.boxes_xyxy_px.dtype == np.float32
    assert (b.labels, a.labels, c.labels) == (("car", "person"), ("person",), ())
    assert c.boxes_xyxy_px.shape == (0, 4)


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("label,ymax,xmax,ymin,xmin,path", "car,4,3,2,1,a.jpg"),  # any order
        ("filename,width,height,class,xmin,ymin,xmax,ymax", "a.jpg,64,48,car,1,2,3,4"),  # as of other tools
        (" Path , XMin,YMIN,xmax,ymax, Label ", " a.jpg , 1 ,2,3,4, car "),  # spaces and capitals
        ('"path","xmin","ymin","xmax","ymax","label"', '"a.jpg","1","2","3","4","car"'),
        ("\ufeffpath,xmin,ymin,xmax,ymax,label", "a.jpg,1,2,3,4,car"),  # as Excel saves it
        ("path,filename,xmin,ymin,xmax,ymax,class,label", "a.jpg,no.jpg,1,2,3,4,no,car"),  # our own names first
        ("filename,path,xmin,ymin,xmax,ymax,class,label", "no.jpg,a.jpg,1,2,3,4,no,car"),
        ("path,xmin,ymin,xmax,ymax,label,path", "a.jpg,1,2,3,4,car,no.jpg"),  # the first of two
        (HEADER, "a.jpg,1e0,2.0,+3,4,car,more,cells"),
        (HEADER + "\r", "a.jpg,1,2,3,4,car\r"),
    ],
)
def test_all_supported_ways_to_write_a_row(write, header: str, row: str) -> None:
    (image,) = read_truth_csv(write(header, "", row, " , ,"), IMAGES)
    assert image.path == IMAGES / "a.jpg"
    assert image.boxes_xyxy_px.tolist() == [[1, 2, 3, 4]]
    assert image.labels == ("car",)


def test_an_absolute_path_stays_and_names_may_hold_commas(write, tmp_path: Path) -> None:
    images = read_truth_csv(write(HEADER, f"{tmp_path}/a.jpg,1,2,3,4,car", '"b, c.jpg",1,2,3,4,"big, red"'), IMAGES)
    assert [image.path for image in images] == [tmp_path / "a.jpg", IMAGES / "b, c.jpg"]
    assert images[1].labels == ("big, red",)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([""], ":1: the header lacks path, xmin, ymin, xmax, ymax, label; it has nothing"),
        (["path,xmin,ymin,xmax,label"], ":1: the header lacks ymax; it has 'path', 'xmin', 'ymin', 'xmax', 'label'"),
        (["a.jpg,1,2,3,4,car"], ":1: the header lacks path,"),  # no header
        (["path;xmin;ymin;xmax;ymax;label"], ":1: the header lacks path, xmin"),
        ([HEADER, "a.jpg,1,2,3,4,car", "a.jpg,1,x,3,4,car"], ":3: ymin must be a number of pixels; got 'x'"),
        ([HEADER, "a.jpg,1,nan,3,4,car"], ":2: ymin must be a number of pixels; got 'nan'"),
        ([HEADER, "a.jpg,1,2,3"], ":2: ymax must be a number of pixels; got ''"),  # a row that was cut
        ([HEADER, "a.jpg,1,2,3,4,"], ":2: the box has no label"),
        ([HEADER, ",1,2,3,4,car"], ":2: the path is empty"),
        (
            [HEADER, "a.jpg,9,2,3,4,car"],
            ":2: xmin 9 is larger than xmax 3; are the columns in the order of the header?",
        ),
        ([HEADER, '"a', 'b.jpg",x,2,3,4,car'], ":3: xmin must be"),  # a line break in a name
    ],
)
def test_errors_name_their_line(write, lines: list[str], message: str) -> None:
    csv_path = write(*lines)
    with pytest.raises(RecordError) as raised:
        read_truth_csv(csv_path, IMAGES)
    assert str(raised.value).startswith(f"{csv_path}{message}")


SIZED = "filename,width,height,class,xmin,ymin,xmax,ymax"


class TestBoxesAndTheImage:
    """Boxes for another image were trained on as they were, cut at the edges of the image."""

    @pytest.mark.parametrize(
        ("row", "expected"),
        [
            ("a.jpg,64,48,car,16,12,32,24", [0.25, 0.25, 0.5, 0.5]),
            ("a.jpg,128,96,car,16,12,32,24", [0.125, 0.125, 0.25, 0.25]),  # of a copy twice as large
            ("a.jpg,32,24,car,16,12,32,24", [0.5, 0.5, 1, 1]),
            ("a.jpg,,,car,16,12,32,24", [0.25, 0.25, 0.5, 0.5]),
            ("a.jpg,65,48,car,13,12,26,24", [0.25, 0.2, 0.5, 0.4]),  # rounded to a whole pixel
            ("a.jpg,64,48,car,-3,-3,66,50", [0, 0, 1, 1]),  # a little outside
        ],
    )
    def test_the_boxes_refer_to_width_and_height(self, write, row: str, expected: list[float]) -> None:
        (image,) = read_truth_csv(write(SIZED, row), IMAGES)
        np.testing.assert_allclose(image.boxes((48, 64)), [expected], atol=1e-6)

    @pytest.mark.parametrize(
        ("rows", "image_size_hw", "message"),
        [
            (
                ["a.jpg,120,80,car,10,20,50,60"],
                (80, 80),
                ":2: the boxes are for 120 x 80 pixels, but the image",
            ),
            (["a.jpg,120,80,car,10,20,50,60"], (120, 80), "its camera was turned: the boxes must be for the upright"),
            (["a.jpg,,,car,1,2,3,4", "a.jpg,,,car,10,20,50,60"], (40, 60), ":3: box [10.0, 20.0, 50.0, 60.0] is far"),
            (
                ["a.jpg,,,car,-9,1,50,30"],
                (40, 60),
                ":2: box [-9.0, 1.0, 50.0, 30.0] is far outside the image",
            ),
            (["a.jpg,,,car,300,300,400,400"], (40, 60), ":2: box [300.0, 300.0, 400.0, 400.0] is far outside"),
        ],
    )
    def test_boxes_that_do_not_fit_are_refused(
        self, write, rows: list[str], image_size_hw: tuple[int, int], message: str
    ) -> None:
        csv_path = write(SIZED, *rows)
        (image,) = read_truth_csv(csv_path, IMAGES)
        with pytest.raises(RecordError) as raised:
            image.boxes(image_size_hw)
        assert str(raised.value).startswith(str(csv_path)) and message in str(raised.value)

    def test_an_image_without_boxes_has_any_size(self, write) -> None:
        (image,) = read_truth_csv(write(SIZED, "a.jpg,120,80,,,,,"), IMAGES)
        assert image.boxes((3, 4)).shape == (0, 4)

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            (["a.jpg,64,48,car,0.1,0.2,0.5,1"], ":2: all coordinates of this image are from 0 to 1"),
            (["b.jpg,64,48,car,1,2,3,4", "a.jpg,64,48,car,0,0,1,1"], ":3: all coordinates of this image are"),
            (["a.jpg,64,48,car,1,2,3,4", "a.jpg,48,64,car,1,2,3,4"], ":3: width and height differ from those of"),
            (["a.jpg,64,,car,1,2,3,4"], ":2: height must be a number of pixels; got ''"),
            (["a.jpg,64,x,car,1,2,3,4"], ":2: height must be a number of pixels; got 'x'"),
            (["a.jpg,64,0,car,1,2,3,4"], ":2: width and height must be at least 1 pixel; got 64 and 0"),
        ],
    )
    def test_what_is_no_pixels_is_refused(self, write, rows: list[str], message: str) -> None:
        csv_path = write(SIZED, *rows)
        with pytest.raises(RecordError) as raised:
            read_truth_csv(csv_path, IMAGES)
        assert message in str(raised.value)


def test_files_that_cannot_be_read(write, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"cannot read .*missing\.csv: No such file"):
        read_truth_csv(tmp_path / "missing.csv", IMAGES)
    with pytest.raises(RecordError, match=r"cannot read .*: Is a directory"):
        read_truth_csv(tmp_path, IMAGES)
    with pytest.raises(RecordError, match="is not a CSV file in UTF-8"):
        read_truth_csv(write(HEADER, "é.jpg,1,2,3,4,car", encoding="latin-1"), IMAGES)
    with pytest.raises(RecordError, match="is not a CSV file in UTF-8"):
        read_truth_csv(write(HEADER, f'a.jpg,1,2,3,4,"{"x" * 200_000}"'), IMAGES)


class TestImagesThatAreElsewhere:
    """A line for each of 150 images said what one sentence says."""

    @pytest.mark.parametrize(("folder", "path"), [("images", "a.jpg"), ("my images", "a.jpg"), (".", "sub/a.jpg")])
    def test_the_folder_that_has_them_is_named(self, write, tmp_path: Path, folder: str, path: str) -> None:
        csv_path = write(HEADER, f"{path},1,2,3,4,car", "b.jpg,,,,,")
        place = csv_path.parent / folder
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).touch()
        elsewhere = tmp_path / "elsewhere"
        with pytest.raises(RecordError) as raised:
            check_some_exist(read_truth_csv(csv_path, elsewhere), csv_path, elsewhere)
        assert str(raised.value) == (
            f"none of the 2 images of {csv_path} is in {elsewhere} (the first would be {elsewhere / path}); "
            f"give --images {shlex.quote(str(place))}"
        )

    def test_the_images_folder_is_asked_for_when_none_fits(self, write, tmp_path: Path) -> None:
        csv_path = write(HEADER, "/gone/a.jpg,1,2,3,4,car")
        with pytest.raises(RecordError, match=r"--images names their directory$"):
            check_some_exist(read_truth_csv(csv_path, tmp_path), csv_path, tmp_path)

    def test_a_name_that_is_too_long(self, write, tmp_path: Path) -> None:
        """A traceback ended the simulation."""
        csv_path = write(HEADER, f"{'x' * 300}.jpg,1,2,3,4,car", "a.jpg,,,,,")
        with pytest.raises(RecordError, match="none of the 2 images"):
            check_some_exist(read_truth_csv(csv_path, tmp_path), csv_path, tmp_path)
        image = Image.new("RGB", (64, 48))
        image.save(tmp_path / "a.png")
        image.putpixel((0, 0), (255, 0, 0))
        image.save(tmp_path / "b.png")
        for missing in (1, 5):
            names = [f"{number}{'x' * 300}.png" for number in range(missing)]
            rows = [f"{name},1,2,30,40,car" for name in [*names, "a.png", "b.png"]]
            skipped: list[str] = []
            known = read_labeled_images(
                write(HEADER, *rows),
                tmp_path,
                LabelMap.from_names(["car"]),
                on_skip=lambda name, reason, skipped=skipped: skipped.append(reason),
            )
            assert len(known.annotate) + len(known.held_out) == 2
            assert len(skipped) == 1
