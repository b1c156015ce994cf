from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain, cycle, islice, repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from object_detection import model_lib_v2
from object_detection.builders import model_builder, optimizer_builder

from odkeras.annotation import Annotation
from odkeras.errors import ConfigError, TrainingError
from odkeras.init_project import DEFAULT_TEMPLATE
from odkeras.model.inference import build_detection_model, create_variables
from odkeras.model.weights import copy_weights, named_variables, snapshot, variables_to_train
from odkeras.pipeline import PipelineConfig, parse_pipeline, read_template
from odkeras.training.checkpoints import CheckpointStore
from odkeras.training.inputs import training_dataset
from odkeras.training.trainer import Batch, StepReport, Trainer, _needs_autograph, learning_phase
from odkeras.training.undo import image_bucket

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def batches(session_config: PipelineConfig, session_trainer: Trainer) -> list[Batch]:
    dataset = training_dataset(session_config, session_trainer.model)
    session_trainer.trace(dataset.element_spec)
    return list(islice(dataset, 8))


def traced(trainer: Trainer) -> Trainer:
    """The trainer, ready for batches of its config."""
    trainer.trace(training_dataset(trainer.config, trainer.model).element_spec)
    return trainer


def poisoned(batch: Batch) -> Batch:
    features, labels = batch
    return {**features, "image": tf.fill(features["image"].shape, math.nan)}, labels


def everything(trainer: Trainer) -> dict[str, Any]:
    return {**snapshot(trainer.variables), **snapshot(trainer.optimizer_variables()), "step": trainer.step}


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert set(found) == set(expected)
    for name, value in found.items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


class TestSteps:
    def test_a_step_changes_the_weights_and_says_what_it_did(self, trainer: Trainer, batches: list[Batch]) -> None:
        before, reports = snapshot(trainer.variables), list[StepReport]()
        result = trainer.train(iter(batches), 3, on_step=reports.append)
        assert (result.steps, trainer.step) == (3, 3)
        assert [report.step for report in reports] == [1, 2, 3]
        assert result.loss == pytest.approx(np.mean([report.loss for report in reports]))
        for report in reports:
            parts = {name: loss for name, loss in report.losses.items() if name != "Loss/total_loss"}
            assert len(parts) == 3 and report.loss == pytest.approx(sum(parts.values()), rel=1e-5)
            assert report.learning_rate == pytest.approx(0.001)
            assert report.gradient_norm > 0
        changed = [
            name for name, value in snapshot(trainer.variables).items() if not np.array_equal(value, before[name])
        ]
        assert len(changed) > 0.9 * len(before)

    def test_batch_normalisation_learns(self, trainer: Trainer, batches: list[Batch]) -> None:
        """Its layers see the learning phase while the step is traced, not while it runs."""
        means = {name: each for name, each in trainer.variables.items() if name.endswith("moving_mean")}
        before = snapshot(means)
        trainer.train(iter(batches), 1)
        assert means
        for name, variable in means.items():
            assert not np.array_equal(variable, before[name]), name
        assert not tf.keras.backend.learning_phase()

    def test_it_learns(self, trainer: Trainer, batches: list[Batch]) -> None:
        losses: list[float] = []
        trainer.train(repeat(batches[0]), 30, on_step=lambda report: losses.append(report.loss))
        assert np.mean(losses[-5:]) < 0.5 * losses[0]

    def test_it_is_traced_once(self, config: PipelineConfig, trainer: Trainer, batches: list[Batch]) -> None:
        dataset = training_dataset(config, trainer.model)
        trainer.trace(dataset.element_spec)
        step_function = trainer._step_function
        for _ in range(3):
            trainer.train(iter(dataset), 2)
        trainer.train(iter(batches), 2)
        trainer.trace(dataset.element_spec)
        assert trainer._step_function is step_function
        assert step_function.experimental_get_tracing_count() == 1
        assert trainer.step == 8

    def test_stopping_between_steps(self, trainer: Trainer, batches: list[Batch]) -> None:
        result = trainer.train(iter(batches), 8, should_stop=lambda: trainer.step >= 2)
        assert (result.steps, trainer.step) == (2, 2)
        result = trainer.train(iter(batches), 8, should_stop=lambda: True)
        assert (result.steps, result.loss) == (0, None)

    def test_no_more_batches(self, trainer: Trainer, batches: list[Batch]) -> None:
        with pytest.raises(TrainingError, match="no more examples"):
            trainer.train(iter(batches[:2]), 3)
        assert trainer.step == 2

    def test_a_batch_that_cannot_be_read(self, trainer: Trainer, batches: list[Batch]) -> None:
        """TensorFlow's own error went through, and the trainer ended with a traceback."""

        def broken() -> Iterator[bytes]:
            raise OSError("record gone")
            yield b""

        dataset = tf.data.Dataset.from_generator(broken, output_signature=tf.TensorSpec([], tf.string))
        with pytest.raises(TrainingError, match=r"a batch of examples cannot be read: .*record gone"):
            trainer.train(iter(dataset), 1)

    def test_the_learning_rate_follows_the_step(self, config: PipelineConfig, batches: list[Batch]) -> None:
        rate = config.train_config.optimizer.adam_optimizer.learning_rate
        rate.Clear()
        rate.manual_step_learning_rate.initial_learning_rate = 0.5
        rate.manual_step_learning_rate.schedule.add(step=2, learning_rate=0.25)
        trainer = traced(Trainer(config))
        rates: list[float] = []
        trainer.train(iter(batches), 3, on_step=lambda report: rates.append(report.learning_rate))
        assert rates == pytest.approx([0.5, 0.5, 0.25])

    def test_a_configuration_that_the_api_refuses(self, config: PipelineConfig) -> None:
        config.model.center_net.feature_extractor.type = "hourglass_11"
        with pytest.raises(ConfigError, match="cannot be built"):
            Trainer(config)


