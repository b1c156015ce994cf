"""Publishing only what is not worse than what is served, and going back to an earlier version: how each round ends,
and that the next start respects it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from odkeras.annotation import Annotation
from odkeras.errors import ConfigError
from odkeras.export.info import EXPORT_INFO_PATH, ExportInfo, read_export_info
from odkeras.export.rollback import plan_rollback, roll_back
from odkeras.model.checkpoint import checkpoint_step, list_checkpoints
from odkeras.model.setup import Setup
from odkeras.model.weights import snapshot
from odkeras.training.detection_cache import DetectionCache
from odkeras.training.evaluation import Detector, Evaluator, evaluate_checkpoint, evaluate_version
from odkeras.training.inputs import SERIALIZED
from odkeras.training.process import prepare_training
from odkeras.training.publishing import Comparison, ModelValidator, plan_start
from odkeras.training.rounds import Rounds
from odkeras.version_dirs import list_versions
from tests.fixtures_training import LABEL_MAP, TinyProject

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("shared_models")]

MAP = "DetectionBoxes_Precision/mAP"


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture
def gated(project: TinyProject, shape_records: dict[str, Path]) -> TinyProject:
    """A project with a validation record."""
    config = project.config()
    config.eval_input_reader[0].tf_record_input_reader.input_path[:] = [str(shape_records["test"])]
    project.save(config)
    return project


def begin(project: TinyProject, **options: Any) -> Rounds:
    settings = project.settings(**{"steps_per_epoch": 2, "publish_if_better": True, **options})
    return Rounds(project.config(), LABEL_MAP, settings)


def versions(project: TinyProject) -> list[int]:
    return list_versions(project.directories.export_dir)


def step_of(project: TinyProject, version: int) -> int:
    info = read_export_info(project.directories.export_dir / str(version))
    assert info is not None
    return info.step


@pytest.fixture
def values(monkeypatch: pytest.MonkeyPatch) -> list[float | Exception]:
    """What the next evaluations find: the served version's comes first, where it is evaluated."""
    script: list[float | Exception] = []

    def evaluate(*_: Any, **__: Any) -> dict[str, float]:
        value = script.pop(0)
        if isinstance(value, Exception):
            raise value
        return {MAP: value}

    monkeypatch.setattr(Evaluator, "evaluate", evaluate)
    return script


def play(project: TinyProject, rounds: Rounds, shapes: list[Annotation], number: int = 0) -> dict[str, Any]:
    """One round of one picture; returns its line."""
    project.put(shapes[number : number + 1])
    assert rounds.run_pending()
    return project.metrics()[-1]


