"""A model that gets more classes: the old ones score as before, in every family of models."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

from odkeras.annotation import Annotation
from odkeras.errors import CheckpointError
from odkeras.export.info import read_export_info
from odkeras.labels import LabelMap
from odkeras.model.checkpoint import list_checkpoints, restore_newest, saved_averages
from odkeras.model.growth import NEW_CLASS_BIAS, extend_checkpoint, lower_first_scores, output_layout
from odkeras.model.inference import build_detection_model, create_variables, static_image_size
from odkeras.model.setup import prepare_setup, save_resolved
from odkeras.model.weights import named_variables
from odkeras.pipeline import PipelineConfig, load_pipeline, set_num_classes
from odkeras.pipeline.class_history import ClassHistory, write_class_history
from odkeras.project import Project
from odkeras.shapes import CLASSES
from odkeras.training.checkpoints import CheckpointStore
from odkeras.training.process import open_rounds
from odkeras.training.trainer import Trainer
from odkeras.version_dirs import list_versions, version_dir
from tests import fixtures_backbones
from tests.fixtures_training import LABEL_MAP, TEMPLATE, TinyProject, tiny_config
from tests.integration.conftest import kept_as_is
from tests.integration.test_masks import CENTER_NET, MASK_R_CNN

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

small_backbones = fixtures_backbones.small_backbones

ROOT = Path(__file__).parents[2]
BEFORE, AFTER = 3, 5
DETECTIONS = ("detection", "raw_detection", "num_detections", "mask_predictions")
"""What Mask R-CNN predicts about the boxes that it has chosen, which depends on the scores of all classes."""


def template(name: str) -> PipelineConfig:
    return load_pipeline(TEMPLATE.with_name(f"{name}.config"))


def small_ssd(*, background: bool, shared: bool) -> PipelineConfig:
    """An SSD with a small picture and two levels in its feature pyramid."""
    config = template("ssd_mobilenet_v2_fpnlite_320")
    ssd = config.model.ssd
    ssd.feature_extractor.fpn.max_level = ssd.anchor_generator.multiscale_anchor_generator.max_level = 4
    ssd.box_predictor.weight_shared_convolutional_box_predictor.num_layers_before_predictor = 1
    ssd.image_resizer.fixed_shape_resizer.height = ssd.image_resizer.fixed_shape_resizer.width = 128
    ssd.add_background_class = background
    if not shared:
        ssd.box_predictor.Clear()
        text_format.Merge(CONVOLUTIONAL, ssd.box_predictor.convolutional_box_predictor)
    return config


CONVOLUTIONAL = """
conv_hyperparams { regularizer { l2_regularizer { weight: 0.0 } } initializer { truncated_normal_initializer {} } }
kernel_size: 3 box_code_size: 4 num_layers_before_predictor: 0
"""


def mask_r_cnn(*, shared_boxes: bool) -> PipelineConfig:
    config = template("faster_rcnn_resnet50_640")
    config.model.Clear()
    text_format.Merge(MASK_R_CNN, config.model)
    predictor = config.model.faster_rcnn.second_stage_box_predictor.mask_rcnn_box_predictor
    predictor.share_box_across_classes = shared_boxes
    return config


def center_net_with_masks() -> PipelineConfig:
    config = tiny_config()
    text_format.Merge(CENTER_NET, config.model)
    return config


FAMILIES: dict[str, Callable[[], PipelineConfig]] = {
    "center_net": tiny_config,
    "center_net with masks": center_net_with_masks,
    "ssd, weight-shared": lambda: small_ssd(background=True, shared=True),
    "ssd, without background": lambda: small_ssd(background=False, shared=True),
    "ssd, convolutional": lambda: small_ssd(background=True, shared=False),
    "mask r-cnn": lambda: mask_r_cnn(shared_boxes=False),
    "faster r-cnn, shared boxes": lambda: mask_r_cnn(shared_boxes=True),
}
EXTENDED = {
    "center_net": {"object_center": (1, 0, 1)},
    "center_net with masks": {"object_center": (1, 0, 1), "segmentation": (1, 0, 1)},
    "ssd, weight-shared": {"class_predictions": (6, 1, 1)},
    "ssd, without background": {"class_predictions": (6, 0, 1)},
    "ssd, convolutional": {"class_predict": (6, 1, 1)},
    "mask r-cnn": {"class_prediction": (1, 1, 1), "_box_prediction": (1, 0, 4), "mask": (1, 0, 1)},
    "faster r-cnn, shared boxes": {"class_prediction": (1, 1, 1), "mask": (1, 0, 1)},
}
"""What grows, as a part of its path, and (groups, background, unit) of its layout."""


def built(config: PipelineConfig, classes: int) -> Any:
    set_num_classes(config, classes)
    model = build_detection_model(config.model, is_training=False)
    create_variables(model, config.model)
    return model


def predictions(model: Any, config: PipelineConfig) -> dict[str, Any]:
    height, width = static_image_size(config.model) or (96, 96)
    picture = tf.constant(np.random.default_rng(7).uniform(0, 255, (1, height, width, 3)), tf.float32)
    images, shapes = model.preprocess(picture)
    return dict(model.predict(images, shapes))


@pytest.fixture(scope="module")
def built_once(request: pytest.FixtureRequest) -> tuple[str, PipelineConfig, Any]:
    """A family, its config, and a new model of it."""
    family = request.param
    config = FAMILIES[family]()
    if family.startswith("ssd") and family != "ssd, convolutional":  # without the low first score of the zoo's SSDs
        config.model.ssd.box_predictor.weight_shared_convolutional_box_predictor.class_prediction_bias_init = 0.0
    return family, config, built(config, BEFORE)


@pytest.fixture
def before(built_once: tuple[str, PipelineConfig, Any]) -> Iterator[tuple[str, PipelineConfig, Any]]:
    """The same; the test may change the config and the weights."""
    family, config, model = built_once
    copy = type(config)()
    copy.CopyFrom(config)
    with kept_as_is(model.variables):
        yield family, copy, model


@pytest.mark.parametrize("built_once", FAMILIES, indirect=True)
def test_old_classes_are_scored_as_before(before: tuple[str, PipelineConfig, Any], tmp_path: Path) -> None:
    family, config, old = before
    generator = np.random.default_rng(5)
    for variable in named_variables(old).values():
        if variable.dtype.is_floating and "moving_variance" not in variable.name:
            variable.assign_add(generator.normal(0, 0.02, variable.shape))
    tf.train.Checkpoint(model=old).write(str(tmp_path / "ckpt-7"))
    new = built(config, AFTER)
    assert extend_checkpoint(new, tmp_path, BEFORE, AFTER) == str(tmp_path / "ckpt-8")
    assert restore_newest(new, list_checkpoints(tmp_path)) == str(tmp_path / "ckpt-8")
    smaller, larger = named_variables(old), named_variables(new)
    grown = {path for path in smaller if smaller[path].shape != larger[path].shape}
    for path in smaller.keys() - grown:
        np.testing.assert_array_equal(smaller[path], larger[path], path)
    for path in grown:
        part = next(part for part in EXTENDED[family] if part in path)
        groups, background, unit = EXTENDED[family][part]
        was, now = (
            variable.numpy().reshape(-1, groups, background + classes, unit)
            for variable, classes in ((smaller[path], BEFORE), (larger[path], AFTER))
        )
        np.testing.assert_array_equal(now[:, :, : background + BEFORE], was, path)
        if path.endswith("bias") and ("class_predict" in path or "object_center" in path):
            assert np.all(now[:, :, background + BEFORE :] <= NEW_CLASS_BIAS)
        elif "class_predict" in path or "object_center" in path:
            assert not now[:, :, background + BEFORE :].any(), path
    assert {part for path in grown for part in EXTENDED[family] if part in path} == EXTENDED[family].keys()
    _compare(predictions(old, config), predictions(new, config))


def _compare(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Everything that the models predict about a picture agrees, apart from the columns of the new classes."""
    compared = 0
    for name, value in before.items():
        if name.startswith(DETECTIONS):
            continue
        pairs = zip(value, after[name], strict=True) if isinstance(value, list) else [(value, after[name])]
        for was, now in pairs:
            if not (tf.is_tensor(was) and was.dtype.is_floating):
                continue
            where = tuple(
                slice(None) if a == b else slice(0, a) for a, b in zip(was.shape, now.shape, strict=True)
            )  # classes and background come first on their axis
            np.testing.assert_allclose(now[where], was, rtol=1e-4, atol=1e-4, err_msg=name)
            compared += 1
    assert compared >= 2