class TestFreezing:
    """Names are as Keras makes them: of this model `.../batchnorm/gamma`, `conv2d_14/kernel`."""

    @pytest.fixture
    def frozen_config(self, config: PipelineConfig) -> PipelineConfig:
        config.train_config.fine_tune_checkpoint = "somewhere/ckpt-1"
        config.train_config.freeze_variables.append(".*/gamma$")
        return config

    def test_what_is_frozen_stays(self, frozen_config: PipelineConfig, batches: list[Batch]) -> None:
        trainer = traced(Trainer(frozen_config))
        before = {variable.name: variable.numpy() for variable in trainer.model.trainable_variables}
        trainer.train(iter(batches), 2)
        stayed = {each.name for each in trainer.model.trainable_variables if np.array_equal(each, before[each.name])}
        frozen = {name for name in before if name.endswith("/gamma:0")}
        assert frozen and frozen <= stayed and len(stayed - frozen) < 0.1 * len(before)
        assert {variable.name for variable in trainer.trained_variables} == before.keys() - frozen

    def test_random_weights_are_not_frozen(self, frozen_config: PipelineConfig) -> None:
        frozen_config.train_config.fine_tune_checkpoint = ""
        trainer = Trainer(frozen_config)
        assert len(trainer.trained_variables) == len(trainer.model.trainable_variables)

    def test_only_some_are_trained(self, frozen_config: PipelineConfig) -> None:
        frozen_config.train_config.update_trainable_variables.append("^conv2d")
        trainer = Trainer(frozen_config)
        kept = [variable.name for variable in trainer.trained_variables]
        assert 0 < len(kept) < len(trainer.model.trainable_variables)
        assert all(name.startswith("conv2d") for name in kept)

    def test_it_goes_on_from_a_checkpoint_of_before(
        self, frozen_config: PipelineConfig, trainer: Trainer, batches: list[Batch], tmp_path: Path
    ) -> None:
        """The optimizer remembers the same of every weight, frozen or not."""
        trainer.train(iter(batches), 1)
        CheckpointStore(trainer, tmp_path, 1).save()
        fine_tuner = Trainer(frozen_config)
        assert CheckpointStore(fine_tuner, tmp_path, 1).restore() is not None
        assert_same(everything(fine_tuner), everything(trainer))

    def test_the_default_config_freezes_layers_that_its_model_has(self) -> None:
        config = parse_pipeline(read_template(DEFAULT_TEMPLATE), source="template")
        config.train_config.fine_tune_checkpoint = "somewhere/ckpt-1"
        model = build_detection_model(config.model, is_training=True)
        create_variables(model, config.model)
        trained = variables_to_train(model.trainable_variables, config.train_config)
        frozen = {variable.name for variable in model.trainable_variables} - {variable.name for variable in trained}
        layers = {name.partition("/")[0].removeprefix("bn_").partition("_depthwise")[0] for name in frozen}
        assert {"Conv1", "expanded_conv", *(f"block_{number}" for number in range(1, 7))} <= layers
        assert not any("block_7" in name or "predictor" in name.lower() for name in frozen)
        assert len(frozen) == 3 + 6 + 6 * 9  # a kernel, a gamma and a beta for each convolution


