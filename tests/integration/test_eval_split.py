"""Answers that are kept out of training, to evaluate on: which they are, and that nothing ever trains on them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from odkeras.annotation import Annotation
from odkeras.data import records
from odkeras.data.replay_shards import list_shards
from odkeras.errors import ConfigError
from odkeras.pipeline.class_history import ClassHistory
from odkeras.splits import is_held_out
from odkeras.training.inputs import example_completion, held_out_examples
from odkeras.training.process import prepare_training
from odkeras.training.rounds import Rounds
from odkeras.training.undo import image_bucket
from odkeras.training.unjudged import ExampleReader
from tests.fixtures_training import LABEL_MAP, TinyProject

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("shared_models")]

MAP = "DetectionBoxes_Precision/mAP"


def begin(project: TinyProject, eval_split: float, **options: Any) -> Rounds:
    settings = project.settings(**{"steps_per_epoch": 1, "eval_split": eval_split, **options})
    return Rounds(project.config(), LABEL_MAP, settings)


def ids(examples: Sequence[Any]) -> set[str]:
    return {example.image_id for example in examples}


def share_of(shapes: Sequence[Annotation], count: int) -> float:
    """A share that takes in so many of the pictures."""
    starts = sorted(int(shape.image_id[:8], 16) for shape in shapes)
    return (starts[count - 1] + 1) / 16**8


@pytest.fixture
def share(shapes: list[Annotation]) -> float:
    return share_of(shapes, 4)


@pytest.fixture
def kept(shapes: list[Annotation], share: float) -> set[str]:
    found = {shape.image_id for shape in shapes if is_held_out(shape.image_id, share)}
    assert len(found) == 4
    return found


def evaluated_ids(rounds: Rounds) -> set[str]:
    assert rounds._validator is not None
    return {
        records.annotation_from_example(serialized).image_id
        for source in rounds._validator.sources()
        for serialized in source.read()
    }


class TestRounds:
    def test_held_out_answers_are_evaluated_on_and_never_trained_on(
        self, project: TinyProject, shapes: list[Annotation], share: float, kept: set[str]
    ) -> None:
        """Also after older records were merged into replay.record."""
        rounds = begin(project, share, temp_files_num=1)
        for number in range(0, 12, 3):
            project.put(shapes[number : number + 3])
            assert rounds.run_pending()
            assert not ids(rounds._chosen) & kept
        assert len(list_shards(project.directories.replay_dir)) == 1
        assert ids(rounds._chosen) == {shape.image_id for shape in shapes} - kept
        assert evaluated_ids(rounds) == kept
        assert project.metrics()[-1]["examples"] == 8
        evaluations = project.metrics("evaluation")
        assert evaluations[-1]["round"] == 4 and 0 <= evaluations[-1]["metrics"][MAP] <= 1
        buckets = {image_bucket(image_id) for image_id in kept}
        rounds._chosen = rounds._replay.examples()  # where they lie now
        seen: set[int] = set()
        for features, _ in itertools.islice(rounds._crew._dataset, 8):  # twice over the training set
            seen |= set(features["hash"].numpy().tolist())
        assert len(seen) == 8 and not seen & buckets

    def test_no_evaluation_before_an_answer_is_held_out(
        self, project: TinyProject, shapes: list[Annotation], share: float, kept: set[str]
    ) -> None:
        rounds = begin(project, share)
        project.put([shape for shape in shapes if shape.image_id not in kept][:2])
        assert rounds.run_pending()
        (row,) = project.metrics()
        assert row["outcome"] == "published"
        assert project.metrics("evaluation") == []

    @pytest.mark.parametrize("replay", ["on", "off"])
    def test_no_round_when_all_answers_are_held_out(
        self, project: TinyProject, shapes: list[Annotation], share: float, kept: set[str], replay: str
    ) -> None:
        rounds = begin(project, share, replay=replay)
        project.put([shape for shape in shapes if shape.image_id in kept])
        assert rounds.run_pending() is True
        assert rounds.run_pending() is False
        assert project.metrics() == []
        assert project.status()["reason"] == (
            "every image of the newest answers is kept for evaluation, or was rejected or ignored later"
        )
        assert begin(project, share).run_pending() is False
        assert evaluated_ids(rounds) == kept

    def test_the_latest_answer_of_a_held_out_image_counts_after_a_restart(
        self, project: TinyProject, shapes: list[Annotation], share: float, kept: set[str]
    ) -> None:
        """The latest answer counts, on the same side."""
        rounds = begin(project, share)
        project.put(shapes)
        rounds.run_pending()
        (again, *others) = [shape for shape in shapes if shape.image_id in kept]
        emptied = Annotation(again.image, again.groundtruth.empty(), again.image_id, again.file)
        project.put([emptied])
        project.put(others[:1], "reject")
        rounds = begin(project, share)
        rounds.run_pending()
        assert not ids(rounds._chosen) & kept
        assert evaluated_ids(rounds) == kept - {others[0].image_id}
        assert rounds._validator is not None
        (source,) = rounds._validator.sources()
        truths = {each.image_id: each.groundtruth for each in map(records.annotation_from_example, source.read())}
        assert len(truths[again.image_id]) == 0

    def test_another_share_takes_effect_at_once(
        self, project: TinyProject, shapes: list[Annotation], share: float
    ) -> None:
        project.put(shapes[:6])
        begin(project, share, temp_files_num=1).run_pending()
        project.put(shapes[6:])
        for other in (share_of(shapes, 8), 0.0, share):
            rounds = begin(project, other, temp_files_num=1)
            project.put(shapes[-1:])
            rounds.run_pending()
            expected = {shape.image_id for shape in shapes if is_held_out(shape.image_id, other)}
            assert ids(rounds._chosen) == {shape.image_id for shape in shapes} - expected
            assert ids(rounds._replay.held_out()) == expected

    def test_a_damaged_held_out_answer_fails_only_the_evaluation(
        self, project: TinyProject, shapes: list[Annotation], share: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(self: Any) -> Iterator[bytes]:
            yield b"no example"

        monkeypatch.setattr("odkeras.training.evaluation.Evaluator._read", broken)
        rounds = begin(project, share)
        project.put(shapes)
        assert rounds.run_pending()
        assert project.metrics()[0]["outcome"] == "published"
        (row,) = project.metrics("evaluation")
        assert row["failed"].startswith("the answers that are kept for evaluation (--eval-split): ")


class TestMasks:
    def test_boxes_count_as_masks(
        self, project: TinyProject, shapes: list[Annotation], share: float, kept: set[str]
    ) -> None:
        """As for training, where the model learns masks and an answer has boxes alone."""
        rounds = begin(project, share)
        project.put(shapes)
        rounds.run_pending()
        for masks in (False, True):
            config = project.config()
            config.train_input_reader.load_instance_masks = masks
            read = ExampleReader(example_completion(config, LABEL_MAP), LABEL_MAP, ClassHistory({}))
            source = held_out_examples(config, rounds._replay.held_out(), read=read)
            features = [records._parse(serialized).features.feature for serialized in source.read()]
            assert [records.MASK_FEATURE in each for each in features] == [masks] * len(kept)


class TestOptions:
    @pytest.mark.parametrize(("share", "runs"), [(0.2, True), (0.0, False)])
    def test_eval_split_replaces_an_evaluation_record(self, project: TinyProject, share: float, runs: bool) -> None:
        settings = project.settings(eval_split=share, run_eval=True)
        if runs:
            prepare_training(settings)
        else:
            with pytest.raises(ConfigError, match="with --run-eval: eval_input_reader"):
                prepare_training(settings)