SCORES = ("class_predictions_with_background", "object_center")


def scores(model: Any, config: PipelineConfig, picture: np.ndarray) -> list[np.ndarray]:
    """The logits per class that the models predict, the classes last."""
    images, shapes = model.preprocess(tf.constant(picture, tf.float32))
    found = model.predict(images, shapes)
    values = [value for name in SCORES if name in found for value in tf.nest.flatten(found[name])]
    assert values
    return [value.numpy() for value in values]


@pytest.mark.parametrize("built_once", [each for each in FAMILIES if "shared boxes" not in each], indirect=True)
def test_classes_of_a_new_model_that_nothing_is_known_of_yet(before: tuple[str, PipelineConfig, Any]) -> None:
    """Their kernels were random: a class that no image was judged for scored up to 0.27 somewhere in an image."""
    family, config, model = before
    first = {path: variable.numpy() for path, variable in named_variables(model).items()}
    lower_first_scores(model, config, [BEFORE])
    changed = {path: each for path, each in named_variables(model).items() if (each.numpy() != first[path]).any()}
    assert changed
    for path, variable in changed.items():
        part = next(part for part in EXTENDED[family] if part in path)
        groups, background, unit = EXTENDED[family][part]
        assert unit == 1
        was, now = (values.reshape(-1, groups, background + BEFORE) for values in (first[path], variable.numpy()))
        np.testing.assert_array_equal(now[..., :-1], was[..., :-1])
    height, width = static_image_size(config.model) or (96, 96)
    for seed in range(2):
        picture = np.random.default_rng(seed).uniform(0, 255, (1, height, width, 3))
        for logits in scores(model, config, picture):
            last = logits[..., -1]
            assert last.max() == last.min() and last.max() <= np.float32(NEW_CLASS_BIAS)


