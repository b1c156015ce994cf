from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from odkeras.errors import CheckpointError
from odkeras.model.fine_tune import restore_fine_tune_checkpoint
from odkeras.model.inference import build_detection_model, create_variables
from odkeras.model.weights import (
    copy_weights,
    named_variables,
    snapshot,
)
from odkeras.pipeline import PipelineConfig

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def foreign(session_config: PipelineConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, str]:
    """Another training of the same model: its model, and a checkpoint as the API writes it."""
    model = build_detection_model(session_config.model, is_training=True)
    create_variables(model, session_config.model)
    for number, variable in enumerate(model.variables):
        variable.assign(tf.fill(variable.shape, tf.cast(number + 1, variable.dtype)))
    path = tf.train.Checkpoint(model=model, step=tf.Variable(7, dtype=tf.int64)).write(
        str(tmp_path_factory.mktemp("foreign") / "ckpt-7")
    )
    return model, str(path)


class TestNames:
    def test_every_variable_has_a_name_that_two_builds_share(self, inference: Any, trainer: Any) -> None:
        names = named_variables(inference.model)
        assert set(names) == set(trainer.variables)
        assert {variable.ref() for variable in names.values()} == {each.ref() for each in inference.model.variables}

    def test_copying(self, inference: Any, trainer: Any) -> None:
        names = named_variables(inference.model)
        copy_weights(trainer.variables, names)
        for name, variable in names.items():
            np.testing.assert_array_equal(variable, trainer.variables[name], err_msg=name)

    def test_nothing_is_copied_when_a_name_is_missing(self) -> None:
        target = {"a": tf.Variable(1.0), "b": tf.Variable(2.0)}
        with pytest.raises(CheckpointError, match="1 of 2 variables have no counterpart, the first: b"):
            copy_weights({"a": 3.0}, target)
        assert [variable.numpy() for variable in target.values()] == [1.0, 2.0]


class TestFineTuning:
    def test_the_feature_extractor_of_a_detector(self, inference: Any, foreign: tuple[Any, str]) -> None:
        names = named_variables(inference.model)
        before = snapshot(names)
        report = restore_fine_tune_checkpoint(inference.model, foreign[1], "detection")
        theirs = named_variables(foreign[0])
        assert report.restored and {name.split("/")[0] for name in report.new} == {"_prediction_head_dict"}
        for name in report.restored:
            np.testing.assert_array_equal(names[name], theirs[name], err_msg=name)
        for name in report.new:
            np.testing.assert_array_equal(names[name], before[name], err_msg=name)
        total = len(names)
        assert str(report) == (
            f"restored {len(report.restored)} of {total} variables; new: {len(report.new)} in _prediction_head_dict"
        )

    def test_full_restores_every_variable(self, inference: Any, foreign: tuple[Any, str]) -> None:
        report = restore_fine_tune_checkpoint(inference.model, foreign[1], "full")
        names, theirs = named_variables(inference.model), named_variables(foreign[0])
        assert report.new == () and str(report) == f"restored {len(names)} of {len(names)} variables"
        for name, variable in names.items():
            np.testing.assert_array_equal(variable, theirs[name], err_msg=name)

    def test_another_number_of_classes(self, config: PipelineConfig, inference: Any, foreign: tuple[Any, str]) -> None:
        config.model.center_net.num_classes = 5
        model = build_detection_model(config.model, is_training=False)
        create_variables(model, config.model)
        with self.unchanged(model), pytest.raises(CheckpointError, match=r'then use type "detection"'):
            restore_fine_tune_checkpoint(model, foreign[1], "full")
        assert restore_fine_tune_checkpoint(model, foreign[1], "detection").restored

    @pytest.mark.parametrize("checkpoint_type", ["classification", "fine_tune", "nonsense"])
    def test_a_type_that_the_model_does_not_have(
        self, inference: Any, foreign: tuple[Any, str], checkpoint_type: str
    ) -> None:
        with (
            self.unchanged(inference.model),
            pytest.raises(CheckpointError, match=f"fine_tune_checkpoint_type: '{checkpoint_type}' does not exist"),
        ):
            restore_fine_tune_checkpoint(inference.model, foreign[1], checkpoint_type)

    def test_a_checkpoint_of_something_else(self, inference: Any, tmp_path: Path) -> None:
        path = tf.train.Checkpoint(generator=tf.Module(), latent=tf.Variable([1.0])).write(str(tmp_path / "gan"))
        with self.unchanged(inference.model), pytest.raises(CheckpointError) as caught:
            restore_fine_tune_checkpoint(inference.model, path, "detection")
        assert "nothing of the feature extractor was found" in str(caught.value)
        assert "the checkpoint has: latent/.ATTRIBUTES" in str(caught.value)

    def test_no_such_checkpoint_says_which_there_are(self, inference: Any, foreign: tuple[Any, str]) -> None:
        with pytest.raises(CheckpointError) as caught:
            restore_fine_tune_checkpoint(inference.model, foreign[1].replace("ckpt-7", "ckpt-8"), "detection")
        assert "ckpt-8.index is not a file" in str(caught.value)
        assert f"there is: {foreign[1]}" in str(caught.value)

    def test_a_checkpoint_of_tensorflow_1(self, inference: Any, tmp_path: Path) -> None:
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            tf.compat.v1.get_variable("FeatureExtractor/weights", initializer=[1.0])
            session.run(tf.compat.v1.global_variables_initializer())
            path = tf.compat.v1.train.Saver().save(session, str(tmp_path / "model.ckpt"))
        with self.unchanged(inference.model), pytest.raises(CheckpointError, match="is a TensorFlow 1 checkpoint"):
            restore_fine_tune_checkpoint(inference.model, path, "detection")

    def test_a_failed_restore_leaves_the_weights_unchanged(
        self, inference: Any, foreign: tuple[Any, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """They were left as NaN after an unexpected error."""

        def fail(**_: object) -> None:
            raise AttributeError("the API's own mistake")

        monkeypatch.setattr(inference.model, "restore_from_objects", fail)
        with self.unchanged(inference.model), pytest.raises(AttributeError, match="own mistake"):
            restore_fine_tune_checkpoint(inference.model, foreign[1], "detection")

    class unchanged:
        def __init__(self, model: Any) -> None:
            self._variables = named_variables(model)

        def __enter__(self) -> None:
            self._before = snapshot(self._variables)

        def __exit__(self, *_: object) -> None:
            for name, variable in self._variables.items():
                np.testing.assert_array_equal(variable, self._before[name], err_msg=name)
