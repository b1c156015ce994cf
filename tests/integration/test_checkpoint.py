from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from object_detection import model_lib_v2
from object_detection.builders import model_builder, optimizer_builder

from odkeras.errors import CheckpointError
from odkeras.model.checkpoint import (
    checkpoint_step,
    choose_checkpoints,
    list_checkpoints,
    newest_step,
    restore_for_prediction,
    restore_newest,
    saved_averages,
    tidy_up,
)
from odkeras.model.inference import create_variables
from odkeras.model.weights import named_variables, snapshot
from odkeras.pipeline import PipelineConfig
from odkeras.training.checkpoints import CheckpointStore
from odkeras.training.inputs import training_dataset
from odkeras.training.trainer import Trainer, learning_phase

pytestmark = pytest.mark.integration


@pytest.fixture
def batches(config: PipelineConfig, trainer: Trainer) -> Iterator[Any]:
    dataset = training_dataset(config, trainer.model)
    trainer.trace(dataset.element_spec)
    return iter(dataset)


def write_small(directory: Path, step: int) -> str:
    """A checkpoint of one number, as TensorFlow's own manager writes it."""
    state = tf.train.Checkpoint(
        model=tf.train.Checkpoint(w=tf.Variable(float(step))), step=tf.Variable(step, dtype=tf.int64)
    )
    return str(tf.train.CheckpointManager(state, str(directory), 9).save(checkpoint_number=step))


def names(paths: list[str]) -> list[str]:
    return [Path(path).name for path in paths]


def damage(checkpoint: str, suffix: str = ".data-00000-of-00001") -> None:
    path = Path(checkpoint + suffix)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


class TestOnDisk:
    @pytest.mark.parametrize("content", [b"", bytes(range(256)) * 9, b"{" * 9000, b"\0", b'model_checkpoint_path: "x"'])
    def test_a_damaged_list_of_checkpoints_is_made_again(self, tmp_path: Path, content: bytes) -> None:
        """Of a binary one, TensorFlow raised a UnicodeDecodeError at each start."""
        written = [write_small(tmp_path, step) for step in (1, 2)]
        (tmp_path / "checkpoint").write_bytes(content)
        assert names(list_checkpoints(tmp_path)) == names(written)
        tidy_up(tmp_path)
        assert names(tf.train.get_checkpoint_state(str(tmp_path)).all_model_checkpoint_paths) == names(written)
        assert (tmp_path / "checkpoint.damaged").exists() == (not content or b"\xff" in content)

    def test_an_unreadable_checkpoint_is_an_error(self, tmp_path: Path) -> None:
        path = write_small(tmp_path, 5)
        damage(path, ".index")
        with pytest.raises(CheckpointError, match=r"ckpt-5 cannot be read"):
            checkpoint_step(path)

    def test_the_newest_step_that_can_be_read(self, tmp_path: Path) -> None:
        """One damaged checkpoint kept the trainer from starting, although there was an older one."""
        write_small(tmp_path, 5)
        damage(write_small(tmp_path, 6), ".index")
        assert newest_step(tmp_path) == 5

    def test_a_named_checkpoint_is_chosen(self, tmp_path: Path) -> None:
        paths = [write_small(tmp_path, step) for step in (1, 2)]
        assert choose_checkpoints(tmp_path) == paths
        assert choose_checkpoints(tmp_path, paths[0]) == paths[:1]
        with pytest.raises(CheckpointError) as caught:
            choose_checkpoints(tmp_path, str(tmp_path / "ckpt-3"))
        assert str(caught.value).endswith(f"in {tmp_path} there are: ckpt-1, ckpt-2")
        with pytest.raises(CheckpointError, match="there are: none"):
            choose_checkpoints(tmp_path / "away", "ckpt-3")

    def test_without_tensorflow_s_list(self, tmp_path: Path) -> None:
        """A model directory whose file `checkpoint` was not copied counted as empty: training started over, and
        `odkeras export` published random weights."""
        paths = [write_small(tmp_path, step) for step in (9, 10)]
        (tmp_path / "checkpoint").unlink()
        assert list_checkpoints(tmp_path) == paths

    def test_killed_before_the_checkpoint_got_into_the_list(self, tmp_path: Path) -> None:
        write_small(tmp_path, 1)
        before = (tmp_path / "checkpoint").read_bytes()
        path = write_small(tmp_path, 2)
        (tmp_path / "checkpoint").write_bytes(before)
        assert names(list_checkpoints(tmp_path)) == ["ckpt-1", "ckpt-2"]
        tidy_up(tmp_path)
        assert names(tf.train.get_checkpoint_state(str(tmp_path)).all_model_checkpoint_paths) == ["ckpt-1", "ckpt-2"]
        assert tf.train.latest_checkpoint(str(tmp_path)) == path

    def test_partial_files_of_a_killed_process_are_removed(self, tmp_path: Path) -> None:
        write_small(tmp_path, 1)
        (tmp_path / "ckpt-2_temp").mkdir()
        (tmp_path / "ckpt-2_temp" / "part-00000-of-00001.index").touch()
        (tmp_path / "ckpt-2.data-00000-of-00001").touch()  # its index would have come next
        (tmp_path / "checkpoint.tmp0123456789abcdef").touch()
        (tmp_path / "ckpt-best.index").touch()  # not ours
        tidy_up(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            "checkpoint",
            "ckpt-1.data-00000-of-00001",
            "ckpt-1.index",
            "ckpt-best.index",
        ]