@pytest.mark.parametrize(
    ("only", "frozen", "kept"),
    [
        ([], ["/gamma"], ["conv/kernel", "head/kernel"]),
        (["^head", "gamma"], [], ["conv/gamma", "head/kernel"]),
        (["conv"], ["gamma$"], ["conv/kernel"]),
        ([""], [""], ["conv/kernel", "conv/gamma", "head/kernel"]),  # as good as none
        ([], ["backbone"], ["conv/kernel", "conv/gamma", "head/kernel"]),
    ],
)
def test_which_variables_are_trained(only: list[str], frozen: list[str], kept: list[str]) -> None:
    variables = [SimpleNamespace(name=f"{name}:0") for name in ("conv/kernel", "conv/gamma", "head/kernel")]
    settings = SimpleNamespace(fine_tune_checkpoint="ckpt-1", update_trainable_variables=only, freeze_variables=frozen)
    assert [each.name for each in variables_to_train(variables, settings)] == [f"{name}:0" for name in kept]


def test_a_pattern_without_effect_is_told(caplog: pytest.LogCaptureFixture) -> None:
    variables = [SimpleNamespace(name="conv/kernel:0"), SimpleNamespace(name="head/bias:0")]
    settings = SimpleNamespace(
        fine_tune_checkpoint="ckpt-1", update_trainable_variables=[], freeze_variables=["FeatureExtractor/"]
    )
    assert variables_to_train(variables, settings) == variables
    assert "'FeatureExtractor/' matches no weights; names look like conv/kernel and head/bias" in caplog.text
    settings.freeze_variables = ["."]
    with pytest.raises(ConfigError, match="leaves no weights to train"):
        variables_to_train(variables, settings)


@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_a_step_is_the_api_s_step(config: PipelineConfig, batches: list[Batch], clip: float) -> None:
    """Same losses and same weights as `model_lib_v2.eager_train_step`, from the same weights and batches.

    With plain momentum: Adam divides by the gradient and would make much of differences in the last digit.
    """
    optimizer_config = config.train_config.optimizer
    optimizer_config.ClearField("adam_optimizer")
    optimizer_config.momentum_optimizer.learning_rate.constant_learning_rate.learning_rate = 0.01
    optimizer_config.use_moving_average = False
    config.train_config.gradient_clipping_by_norm = clip
    trainer = traced(Trainer(config))
    model = model_builder.build(config.model, is_training=True)
    create_variables(model, config.model)
    theirs = named_variables(model)
    copy_weights(trainer.variables, theirs)
    step = tf.Variable(0, trainable=False, dtype=tf.int64)
    optimizer, _ = optimizer_builder.build(optimizer_config, global_step=step)

    @tf.function(autograph=False)
    def api_step(features: Any, labels: Any) -> Any:
        return model_lib_v2.eager_train_step(
            model, features, labels, False, optimizer, step, clip_gradients_value=clip or None
        )

    reports: list[StepReport] = []
    for features, labels in batches[:2]:
        with learning_phase(training=True):
            expected = {name: float(value) for name, value in api_step(features, labels).items()}
        trainer.train(iter([(features, labels)]), 1, on_step=reports.append)
        assert dict(reports[-1].losses) == pytest.approx(expected, rel=1e-4)
    assert reports[0].gradient_norm > 0.5  # so that clipping does something
    for name, variable in theirs.items():
        np.testing.assert_allclose(trainer.variables[name], variable, rtol=1e-3, atol=1e-5, err_msg=name)


