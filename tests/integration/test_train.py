from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from odkeras.config import TrainingSettings
from odkeras.data.records import read_records, write_records
from odkeras.errors import ConfigError, SetupError, TrainingError
from odkeras.labels import LabelMap
from odkeras.model.checkpoint import checkpoint_step, list_checkpoints
from odkeras.model.setup import Setup
from odkeras.model.weights import snapshot
from odkeras.pipeline import PipelineConfig
from odkeras.training import checkpoints
from odkeras.training.checkpoints import CheckpointStore, lock_model_dir
from odkeras.training.record_checks import check_records
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

    def test_a_finished_training_does_nothing(
        self, setup: Setup, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It wrote another checkpoint every time."""
        train_on_records(setup, settings_in(tmp_path), steps=2)
        result = train_on_records(setup, settings_in(tmp_path), steps=2)
        assert (result.steps, result.loss) == (0, None)
        assert f"nothing to train: {tmp_path} is at step 2 already, and training ends at step 2" in caplog.text
        assert [Path(path).name for path in list_checkpoints(tmp_path)] == ["ckpt-2"]

    def test_images_of_different_sizes(self, setup: Setup, tmp_path: Path) -> None:
        """The step was traced for the first batch alone: training ended at the second image."""
        model, train = setup.config.model.center_net, setup.config.train_config
        model.image_resizer.keep_aspect_ratio_resizer.min_dimension = 96
        model.image_resizer.keep_aspect_ratio_resizer.max_dimension = 256
        train.batch_size = 1
        resized = train.data_augmentation_options.add().resize_image  # so that all sizes are multiples of 8
        resized.new_height, resized.new_width = 96, 128
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
        monkeypatch.setattr("odkeras.training.undo._SNAPSHOT_EVERY_STEPS", 1)
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
        assert report is not None and report.restored and report.adapted and not report.new
        assert all((variable.numpy() == 0.125).all() for variable in trainer.variables.values())

    def test_the_fine_tune_checkpoint_is_read_only_at_the_start(
        self, setup: Setup, tmp_path: Path, checkpoint: str
    ) -> None:
        train_on_records(setup, settings_in(tmp_path / "model"), steps=1)
        setup.config.train_config.fine_tune_checkpoint = "/gone/ckpt-0"
        assert train_on_records(setup, settings_in(tmp_path / "model"), steps=2).steps == 1


class TestRecords:
    """What is wrong with the records is reported before training starts, or names the example that ended it."""

    @pytest.fixture
    def examples(self, config: PipelineConfig) -> list[tf.train.Example]:
        (pattern,) = config.train_input_reader.tf_record_input_reader.input_path
        (path,) = tf.io.gfile.glob(pattern)
        return [tf.train.Example.FromString(each) for each in read_records(path)]

    def write(self, config: PipelineConfig, path: Path, examples: list[tf.train.Example]) -> Path:
        write_records(path, (each.SerializeToString() for each in examples))
        config.train_input_reader.tf_record_input_reader.input_path[:] = [str(path)]
        return path

    def test_classes_missing_from_the_label_map(self, config: PipelineConfig, tmp_path: Path) -> None:
        """Their objects were dropped silently, and the model trained that there is nothing."""
        reader = config.train_input_reader
        assert check_records(reader, LABEL_MAP, "train") == []
        renamed = LabelMap.from_names([f"{LABEL_MAP.names[0]}s", *LABEL_MAP.names[1:]])
        (said,) = check_records(reader, renamed, "train")
        assert said.startswith(f"the records have classes that are not in the label map ({LABEL_MAP.names[0]!r} in ")
        assert "of the first 12 examples): their objects are not trained on" in said
        reader.tf_record_input_reader.input_path[:] = [str(tmp_path / "none.record")]
        assert check_records(reader, renamed, "train") == []

    def test_class_ids_without_texts(
        self, config: PipelineConfig, examples: list[tf.train.Example], tmp_path: Path
    ) -> None:
        for each in examples:
            del each.features.feature["image/object/class/text"]
        feature = examples[0].features.feature["image/object/class/label"]
        feature.int64_list.value[:] = [7] * len(feature.int64_list.value)
        self.write(config, tmp_path / "a.record", examples)
        (said,) = check_records(config.train_input_reader, LABEL_MAP, "train")
        assert said.startswith("the records have class ids that are not in the label map (7 in 1 of the first 12")

    def test_more_boxes_than_the_reader_takes(self, config: PipelineConfig) -> None:
        """The other boxes were trained as background."""
        config.train_input_reader.max_number_of_boxes = 1
        (said,) = check_records(config.train_input_reader, LABEL_MAP, "train")
        assert "have more boxes than max_number_of_boxes (1), up to 4 in train: " in said

    def test_no_example_has_a_box(
        self, config: PipelineConfig, examples: list[tf.train.Example], tmp_path: Path
    ) -> None:
        for each in examples:
            for name in [name for name in each.features.feature if name.startswith("image/object/")]:
                del each.features.feature[name]
        self.write(config, tmp_path / "a.record", examples)
        assert check_records(config.train_input_reader, LABEL_MAP, "train") == [
            "none of the first 12 examples has a box: there is nothing to learn but background"
        ]

    @pytest.mark.timeout(300)
    def test_a_record_without_examples(self, setup: Setup, tmp_path: Path) -> None:
        """Training hung at full speed, and only SIGKILL ended it."""
        path = self.write(setup.config, tmp_path / "empty.record", [])
        with pytest.raises(ConfigError, match=rf"train_input_reader: {path} holds no examples"):
            train_on_records(setup, settings_in(tmp_path), steps=1)

    def test_one_of_two_records_without_examples(
        self, config: PipelineConfig, examples: list[tf.train.Example], tmp_path: Path
    ) -> None:
        for name, some in (("empty", []), ("full", examples)):
            self.write(config, tmp_path / f"{name}.record", some)
        config.train_input_reader.tf_record_input_reader.input_path[:] = [str(tmp_path / "*.record")]
        (said,) = check_records(config.train_input_reader, LABEL_MAP, "train")
        assert said == f"train: these records hold no examples: {tmp_path / 'empty.record'}"

    def test_boxes_in_pixels(self, setup: Setup, examples: list[tf.train.Example], tmp_path: Path) -> None:
        features = examples[1].features.feature
        features["image/object/bbox/xmax"].float_list.value[:] = [
            value * 128 for value in features["image/object/bbox/xmax"].float_list.value
        ]
        path = self.write(setup.config, tmp_path / "a.record", examples)
        with pytest.raises(ConfigError) as raised:
            train_on_records(setup, settings_in(tmp_path), steps=1)
        assert str(raised.value).startswith(f"train_input_reader: {path}, example 2 (")
        assert "boxes must be shares of the image from 0 to 1, not pixels" in str(raised.value)

    def test_an_image_that_cannot_be_decoded_is_named(
        self, setup: Setup, examples: list[tf.train.Example], tmp_path: Path
    ) -> None:
        features = examples[2].features.feature
        features["image/encoded"].bytes_list.value[0] = features["image/encoded"].bytes_list.value[0][:99]
        path = self.write(setup.config, tmp_path / "a.record", examples)
        name = features["image/filename"].bytes_list.value[0].decode()
        with pytest.raises(TrainingError) as raised:
            train_on_records(setup, settings_in(tmp_path), steps=50)
        assert str(raised.value).startswith(f"{path}, example 3: {name}: TensorFlow cannot decode the image: ")