class TestRestoring:
    def test_the_newest(self, trainer: Trainer, tmp_path: Path) -> None:
        store = CheckpointStore(trainer, tmp_path, 5)
        store.save()
        first = snapshot(trainer.variables)
        for variable in trainer.model.trainable_variables:
            variable.assign_add(tf.ones_like(variable))
        second, path = snapshot(trainer.variables), store.save()
        for variable in trainer.variables.values():
            variable.assign(tf.zeros_like(variable))
        assert restore_newest(trainer.model, list_checkpoints(tmp_path)) == path
        assert_same(trainer.variables, second)
        assert any(not np.array_equal(first[name], second[name]) for name in first)

    @pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001"])
    def test_an_older_one_when_the_newest_is_damaged(self, trainer: Trainer, tmp_path: Path, suffix: str) -> None:
        """Truncated data raised an uncaught IndexError."""
        store = CheckpointStore(trainer, tmp_path, 5)
        good, wanted = store.save(), snapshot(trainer.variables)
        for variable in trainer.variables.values():
            variable.assign(tf.ones_like(variable))
        damage(store.save(), suffix)
        assert store.restore() == good
        assert_same(trainer.variables, wanted)

    def test_damage_in_the_optimizer_s_part(self, trainer: Trainer, tmp_path: Path) -> None:
        """Only the model's part was tried: damage behind it ended the trainer with a traceback."""
        store = CheckpointStore(trainer, tmp_path, 5)
        good = store.save()
        momentum = trainer.optimizer.get_slot(trainer.model.trainable_variables[0], "m")
        momentum.assign(tf.fill(momentum.shape, 12345.678))
        newest = store.save()
        path = Path(f"{newest}.data-00000-of-00001")
        path.write_bytes(path.read_bytes().replace(np.float32(12345.678).tobytes(), np.float32(12345.5).tobytes(), 1))
        assert restore_newest(trainer.model, [newest]) == newest
        assert store.restore() == good
        assert momentum.numpy().ravel()[0] == 0.0

    def test_an_error_lists_the_checkpoints_when_none_fits(self, trainer: Trainer, tmp_path: Path) -> None:
        paths = [write_small(tmp_path, step) for step in (1, 2)]
        with pytest.raises(CheckpointError) as caught:
            restore_newest(trainer.model, paths)
        text = str(caught.value)
        assert text.startswith("none of the checkpoints fits this model (was the pipeline.config changed?)")
        assert paths[0] in text and paths[1] in text
        assert "\n" not in text


class TestStore:
    def test_resuming_is_exact(self, trainer: Trainer, batches: Iterator[Any], tmp_path: Path) -> None:
        """Weights, what the optimizer remembers, the step and the state of the loop; then the same steps."""
        some = list(islice(batches, 6))
        store = CheckpointStore(trainer, tmp_path, 5)
        trainer.train(iter(some[:3]), 3)
        store.loop.trained_record.assign(1577836800)
        store.save()
        at_3 = everything(trainer)
        losses: list[float] = []
        trainer.train(iter(some[3:]), 3, on_step=lambda report: losses.append(report.loss))
        for variable in (*trainer.variables.values(), *trainer.optimizer_variables().values()):
            variable.assign(tf.zeros_like(variable))
        again = CheckpointStore(trainer, tmp_path, 5)
        assert again.restore() == str(tmp_path / "ckpt-3")
        assert_same(everything(trainer), at_3)
        assert int(again.loop.trained_record.numpy()) == 1577836800
        again_losses: list[float] = []
        trainer.train(iter(some[3:]), 3, on_step=lambda report: again_losses.append(report.loss))
        assert again_losses == pytest.approx(losses, rel=1e-5)
        assert trainer.step == 6

    @pytest.mark.parametrize(
        ("keep", "left"), [(2, ["ckpt-3", "ckpt-4"]), (0, ["ckpt-0", "ckpt-1", "ckpt-3", "ckpt-4"])]
    )
    def test_the_newest_are_kept(self, trainer: Trainer, tmp_path: Path, keep: int, left: list[str]) -> None:
        store = CheckpointStore(trainer, tmp_path, keep)
        for step in (0, 1, 3, 4):
            trainer.step_variable.assign(step)
            store.save()
        assert names(list_checkpoints(tmp_path)) == left
        assert sorted(path.stem for path in tmp_path.glob("*.index")) == left

    def test_no_checkpoint_is_written_over(self, trainer: Trainer, tmp_path: Path) -> None:
        """Saved twice at one step, the files of the only checkpoint were replaced one after the other: killed between
        them, nothing was left that could be read."""
        store = CheckpointStore(trainer, tmp_path, 5)
        trainer.step_variable.assign(40)
        first = store.save()
        before = {path: path.read_bytes() for path in tmp_path.glob("ckpt-40.*")}
        assert names([first, store.save()]) == ["ckpt-40", "ckpt-41"]
        assert {path: path.read_bytes() for path in before} == before
        assert [checkpoint_step(path) for path in list_checkpoints(tmp_path)] == [40, 40]
        trainer.step_variable.assign(41)
        assert names([store.save()]) == ["ckpt-42"]