class TestOneRound:
    def test_published(self, gated: TinyProject, shapes: list[Annotation], values: list[Any]) -> None:
        rounds = begin(gated)
        values += [0.1, 0.3]
        row = play(gated, rounds, shapes)
        assert row["outcome"] == "published" and "failed" not in row
        assert row["gate"] == {"metric": MAP, "value": 0.3, "served_value": 0.1, "tolerance": 0.01}
        assert [step_of(gated, version) for version in versions(gated)] == [0, 2]
        assert row["version"] == versions(gated)[-1]
        (evaluation,) = gated.metrics("evaluation")
        assert (evaluation["round"], evaluation["metrics"]) == (1, {MAP: 0.3})
        assert values == []
        values += [0.4]  # what was published need not be evaluated again
        assert play(gated, rounds, shapes, 1)["gate"]["served_value"] == 0.3

    def test_held_back(self, gated: TinyProject, shapes: list[Annotation], values: list[Any]) -> None:
        rounds = begin(gated)
        served = versions(gated)
        values += [0.5, 0.3]
        row = play(gated, rounds, shapes)
        assert (row["outcome"], row["version"]) == ("held back", served[0])
        assert row["gate"] == {"metric": MAP, "value": 0.3, "served_value": 0.5, "tolerance": 0.01}
        assert versions(gated) == served
        assert gated.metrics("evaluation")[0]["metrics"] == {MAP: 0.3}
        assert gated.status()["reason"] == (
            f"the last round was held back: {MAP} is 0.300, and 0.500 in the version that is served"
        )
        assert [checkpoint_step(path) for path in list_checkpoints(gated.directories.model_dir)] == [2]

    def test_training_goes_on_from_it(self, gated: TinyProject, shapes: list[Annotation], values: list[Any]) -> None:
        rounds = begin(gated)
        values += [0.5, 0.3]
        play(gated, rounds, shapes)
        held_back = snapshot(rounds._trainer.variables)
        rounds = begin(gated)
        for name, value in snapshot(rounds._trainer.variables).items():
            np.testing.assert_array_equal(value, held_back[name])
        values += [0.5, 0.6]
        row = play(gated, rounds, shapes, 1)
        assert (row["outcome"], row["step"]) == ("published", 4), row
        assert row["gate"]["served_value"] == 0.5
        assert [step_of(gated, version) for version in versions(gated)] == [0, 4]

    @pytest.mark.parametrize(
        ("value", "served", "tolerance", "good"),
        [
            (0.5, 0.5, 0.0, True),
            (0.49, 0.5, 0.0, False),
            (0.45, 0.5, 0.05, True),
            (0.44, 0.5, 0.05, False),
            (None, None, 0.01, True),  # there is no groundtruth
            (0.1, None, 0.01, True),  # what is served cannot be evaluated
            (None, 0.1, 0.01, False),
        ],
    )
    def test_not_worse_by_more_than_the_tolerance(
        self, value: float | None, served: float | None, tolerance: float, good: bool
    ) -> None:
        assert Comparison(MAP, value, served, tolerance).is_good_enough is good

    @pytest.mark.parametrize("absent", [-1.0, float("nan")])
    def test_no_groundtruth_to_compare_on(
        self, gated: TinyProject, shapes: list[Annotation], values: list[Any], absent: float
    ) -> None:
        values += [absent, absent]
        row = play(gated, begin(gated), shapes)
        assert row["outcome"] == "published"
        assert (row["gate"]["value"], row["gate"]["served_value"]) == (None, None)

    def test_the_evaluation_fails(self, gated: TinyProject, shapes: list[Annotation], values: list[Any]) -> None:
        rounds = begin(gated)
        values += [0.1, ConfigError("no examples")]
        row = play(gated, rounds, shapes)
        assert row["outcome"] == "failed"
        assert row["failed"].endswith("because the evaluation failed: no examples")
        assert "gate" not in row and len(versions(gated)) == 1
        assert gated.metrics("evaluation")[0]["failed"] == "no examples"
        begin(gated)
        assert len(versions(gated)) == 1

    def test_what_is_served_cannot_be_evaluated(
        self, gated: TinyProject, shapes: list[Annotation], values: list[Any]
    ) -> None:
        values += [ConfigError("the model makes none"), 0.2]
        row = play(gated, begin(gated), shapes)
        assert (row["outcome"], row["gate"]["served_value"]) == ("published", None)

    def test_without_the_option_every_round_is_published(
        self, gated: TinyProject, shapes: list[Annotation], values: list[Any]
    ) -> None:
        row = play(gated, begin(gated, publish_if_better=False), shapes)
        assert row["outcome"] == "published" and "gate" not in row

    def test_a_round_that_does_not_train(
        self, gated: TinyProject, shapes: list[Annotation], values: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rounds = begin(gated)
        real = rounds._summaries.watch

        def poisoned(batches: Iterator[Any], step: int) -> Iterator[Any]:
            for features, labels in real(batches, step):
                yield {**features, "image": features["image"] * np.nan}, labels

        monkeypatch.setattr(rounds._summaries, "watch", poisoned)
        row = play(gated, rounds, shapes)
        assert row["outcome"] == "failed" and row["failed"].startswith("the loss or the weights were not finite")
        assert values == [] and gated.metrics("evaluation") == []


class TestRealFigures:
    def test_both_sides_on_the_same_examples(self, gated: TinyProject, shapes: list[Annotation]) -> None:
        config = gated.config()
        config.eval_config.metrics_set[:] = ["pascal_voc_detection_metrics"]
        gated.save(config)
        setup = Setup(config, LABEL_MAP)
        rounds = begin(gated, steps_per_epoch=20)
        gated.put(shapes)
        rounds.run_pending()
        (row,) = gated.metrics()
        first = versions(gated)[0]
        metric = "PascalBoxes_Precision/mAP@0.5IOU"
        assert row["gate"]["metric"] == metric
        assert row["gate"]["served_value"] == evaluate_version(setup, gated.directories.export_dir, first)[metric]
        assert row["gate"]["value"] == evaluate_checkpoint(setup, gated.directories.model_dir)[metric]
        assert row["gate"]["value"] == gated.metrics("evaluation")[0]["metrics"][metric]
        assert row["gate"]["value"] > row["gate"]["served_value"]
        assert row["evaluate_s"] > 0 and row["publish_s"] >= 0
        assert step_of(gated, versions(gated)[-1]) == 20

    def test_a_served_version_of_another_tool(
        self, gated: TinyProject, shapes: list[Annotation], saved_once: Path
    ) -> None:
        """Through its signature; afterwards the new weights are still there."""
        shutil.copytree(saved_once, gated.directories.export_dir / "7")
        (gated.directories.export_dir / "7" / EXPORT_INFO_PATH).unlink()
        rounds = begin(gated)
        assert versions(gated) == [7]
        row = play(gated, rounds, shapes)
        assert row["outcome"] == "published" and row["gate"]["served_value"] is not None
        trained = snapshot(rounds._trainer.variables)
        for name, value in snapshot(rounds._model.variables).items():
            np.testing.assert_array_equal(value, trained[name])

    def test_on_answers_that_are_kept_for_evaluation(self, project: TinyProject, shapes: list[Annotation]) -> None:
        """The examples grow, so what is served is evaluated again; before there are any, everything is published."""
        ordered = sorted(shapes, key=lambda shape: shape.image_id)
        share = (int(ordered[1].image_id[:8], 16) + 1) / 16**8
        rounds = begin(project, eval_split=share)
        project.put(ordered[2:4])
        rounds.run_pending()
        for number in (0, 1):
            project.put([ordered[number], ordered[4 + number]])
            rounds.run_pending()
        rows = project.metrics()
        assert rows[0]["gate"] == {"metric": None, "value": None, "served_value": None, "tolerance": 0.01}
        assert rows[0]["outcome"] == "published"
        assert [row["gate"]["metric"] for row in rows[1:]] == [MAP, MAP]
        assert [row["round"] for row in project.metrics("evaluation")] == [2, 3]


class TestTheNextStart:
    @pytest.mark.parametrize("gate", [True, False])
    def test_what_was_held_back_is_not_published_as_behind(
        self, gated: TinyProject, shapes: list[Annotation], values: list[Any], gate: bool
    ) -> None:
        values += [0.5, 0.3]
        play(gated, begin(gated), shapes)
        rounds = begin(gated, publish_if_better=gate)
        assert len(versions(gated)) == 1 and values == []
        assert gated.status()["version"] == versions(gated)[0]
        values += [0.5, 0.5] if gate else []
        row = play(gated, rounds, shapes, 1)
        assert row["outcome"] == "published"
        assert [step_of(gated, version) for version in versions(gated)] == [0, 4]

    def test_not_after_a_checkpoint_within_the_next_round_either(
        self, gated: TinyProject, shapes: list[Annotation], values: list[Any]
    ) -> None:
        values += [0.5, 0.3]
        rounds = begin(gated)
        play(gated, rounds, shapes)
        rounds._trainer.step_variable.assign_add(1)
        rounds._checkpoints.save()
        begin(gated)
        assert len(versions(gated)) == 1

    @pytest.mark.parametrize(("value", "outcome"), [(0.3, "held back"), (0.7, "published")])
    def test_killed_before_it_was_decided(
        self,
        gated: TinyProject,
        shapes: list[Annotation],
        values: list[Any],
        monkeypatch: pytest.MonkeyPatch,
        value: float,
        outcome: str,
    ) -> None:
        """The checkpoint of the round is there: it was published without a look."""
        rounds = begin(gated)

        def killed(*_: Any) -> None:
            raise Killed

        name = gated.put(shapes[:1])
        with monkeypatch.context() as patch:
            patch.setattr(ModelValidator, "compare", killed)
            with pytest.raises(Killed):
                rounds.run_pending()
        assert gated.metrics() == []
        values += [0.5, value]
        again = begin(gated)
        (row,) = gated.metrics()
        assert (row["outcome"], row["batches"], row["gate"]["value"]) == (outcome, [name], value)
        assert [each["metrics"] for each in gated.metrics("evaluation")] == [{MAP: value}]
        assert len(versions(gated)) == (2 if outcome == "published" else 1)
        assert again.run_pending() is False
        begin(gated)
        assert len(gated.metrics()) == 1 and values == []
        assert len(versions(gated)) == (2 if outcome == "published" else 1)


class TestRollback:
    def go_back(self, project: TinyProject) -> int:
        export_dir = project.directories.export_dir
        return roll_back(export_dir, plan_rollback(export_dir))

    @pytest.fixture
    def rolled_back(self, project: TinyProject, shapes: list[Annotation]) -> TinyProject:
        """After two rounds, to the version of the first."""
        rounds = begin(project, publish_if_better=False)
        for number in range(2):
            play(project, rounds, shapes, number)
        self.go_back(project)
        assert [step_of(project, version) for version in versions(project)] == [0, 2, 4, 2]
        return project

    def test_the_next_start_leaves_it_and_the_next_round_publishes(
        self, rolled_back: TinyProject, shapes: list[Annotation]
    ) -> None:
        before = versions(rolled_back)
        rounds = begin(rolled_back, publish_if_better=False)
        assert versions(rolled_back) == before
        assert rolled_back.status()["version"] == before[-1]
        row = play(rolled_back, rounds, shapes, 2)
        assert (row["outcome"], row["step"]) == ("published", 6)
        assert versions(rolled_back)[:-1] == before

    def test_a_checkpoint_of_a_round_that_was_interrupted(self, rolled_back: TinyProject) -> None:
        rounds = begin(rolled_back, publish_if_better=False)
        rounds._trainer.step_variable.assign_add(1)
        rounds._checkpoints.save()
        before = versions(rolled_back)
        begin(rolled_back, publish_if_better=False)
        assert versions(rolled_back) == before

    def test_the_gate_compares_with_it(
        self, rolled_back: TinyProject, shapes: list[Annotation], shape_records: dict[str, Path]
    ) -> None:
        config = rolled_back.config()
        config.eval_input_reader[0].tf_record_input_reader.input_path[:] = [str(shape_records["test"])]
        rolled_back.save(config)
        row = play(rolled_back, begin(rolled_back), shapes, 2)
        setup = Setup(config, LABEL_MAP)
        export_dir = rolled_back.directories.export_dir
        copy = versions(rolled_back)[3]
        assert row["gate"]["served_value"] == evaluate_version(setup, export_dir, copy)[MAP]

    def test_while_the_trainer_runs(self, project: TinyProject, shapes: list[Annotation]) -> None:
        rounds = begin(project, publish_if_better=False)
        play(project, rounds, shapes)
        copy = self.go_back(project)
        row = play(project, rounds, shapes, 1)
        assert row["version"] > copy and step_of(project, row["version"]) == 4


def version(step: int = 4, **changes: Any) -> ExportInfo:
    return ExportInfo(step, "graph", **changes)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"any_version": False, "newest": None}, "publish"),
        ({"newest": None}, "keep"),  # somebody else's
        ({"newest": None, "unreported": True}, "decide"),
        ({"same_graph": False}, "publish"),
        # freshly built weights of another model: the one that has learned something stays
        ({"same_graph": False, "learned": False, "step": 0}, "keep"),
        ({"same_graph": False, "learned": False, "step": 0, "newest": version(0, learned=False)}, "publish"),
        ({"step": 4}, "keep"),  # it is that checkpoint's
        ({"step": 4, "unreported": True}, "keep"),  # killed between the version and its line
        ({}, "decide"),
        ({"unreported": True}, "decide"),
        ({"last_outcome": "held back"}, "keep"),
        ({"last_outcome": "failed"}, "keep"),
        ({"last_outcome": "held back", "unreported": True}, "decide"),
        ({"last_outcome": "held back", "same_graph": False}, "keep"),  # odkeras was updated meanwhile
        ({"step": 4, "same_graph": False}, "publish"),
        ({"newest": version(2, copy_of=1, replaced_step=4)}, "keep"),
        ({"newest": version(2, copy_of=1, replaced_step=4), "same_graph": False}, "keep"),
        # killed after it had published the round, and then somebody went back
        ({"newest": version(2, copy_of=1, replaced_step=6), "unreported": True}, "keep"),
        # killed in the round after somebody had gone back
        ({"newest": version(2, copy_of=1, replaced_step=4), "unreported": True}, "decide"),
    ],
)
def test_what_the_next_start_does(changes: dict[str, Any], expected: str) -> None:
    usual: dict[str, Any] = {
        "newest": version(),
        "any_version": True,
        "same_graph": True,
        "learned": True,
        "step": 6,
        "unreported": False,
        "last_outcome": "published",
    }
    settings = {**usual, **changes}
    assert plan_start(settings.pop("newest"), **settings) == expected


