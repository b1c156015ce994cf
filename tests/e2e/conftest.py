"""A small project on pictures of shapes."""

from __future__ import annotations

from pathlib import Path

import pytest
from running import ShapesProject

from odkeras.init_project import init_project
from odkeras.pipeline import Overrides, apply_overrides, load_pipeline, save_pipeline
from odkeras.project import Project
from odkeras.shapes import CLASSES, generate_shapes


@pytest.fixture
def shapes_project(tmp_path: Path) -> ShapesProject:
    folder = tmp_path / "shapes project"
    config = init_project(folder, CLASSES, template="shapes_96").config_path
    save_pipeline(apply_overrides(load_pipeline(config), Overrides(batch_size=2)), config)
    pictures = generate_shapes(folder / "pictures", train_images=40, test_images=6)
    return ShapesProject(config, pictures, Project(folder / "data", folder / "model", folder / "export"))
