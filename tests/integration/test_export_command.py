from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from typer.testing import CliRunner

from odkeras.cli import app
from odkeras.errors import CheckpointError
from odkeras.export import command
from odkeras.export.command import ExportResult, export_version
from odkeras.export.publish import Publisher, read_export_info
from odkeras.model.setup import Setup
from odkeras.pipeline import PipelineConfig
from odkeras.version_dirs import list_versions
from tests.fixtures_training import LABEL_MAP, TinyProject

pytestmark = pytest.mark.integration

Save = Callable[[str, int | None, float], str]


@pytest.fixture
def setup(config: PipelineConfig) -> Setup:
    return Setup(config, LABEL_MAP)


@pytest.fixture(autouse=True)
def one_model(monkeypatch: pytest.MonkeyPatch, inference: Any, saved_once: Path) -> None:
    """All export the session's model, whose graph is saved already."""
    monkeypatch.setattr(command, "InferenceModel", lambda _: inference)
    monkeypatch.setattr(Publisher, "_find_template", lambda publisher: saved_once)


@pytest.fixture
def save(inference: Any, tmp_path: Path) -> Save:
    """Writes tmp_path/NAME with the same value in every weight; the step is left out when it is None."""

    def write(name: str, step: int | None, value: float) -> str:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        before = [variable.numpy() for variable in inference.variables]
        for variable in inference.variables:
            variable.assign(tf.fill(variable.shape, tf.cast(value, variable.dtype)))
        counter = {} if step is None else {"step": tf.Variable(step, dtype=tf.int64)}
        checkpoint = tf.train.Checkpoint(model=inference.model, **counter)
        checkpoint.save_counter.assign_add(1)  # as a CheckpointManager does
        path = str(checkpoint.write(str(tmp_path / name)))
        for variable, value_before in zip(inference.variables, before, strict=True):
            variable.assign(value_before)
        return path

    return write


def exported_values(version_dir: Path) -> set[float]:
    weights = tf.saved_model.load(str(version_dir)).weights
    return {round(float(value), 4) for variable in weights for value in np.unique(variable.numpy())[:3]}


def has_learned(version_dir: Path) -> bool:
    info = read_export_info(version_dir)
    assert info is not None
    return info.learned


def test_the_newest_checkpoint(setup: Setup, save: Save, tmp_path: Path) -> None:
    save("model/ckpt-9", 90, 0.25)
    newest = save("model/ckpt-10", 100, 0.5)
    found = export_version(setup, tmp_path / "model", tmp_path / "export")
    (version,) = list_versions(tmp_path / "export")
    assert found == ExportResult(tmp_path / "export" / str(version), f"checkpoint {newest}", 100)
    assert exported_values(found.directory) == {0.5}
    info = read_export_info(found.directory)
    assert info is not None and (info.step, info.labels[0]) == (100, (1, "circle"))


def test_a_named_checkpoint_without_a_step(setup: Setup, save: Save, tmp_path: Path) -> None:
    named = save("zoo/ckpt-0", None, 0.75)
    found = export_version(setup, tmp_path / "model", tmp_path / "export", checkpoint=named)
    assert found.step == 0 and has_learned(found.directory)
    assert exported_values(found.directory) == {0.75}


def test_a_fine_tune_checkpoint(setup: Setup, inference: Any, save: Save, tmp_path: Path) -> None:
    train = setup.config.train_config
    train.fine_tune_checkpoint, train.fine_tune_checkpoint_type = save("zoo/ckpt-0", None, 0.75), "full"
    found = export_version(setup, tmp_path / "model", tmp_path / "export")
    total = len(inference.variables)
    assert (found.source, found.step) == (f"{train.fine_tune_checkpoint} (restored {total} of {total} variables)", 0)
    assert exported_values(found.directory) == {0.75}
    assert has_learned(found.directory)


def test_fresh_weights(setup: Setup, inference: Any, tmp_path: Path) -> None:
    found = export_version(setup, tmp_path / "model", tmp_path / "export")
    assert (found.source, found.step) == ("freshly built weights", 0)
    assert not has_learned(found.directory)
    model = tf.saved_model.load(str(found.directory))
    for exported, variable in zip(model.weights, inference.variables, strict=True):
        np.testing.assert_array_equal(exported.numpy(), variable.numpy())


def test_fresh_weights_do_not_replace_a_model_that_has_learned(setup: Setup, save: Save, tmp_path: Path) -> None:
    save("model/ckpt-3", 30, 0.5)
    export_version(setup, tmp_path / "model", tmp_path / "export")
    before = list_versions(tmp_path / "export")
    with pytest.raises(CheckpointError, match=r"no checkpoint in .*empty, and .*export has a model with 30 "):
        export_version(setup, tmp_path / "empty", tmp_path / "export")
    assert list_versions(tmp_path / "export") == before


def test_a_detector_does_not_replace_training(setup: Setup, save: Save, tmp_path: Path) -> None:
    """With a fine-tune checkpoint of all weights, a wrong --model-dir put the downloaded detector over what had been
    trained. Another such detector, which has no step either, it may replace."""
    train = setup.config.train_config
    train.fine_tune_checkpoint, train.fine_tune_checkpoint_type = save("zoo/ckpt-0", None, 0.75), "full"
    export_version(setup, tmp_path / "empty", tmp_path / "export")
    export_version(setup, tmp_path / "empty", tmp_path / "export")
    save("model/ckpt-3", 5000, 0.5)
    export_version(setup, tmp_path / "model", tmp_path / "export")
    with pytest.raises(CheckpointError, match=r"with 5000 training steps, which is not replaced by .*zoo/ckpt"):
        export_version(setup, tmp_path / "empty", tmp_path / "export")
    assert len(list_versions(tmp_path / "export")) == 3


def test_a_missing_checkpoint(setup: Setup, save: Save, tmp_path: Path) -> None:
    save("model/ckpt-3", 30, 0.5)
    missing = str(tmp_path / "model" / "ckpt-4")
    with pytest.raises(CheckpointError, match=r"no checkpoint '.*ckpt-4'; in .*model there are: ckpt-3"):
        export_version(setup, tmp_path / "model", tmp_path / "export", checkpoint=missing)
    with pytest.raises(CheckpointError, match="there are: none"):
        export_version(setup, tmp_path / "empty", tmp_path / "export", checkpoint=missing)
    assert not (tmp_path / "export").exists()


def test_a_checkpoint_of_another_model(setup: Setup, tmp_path: Path) -> None:
    """Nothing is published rather than a model that is partly random."""
    other = str(tf.train.Checkpoint(model=tf.train.Checkpoint(a=tf.Variable(1.0))).write(str(tmp_path / "ckpt-1")))
    with pytest.raises(CheckpointError, match=r"none of the checkpoints fits this model .*ckpt-1"):
        export_version(setup, tmp_path / "model", tmp_path / "export", checkpoint=other)
    assert not (tmp_path / "export").exists()


def test_from_the_command_line(project: TinyProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("odkeras.logs.configure_logging", lambda *_, **__: None)  # it changes the whole process
    result = CliRunner().invoke(app, ["export", str(project.config_path)])
    assert result.exit_code == 0, result.output
    (version,) = list_versions(project.directories.export_dir)
    directory = project.directories.export_dir / str(version)
    assert result.stdout == f"{directory}: step 0, from freshly built weights\n"
