from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from odkeras.config import TrainingSettings
from odkeras.errors import ConfigError, SetupError, TrainingError
from odkeras.labels import LabelMap
from odkeras.model.checkpoint import checkpoint_step, list_checkpoints
from odkeras.model.setup import Setup
from odkeras.model.weights import snapshot
from odkeras.pipeline import PipelineConfig
from odkeras.training import checkpoints
from odkeras.training.checkpoints import CheckpointStore, lock_model_dir
from odkeras.training.inputs import unknown_classes_warning
from odkeras.training.tensorboard import TrainingSummaries
from odkeras.training.train import start_from_fine_tune_checkpoint, train_on_records
from odkeras.training.trainer import StepReport
from tests.fixtures_training import LABEL_MAP

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("shared_models")]


@pytest.fixture
def setup(config: PipelineConfig) -> Setup:
    return Setup(config, LABEL_MAP)


def settings_in(model_dir: Path) -> TrainingSettings:
    return TrainingSettings(config=model_dir / "pipeline.config", model_dir=model_dir)


def steps_in(model_dir: Path) -> list[int]:
    return [checkpoint_step(path) for path in list_checkpoints(model_dir)]


class TestSteps:
    def test_training_stops_at_a_step_and_resumes(self, setup: Setup, trainer: Any, tmp_path: Path) -> None:
        reports: list[StepReport] = []
        result = train_on_records(setup, settings_in(tmp_path), steps=3, on_step=reports.append)
        assert (result.steps, [report.step for report in reports]) == (3, [1, 2, 3])
        assert steps_in(tmp_path) == [3]
        weights = snapshot(trainer.variables)
        for variable in trainer.variables.values():
            variable.assign(tf.zeros_like(variable))
        seen: list[dict[str, Any]] = []
        result = train_on_records(
            setup, settings_in(tmp_path), steps=5, should_stop=lambda: seen.append(snapshot(trainer.variables)) or False
        )
        assert result.steps == 2
        assert all(np.array_equal(seen[0][name], weights[name]) for name in weights)
        assert steps_in(tmp_path) == [3, 5]

    def test_a_finished_training_does_nothing(self, setup: Setup, tmp_path: Path) -> None:
        """It wrote another checkpoint every time."""
        train_on_records(setup, settings_in(tmp_path), steps=2)
        result = train_on_records(setup, settings_in(tmp_path), steps=2)
        assert (result.steps, result.loss) == (0, None)
        assert [Path(path).name for path in list_checkpoints(tmp_path)] == ["ckpt-2"]

    def test_images_of_different_sizes(self, setup: Setup, tmp_path: Path) -> None:
        """The step was traced for the first batch alone: training ended at the second image."""
        model, train = setup.config.model.center_net, setup.config.train_config
        model.image_resizer.keep_aspect_ratio_resizer.min_dimension = 96
        model.image_resizer.keep_aspect_ratio_resizer.max_dimension = 256
        train.batch_size = 1
        doubled = train.data_augmentation_options.add().random_self_concat_image  # 96 x 128, 96 x 256 or 144 x 96
        doubled.concat_vertical_probability = doubled.concat_horizontal_probability = 0.5
        assert train_on_records(setup, settings_in(tmp_path), steps=8).steps == 8

    def test_the_config_s_number_of_steps(self, setup: Setup, tmp_path: Path) -> None:
        setup.config.train_config.num_steps = 2
        assert train_on_records(setup, settings_in(tmp_path)).steps == 2

    @pytest.mark.parametrize(("steps", "num_steps"), [(None, 0), (0, 100), (-5, 100)])
    def test_no_number_of_steps(self, setup: Setup, tmp_path: Path, steps: int | None, num_steps: int) -> None:
        setup.config.train_config.num_steps = num_steps
        with pytest.raises(ConfigError, match=r"how many steps\? give --steps, or set train_config\.num_steps"):
            train_on_records(setup, settings_in(tmp_path), steps=steps)


