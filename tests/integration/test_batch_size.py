"""`--batch-size auto`: what a step needs, and what there is."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tensorflow as tf

from odkeras.config.settings import TrainingSettings
from odkeras.errors import ConfigError
from odkeras.pipeline import PipelineConfig
from odkeras.training import batch_size
from odkeras.training.batch_size import (
    LARGEST,
    bytes_of_image,
    bytes_of_weights,
    free_host_memory,
    plan_batch_size,
    set_batch_size,
)
from odkeras.training.trainer import Trainer

pytestmark = pytest.mark.integration

GB = 10**9


@pytest.mark.parametrize(
    ("free_gb", "weights_gb", "image_gb", "size"),
    [(10, 1, 1, 4), (10, 1, 0.5, 8), (10, 0, 1.75, 4), (10, 5.9, 1, 1), (1000, 1, 0.1, LARGEST)],
)
def test_the_largest_power_of_two_that_fits_into_most_of_the_memory(
    free_gb: float, weights_gb: float, image_gb: float, size: int
) -> None:
    assert plan_batch_size(int(free_gb * GB), int(weights_gb * GB), int(image_gb * GB)) == size


def test_not_even_one_image_fits() -> None:
    with pytest.raises(ConfigError, match=r"a step with one image needs 9.00 GB, and a device has 10.00 GB; make the"):
        plan_batch_size(10 * GB, 2 * GB, 7 * GB)


class TestTheEstimate:
    def test_weights(self, trainer: Trainer) -> None:
        parameters = sum(each.shape.num_elements() for each in trainer.trained_variables)
        assert 4 * 4 * parameters < bytes_of_weights(trainer) < 4.2 * 4 * parameters  # Adam has two slots

    def test_an_image_of_twice_the_size_needs_twice_as_much(self, trainer: Trainer, config: PipelineConfig) -> None:
        """The network is convolutional, so that it takes both."""
        normal = bytes_of_image(trainer)
        resizer, before = trainer.config.model.center_net.image_resizer.fixed_shape_resizer, config.model
        pixels = resizer.height * resizer.width
        assert 50 * 4 * pixels < normal < 5000 * 4 * pixels
        resizer.height *= 2
        try:
            double = bytes_of_image(trainer)
        finally:
            trainer.config.model.CopyFrom(before)
        assert double == pytest.approx(2 * normal, rel=0.1)

    def test_images_without_one_size(self, trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
        spec = tf.TensorSpec([1, None, None, 3])
        monkeypatch.setattr(
            batch_size, "training_dataset", lambda *_: SimpleNamespace(element_spec=({"image": spec}, {}))
        )
        with pytest.raises(ConfigError, match=r"auto needs images of one size: set fixed_shape_resizer"):
            bytes_of_image(trainer)


class TestFreeMemory:
    def write(self, folder: Path, **files: str) -> tuple[Path, Path]:
        (folder / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   4000000 kB\n", encoding="ascii")
        for name, text in files.items():
            (folder / name.replace("_", ".")).write_text(text, encoding="ascii")
        return folder / "meminfo", folder

    def test_of_a_machine(self, tmp_path: Path) -> None:
        assert free_host_memory(*self.write(tmp_path)) == 4_000_000 * 1024

    def test_of_a_container(self, tmp_path: Path) -> None:
        assert free_host_memory(*self.write(tmp_path, memory_max="3000\n", memory_current="1000\n")) == 2000

    def test_of_a_container_without_a_limit(self, tmp_path: Path) -> None:
        assert free_host_memory(*self.write(tmp_path, memory_max="max\n", memory_current="1\n")) == 4_000_000 * 1024

    def test_the_system_does_not_say(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="does not say how much memory is free; give a number"):
            free_host_memory(tmp_path / "none", tmp_path)


class TestTheOption:
    def settings(self, size: Any) -> TrainingSettings:
        return TrainingSettings(config=Path("x/pipeline.config"), batch_size=size)

    def test_auto_sets_the_size_of_the_config(
        self, trainer: Trainer, config: PipelineConfig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        needed = bytes_of_weights(trainer) + 11 * bytes_of_image(trainer)
        monkeypatch.setattr(batch_size, "free_memory", lambda: needed / 0.7)
        set_batch_size(config, self.settings("auto"), trainer, None)
        assert config.train_config.batch_size == 8

    def test_a_number_counts(self, trainer: Trainer, config: PipelineConfig) -> None:
        config.train_config.batch_size = 3
        set_batch_size(config, self.settings(3), trainer, None)
        assert config.train_config.batch_size == 3

    @pytest.mark.parametrize("size", [0, -1, "many", 1.5])
    def test_neither_a_number_nor_auto(self, size: Any) -> None:
        with pytest.raises(ConfigError, match=r"batch_size is .*; allowed: a number of images, 1 or more, or auto"):
            self.settings(size)