def test_layouts_are_told_apart_by_their_sizes() -> None:
    assert output_layout("class_predictions/kernel", 6 * 4, 6 * 6, 3, 5) is not None
    for classes in range(1, 30):
        for more in range(classes + 1, 34):
            for groups in (1, 3, 6, 9):
                with_background, without = (
                    output_layout("class_predictions/bias", groups * (classes + b), groups * (more + b), classes, more)
                    for b in (1, 0)
                )
                assert with_background is not None and with_background.background == 1
                assert without is not None and without.background == 0
                assert (with_background.groups, without.groups) == (groups, groups)
    assert output_layout("conv/kernel", 16, 18, 3, 5) is None


class TestOptimizer:
    @pytest.mark.parametrize("average", [False, True])
    def test_its_state_is_carried(self, tmp_path: Path, average: bool) -> None:
        config = tiny_config()
        config.train_config.optimizer.use_moving_average = average
        set_num_classes(config, BEFORE)
        old = Trainer(config)
        generator = np.random.default_rng(3)
        old.optimizer.apply_gradients(
            (tf.constant(generator.normal(size=v.shape), tf.float32), v) for v in old.trained_variables
        )
        old.step_variable.assign(12)
        store = CheckpointStore(old, tmp_path, 3)
        store.loop.trained_record.assign(99)
        store.save()
        set_num_classes(config, AFTER)
        new = Trainer(config)
        path = extend_checkpoint(new.model, tmp_path, BEFORE, AFTER)
        restored = CheckpointStore(new, tmp_path, 3)
        assert restored.restore() == path
        assert (new.step, int(restored.loop.trained_record)) == (12, 99)
        carried = 0
        for (name, was), now in zip(old.optimizer_variables().items(), new.optimizer_variables().values(), strict=True):
            where = tuple(slice(0, size) for size in was.shape)
            np.testing.assert_array_equal(now.numpy()[where], was.numpy(), name)
            if was.shape != now.shape:
                carried += 1
                rest = now.numpy()[..., BEFORE:]
                assert np.all(np.isfinite(rest))
        assert carried >= 4
        if average:
            bias = saved_averages(str(path))["_prediction_head_dict/object_center/0/layer-2/bias"]
            assert bias.shape == (AFTER,) and np.all(bias[BEFORE:] <= NEW_CLASS_BIAS)


EXTEND_AND_DIE = """
import os, signal, sys
from pathlib import Path
from odkeras.model.growth import extend_checkpoint
from tests.integration.test_growth import AFTER, BEFORE, built, tiny_config

left, replace = 1, Path.replace
def replace_or_die(path, target):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return replace(path, target)

Path.replace = replace_or_die
extend_checkpoint(built(tiny_config(), AFTER), Path(sys.argv[1]), BEFORE, AFTER)
"""
"""Extends the checkpoints of a folder, and kills itself when the data is in place and the index is not."""