class TestCheckpoints:
    def test_checkpoints_are_saved_at_an_interval(
        self, setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("odkeras.training.train.CHECKPOINT_EVERY_S", -1.0)
        train_on_records(setup, settings_in(tmp_path), steps=3)
        assert [Path(path).name for path in list_checkpoints(tmp_path)] == ["ckpt-1", "ckpt-2", "ckpt-3"]

    def test_a_stopped_training_saves_a_checkpoint(self, setup: Setup, trainer: Any, tmp_path: Path) -> None:
        result = train_on_records(setup, settings_in(tmp_path), steps=9, should_stop=lambda: trainer.step >= 2)
        assert (result.steps, steps_in(tmp_path)) == (2, [2])

    def test_the_last_good_weights_are_saved_when_the_loss_stays_non_finite(
        self, setup: Setup, trainer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = TrainingSummaries.watch

        def watch(self: TrainingSummaries, batches: Iterator[Any], step: int) -> Iterator[Any]:
            for number, (features, labels) in enumerate(real(self, batches, step)):
                yield {**features, "image": features["image"] * (1.0 if number < 2 else math.nan)}, labels

        monkeypatch.setattr(TrainingSummaries, "watch", watch)
        monkeypatch.setattr("odkeras.training.trainer._SNAPSHOT_EVERY_STEPS", 1)
        with pytest.raises(TrainingError, match="the weights of step 2 are kept"):
            train_on_records(setup, settings_in(tmp_path), steps=9)
        assert steps_in(tmp_path) == [2]
        reader = tf.train.load_checkpoint(list_checkpoints(tmp_path)[0])
        keys = [key for key in reader.get_variable_to_shape_map() if key.endswith("VARIABLE_VALUE")]
        assert all(np.isfinite(reader.get_tensor(key)).all() for key in keys)

    def test_another_training_is_using_the_directory(
        self, setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Both wrote their checkpoints over each other's."""
        monkeypatch.setattr(checkpoints, "LOCK_WAIT_S", 0.0)
        with lock_model_dir(tmp_path), pytest.raises(SetupError, match="another training is using"):
            train_on_records(setup, settings_in(tmp_path), steps=1)


class TestFineTuning:
    @pytest.fixture
    def checkpoint(self, setup: Setup, trainer: Any, tmp_path: Path) -> str:
        before = snapshot(trainer.variables)
        for variable in trainer.variables.values():
            variable.assign(tf.fill(variable.shape, 0.125))
        path = CheckpointStore(trainer, tmp_path / "elsewhere", 1).save()
        for name, variable in trainer.variables.items():
            variable.assign(before[name])
        setup.config.train_config.fine_tune_checkpoint = path
        setup.config.train_config.fine_tune_checkpoint_type = "detection"
        return path

    def test_training_starts_from_the_fine_tune_checkpoint(self, setup: Setup, trainer: Any, checkpoint: str) -> None:
        report = start_from_fine_tune_checkpoint(trainer, setup)
        assert report is not None and report.restored and report.new
        for name, variable in trainer.variables.items():
            assert (name in report.restored) == bool((variable.numpy() == 0.125).all()), name

    def test_the_fine_tune_checkpoint_is_read_only_at_the_start(
        self, setup: Setup, tmp_path: Path, checkpoint: str
    ) -> None:
        train_on_records(setup, settings_in(tmp_path / "model"), steps=1)
        setup.config.train_config.fine_tune_checkpoint = "/gone/ckpt-0"
        assert train_on_records(setup, settings_in(tmp_path / "model"), steps=2).steps == 1


def test_classes_missing_from_the_label_map_are_reported(config: PipelineConfig, tmp_path: Path) -> None:
    """Their objects were dropped silently, and the model trained that there is nothing."""
    reader = config.train_input_reader
    assert unknown_classes_warning(reader, LABEL_MAP) == ""
    renamed = LabelMap.from_names([f"{LABEL_MAP.names[0]}s", *LABEL_MAP.names[1:]])
    said = unknown_classes_warning(reader, renamed)
    assert said.startswith(f"the records have classes that are not in the label map ({LABEL_MAP.names[0]!r} in ")
    assert "of the first 12 examples): their objects are not trained on" in said
    reader.tf_record_input_reader.input_path[:] = [str(tmp_path / "none.record")]
    assert unknown_classes_warning(reader, renamed) == ""
