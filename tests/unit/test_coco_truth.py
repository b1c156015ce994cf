from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from odkeras.errors import LabelMapError, RecordError
from odkeras.formats.coco_truth import CocoObjects, read_coco
from odkeras.labels import Label, LabelMap

PEOPLE = LabelMap((Label(1, "person", None, ((0, "nose"), (1, "hand"))), Label(2, "dog")))
SIZE_HW = (40, 80)
SQUARE = [10, 10, 20, 10, 20, 20, 10, 20]


def document(**annotation: Any) -> dict[str, Any]:
    row = {"id": 5, "image_id": 1, "category_id": 3, "bbox": [8, 4, 16, 8], **annotation}
    return {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 80, "height": 40}],
        "annotations": [row],
        "categories": [
            {"id": 3, "name": "person", "keypoints": ["hand", "nose"]},
            {"id": 9, "name": "dog"},
            {"id": 10, "name": "cat"},
        ],
    }


def objects_in(folder: Path, content: Any, *, masks: bool = False) -> tuple[CocoObjects, list[str]]:
    path = folder / "truth.json"
    path.write_text(json.dumps(content))
    truth = read_coco(path, PEOPLE)
    return truth.objects_of(truth.images[0], SIZE_HW, masks=masks)


def test_boxes_and_keypoints_by_their_names(tmp_path: Path) -> None:
    """The label map numbers the keypoints otherwise than the category lists them."""
    found, problems = objects_in(tmp_path, document(keypoints=[16, 10, 2, 8, 20, 1]))
    assert problems == []
    assert found.groundtruth.boxes == pytest.approx(np.array([[0.1, 0.1, 0.3, 0.3]]))
    assert found.groundtruth.keypoints == pytest.approx(np.array([[[0.5, 0.1, 1], [0.25, 0.2, 2]]]))
    assert found.crowds.tolist() == [False] and found.masks is None


def test_objects_without_keypoints_get_unlabelled_ones(tmp_path: Path) -> None:
    for changes in ({}, {"category_id": 9}, {"iscrowd": 1, "keypoints": []}):
        found, problems = objects_in(tmp_path, document(**changes))
        assert problems == [] and found.groundtruth.keypoints is not None
        assert not found.groundtruth.keypoints.any()
        assert found.crowds.tolist() == [bool(changes.get("iscrowd"))]


def test_categories_that_the_label_map_lacks_are_counted(tmp_path: Path) -> None:
    content = document(category_id=10)
    found, problems = objects_in(tmp_path, content)
    assert len(found.groundtruth) == 0 and problems == []
    assert read_coco(tmp_path / "truth.json", PEOPLE).left_out == {"cat": 1}


def test_a_label_map_without_keypoints_leaves_them_out(tmp_path: Path) -> None:
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(document(keypoints=[1, 2])))
    truth = read_coco(path, LabelMap.from_names(["person"]))
    found, problems = truth.objects_of(truth.images[0], SIZE_HW)
    assert (found.groundtruth.keypoints, problems) == (None, [])


