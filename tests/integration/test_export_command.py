from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from odkeras.errors import CheckpointError
from odkeras.export.command import export_version
from odkeras.export.publish import read_export_info
from odkeras.model.setup import Setup
from odkeras.pipeline import PipelineConfig
from odkeras.project import list_versions
from odkeras.training.store import CheckpointStore
from tests.fixtures_training import LABEL_MAP

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("shared_models")]


@pytest.fixture
def setup(config: PipelineConfig) -> Setup:
    return Setup(config, LABEL_MAP)


def save_filled(trainer: Any, model_dir: Path, step: int) -> str:
    """A checkpoint whose weights are all `step`."""
    for variable in trainer.variables.values():
        variable.assign(tf.fill(variable.shape, float(step)))
    trainer.step_variable.assign(step)
    return CheckpointStore(trainer, model_dir, 5).save()


def weights_in(version_dir: Path) -> set[float]:
    reader = tf.train.load_checkpoint(str(version_dir / "variables" / "variables"))
    keys = [key for key in reader.get_variable_to_shape_map() if key.startswith("weights/")]
    return {float(value) for key in keys for value in reader.get_tensor(key).ravel()[:3]}


def test_the_newest_checkpoint(setup: Setup, trainer: Any, tmp_path: Path) -> None:
    save_filled(trainer, tmp_path / "model", 3)
    newest = save_filled(trainer, tmp_path / "model", 4)
    result = export_version(setup, tmp_path / "model", tmp_path / "export")
    assert (result.step, result.source) == (4, f"checkpoint {newest}")
    assert list_versions(tmp_path / "export") == [int(result.directory.name)]
    assert weights_in(result.directory) == {4.0}
    info = read_export_info(result.directory)
    assert info is not None and info.step == 4
    assert info.labels == ((1, "circle"), (2, "triangle"), (3, "square"))


def test_the_named_checkpoint(setup: Setup, trainer: Any, tmp_path: Path) -> None:
    first = save_filled(trainer, tmp_path / "model", 3)
    save_filled(trainer, tmp_path / "model", 4)
    result = export_version(setup, tmp_path / "model", tmp_path / "export", checkpoint=first)
    assert (result.step, weights_in(result.directory)) == (3, {3.0})


def test_the_named_one_does_not_exist(setup: Setup, trainer: Any, tmp_path: Path) -> None:
    save_filled(trainer, tmp_path / "model", 3)
    with pytest.raises(CheckpointError, match=r"no checkpoint 'ckpt-9'; in .*model there are: ckpt-3"):
        export_version(setup, tmp_path / "model", tmp_path / "export", checkpoint="ckpt-9")
    assert list_versions(tmp_path / "export") == []


def test_the_checkpoints_are_another_model_s(setup: Setup, tmp_path: Path) -> None:
    state = tf.train.Checkpoint(model=tf.train.Checkpoint(w=tf.Variable(1.0)))
    tf.train.CheckpointManager(state, str(tmp_path / "model"), 1).save()
    with pytest.raises(CheckpointError, match="none of the checkpoints fits this model"):
        export_version(setup, tmp_path / "model", tmp_path / "export")
    assert list_versions(tmp_path / "export") == []


def test_without_a_checkpoint_the_fine_tune_checkpoint(setup: Setup, trainer: Any, tmp_path: Path) -> None:
    setup.config.train_config.fine_tune_checkpoint = save_filled(trainer, tmp_path / "elsewhere", 7)
    setup.config.train_config.fine_tune_checkpoint_type = "full"
    result = export_version(setup, tmp_path / "model", tmp_path / "export")
    assert result.step == 0
    assert result.source.startswith(str(tmp_path / "elsewhere" / "ckpt-7")) and "restored 82 of 82" in result.source
    assert weights_in(result.directory) == {7.0}


def test_without_any_freshly_built_weights(setup: Setup, tmp_path: Path) -> None:
    result = export_version(setup, tmp_path / "model", tmp_path / "export")
    assert (result.step, result.source) == (0, "freshly built weights")
    assert len(weights_in(result.directory)) > 10


def test_again_makes_the_next_version(setup: Setup, tmp_path: Path) -> None:
    versions = [int(export_version(setup, tmp_path, tmp_path / "export").directory.name) for _ in range(3)]
    assert versions == sorted(set(versions)) == list_versions(tmp_path / "export")