class TestTheApiS:
    def test_it_reads_our_checkpoint(
        self, config: PipelineConfig, trainer: Trainer, batches: Iterator[Any], tmp_path: Path
    ) -> None:
        trainer.train(batches, 2)
        path = CheckpointStore(trainer, tmp_path, 5).save()
        model = model_builder.build(config.model, is_training=False)
        create_variables(model, config.model)
        tf.train.Checkpoint(model=model).restore(path).expect_partial().assert_existing_objects_matched()
        assert_same(named_variables(model), snapshot(trainer.variables))
        assert checkpoint_step(path) == 2

    def test_training_resumes_from_the_api_s_checkpoint(
        self, config: PipelineConfig, trainer: Trainer, batches: Iterator[Any], tmp_path: Path
    ) -> None:
        """Written as `model_lib_v2.train_loop` writes it."""
        model = model_builder.build(config.model, is_training=True)
        step = tf.Variable(0, trainable=False, dtype=tf.int64)
        optimizer, _ = optimizer_builder.build(config.train_config.optimizer, global_step=step)

        @tf.function(autograph=False)
        def one_step(features: Any, labels: Any) -> Any:
            losses = model_lib_v2.eager_train_step(model, features, labels, False, optimizer, step)
            step.assign_add(1)
            return losses

        with learning_phase(training=True):
            for features, labels in islice(batches, 3):
                one_step(features, labels)
        state = tf.train.Checkpoint(step=step, model=model, optimizer=optimizer)
        path = tf.train.CheckpointManager(state, str(tmp_path), 5, checkpoint_name="ckpt").save()
        store = CheckpointStore(trainer, tmp_path, 5)
        assert store.restore() == path == str(tmp_path / "ckpt-1")
        assert trainer.step == 3
        theirs = {name: each for name, each in named_variables(model).items() if name != "_training_step"}
        assert_same(trainer.variables, snapshot(theirs))
        for ours, theirs in zip(trainer.model.trainable_variables, model.trainable_variables, strict=True):
            np.testing.assert_array_equal(trainer.optimizer.get_slot(ours, "m"), optimizer.get_slot(theirs, "m"))
        assert int(store.loop.round.numpy()) == 0
        trainer.train(batches, 1)
        assert names([store.save()]) == ["ckpt-4"]


@pytest.fixture(scope="module")
def averaging(session_config: PipelineConfig) -> Trainer:
    """Keeps moving averages of its weights."""
    config = type(session_config)()
    config.CopyFrom(session_config)
    config.train_config.optimizer.use_moving_average = True
    config.train_config.optimizer.moving_average_decay = 0.5
    trainer = Trainer(config)
    trainer.trace(training_dataset(config, trainer.model).element_spec)
    return trainer


class TestMovingAverages:
    def test_predictions_use_the_moving_averages(
        self, averaging: Trainer, batches: Iterator[Any], inference: Any, tmp_path: Path
    ) -> None:
        """A restarted trainer, `odkeras eval` and `odkeras export` took the raw weights, other ones than were published
        before."""
        averaging.start_from(averaging.variables)
        averaging.train(batches, 3)
        path = CheckpointStore(averaging, tmp_path, 5).save()
        assert restore_for_prediction(inference.model, [path]) == path
        wanted = averaging.weights_for_prediction()
        assert_same(named_variables(inference.model), snapshot(wanted))
        raw = averaging.model.trainable_variables
        averaged = {variable.ref() for variable in wanted.values()} - {variable.ref() for variable in raw}
        assert len(averaged) >= len(raw)
        assert set(saved_averages(path)) == {name for name, each in averaging.variables.items() if each.trainable}

    def test_a_checkpoint_without_moving_averages_initialises_them(
        self, averaging: Trainer, trainer: Trainer, batches: Iterator[Any], tmp_path: Path
    ) -> None:
        """Going on from a training without moving averages, those of the first random weights were published."""
        trainer.train(batches, 2)
        CheckpointStore(trainer, tmp_path, 5).save()
        CheckpointStore(averaging, tmp_path, 5).restore()
        assert_same(averaging.weights_for_prediction(), snapshot(trainer.variables))


def everything(trainer: Trainer) -> dict[str, Any]:
    return {**snapshot(trainer.variables), **snapshot(trainer.optimizer_variables()), "step": trainer.step}


def assert_same(variables: dict[str, Any], expected: dict[str, Any]) -> None:
    assert set(variables) == set(expected)
    for name, value in variables.items():
        np.testing.assert_array_equal(np.asarray(value), expected[name], err_msg=name)