class TestNotFinite:
    def test_the_step_is_undone_and_training_goes_on(self, trainer: Trainer, batches: list[Batch]) -> None:
        """The optimizer's momentum kept the NaN: every later step was not finite either, and the round was lost."""
        trainer.train(iter(batches), 2)
        before = everything(trainer)
        seen: list[dict[str, Any]] = []

        def after_the_poison() -> Iterator[Batch]:
            yield poisoned(batches[0])
            seen.append(everything(trainer))
            yield from batches

        result = trainer.train(after_the_poison(), 3)
        assert_same(seen[0], before)
        assert (result.steps, trainer.step) == (3, 5)
        assert result.loss is not None and math.isfinite(result.loss)
        assert all(np.isfinite(value).all() for value in everything(trainer).values())

    def test_undone_steps_are_taken_again(self, trainer: Trainer, batches: list[Batch]) -> None:
        """They counted as taken: a round ended before its last step, and its report told of more steps than there
        were."""
        reports: list[StepReport] = []
        some = chain(batches[:2], [poisoned(batches[2])], batches)
        result = trainer.train(some, 4, on_step=reports.append)
        assert (result.steps, trainer.step, int(trainer.optimizer.iterations.numpy())) == (4, 4, 4)
        assert [report.step for report in reports] == [1, 2, 1, 2, 3, 4]

    def test_the_images_are_named(self, trainer: Trainer, batches: list[Batch], shapes: list[Annotation]) -> None:
        trainer.train(chain([poisoned(batches[3])], batches), 1)
        assert trainer.bad_images == set(batches[3][0]["hash"].numpy())
        assert set(trainer.bad_images) <= {
            image_bucket(each.image_id) for each in shapes
        }  # one image may be in it twice
        trainer.train(iter(batches), 1)
        assert trainer.bad_images == set()

    def test_again_and_again(self, trainer: Trainer, batches: list[Batch]) -> None:
        trainer.train(iter(batches), 1)
        before = everything(trainer)
        some = chain(batches[:1], [poisoned(batches[1])] * 2, batches[:1], [poisoned(batches[1])], batches)
        with pytest.raises(TrainingError) as caught:
            trainer.train(some, 8)
        assert str(caught.value).startswith("the loss or the weights were not finite 3 times in less than 50 steps")
        assert "the weights of step 1 are kept" in str(caught.value)
        assert_same(everything(trainer), before)

    @pytest.mark.parametrize("every", [2, 50])
    def test_weights_that_are_not_finite_are_undone_though_the_loss_is(
        self, trainer: Trainer, batches: list[Batch], monkeypatch: pytest.MonkeyPatch, every: int
    ) -> None:
        """A checkpoint had them before they were refused as a version: training went on from them, and rounds that
        failed rotated the good checkpoints out."""
        monkeypatch.setattr("odkeras.training.undo._SNAPSHOT_EVERY_STEPS", every)
        variable = next(each for name, each in trainer.variables.items() if "moving_variance" in name)
        steps: list[int] = []

        def break_once(report: StepReport) -> None:
            steps.append(report.step)
            if len(steps) == 3:
                variable.assign(variable * np.nan)

        result = trainer.train(cycle(batches), 4, on_step=break_once)
        assert (result.steps, trainer.step) == (4, 4)
        assert steps == ([1, 2, 3, 3, 4] if every == 2 else [1, 2, 3, 4, 1, 2, 3, 4])
        assert trainer.is_finite and bool(np.isfinite(variable.numpy()).all())

    def test_weights_that_stay_so_end_the_round(self, trainer: Trainer, batches: list[Batch]) -> None:
        before = everything(trainer)
        variable = next(each for name, each in trainer.variables.items() if "moving_variance" in name)
        with pytest.raises(TrainingError, match="the loss or the weights were not finite 3 times"):
            trainer.train(cycle(batches), 1, on_step=lambda report: variable.assign(variable * np.nan))
        assert_same(everything(trainer), before)

    def test_a_bad_picture_now_and_then_is_no_reason_to_give_up(
        self, trainer: Trainer, batches: list[Batch], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("odkeras.training.undo._SNAPSHOT_EVERY_STEPS", 2)
        some = chain.from_iterable([*batches[:2], poisoned(batches[2])] for _ in range(9))
        assert trainer.train(some, 10).steps == 10


class TestMovingAverages:
    @pytest.fixture
    def averaging(self, config: PipelineConfig) -> Trainer:
        config.train_config.optimizer.use_moving_average = True
        config.train_config.optimizer.moving_average_decay = 0.9
        return traced(Trainer(config))

    def test_they_are_published_and_follow_the_weights(self, averaging: Trainer, batches: list[Batch]) -> None:
        averaging.start_from(averaging.variables)
        before = snapshot(averaging.variables)
        assert_same(snapshot(averaging.weights_for_prediction()), before)
        averaging.train(iter(batches), 1)
        after, published = snapshot(averaging.variables), snapshot(averaging.weights_for_prediction())
        decay = 2 / 11  # (1 + step) / (10 + step), below 0.9 at first
        for name, variable in averaging.variables.items():
            expected = decay * before[name] + (1 - decay) * after[name] if variable.trainable else after[name]
            np.testing.assert_allclose(published[name], expected, atol=1e-6, err_msg=name)

    def test_a_step_that_is_not_finite_does_not_stay_in_them(self, averaging: Trainer, batches: list[Batch]) -> None:
        averaging.train(chain([poisoned(batches[0])], batches), 2)
        for name, variable in averaging.weights_for_prediction().items():
            assert np.isfinite(variable).all(), name


def test_without_moving_averages_the_weights_are_published(trainer: Trainer) -> None:
    assert trainer.weights_for_prediction() == trainer.variables


def test_deepmac_alone_needs_autograph(config: PipelineConfig) -> None:
    assert not _needs_autograph(config.model)
    config.model.center_net.deepmac_mask_estimation.SetInParent()
    assert _needs_autograph(config.model)