class TestMasks:
    @pytest.mark.parametrize(
        ("segmentation", "pixels"),
        [
            ([SQUARE], 100),
            ([SQUARE, [30, 10, 40, 10, 40, 20, 30, 20]], 200),
            ({"size": [40, 80], "counts": [10, 30, 3160]}, 30),
            ([], 128),
            (None, 128),
        ],
    )
    def test_of_polygons_and_run_lengths(self, tmp_path: Path, segmentation: Any, pixels: int) -> None:
        found, problems = objects_in(tmp_path, document(segmentation=segmentation), masks=True)
        assert problems == [] and found.masks is not None
        assert found.masks[0].shape == SIZE_HW and found.masks[0].any()
        assert int(found.masks[0].sum()) == pytest.approx(pixels, abs=1)

    def test_of_compressed_run_lengths(self, tmp_path: Path) -> None:
        from pycocotools import mask as coco_masks

        drawn = np.zeros(SIZE_HW, np.uint8)
        drawn[5:9, 10:30] = 1
        runs = coco_masks.encode(np.asfortranarray(drawn))
        shape = {"size": runs["size"], "counts": runs["counts"].decode()}
        found, problems = objects_in(tmp_path, document(segmentation=shape), masks=True)
        assert problems == [] and found.masks is not None and np.array_equal(found.masks[0], drawn.astype(bool))

    @pytest.mark.parametrize(
        ("segmentation", "said"),
        [
            ({"size": [80, 40], "counts": [10, 30, 3160]}, r"its size is \[80, 40\], and the image's is \[40, 80\]"),
            ([[1, 2, 3, 4]], "an even number of at least 6 numbers"),
            ([[1, 2, 3, 4, 5, 6, 7]], "an even number of at least 6 numbers"),
            ([[1, 2, 3, 4, 5, None]], "not a finite number"),
            ("here", "a polygon needs"),
            ({"size": [40, 80]}, "segmentation: "),
        ],
    )
    def test_that_cannot_be_read(self, tmp_path: Path, segmentation: Any, said: str) -> None:
        found, (problem,) = objects_in(tmp_path, document(segmentation=segmentation), masks=True)
        assert len(found.groundtruth) == 0
        with pytest.raises(ValueError, match=f"annotation 5: segmentation: .*{said}|annotation 5: {said}"):
            raise ValueError(problem)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bbox": None}, "bbox: None is not"),
        ({"bbox": [1, 2, 3]}, r"bbox: \[1, 2, 3\] is not"),
        ({"bbox": [1, 2, 3, float("nan")]}, "bbox: .* is not"),
        ({"bbox": [100, 2, 3, 3]}, r"bbox: .* has no area inside the image of 80 x 40"),
        ({"bbox": [10, 2, 0, 3]}, "has no area"),
        ({"keypoints": [1, 2, 2]}, "2 keypoints need 6 numbers; got 3 numbers"),
        ({"keypoints": "none"}, "2 keypoints need 6 numbers; got 'none'"),
        ({"keypoints": [1, 2, 3, 4, 5, 2]}, r"\[1, 2, 3\] is not \[x, y, 0, 1 or 2\]"),
        ({"keypoints": [float("nan"), 2, 2, 4, 5, 2]}, r"is not \[x, y, 0, 1 or 2\]"),
    ],
)
def test_objects_that_cannot_be_used(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    found, (problem,) = objects_in(tmp_path, document(**changes))
    assert len(found.groundtruth) == 0 and found.groundtruth.keypoints is not None
    with pytest.raises(ValueError, match=f"annotation 5: .*{said}"):
        raise ValueError(problem)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "needs the lists of objects images, categories, annotations"),
        ('{"images": [], "annotations": []}', "needs the lists"),
        ('{"images": [{"id": 1}], "annotations": [], "categories": []}', r"images\[0\] needs id and file_name; got"),
        (
            '{"images": [], "annotations": [], "categories": [{"id": [1], "name": "dog"}]}',
            r"categories\[0\] needs id and name",
        ),
    ],
)
def test_files_that_are_not_coco(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "truth.json"
    path.write_text(text)
    with pytest.raises(RecordError, match=said):
        read_coco(path, PEOPLE)


def test_references_to_nothing(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="annotation 5 has the unknown category_id 77"):
        objects_in(tmp_path, document(category_id=77))
    with pytest.raises(RecordError, match="annotations of the image 2, which is not in its list of images"):
        objects_in(tmp_path, document(image_id=2))
    with pytest.raises(RecordError, match=r"cannot read .*: No such file"):
        read_coco(tmp_path / "missing.json", PEOPLE)


def test_label_maps_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(document()))
    with pytest.raises(
        LabelMapError, match=r"none of its categories \(person, dog, cat\) is in the label map \(bird\)"
    ):
        read_coco(path, LabelMap.from_names(["bird"]))
    with pytest.raises(LabelMapError, match=r"the keypoints hand of 'person' are not in the label map \(known: nose\)"):
        read_coco(path, LabelMap((Label(1, "person", None, ((0, "nose"),)),)))