class TestDamage:
    def models(self, folder: Path) -> tuple[PipelineConfig, Any]:
        config = tiny_config()
        tf.train.Checkpoint(model=built(config, BEFORE)).write(str(folder / "ckpt-7"))
        return config, built(config, AFTER)

    def test_a_second_time_is_nothing(self, tmp_path: Path) -> None:
        _, model = self.models(tmp_path)
        assert extend_checkpoint(model, tmp_path, BEFORE, AFTER) is not None
        assert extend_checkpoint(model, tmp_path, BEFORE, AFTER) is None

    def test_a_checkpoint_that_was_written_in_part(self, tmp_path: Path) -> None:
        """The process was killed after the data and before the index."""
        _, model = self.models(tmp_path)
        path = extend_checkpoint(model, tmp_path, BEFORE, AFTER)
        Path(f"{path}.index").unlink()
        assert extend_checkpoint(model, tmp_path, BEFORE, AFTER) == str(tmp_path / "ckpt-9")

    def test_a_process_that_was_killed_while_it_wrote(self, tmp_path: Path) -> None:
        """The checkpoint from before is still the newest, and the next start extends it."""
        _, model = self.models(tmp_path)
        old = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        done = subprocess.run([sys.executable, "-c", EXTEND_AND_DIE, str(tmp_path)], cwd=ROOT, check=False, timeout=200)
        assert done.returncode == -signal.SIGKILL
        assert (tmp_path / "ckpt-8.data-00000-of-00001").exists() and not (tmp_path / "ckpt-8.index").exists()
        assert list_checkpoints(tmp_path) == [str(tmp_path / "ckpt-7")]
        assert {name: (tmp_path / name).read_bytes() for name in old} == old
        path = extend_checkpoint(model, tmp_path, BEFORE, AFTER)
        assert path is not None and restore_newest(model, list_checkpoints(tmp_path)) == path

    def test_the_newest_is_damaged(self, tmp_path: Path) -> None:
        _, model = self.models(tmp_path)
        for part in ("index", "data-00000-of-00001"):
            shutil.copy(tmp_path / f"ckpt-7.{part}", tmp_path / f"ckpt-8.{part}")
        (tmp_path / "ckpt-8.index").write_bytes(b"damaged" * 40)
        assert extend_checkpoint(model, tmp_path, BEFORE, AFTER) == str(tmp_path / "ckpt-9")

    def test_another_number_of_classes_than_that_of_the_checkpoint_is_refused(self, tmp_path: Path) -> None:
        _, model = self.models(tmp_path)
        with pytest.raises(CheckpointError, match=r"cannot be extended to more classes: .*object_center"):
            extend_checkpoint(model, tmp_path, BEFORE - 1, AFTER)
        assert [path.name for path in tmp_path.glob("*.index")] == ["ckpt-7.index"]


class TestLoop:
    @pytest.mark.usefixtures("shared_models")  # for the classes of the start
    def test_a_class_is_added_between_two_starts(self, tmp_path: Path, shapes: list[Annotation]) -> None:
        """The next start serves the larger model before it trains, and goes on from its step."""
        project = TinyProject(tmp_path).write()
        project.put(shapes[:4])
        self.run(project, LABEL_MAP)
        (first,) = list_versions(project.directories.export_dir)[-1:]
        steps = project.status()["step"]
        longer = LabelMap.from_names([*CLASSES, "star"])
        longer.save(project.label_map_path)
        config = project.config()
        set_num_classes(config, len(longer))
        project.save(config)

        def check() -> None:
            self.is_extended(project.directories, first, steps)
            project.put(shapes[4:6])

        self.run(project, longer, check)
        assert project.status()["step"] > steps
        assert [row["outcome"] for row in project.metrics()] == ["published", "published"]
        names = [label.name for label in LabelMap.load(project.directories.model_dir / "label_map.pbtxt").labels]
        assert names == [*CLASSES, "star"]

    def test_a_class_that_was_added_before_the_first_round(self, tmp_path: Path, shapes: list[Annotation]) -> None:
        """It had a score of 12 % all over the images: they had been answered before, so that it had no negatives."""
        tf.keras.utils.set_random_seed(2026)
        project = TinyProject(tmp_path).write()
        project.put(shapes[:4])
        longer = LabelMap.from_names([*CLASSES, "star"])
        write_class_history(project.directories, ClassHistory({**dict.fromkeys(CLASSES, 0.0), "star": 2e9}))
        longer.save(project.label_map_path)
        config = project.config()
        set_num_classes(config, len(longer))
        project.save(config)
        self.run(project, longer)
        export_dir = project.directories.export_dir
        model = tf.saved_model.load(str(version_dir(export_dir, list_versions(export_dir)[-1])))
        found = model.signatures["serving_default"](tf.constant([shapes[0].image.data]))
        is_star = found["detection_classes"][0].numpy() == longer.id_of("star")
        assert found["detection_scores"][0].numpy()[is_star].max(initial=0) < 0.05, "or it would be a candidate"
        assert found["detection_scores"][0].numpy()[~is_star].max() > 0.05

    def run(self, project: TinyProject, label_map: LabelMap, check: Callable[[], None] = lambda: None) -> None:
        settings = project.settings(steps_per_epoch=2)
        setup = prepare_setup(settings, "loop")
        assert setup.label_map == label_map
        with open_rounds(setup.config, setup.label_map, settings) as rounds:
            save_resolved(setup, project.directories.model_dir)
            check()
            while rounds.run_pending():
                pass

    @staticmethod
    def is_extended(directories: Project, before: int, steps: int) -> None:
        newest = list_versions(directories.export_dir)[-1]
        assert newest > before
        info = read_export_info(version_dir(directories.export_dir, newest))
        assert info is not None and info.step == steps and [name for _, name in info.labels] == [*CLASSES, "star"]
