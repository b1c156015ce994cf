"""Keypoints in the loop: answers with and without them become a version whose suggestions have keypoints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from odkeras.annotation import Annotation, Answer, Decision, Span, Task
from odkeras.boxes import Detections
from odkeras.data.ingest import ingest
from odkeras.data.records import annotation_from_example, example_from_annotation, with_keypoints
from odkeras.data.replay import ReplayStore
from odkeras.formats.prodigy import read_annotation, write_answer
from odkeras.images import encode_image, read_image
from odkeras.inbox import put_batch
from odkeras.keypoints import Keypoint
from odkeras.labels import LabelMap
from odkeras.model.setup import prepare_setup
from odkeras.project import read_jsonl
from odkeras.serving.local import LocalModel
from odkeras.session.events import Listener
from odkeras.session.suggester import Suggester, SuggestionRules
from odkeras.session.thresholds import FixedThreshold
from odkeras.training.rounds import Rounds
from odkeras.version_dirs import list_versions
from tests.fixtures_keypoints import ARROWS, KEYPOINTS, arrow_config, write_arrows
from tests.fixtures_training import TinyProject, give_boxes_an_area

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

BEFORE = LabelMap.from_names(["arrow"])


def arrow(*keypoints: Keypoint) -> Span:
    return Span("arrow", ((10.0, 10.0), (60.0, 40.0)), keypoints=keypoints)


def answered(folder: Path, number: int, *spans: Span) -> dict[str, Any]:
    image = read_image(folder / f"{number}.png")
    return write_answer(Answer(Task("", f"{number}.png", image, image.image_size_hw, spans=spans), Decision.ACCEPT))


def serialized(folder: Path, label_map: LabelMap, *spans: Span) -> bytes:
    annotation = read_annotation(answered(folder, 0, *spans), label_map).annotation
    assert annotation is not None
    return example_from_annotation(annotation, label_map).SerializeToString()


def keypoints_of(example: bytes) -> Any:
    return annotation_from_example(example).groundtruth.keypoints


@pytest.fixture
def project(tmp_path: Path) -> TinyProject:
    project = TinyProject(tmp_path)
    project.directories.create()
    write_arrows(tmp_path, 6)
    project.save(arrow_config(project.label_map_path, tmp_path / "none.record"))
    return project


class TestReplayedExamples:
    def test_old_examples_get_keypoints_that_are_not_labelled(self, project: TinyProject) -> None:
        old = serialized(project.folder, BEFORE, arrow(), arrow())
        assert keypoints_of(old) is None
        points = keypoints_of(with_keypoints(old, KEYPOINTS))
        assert points.shape == (2, 3, 3) and not points.any()

    def test_those_that_have_them_stay_as_they_are(self, project: TinyProject) -> None:
        for spans in ((arrow(Keypoint("tip", 64.0, 48.0)),), ()):
            example = serialized(project.folder, ARROWS, *spans)
            assert with_keypoints(example, KEYPOINTS) is example

    def test_keypoints_follow_their_names(self, project: TinyProject) -> None:
        """After a keypoint was added to the label map, or they were sorted otherwise."""
        example = serialized(
            project.folder, ARROWS, arrow(), arrow(Keypoint("tip", 64.0, 48.0), Keypoint("tail", 0, 0, 1))
        )
        points = keypoints_of(with_keypoints(example, ("tip", "nose", "middle", "tail")))
        assert points[1] == pytest.approx(np.array([[0.5, 0.5, 2], [0, 0, 0], [0, 0, 0], [0, 0, 1]]))
        assert not points[0].any()


class Served:
    """The version that the loop published, in this process."""

    def __init__(self, directory: Path) -> None:
        self._model = LocalModel(directory)

    def available_version(self) -> int:
        return 1

    def has_learned(self, version: int) -> bool:
        return True

    def predict(self, images: Sequence[bytes], *, batch_size: int, version: int | None) -> list[Detections]:
        return self._model([encode_image(data, source="test") for data in images])


def test_a_round_on_answers_with_and_without_keypoints(project: TinyProject) -> None:
    folder, directories = project.folder, project.directories
    put_batch(directories.inbox_dir, [answered(folder, 0, arrow())])
    ingest(directories, ReplayStore(directories, 0.0, BEFORE.texts), BEFORE)  # before the label map had keypoints
    put_batch(
        directories.inbox_dir,
        [
            answered(folder, 1, arrow(Keypoint("tail", 12, 14), Keypoint("tip", 58, 38, 1)), arrow()),
            answered(folder, 2),
            answered(folder, 3, arrow(Keypoint("nose", 1, 1)), arrow(Keypoint("middle", 30, 25))),
        ],
    )
    settings = project.settings(steps_per_epoch=2, eval_split=0.5, eval_steps=2)
    setup = prepare_setup(project.settings(), purpose="loop")
    rounds = Rounds(setup.config, setup.label_map, settings)
    give_boxes_an_area(rounds._trainer)
    assert rounds.run_pending()
    (row,) = project.metrics()
    assert row["outcome"] == "published" and math.isfinite(row["loss"]), row
    assert read_jsonl(directories.rejected_path) == []
    evaluations = project.metrics("evaluation")
    assert not any("failed" in evaluation for evaluation in evaluations)
    image = read_image(folder / "1.png")
    served = Served(directories.export_dir / str(list_versions(directories.export_dir)[-1]))
    suggest = Suggester(served, ARROWS, SuggestionRules(FixedThreshold(0.0)), Listener())
    (task,) = suggest([Task.of(image, file="1.png")])
    assert task.suggestions is not None and task.spans
    found = [span.keypoints for span in (*task.spans, *task.suggestions.candidates)]
    assert {point.name for points in found for point in points} == set(KEYPOINTS)


def test_annotations_of_the_round_are_complete(project: TinyProject) -> None:
    """Each example of the loop has a value for each keypoint of each object."""
    directories, folder = project.directories, project.folder
    put_batch(directories.inbox_dir, [answered(folder, 0, arrow(), arrow(Keypoint("tip", 9, 9))), answered(folder, 1)])
    store = ReplayStore(directories, 0.0, ARROWS.texts)
    ingest(directories, store, ARROWS)
    found: list[Annotation] = [annotation_from_example(example.read()) for example in store.examples()]
    assert sorted(len(annotation.groundtruth) for annotation in found) == [0, 2]
    assert all(
        annotation.groundtruth.keypoints.shape == (2, 3, 3)
        for annotation in found
        if annotation.groundtruth.keypoints is not None
    )