class TestOptions:
    def test_it_needs_examples(self, project: TinyProject) -> None:
        with pytest.raises(ConfigError, match="with --publish-if-better: eval_input_reader"):
            prepare_training(project.settings(publish_if_better=True))


def test_an_added_example_does_not_evaluate_the_served_version_on_all_again(
    project: TinyProject, shapes: list[Annotation], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever an image was added to the hold-out split, the served version was evaluated on all of them."""
    detected: list[str] = []
    detect = DetectionCache.wrap

    def counted(cache: DetectionCache, detector: Detector) -> Detector:
        def count(features: Any) -> Any:
            served = rounds._validator._served_detections[1]
            detected.append("served" if cache is served else "new")
            return detector(features)

        return detect(cache, count)

    rounds = begin(project, eval_split=0.5)
    monkeypatch.setattr(DetectionCache, "wrap", counted)
    assert rounds._validator is not None
    for number in range(4):
        project.put(shapes[4 * number : 4 * number + 4])
        before = {each.image_id for each in rounds._replay.held_out()}
        detected.clear()
        assert rounds.run_pending()
        held_out = {each.image_id for each in rounds._replay.held_out()}
        if before and len(held_out) > len(before):
            assert detected.count("served") == len(held_out - before)
            assert detected.count("new") == len(held_out)
            return
    raise AssertionError("no image was added to those that are held out")


def test_the_cache_of_detections_has_a_limit() -> None:
    cache, calls = DetectionCache(max_bytes=100), []

    def detect(features: Any) -> dict[str, tf.Tensor]:
        calls.append(features)
        return {"detection_boxes": tf.fill([1, 4, 4], float(len(calls)))}

    cached = cache.wrap(detect)
    first, second = ({SERIALIZED: tf.constant([name])} for name in (b"first", b"second"))
    results = [float(cached(features)["detection_boxes"][0, 0, 0]) for features in (first, first, second, second)]
    assert results == [1.0, 1.0, 2.0, 3.0]
