"""Which classes a detector knows, by the files beside its checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_init_project import write_checkpoint
from typer.testing import CliRunner
from zoo_archives import DETECTOR_INDEX

from odkeras.cli import app
from odkeras.labels import Label, LabelMap
from odkeras.pipeline.templates import read_template
from odkeras.pretrained.detector_classes import COCO_LABEL_MAP, explain_known_labels, trained_label_map

THEIRS = LabelMap((Label(1, "Cat"), Label(2, "Traffic light"), Label(4, "Dog")))
OURS = LabelMap((Label(1, "raccoon"), Label(2, "x", "traffic_light")))
KNOWN = "known to these weights, and suggested from the first image on"
UNKNOWN = "unknown to them, and offered for a click until they are trained"


class TestWhatTheDetectorKnows:
    def test_beside_the_checkpoint_or_above(self, tmp_path: Path) -> None:
        prefix = str(tmp_path / "coco" / "checkpoint" / "ckpt-0")
        assert trained_label_map(prefix, 3) is None
        (tmp_path / "coco" / "checkpoint").mkdir(parents=True)
        THEIRS.save(tmp_path / "coco" / "label_map.pbtxt")
        assert trained_label_map(prefix, 4) == THEIRS
        assert trained_label_map(prefix, 3) is None, "it is of another model"
        OURS.save(tmp_path / "coco" / "checkpoint" / "label_map.pbtxt")
        assert trained_label_map(prefix, 4) == OURS

    def test_a_detector_of_the_model_zoo(self) -> None:
        assert trained_label_map("zoo/ssd_mobilenet_v2_320x320_coco17_tpu-8/checkpoint/ckpt-0", 90) is COCO_LABEL_MAP
        assert trained_label_map("zoo/ssd_mobilenet_v2_320x320_coco17_tpu-8/checkpoint/ckpt-0", 89) is None
        assert trained_label_map("mine/checkpoint/ckpt-0", 90) is None

    def test_a_label_map_that_cannot_be_read(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        (tmp_path / "label_map.pbtxt").write_text("item { id: 0 }")
        assert trained_label_map(str(tmp_path / "ckpt-0"), 90) is None
        assert "stay unknown" in caplog.text


class TestWhatInitSays:
    @pytest.mark.parametrize(
        ("theirs", "said"),
        [
            (
                THEIRS,
                "known to these weights, and suggested from the first image on: x; unknown to them, and offered "
                "for a click until they are trained: raccoon",
            ),
            (OURS, f"{KNOWN}: raccoon, x"),
            (
                LabelMap.from_names(["cow"]),
                f"{UNKNOWN}: raccoon, x",
            ),
            (None, "it is not known which classes these weights were trained on: add a label_map.pbtxt beside them"),
        ],
    )
    def test_the_labels_by_name(self, tmp_path: Path, theirs: LabelMap | None, said: str) -> None:
        if theirs is not None:
            theirs.save(tmp_path / "label_map.pbtxt")
        assert explain_known_labels(str(tmp_path / "ckpt-0"), OURS) == said

    @pytest.mark.parametrize(("classes", "says"), [(90, "first image on: person"), (7, "not known which classes")])
    def test_a_detector_of_the_zoo(self, tmp_path: Path, classes: int, says: str) -> None:
        folder = tmp_path / "ssd_coco17"
        (folder / "checkpoint").mkdir(parents=True)
        write_checkpoint(str(folder / "checkpoint" / "ckpt-0"), b"_box_predictor")
        template = read_template("ssd_mobilenet_v2_fpnlite_320")
        (folder / "pipeline.config").write_text(template.replace("num_classes: 1", f"num_classes: {classes}"))
        arguments = ["init", str(tmp_path / "new"), "--label", "person", "--weights", str(folder)]
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0 and says in done.stdout, done.output

    def test_nothing_without_labels(self, tmp_path: Path) -> None:
        checkpoint = write_checkpoint(str(tmp_path / "ckpt-0"), DETECTOR_INDEX)
        done = CliRunner().invoke(app, ["init", str(tmp_path / "new"), "--no-labels", "--weights", checkpoint])
        assert done.exit_code == 0 and "weights" not in done.stdout, done.output
