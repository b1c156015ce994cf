"""How a pipeline.config becomes the configuration of a run."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from odkeras.errors import ConfigError
from odkeras.model.setup import prepare_setup
from odkeras.pipeline import Purpose
from tests.fixtures_training import TinyProject

pytestmark = pytest.mark.integration

PLACEHOLDER = "PATH_TO_BE_CONFIGURED/x"


@pytest.mark.parametrize(
    ("purpose", "fields"),
    [
        ("train", ["train_input_reader.label_map_path", "train_config.fine_tune_checkpoint", "input_path"]),
        ("eval", ["train_input_reader.label_map_path", "eval_input_reader.label_map_path", "input_path"]),
        ("loop", ["train_input_reader.label_map_path"]),
        ("export", ["train_input_reader.label_map_path"]),
    ],
)
def test_all_placeholders_are_listed_at_once(tmp_path: Path, purpose: Purpose, fields: list[str]) -> None:
    """It stopped at the label map, as a missing file."""
    project = TinyProject(tmp_path / "project").write(train_records=(PLACEHOLDER,), eval_records=(PLACEHOLDER,))
    config = project.config()
    config.train_config.fine_tune_checkpoint = PLACEHOLDER
    for reader in (config.train_input_reader, *config.eval_input_reader):
        reader.label_map_path = PLACEHOLDER
    project.save(config)
    with pytest.raises(ConfigError) as caught:
        prepare_setup(project.settings(), purpose)
    said = str(caught.value)
    assert said.count("is a placeholder") == len(fields)
    for field in fields:
        assert f"{field} '{PLACEHOLDER}': is a placeholder" in said


def test_an_ignored_bfloat16_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It was turned off before the check looked for it. 22 configs of the model zoo have it."""
    project = TinyProject(tmp_path / "project").write()
    config = project.config()
    config.train_config.use_bfloat16 = True
    project.save(config)
    with caplog.at_level(logging.WARNING, "odkeras"):
        setup = prepare_setup(project.settings(), "loop")
    assert "train_config.use_bfloat16 'true': is for TPUs and is ignored" in caplog.text
    assert not setup.config.train_config.use_bfloat16
