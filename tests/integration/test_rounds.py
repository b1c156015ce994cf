"""The outer loop: what each round leaves behind, and that the next start goes on from whatever there is."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from waiting import wait_until

from odkeras.annotation import Annotation
from odkeras.control import Control
from odkeras.data.ingest import ingest
from odkeras.data.records import read_records, write_records
from odkeras.data.replay import ReplayStore
from odkeras.data.replay_shards import list_shards
from odkeras.data.stored_example import StoredExample
from odkeras.errors import CheckpointError, InUseError, RequestError, TrainingError
from odkeras.export.info import write_export_info
from odkeras.export.publish import EXPORT_INFO_PATH, read_export_info
from odkeras.inbox import list_batches, put_batch
from odkeras.labels import LabelMap
from odkeras.model.checkpoint import checkpoint_step, list_checkpoints
from odkeras.model.weights import named_variables, snapshot
from odkeras.project import read_jsonl
from odkeras.training import checkpoints
from odkeras.training import rounds as rounds_module
from odkeras.training.checkpoints import CheckpointStore, lock_model_dir
from odkeras.training.process import open_rounds
from odkeras.training.rounds import Rounds
from odkeras.training.trainer import Trainer
from odkeras.training.undo import image_bucket
from odkeras.version_dirs import list_versions
from tests.fixtures_training import LABEL_MAP, TinyProject, answer

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("shared_models")]


class Killed(BaseException):
    """The process ends here, without any goodbye."""


def begin(
    project: TinyProject,
    *,
    live_version: Callable[[], int | None] = lambda: None,
    should_stop: Callable[[], bool] = lambda: False,
    **options: Any,
) -> Rounds:
    """A trainer that has just been started. It may simply be dropped, as a killed one is."""
    settings = project.settings(**{"steps_per_epoch": 2, **options})
    return Rounds(project.config(), LABEL_MAP, settings, live_version=live_version, should_stop=should_stop)


def play(project: TinyProject, rounds: Rounds, shapes: list[Annotation], number: int = 0) -> dict[str, Any]:
    """A round on two pictures; returns its line in metrics.jsonl."""
    project.put(shapes[2 * number : 2 * number + 2])
    assert rounds.run_pending()
    return project.metrics()[-1]


def versions(project: TinyProject) -> list[int]:
    return list_versions(project.directories.export_dir)


def version_step(project: TinyProject, version: int) -> int:
    info = read_export_info(project.directories.export_dir / str(version))
    assert info is not None
    return info.step


def published_weights(project: TinyProject, version: int) -> list[np.ndarray]:
    """The variables of a version, in the order of the model."""
    path = project.directories.export_dir / str(version) / "variables" / "variables"
    reader = tf.train.load_checkpoint(str(path))
    count = sum(name.startswith("weights/") for name in reader.get_variable_to_shape_map())
    return [reader.get_tensor(f"weights/{number}/.ATTRIBUTES/VARIABLE_VALUE") for number in range(count)]


def everything(trainer: Trainer) -> dict[str, Any]:
    return {**snapshot(trainer.variables), **snapshot(trainer.optimizer_variables()), "step": trainer.step}


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert set(found) == set(expected)
    for name, value in found.items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


class TestTheFirstVersion:
    def test_freshly_built_weights(self, project: TinyProject) -> None:
        begin(project)
        (version,) = versions(project)
        assert version_step(project, version) == 0
        info = read_export_info(project.directories.export_dir / str(version))
        assert info is not None and not info.learned  # so that chance is not suggested to anybody
        status = project.status()
        assert (status["state"], status["reason"]) == ("waiting", "no answers yet")
        assert (status["version"], status["step"], status["round"]) == (version, 0, 0)
        assert list_checkpoints(project.directories.model_dir) == []

    def test_the_trainer_starts_from_what_was_published(self, project: TinyProject) -> None:
        rounds = begin(project)
        weights = snapshot(named_variables(rounds._model.inference.model))
        assert_same(snapshot(rounds._trainer.variables), weights)

    def test_one_that_is_there_is_served_as_it_is(self, project: TinyProject) -> None:
        begin(project)
        before = versions(project)
        begin(project)
        assert versions(project) == before
        assert project.status()["version"] == before[0]

    def test_one_of_somebody_else_is_left_alone(self, project: TinyProject) -> None:
        foreign = project.directories.export_dir / "7"
        foreign.mkdir()
        (foreign / "saved_model.pb").write_bytes(b"of another tool")
        begin(project)
        assert versions(project) == [7]
        assert project.status()["version"] == 7

    def test_one_of_another_model_is_replaced(self, project: TinyProject) -> None:
        begin(project)
        (before,) = versions(project)
        config = project.config()
        config.model.center_net.object_center_params.max_box_predictions = 7
        project.save(config)
        begin(project)
        assert len(versions(project)) == 2 and versions(project)[0] == before

    def test_freshly_built_weights_do_not_replace_what_has_learned(self, project: TinyProject) -> None:
        """A detector that somebody put there, for another model than the config's."""
        begin(project)
        (before,) = versions(project)
        directory = project.directories.export_dir / str(before)
        info = read_export_info(directory)
        assert info is not None
        write_export_info(directory, replace(info, learned=True, graph="of another model"))
        begin(project)
        assert versions(project) == [before]

    def test_training_does_not_start_over_where_a_trained_model_is_served(
        self, project: TinyProject, shapes: list[Annotation]
    ) -> None:
        """With another --model-dir, as the advice for checkpoints that do not fit was, random weights replaced it."""
        play(project, begin(project), shapes)
        before, directories = versions(project), project.directories
        elsewhere = project.settings(model_dir=project.folder / "other")
        elsewhere.project.create()
        with pytest.raises(CheckpointError, match="export has 2 training steps, but there is no checkpoint"):
            Rounds(project.config(), LABEL_MAP, elsewhere)
        for path in directories.model_dir.glob("ckpt-*.data*"):
            path.unlink()
        with pytest.raises(CheckpointError, match="none of the checkpoints fits"):
            begin(project)
        for path in directories.model_dir.glob("ckpt-*"):
            path.unlink()
        with pytest.raises(CheckpointError, match="no checkpoint"):
            begin(project)
        assert versions(project) == before

    def test_weights_that_are_not_finite_are_not_published(
        self, project: TinyProject, shapes: list[Annotation], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rounds = begin(project)
        play(project, rounds, shapes)
        before, real = versions(project), rounds._trainer.weights_for_prediction
        name, *_ = real()
        monkeypatch.setattr(
            rounds._trainer, "weights_for_prediction", lambda: {**real(), name: np.asarray(real()[name]) * np.nan}
        )
        row = play(project, rounds, shapes, 1)
        assert versions(project) == before
        assert (row["outcome"], row["version"]) == ("failed", before[-1])
        assert row["failed"].startswith("not published: 1 of the model's weights are not finite, the first: ")
        assert project.status()["state"] == "waiting"

    def test_a_checkpoint_that_is_newer_is_published(self, project: TinyProject, shapes: list[Annotation]) -> None:
        """The trainer was killed between its checkpoint and the publishing."""
        rounds = begin(project)
        (first,) = versions(project)
        rounds._trainer.step_variable.assign(30)
        for variable in rounds._trainer.variables.values():
            variable.assign(tf.ones_like(variable))
        rounds._checkpoints.save()
        begin(project)
        assert [version_step(project, version) for version in versions(project)] == [0, 30]
        assert versions(project)[0] == first
        assert all((weights == 1).all() for weights in published_weights(project, versions(project)[-1]))

    def test_the_fine_tune_checkpoint(self, project: TinyProject, trainer: Trainer, tmp_path: Path) -> None:
        for variable in trainer.variables.values():
            variable.assign(tf.fill(variable.shape, 0.25))
        checkpoint = CheckpointStore(trainer, tmp_path / "elsewhere", 1).save()
        config = project.config()
        config.train_config.fine_tune_checkpoint = checkpoint
        config.train_config.fine_tune_checkpoint_type = "full"
        project.save(config)
        rounds = begin(project)
        assert all((weights == 0.25).all() for weights in published_weights(project, versions(project)[0]))
        assert all((weights == 0.25).all() for weights in snapshot(rounds._trainer.variables).values())
        assert rounds._trainer.step == 0

    def test_a_detector_of_other_classes_suggests_at_once(
        self, project: TinyProject, trainer: Trainer, tmp_path: Path
    ) -> None:
        """The first version knows where an object may be, and training starts from that for each class."""
        for variable in trainer.variables.values():
            variable.assign(tf.fill(variable.shape, 0.25))
        config = project.config()
        config.train_config.fine_tune_checkpoint = CheckpointStore(trainer, tmp_path / "elsewhere", 1).save()
        config.train_config.fine_tune_checkpoint_type = "detection"
        project.save(config)
        rounds = begin(project)
        (first,) = versions(project)
        info = read_export_info(project.directories.export_dir / str(first))
        assert info is not None and info.learned and info.step == 0
        # The scores of all unknown classes but the first are lower; see `model.heads`.
        assert all(np.isin(weights, (0.25, -4.75)).all() for weights in published_weights(project, first))
        assert all((weights == 0.25).all() for weights in snapshot(rounds._trainer.variables).values())
        assert rounds._model.for_training


class TestARound:
    def test_answers_become_a_version(self, project: TinyProject, shapes: list[Annotation]) -> None:
        rounds = begin(project)
        name = project.put(shapes[:3])
        assert rounds.run_pending() is True
        assert rounds.run_pending() is False
        first, second = versions(project)
        assert second > first
        assert [version_step(project, version) for version in (first, second)] == [0, 2]
        (checkpoint,) = list_checkpoints(project.directories.model_dir)
        assert checkpoint_step(checkpoint) == 2
        (row,) = project.metrics()
        assert {key: row[key] for key in ("round", "step", "steps", "examples", "version", "batches")} == {
            "round": 1,
            "step": 2,
            "steps": 2,
            "examples": 3,
            "version": second,
            "batches": [name],
        }
        assert row["loss"] > 0 and "failed" not in row
        assert all(row[key] >= 0 for key in ("records_s", "train_s", "checkpoint_s", "publish_s"))
        assert 0 < row["input_s"] < row["train_s"]
        status = project.status()
        assert (status["state"], status["reason"]) == ("waiting", "no new answers")
        assert (status["round"], status["step"], status["version"]) == (1, 2, second)
        assert status["loss"] > 0
        assert len(project.directories.train_records()) == 1
        assert list_batches(project.directories.inbox_dir) == []

    def test_the_version_has_the_trained_weights(self, project: TinyProject, shapes: list[Annotation]) -> None:
        rounds = begin(project)
        before = snapshot(rounds._trainer.variables)
        project.put(shapes[:2])
        rounds.run_pending()
        trained = snapshot(rounds._trainer.variables)
        assert_same(snapshot(rounds._model.variables), trained)
        for variable, weights in zip(
            rounds._model.inference.variables, published_weights(project, versions(project)[-1]), strict=True
        ):
            np.testing.assert_array_equal(variable, weights)
        assert any(not np.array_equal(before[name], trained[name]) for name in before)

    def test_answers_with_a_class_that_was_renamed_are_not_trained_on(
        self, project: TinyProject, shapes: list[Annotation], caplog: pytest.LogCaptureFixture
    ) -> None:
        """A new model was trained, silently, that there is nothing in the images of the old name."""
        project.put(shapes[:6])
        begin(project).run_pending()
        name = LABEL_MAP.names[0]
        old = sum(1 in each.groundtruth.classes for each in shapes[:6])
        assert 0 < old < 6
        labels = LabelMap.from_names([f"{name}s", *LABEL_MAP.names[1:]])
        again = project.settings(model_dir=project.folder / "m2", export_dir=project.folder / "e2", steps_per_epoch=1)
        again.project.create()
        said = f"{old} of 6 annotated images are not used: they have classes that are not in the label map ({name!r} in"
        with caplog.at_level(logging.WARNING, "odkeras"):
            rounds = Rounds(project.config(), labels, again)
        assert said in caplog.text
        assert said in rounds.status.current.reason
        assert rounds.run_pending()
        assert read_jsonl(again.project.metrics_path)[-1]["examples"] == 6 - old

    def test_an_example_that_cannot_be_decoded_is_left_out_and_named(
        self, project: TinyProject, shapes: list[Annotation], caplog: pytest.LogCaptureFixture
    ) -> None:
        """Every round failed after 0 steps, and nothing named the image."""
        project.put(shapes[:6])
        rounds = begin(project)
        rounds.run_pending()
        (record,) = project.directories.train_records()
        examples = [tf.train.Example.FromString(each) for each in read_records(record)]
        for example in examples:  # all 6: two steps of two images meet one of them in any order
            encoded = example.features.feature["image/encoded"].bytes_list
            encoded.value[0] = encoded.value[0][:99] + bytes(len(encoded.value[0]) - 99)  # as long as before
        write_records(record, (each.SerializeToString() for each in examples))
        project.put(shapes[6:8])
        with caplog.at_level(logging.ERROR, "odkeras"):
            rounds.run_pending()
        first, second = project.metrics()
        assert (second["outcome"], second["step"] - first["step"]) == ("published", 2)
        assert second["examples"] == 2
        reason = f"{record}: {shapes[2].file}: TensorFlow cannot decode the image: "
        assert reason in caplog.text
        rows = {row["answer"]["image_id"]: row for row in read_jsonl(project.directories.rejected_path)}
        assert rows.keys() == {each.image_id for each in shapes[:6]}
        assert rows[shapes[2].image_id]["reason"].startswith(reason)
        store = ReplayStore(project.directories)  # of the next process
        assert {example.image_id for example in store.examples()} == {each.image_id for each in shapes[6:8]}

    def test_what_comes_in_meanwhile_makes_the_next_round(self, project: TinyProject, shapes: list[Annotation]) -> None:
        rounds = begin(project)
        first = [project.put(shapes[:2]), project.put(shapes[2:3])]
        rounds.run_pending()
        second = project.put(shapes[3:5])
        rounds.run_pending()
        assert [row["batches"] for row in project.metrics()] == [first, [second]]
        assert [row["examples"] for row in project.metrics()] == [3, 5]
        assert [row["step"] for row in project.metrics()] == [2, 4]
        assert [row["round"] for row in project.metrics()] == [1, 2]

    def test_without_replay_on_the_new_answers_alone(self, project: TinyProject, shapes: list[Annotation]) -> None:
        rounds = begin(project, replay="off")
        for some in (shapes[:3], shapes[3:5]):
            project.put(some)
            rounds.run_pending()
        assert {example.image_id for example in rounds._chosen} == {each.image_id for each in shapes[3:5]}
        assert [row["examples"] for row in project.metrics()] == [3, 2]

    def test_an_image_without_objects_trains(self, project: TinyProject, shapes: list[Annotation]) -> None:
        empty = Annotation(shapes[0].image, shapes[0].groundtruth.empty(), shapes[0].image_id, "empty.jpg")
        rounds = begin(project)
        project.put([empty])
        assert rounds.run_pending()
        assert project.metrics()[0]["loss"] > 0

    def test_rejected_answers_alone_make_no_round(self, project: TinyProject, shapes: list[Annotation]) -> None:
        rounds = begin(project)
        project.put(shapes[:2], "reject")
        assert rounds.run_pending() is False
        assert project.metrics() == []
        assert project.status()["reason"] == (
            "the last answers have nothing to train on: 2 were rejected or ignored, 0 could not be used "
            "(see rejected.jsonl)"
        )

    def test_boxes_that_are_left_out_are_told_of(self, project: TinyProject, shapes: list[Annotation]) -> None:
        """They were in the trainer's log alone, where no annotator looks."""
        whole = answer(shapes[0])
        whole["spans"].append({"label": "zebra", "points": [[1, 1], [1, 9], [9, 9], [9, 1]]})
        put_batch(project.directories.inbox_dir, [whole])
        rounds = begin(project)
        assert rounds.run_pending()
        (row,) = project.metrics()
        (problem,) = row["problems"]
        assert "label 'zebra' is not in the label map" in problem

    def test_a_rejected_image_leaves_the_training_set(self, project: TinyProject, shapes: list[Annotation]) -> None:
        rounds = begin(project)
        project.put(shapes[:3])
        rounds.run_pending()
        project.put(shapes[:1], "reject")
        project.put(shapes[3:4])
        rounds.run_pending()
        assert {example.image_id for example in rounds._chosen} == {each.image_id for each in shapes[1:4]}

    def test_all_new_answers_were_rejected_before_they_were_trained(
        self, project: TinyProject, shapes: list[Annotation]
    ) -> None:
        """It counted as a round that nobody reported: the next start wrote one of no steps into metrics.jsonl."""
        project.put(shapes[:2])
        ingest(project.directories, ReplayStore(project.directories), LABEL_MAP)  # killed after that
        project.put(shapes[:2], "ignore")
        rounds = begin(project, replay="off")
        assert rounds.run_pending() is True
        assert project.status()["reason"] == "every image of the newest answers was rejected or ignored later"
        assert rounds.run_pending() is False
        begin(project)
        assert project.metrics() == []

    def test_what_tensorboard_shows(self, project: TinyProject, shapes: list[Annotation]) -> None:
        with open_tiny(project, steps_per_epoch=10) as rounds:
            project.put(shapes[:3])
            rounds.run_pending()
        events = {name: read_events(project.directories.model_dir / name) for name in ("train", "loop")}
        scalars = {"Loss/total_loss", "optimizer/learning_rate", "optimizer/gradient_norm", "speed/steps_per_s"}
        assert scalars <= set(events["train"])
        assert {"training_examples/1", "pipeline.config", "label_map"} <= set(events["train"])
        assert events["train"]["Loss/total_loss"] == [10]
        assert {"round/examples", "round/loss", "seconds/publish_s", "speed/images_per_s"} <= set(events["loop"])
        assert events["loop"]["round/examples"] == [10]


class TestWhatIsKept:
    def test_records_versions_and_checkpoints(self, project: TinyProject, shapes: list[Annotation]) -> None:
        rounds = begin(project, temp_files_num=2, max_checkpoints_num=1)
        for number in range(4):
            project.put(shapes[number : number + 1])
            rounds.run_pending()
        assert [version_step(project, version) for version in versions(project)] == [6, 8]
        assert len(project.directories.train_records()) == 2
        assert len(list_shards(project.directories.replay_dir)) == 1
        assert [checkpoint_step(path) for path in list_checkpoints(project.directories.model_dir)] == [8]
        assert [row["examples"] for row in project.metrics()] == [1, 2, 3, 4]
        assert [row["checkpoint"] for row in project.metrics()] == ["ckpt-2", "ckpt-4", "ckpt-6", "ckpt-8"]
        deleted = project.metrics("garbage")
        assert [len(row["versions"]) for row in deleted] == [0, 1, 1, 1][4 - len(deleted) :]
        assert sum(len(row["records"]) for row in deleted) == 2

    def test_everything(self, project: TinyProject, shapes: list[Annotation]) -> None:
        rounds = begin(project, temp_files_num=0, max_checkpoints_num=0)
        for number in range(3):
            project.put(shapes[number : number + 1])
            rounds.run_pending()
        assert len(versions(project)) == 4
        assert len(project.directories.train_records()) == 3
        assert len(list_checkpoints(project.directories.model_dir)) == 3

    def test_the_version_that_is_served(self, project: TinyProject, shapes: list[Annotation]) -> None:
        served: list[int] = []
        rounds = begin(project, temp_files_num=1, live_version=lambda: served[0])
        served += versions(project)
        for number in range(2):
            project.put(shapes[number : number + 1])
            rounds.run_pending()
        assert [version_step(project, version) for version in versions(project)] == [0, 4]

    def test_nobody_can_say_which_version_is_served(self, project: TinyProject, shapes: list[Annotation]) -> None:
        """Something else answered at the server's address: the trainer ended after every round."""

        def confused() -> int | None:
            raise RequestError(404, "not a model server")

        rounds = begin(project, temp_files_num=1, live_version=confused)
        for number in range(2):
            project.put(shapes[number : number + 1])
            assert rounds.run_pending()
        assert len(versions(project)) == 3
        assert len(project.directories.train_records()) == 1


class TestARoundThatFails:
    @pytest.fixture
    def poisoned(self, project: TinyProject, monkeypatch: pytest.MonkeyPatch) -> Rounds:
        """A trainer whose first round has nothing but poisoned images."""
        rounds = begin(project)
        real, poisoning = rounds._summaries.watch, [True]

        def watch(batches: Iterator[Any], step: int) -> Iterator[Any]:
            for features, labels in real(batches, step):
                yield ({**features, "image": features["image"] * np.nan} if poisoning[0] else features), labels

        monkeypatch.setattr(rounds._summaries, "watch", watch)
        monkeypatch.setattr(rounds, "heal", lambda: poisoning.clear() or poisoning.append(False), raising=False)
        return rounds

    def test_it_is_given_up_with_its_reason(
        self,
        project: TinyProject,
        shapes: list[Annotation],
        poisoned: Rounds,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        before = everything(poisoned._trainer)
        name = project.put(shapes[:2])
        monkeypatch.setattr(logging.getLogger("odkeras"), "propagate", True)
        assert poisoned.run_pending() is True
        (row,) = project.metrics()
        assert (row["batches"], row["steps"], row["step"], row["loss"]) == ([name], 0, 0, None)
        assert row["failed"].startswith("the loss or the weights were not finite 3 times")
        status = project.status()
        assert (status["state"], status["reason"]) == ("waiting", f"the last round failed: {row['failed']}")
        assert len(versions(project)) == 1
        assert_same(everything(poisoned._trainer), before)
        for each in shapes[:2]:
            assert each.image_id in caplog.text

    def test_it_is_not_tried_again_and_its_answers_stay(
        self, project: TinyProject, shapes: list[Annotation], poisoned: Rounds
    ) -> None:
        project.put(shapes[:2])
        poisoned.run_pending()
        assert poisoned.run_pending() is False
        poisoned.heal()  # type: ignore[attr-defined]
        project.put(shapes[2:3])
        assert poisoned.run_pending() is True
        assert [row["examples"] for row in project.metrics()] == [2, 3]
        assert [row["step"] for row in project.metrics()] == [0, 2]
        assert version_step(project, versions(project)[-1]) == 2

    def test_not_after_a_restart_either(self, project: TinyProject, shapes: list[Annotation], poisoned: Rounds) -> None:
        project.put(shapes[:2])
        poisoned.run_pending()
        assert begin(project).run_pending() is False
        assert len(project.metrics()) == 1

    def spoil(self, rounds: Rounds, annotation: Annotation, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
        """From now on, steps with this image fail."""
        bucket, real = image_bucket(annotation.image_id), rounds._trainer._step_function

        def step(features: dict[str, Any], labels: dict[str, Any]) -> dict[str, Any]:
            if bucket not in features["hash"].numpy():
                return dict(real(features, labels))
            if how == "memory":
                raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
            return {**real(features, labels), "Loss/total_loss": np.nan}

        monkeypatch.setattr(rounds._trainer, "_step_function", step)

    @pytest.mark.parametrize("how", ["loss", "memory"])
    def test_one_image_is_taken_out_and_not_the_round(
        self, project: TinyProject, shapes: list[Annotation], monkeypatch: pytest.MonkeyPatch, how: str
    ) -> None:
        """One image whose loss is not finite, or for which the memory is not enough, made every round fail."""
        rounds = begin(project, steps_per_epoch=12)
        self.spoil(rounds, shapes[1], monkeypatch, how)
        project.put(shapes[:5])
        assert rounds.run_pending()
        (row,) = project.metrics()
        assert (row["step"], row["steps"], row["examples"], "failed" in row) == (12, 12, 4, False)
        assert version_step(project, versions(project)[-1]) == 12
        (rejected,) = read_jsonl(project.directories.rejected_path)
        assert rejected["answer"] == {"image_id": shapes[1].image_id}
        assert ("memory" in rejected["reason"]) == (how == "memory")
        project.put(shapes[5:6])
        assert rounds.run_pending()  # it is still left out, without a step that fails
        assert (project.metrics()[-1]["examples"], rounds._trainer.bad_images) == (5, set())
        project.put(shapes[1:2])  # another answer gives it another chance
        ingest(project.directories, rounds._replay, LABEL_MAP)
        assert len(rounds._suspects.without(rounds._replay.examples())) == 6

    def test_images_are_not_left_out_if_they_are_not_the_reason(
        self, project: TinyProject, shapes: list[Annotation], poisoned: Rounds
    ) -> None:
        project.put(shapes[:6])
        poisoned.run_pending()
        assert "failed" in project.metrics()[-1] and not project.directories.rejected_path.exists()
        poisoned.heal()  # type: ignore[attr-defined]
        project.put(shapes[6:7])
        poisoned.run_pending()
        assert project.metrics()[-1]["examples"] == 7


class TestEvaluation:
    @pytest.fixture
    def with_records(self, project: TinyProject, shape_records: dict[str, Path]) -> TinyProject:
        config = project.config()
        config.eval_input_reader[0].tf_record_input_reader.input_path[:] = [str(shape_records["test"])]
        project.save(config)
        return project

    def test_after_each_round(self, with_records: TinyProject, shapes: list[Annotation]) -> None:
        with open_tiny(with_records, run_eval=True, eval_steps=3) as rounds:
            with_records.put(shapes[:2])
            rounds.run_pending()
        (row,) = with_records.metrics("evaluation")
        assert (row["round"], row["step"]) == (1, 2)
        assert 0.0 <= row["metrics"]["DetectionBoxes_Precision/mAP"] <= 1.0
        assert "DetectionBoxes_Precision/mAP@.50IOU" in read_events(with_records.directories.model_dir / "eval")

    def test_one_that_fails_does_not_end_the_training(self, project: TinyProject, shapes: list[Annotation]) -> None:
        """The records to evaluate on had been moved away: the trainer ended with a ConfigError after its first
        round, which a host takes for final."""
        rounds = begin(project, run_eval=True)
        for number in range(2):
            project.put(shapes[number : number + 1])
            assert rounds.run_pending()
        assert [row["step"] for row in project.metrics()] == [2, 4]
        failed = [row["failed"] for row in project.metrics("evaluation")]
        assert len(failed) == 2 and failed[0].startswith("eval_input_reader")


def test_a_round_of_limited_length_trains_on_its_new_answers(project: TinyProject, shapes: list[Annotation]) -> None:
    """A round without `--steps-per-epoch` was one pass, however many images there were."""
    rounds = begin(project, steps_per_epoch=-1, max_round_steps=2, extra_steps=1)
    project.put(shapes[:7])
    assert rounds.run_pending()
    newest = shapes[7]
    project.put([newest])
    drawn: list[str] = []
    read = rounds._read_example

    def note(example: StoredExample) -> bytes:
        drawn.append(example.image_id)
        return read(example)

    rounds._read_example = note  # type: ignore[assignment]
    draws = 2 * rounds._config.train_config.batch_size
    assert draws < 8, "less than one pass"
    assert rounds.run_pending()
    assert project.metrics()[-1]["steps"] == 2
    assert drawn.count(newest.image_id) >= len(drawn) // 2 - 1, "every other one; the pipeline may have begun before"
    drawn.clear()
    assert rounds.train_further()  # after compaction; from all evenly
    assert rounds._crew._feed._drawn.newest_share == 0


class TestExtraSteps:
    """The trainer works while the annotator does."""

    @pytest.fixture(autouse=True)
    def short_slices(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rounds_module, "EXTRA_SLICE", 3)

    def test_they_follow_a_round_and_end(self, project: TinyProject, shapes: list[Annotation]) -> None:
        rounds = begin(project, extra_steps=5)
        assert not rounds.train_further(), "no round has ended yet"
        row = play(project, rounds, shapes)
        assert [rounds.train_further() for _ in range(3)] == [True, True, False]
        first, second = read_jsonl(project.directories.metrics_path)[-2:]
        assert [(each["kind"], each["round"], each["step"], each["steps"]) for each in (first, second)] == [
            ("extra", row["round"], row["step"] + 3, 3),
            ("extra", row["round"], row["step"] + 5, 2),
        ]
        assert row["version"] < first["version"] < second["version"] == versions(project)[-1]
        assert version_step(project, second["version"]) == row["step"] + 5
        assert rounds.status.current.state == "waiting"
        play(project, rounds, shapes, 1)
        assert rounds.train_further(), "each round is followed by its own"

    def test_examples_that_compaction_has_moved_are_trained_on(
        self, project: TinyProject, shapes: list[Annotation]
    ) -> None:
        """Their record is gone, and offsets in replay.record change: they were rejected, and lost for training."""
        rounds = begin(project, extra_steps=3, temp_files_num=1)
        for number in range(3):
            play(project, rounds, shapes, number)
            examples = len(rounds._replay)
            assert rounds.train_further()
            assert len(rounds._replay) == examples == len(rounds._chosen)
        assert not project.directories.rejected_path.exists()
        assert [row["kind"] for row in read_jsonl(project.directories.metrics_path)].count("extra") == 3

    def test_limits_hold_in_rounds_and_in_extra_steps(self, project: TinyProject, shapes: list[Annotation]) -> None:
        rounds = begin(project, extra_steps=3, training_share=0.25)
        play(project, rounds, shapes)
        before = rounds._pauses.paused_s
        assert before > 0
        assert rounds.train_further()
        assert rounds._pauses.paused_s > before
        assert "at most 25% of the time" in rounds._limits.add_to("training")

    def test_new_answers_end_them_at_once(self, project: TinyProject, shapes: list[Annotation]) -> None:
        rounds = begin(project, extra_steps=50)
        row = play(project, rounds, shapes)
        train = rounds._trainer.train

        def answered_meanwhile(*args: Any, **kwargs: Any) -> Any:
            project.put(shapes[2:4])
            return train(*args, **kwargs)

        rounds._trainer.train = answered_meanwhile  # type: ignore[method-assign]
        rounds.train_further()
        rounds._trainer.train = train  # type: ignore[method-assign]
        assert read_jsonl(project.directories.metrics_path)[-1]["kind"] == "round", (
            "an unfinished slice is not published"
        )
        assert not rounds.train_further()
        assert rounds.run_pending()
        assert project.metrics()[-1]["step"] <= row["step"] + 1 + 2
        assert project.metrics()[-1]["examples"] == 4

    def test_one_that_makes_the_model_worse_is_the_last(
        self, project: TinyProject, shapes: list[Annotation], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def held_back(model: Any, step: int, validator: Any, tolerance: float) -> Any:
            return rounds_module.PublishDecision("held back")

        rounds = begin(project, extra_steps=50)
        row = play(project, rounds, shapes)
        monkeypatch.setattr(rounds_module, "publish_round", held_back)
        assert rounds.train_further()
        assert not rounds.train_further()
        assert read_jsonl(project.directories.metrics_path)[-1]["outcome"] == "held back"
        assert versions(project)[-1] == row["version"]
        again = begin(project, extra_steps=50)
        assert versions(project)[-1] == row["version"], "a restart does not publish it either"
        assert not again.train_further()

    def test_a_pause_keeps_them_waiting(self, project: TinyProject, shapes: list[Annotation]) -> None:
        rounds = begin(project, extra_steps=3)
        play(project, rounds, shapes)
        control = Control(project.directories.control_path)
        control.set("stop")
        assert not rounds.train_further()
        control.set("resume")
        wait_until(rounds.train_further, "the control file is polled now and then")


class TestStoppedInARound:
    def test_the_next_start_takes_the_steps_that_are_left(self, project: TinyProject, shapes: list[Annotation]) -> None:
        name = project.put(shapes[:3])
        rounds = begin(project, steps_per_epoch=6, should_stop=lambda: rounds._trainer.step >= 2)
        rounds.run_pending()
        assert project.metrics() == []
        assert checkpoint_step(list_checkpoints(project.directories.model_dir)[-1]) == 2
        at_2 = everything(rounds._trainer)
        again = begin(project, steps_per_epoch=6)
        assert_same(everything(again._trainer), at_2)
        assert again.run_pending() is True
        (row,) = project.metrics()
        assert (row["step"], row["steps"], row["round"], row["batches"]) == (6, 4, 1, [name])
        assert again.run_pending() is False

    def test_new_answers_make_it_a_new_round(self, project: TinyProject, shapes: list[Annotation]) -> None:
        names = [project.put(shapes[:3])]
        rounds = begin(project, steps_per_epoch=6, should_stop=lambda: rounds._trainer.step >= 2)
        rounds.run_pending()
        names.append(project.put(shapes[3:4]))
        again = begin(project, steps_per_epoch=6)
        again.run_pending()
        (row,) = project.metrics()
        assert (row["step"], row["batches"]) == (8, names)

    def test_at_its_last_step_it_is_finished(self, project: TinyProject, shapes: list[Annotation]) -> None:
        """It was left open, and the next start took all its steps a second time."""
        project.put(shapes[:3])
        rounds = begin(project, steps_per_epoch=3, should_stop=lambda: rounds._trainer.step >= 3)
        rounds.run_pending()
        assert [(row["step"], row["steps"]) for row in project.metrics()] == [(3, 3)]
        assert begin(project, steps_per_epoch=3).run_pending() is False


class TestKilled:
    def killed_at(self, rounds: Rounds, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        """Run a round in a process that ends when it comes to `owner.name`."""

        def end(*_: object, **__: object) -> None:
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, end)
            with pytest.raises(Killed):
                rounds.run_pending()

    def test_while_it_trains(self, project: TinyProject, shapes: list[Annotation]) -> None:
        """No checkpoint of this round yet: it starts again."""
        name = project.put(shapes[:3])

        def die_at_2() -> bool:
            if rounds._trainer.step >= 2:
                raise Killed
            return False

        rounds = begin(project, steps_per_epoch=4, should_stop=die_at_2)
        with pytest.raises(Killed):
            rounds.run_pending()
        again = begin(project, steps_per_epoch=4)
        assert again._trainer.step == 0
        again.run_pending()
        assert [(row["step"], row["steps"], row["batches"]) for row in project.metrics()] == [(4, 4, [name])]

    def test_while_it_trains_after_a_checkpoint(
        self, project: TinyProject, shapes: list[Annotation], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("odkeras.training.crew.CHECKPOINT_EVERY_S", -1.0)
        name = project.put(shapes[:3])

        def die_at_3() -> bool:
            if rounds._trainer.step >= 3:
                raise Killed
            return False

        rounds = begin(project, steps_per_epoch=5, should_stop=die_at_3)
        with pytest.raises(Killed):
            rounds.run_pending()
        again = begin(project, steps_per_epoch=5)
        assert again._trainer.step == 3
        again.run_pending()
        assert [(row["step"], row["steps"], row["batches"]) for row in project.metrics()] == [(5, 2, [name])]

    def test_before_its_checkpoint(
        self, project: TinyProject, shapes: list[Annotation], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        name = project.put(shapes[:3])
        rounds = begin(project)
        self.killed_at(rounds, monkeypatch, rounds._checkpoints, "save")
        again = begin(project)
        assert again.run_pending() is True
        assert [(row["step"], row["batches"]) for row in project.metrics()] == [(2, [name])]

    @pytest.mark.parametrize("at", ["copy_weights", "publish"])
    def test_between_its_checkpoint_and_the_version(
        self, project: TinyProject, shapes: list[Annotation], monkeypatch: pytest.MonkeyPatch, at: str
    ) -> None:
        name = project.put(shapes[:3])
        rounds = begin(project)
        self.killed_at(rounds, monkeypatch, rounds_module if at == "copy_weights" else rounds._model, at)
        trained = snapshot(rounds._trainer.variables)
        again = begin(project)
        assert [version_step(project, version) for version in versions(project)] == [0, 2]
        assert_same(snapshot(again._model.variables), trained)
        (row,) = project.metrics()
        assert (row["round"], row["step"], row["batches"]) == (1, 2, [name])
        assert row["version"] == versions(project)[-1] and row["examples"] == 3
        assert again.run_pending() is False
        begin(project)
        assert len(project.metrics()) == 1

    def test_between_the_version_and_its_line(
        self, project: TinyProject, shapes: list[Annotation], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        name = project.put(shapes[:3])
        rounds = begin(project)
        self.killed_at(rounds, monkeypatch, rounds._reports, "round")
        before = versions(project)
        begin(project)
        assert versions(project) == before and len(before) == 2
        assert [(row["round"], row["batches"], row["version"]) for row in project.metrics()] == [
            (1, [name], before[-1])
        ]

    def test_with_half_a_line_in_metrics(self, project: TinyProject, shapes: list[Annotation]) -> None:
        names = []
        rounds = begin(project)
        for number in range(2):
            names.append(project.put(shapes[number : number + 1]))
            rounds.run_pending()
        path = project.directories.metrics_path
        path.write_bytes(path.read_bytes()[:-30])
        begin(project)
        assert [row["batches"] for row in project.metrics()] == [[names[0]], [names[1]]]

    def test_before_old_files_are_deleted(
        self, project: TinyProject, shapes: list[Annotation], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rounds = begin(project, temp_files_num=1)
        project.put(shapes[:1])
        rounds.run_pending()
        project.put(shapes[1:2])
        self.killed_at(rounds, monkeypatch, rounds, "_collect_garbage")
        assert (len(versions(project)), len(project.directories.train_records())) == (2, 2)
        again = begin(project, temp_files_num=1)
        project.put(shapes[2:3])
        again.run_pending()
        assert (len(versions(project)), len(project.directories.train_records())) == (1, 1)
        assert [row["examples"] for row in project.metrics()] == [1, 2, 3]

    def test_the_newest_checkpoint_is_damaged(self, project: TinyProject, shapes: list[Annotation]) -> None:
        """A power cut: what was trained since the one before is trained again."""
        rounds = begin(project)
        for number in range(2):
            project.put(shapes[number : number + 1])
            rounds.run_pending()
        newest = list_checkpoints(project.directories.model_dir)[-1]
        path = Path(f"{newest}.data-00000-of-00001")
        path.write_bytes(path.read_bytes()[:1000])
        again = begin(project)
        assert again._trainer.step == 2
        assert again.run_pending() is True
        assert again._trainer.step == 4
        assert {example.image_id for example in again._chosen} == {each.image_id for each in shapes[:2]}

    def test_what_half_written_files_it_left(self, project: TinyProject, shapes: list[Annotation]) -> None:
        """Only those in the model and the export directory were looked for: a record half-written stayed for ever."""
        directories = project.directories
        left = [
            directories.data_dir / ".tmp-1-abc",
            directories.model_dir / ".tmp-1-abc",
            directories.export_dir / ".tmp-1700000000-1",
            directories.model_dir / "ckpt-3_temp",
            directories.model_dir / "checkpoint.tmp00ff",
        ]
        for path in left:
            path.mkdir()
        for path in left[:3]:
            os.utime(path, (0, 0))
        with open_tiny(project):
            assert [path for path in left if path.exists()] == []

    def test_what_hosts_are_just_writing_stays(self, project: TinyProject) -> None:
        """`control.json` and `databases.json` have temporary files in the trainer's directories: its start deleted them
        under the hands of who paused it."""
        directories = project.directories
        others = [
            each / ".tmp-of-a-host" for each in (directories.inbox_dir, directories.model_dir, directories.data_dir)
        ]
        for path in others:
            path.touch()
        with open_tiny(project):
            assert [path for path in others if not path.exists()] == []


def open_tiny(project: TinyProject, **options: Any) -> contextlib.AbstractContextManager[Rounds]:
    return open_rounds(project.config(), LABEL_MAP, project.settings(**{"steps_per_epoch": 2, **options}))


class TestOneTrainer:
    def test_it_says_goodbye(self, project: TinyProject) -> None:
        with open_tiny(project) as rounds:
            assert project.status()["state"] == "waiting"
        rounds.close()
        assert (project.status()["state"], project.status()["reason"]) == ("ended", "the trainer was stopped")
        assert project.status()["version"] == versions(project)[0]

    def test_a_second_one_is_refused(self, project: TinyProject, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(checkpoints, "LOCK_WAIT_S", 0.0)
        with (
            open_tiny(project),
            pytest.raises(InUseError, match=r"another training is using .*model; stop .* \(process \d+\)$"),
            open_tiny(project),
        ):
            pass

    def test_a_second_one_with_a_model_directory_of_its_own_is_refused(
        self, project: TinyProject, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Both took answers from one inbox: each lost those that the other took."""
        monkeypatch.setattr(checkpoints, "LOCK_WAIT_S", 0.0)
        settings = project.settings(data_dir=project.directories.data_dir, model_dir=tmp_path / "another")
        with (
            open_tiny(project),
            pytest.raises(InUseError, match=r"another trainer takes the answers of .*data; .* another --data-dir"),
            open_rounds(project.config(), LABEL_MAP, settings),
        ):
            pass

    def test_one_that_is_being_stopped_is_waited_for(self, project: TinyProject) -> None:
        with contextlib.ExitStack() as held, ThreadPoolExecutor(1) as pool:
            held.enter_context(lock_model_dir(project.directories.model_dir))

            def wait_for_it() -> bool:
                with lock_model_dir(project.directories.model_dir):
                    return True

            second = pool.submit(wait_for_it)
            assert not wait([second], timeout=0.5).done
            held.close()
            assert second.result(timeout=30)

    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            (TrainingError("the reason"), "the reason"),
            (OSError(28, "No space left on device"), "OSError: [Errno 28] No space left on device"),
        ],
    )
    def test_why_it_ended(self, project: TinyProject, error: Exception, reason: str) -> None:
        """An error that nobody had thought of left "the trainer was stopped" in status.json."""
        with pytest.raises(type(error)), open_tiny(project):
            raise error
        status = project.status()
        assert (status["state"], status["reason"]) == ("failed", reason)
        assert status["version"] == versions(project)[0]

    def test_a_damaged_record_is_named_and_set_aside(
        self, project: TinyProject, shapes: list[Annotation], caplog: pytest.LogCaptureFixture
    ) -> None:
        """It stopped the training for ever."""
        project.put(shapes[:2])
        begin(project).run_pending()
        (record,) = project.directories.train_records()
        record.write_bytes(record.read_bytes()[:-1])
        begin(project)
        assert f"{record} is damaged at byte " in caplog.text
        assert "The 1 intact examples are kept" in caplog.text
        assert record.exists()
        assert list(record.parent.glob(f".{record.name}.damaged-*"))

    def test_a_sign_of_life(self, project: TinyProject) -> None:
        rounds = begin(project)
        before = project.status()["updated"]
        rounds.heartbeat()
        assert project.status()["updated"] > before


def test_an_image_is_known_by_its_bucket(config: Any, trainer: Trainer, shapes: list[Annotation]) -> None:
    """The hash that the input pipeline gives an image."""
    from odkeras.training.inputs import training_dataset

    features, _ = next(iter(training_dataset(config, trainer.model)))
    buckets = {image_bucket(each.image_id) for each in shapes}
    assert set(features["hash"].numpy()) <= buckets


def read_events(folder: Path) -> dict[str, list[int]]:
    """The steps of each summary below a folder, by its name."""
    found: dict[str, list[int]] = {}
    for path in folder.glob("events*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                found.setdefault(value.tag, []).append(event.step)
    return found


def test_the_info_of_a_version(project: TinyProject) -> None:
    begin(project)
    (version,) = versions(project)
    info = json.loads((project.directories.export_dir / str(version) / EXPORT_INFO_PATH).read_text())
    assert info["labels"] == [[1, "circle"], [2, "triangle"], [3, "square"]]
    assert read_jsonl(project.directories.metrics_path) == []
