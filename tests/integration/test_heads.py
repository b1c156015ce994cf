"""A detector's outputs of classes become those of other classes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from odkeras.labels import Label, LabelMap
from odkeras.model.first_weights import load_first_weights
from odkeras.model.growth import output_layouts
from odkeras.model.weights import named_variables, snapshot
from odkeras.pipeline import PipelineConfig
from odkeras.pretrained.detector_classes import COCO_LABEL_MAP
from tests import fixtures_backbones
from tests.integration.test_growth import EXTENDED, FAMILIES, built

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

small_backbones = fixtures_backbones.small_backbones

THEIRS = LabelMap((Label(1, "Cat"), Label(2, "Traffic light"), Label(4, "Dog")))
OURS = LabelMap((Label(1, "raccoon"), Label(2, "x", "traffic_light")))


def detector(config: PipelineConfig, folder: Path, label_map: LabelMap | None = THEIRS) -> tuple[Any, str]:
    """A trained model with four classes, and its checkpoint."""
    generator = np.random.default_rng(5)
    model = built(config, 4)
    for variable in model.variables:
        if variable.dtype.is_floating and "moving_variance" not in variable.name:
            variable.assign_add(generator.normal(0, 0.02, variable.shape))
    checkpoint = str(tf.train.Checkpoint(model=model).write(str(folder / "checkpoint" / "ckpt-0")))
    if label_map is not None:
        label_map.save(folder / "label_map.pbtxt")
    config.train_config.fine_tune_checkpoint = checkpoint
    config.train_config.fine_tune_checkpoint_type = "detection"
    return model, checkpoint


@pytest.mark.parametrize("family", ["center_net with masks", "ssd, weight-shared", "mask r-cnn"])
def test_a_class_of_the_same_name_and_one_that_is_new(
    family: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = FAMILIES[family]()
    trained, _ = detector(config, tmp_path)
    model = built(config, 2)
    before = snapshot(named_variables(model))
    with caplog.at_level(logging.INFO):
        report = load_first_weights(model, config, OURS)
    assert report is not None and not report.new and report.adapted
    assert "knows by name: 'x'; the others are found as any object" in caplog.text
    assert f"adapted to the classes: {len(report.adapted)} in" in str(report)
    theirs, ours = named_variables(trained), named_variables(model)
    assert set(report.adapted) == set(output_layouts(model, config))
    for path in report.adapted:
        part = next(part for part in EXTENDED[family] if part in path)
        groups, background, unit = EXTENDED[family][part]
        was = theirs[path].numpy().reshape(-1, groups, background + 4, unit)
        now = ours[path].numpy().reshape(-1, groups, background + 2, unit)
        # Where training wants the background to be 0, a detector that learned otherwise would be in the way.
        same = before[path].reshape(now.shape) if family == "ssd, weight-shared" else was
        np.testing.assert_array_equal(now[:, :, :background], same[:, :, :background], path)
        used = was[:, :, [background, background + 1, background + 3]]  # no class has the id 3
        np.testing.assert_allclose(now[:, :, background], used.mean(axis=2), rtol=1e-6, atol=1e-7, err_msg=path)
        np.testing.assert_array_equal(now[:, :, background + 1], was[:, :, background + 1], path)
        np.testing.assert_array_equal(report.adapted[path], ours[path], path)
    for path in ours.keys() - set(report.adapted):
        if ours[path].dtype.is_floating:
            np.testing.assert_array_equal(ours[path], theirs[path], path)


def test_as_many_classes_and_no_names(tmp_path: Path) -> None:
    config = FAMILIES["center_net"]()
    trained, _ = detector(config, tmp_path, label_map=None)
    model = built(config, 4)
    report = load_first_weights(model, config, COCO_LABEL_MAP)
    assert report is not None and not report.new
    for path in report.adapted:
        was, now = named_variables(trained)[path].numpy(), named_variables(model)[path].numpy()
        expected = np.broadcast_to(was.mean(-1, keepdims=True), was.shape).copy()
        np.testing.assert_allclose(report.adapted[path], expected, rtol=1e-6, atol=1e-6)
        if path.endswith("bias"):
            expected[1:] -= 5  # else each object would be detected four times
        np.testing.assert_allclose(now, expected, rtol=1e-6, atol=1e-6)
