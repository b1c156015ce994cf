"""Images that were answered before a class was added have no part in what is learned about it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from odkeras.annotation import Annotation
from odkeras.data.ingest import ingest
from odkeras.data.records import annotation_from_example, example_from_annotation, write_records
from odkeras.data.replay import ReplayStore
from odkeras.data.stored_example import index_record
from odkeras.inbox import put_batch
from odkeras.labels import Label, LabelMap
from odkeras.model.weights import named_variables
from odkeras.pipeline import PipelineConfig, set_num_classes
from odkeras.pipeline.class_history import ClassHistory
from odkeras.training.inputs import example_source, training_dataset
from odkeras.training.trainer import Trainer
from odkeras.training.unjudged import UNJUDGED, ExampleReader, judged_detections, with_unjudged
from tests import fixtures_backbones
from tests.fixtures_training import LABEL_MAP, TinyProject, answer, tiny_config
from tests.integration.test_growth import center_net_with_masks, mask_r_cnn, small_ssd

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

small_backbones = fixtures_backbones.small_backbones

LONGER = LabelMap.from_names([*LABEL_MAP.names, "star"])
HEADS = {
    "center_net": (tiny_config, "_prediction_head_dict/object_center/0/layer-2/bias"),
    "ssd with softmax": (lambda: _softmax(small_ssd(background=True, shared=True)), "_class_predictor_layers/0/bias"),
    "ssd with focal loss": (lambda: small_ssd(background=False, shared=True), "_class_predictor_layers/0/bias"),
    "masks of center_net": (center_net_with_masks, "_prediction_head_dict/segmentation/heatmap/0/layer-2/bias"),
    "faster r-cnn": (lambda: mask_r_cnn(shared_boxes=True), "_class_prediction_head/_class_predictor_layers/1/bias"),
}


def _softmax(config: PipelineConfig) -> PipelineConfig:
    config.model.ssd.loss.classification_loss.Clear()
    config.model.ssd.loss.classification_loss.weighted_softmax.SetInParent()
    return config


def losses(config: PipelineConfig, trainer: Trainer, serialized: list[bytes]) -> tuple[tf.Tensor, Any]:
    """The loss without the regularization of one batch, and its gradients by path of the variable."""
    source = example_source(lambda: iter(serialized * 50))
    features, labels = next(iter(training_dataset(config, trainer.model, source)))
    with tf.GradientTape() as tape:
        parts = trainer.losses(features, labels)
        loss = tf.add_n([value for name, value in parts.items() if "total" not in name and "regular" not in name])
    variables = {path: v for path, v in named_variables(trainer.model).items() if v.trainable}
    return features[UNJUDGED], dict(zip(variables, tape.gradient(loss, list(variables.values())), strict=True))


@pytest.mark.parametrize("family", HEADS)
def test_a_class_learns_nothing_from_images_that_are_not_judged_for_it(
    family: str, shapes: list[Annotation], tmp_path: Path
) -> None:
    make, head = HEADS[family]
    config = make()
    set_num_classes(config, len(LONGER))
    LONGER.save(tmp_path / "label_map.pbtxt")
    config.train_input_reader.label_map_path = str(tmp_path / "label_map.pbtxt")
    masks = "mask" in family or "faster" in family
    config.train_input_reader.load_instance_masks = masks
    config.train_input_reader.mask_type = 2
    config.train_config.batch_size = 2
    del config.train_config.data_augmentation_options[:]
    tf.keras.utils.set_random_seed(2026)  # with some weights, a second stage is so sure that it has no gradient
    trainer = Trainer(config)
    plain = [example_from_annotation(each, LONGER, masks=masks).SerializeToString() for each in shapes[:2]]
    star = LONGER.id_of("star")
    path = next(path for path in named_variables(trainer.model) if path.endswith(head))

    def of_star(serialized: list[bytes]) -> float:
        unjudged, gradients = losses(config, trainer, serialized)
        assert unjudged.shape == (2, len(LONGER))
        columns = np.asarray(gradients[path]).shape[0]
        background = 1 if columns % (len(LONGER) + 1) == 0 else 0
        by_class = np.asarray(gradients[path]).reshape(-1, background + len(LONGER))
        assert np.all(np.isfinite(by_class)) and np.any(by_class[:, background])
        return float(np.abs(by_class[:, background + star - 1]).sum())

    assert of_star(plain) > 0
    assert of_star([with_unjudged(each, [star]) for each in plain]) == 0
    assert of_star([plain[0], with_unjudged(plain[1], [star])]) > 0


class TestReading:
    @pytest.fixture
    def store(self, tmp_path: Path, shapes: list[Annotation]) -> ReplayStore:
        """An image that was answered at 1000 s, one of which this is unknown, and one of today."""
        project = TinyProject(tmp_path).write()
        answers = [answer(each) for each in shapes[:3]]
        answers[0]["_timestamp"], answers[2]["_timestamp"] = 1000, int(time.time()) + 100
        put_batch(project.directories.inbox_dir, answers)
        store = ReplayStore(project.directories)
        ingest(project.directories, store, LABEL_MAP)
        return store

    def test_an_example_says_when_it_was_answered(self, store: ReplayStore, shapes: list[Annotation]) -> None:
        at = {example.image_id: example.answered_s for example in store.examples()}
        assert at[shapes[0].image_id] == 1000
        assert abs(at[shapes[1].image_id] - time.time()) < 60, "when its batch was written"

    @pytest.mark.parametrize(
        ("added", "unjudged"), [(0.0, [False] * 3), (500.0, [False] * 3), (1001.0, [True, False, False])]
    )
    def test_examples_before_the_class_are_not_judged_for_it(
        self, store: ReplayStore, shapes: list[Annotation], added: float, unjudged: list[bool]
    ) -> None:
        history = ClassHistory({**dict.fromkeys(LABEL_MAP.names, 0.0), "star": added})
        read: Callable[[Any], bytes] = ExampleReader(lambda serialized: serialized, LONGER, history)
        examples = {example.image_id: example for example in store.examples()}
        ids = []
        for shape in shapes[:3]:
            features = tf.train.Example.FromString(read(examples[shape.image_id])).features.feature
            assert len(features["image/encoded"].bytes_list.value) == 1
            ids.append(list(features[UNJUDGED].int64_list.value) if UNJUDGED in features else [])
        assert ids == [[LONGER.id_of("star")] if each else [] for each in unjudged]

    def test_a_class_that_an_example_has_is_judged(self, store: ReplayStore, shapes: list[Annotation]) -> None:
        history = ClassHistory({**dict.fromkeys(LABEL_MAP.names, 2000.0)})
        read = ExampleReader(lambda serialized: serialized, LABEL_MAP, history)
        (example,) = (each for each in store.examples() if each.image_id == shapes[0].image_id)
        features = tf.train.Example.FromString(read(example)).features.feature
        present = {LABEL_MAP.id_of(name) for name in example.classes}
        assert present and set(features[UNJUDGED].int64_list.value) == set(LABEL_MAP.ids) - present


def test_detections_of_classes_that_an_image_is_not_judged_for_are_not_evaluated(shapes: list[Annotation]) -> None:
    outputs = {
        "detection_boxes": tf.reshape(tf.range(16, dtype=tf.float32), (1, 4, 4)),
        "detection_scores": tf.constant([[0.9, 0.8, 0.7, 0.0]]),
        "detection_classes": tf.constant([[4.0, 1.0, 4.0, 1.0]]),
        "num_detections": tf.constant([3.0]),
    }
    plain = tf.constant(example_from_annotation(shapes[0], LABEL_MAP).SerializeToString())
    assert judged_detections(outputs, plain).keys() == outputs.keys()
    assert float(judged_detections(outputs, plain)["num_detections"][0]) == 3
    kept = judged_detections(outputs, tf.constant(with_unjudged(plain.numpy(), [4])))
    assert kept["detection_classes"].numpy().tolist() == [[1.0, 1.0]]
    assert kept["detection_boxes"].numpy().tolist() == [[[4, 5, 6, 7], [12, 13, 14, 15]]]
    assert float(kept["num_detections"][0]) == 1


class TestCurrentClasses:
    """Examples that were written before a class was renamed, merged or retired."""

    def read(self, shape: Annotation, label_map: LabelMap, history: ClassHistory, tmp_path: Path) -> Annotation:
        path = tmp_path / "1_train.record"
        write_records(path, [example_from_annotation(shape, LABEL_MAP, masks=True).SerializeToString()])
        (stored,) = index_record(path)
        serialized = ExampleReader(lambda serialized: serialized, label_map, history)(stored)
        features = tf.train.Example.FromString(serialized).features.feature
        objects = len(features["image/object/class/text"].bytes_list.value)
        assert len(features["image/object/mask"].bytes_list.value) == objects
        return annotation_from_example(serialized)

    def test_renamed_and_merged(self, shapes: list[Annotation], tmp_path: Path) -> None:
        label_map = LabelMap((Label(1, "disc"), Label(3, "square")))
        history = ClassHistory(renamed={"circle": "disc", "triangle": "square"})
        for shape in shapes[:6]:
            read = self.read(shape, label_map, history, tmp_path)
            wanted = [{1: 1, 2: 3, 3: 3}[int(id)] for id in shape.groundtruth.classes]
            assert read.groundtruth.classes.tolist() == wanted
            np.testing.assert_array_equal(read.groundtruth.boxes, shape.groundtruth.boxes)

    def test_retired(self, shapes: list[Annotation], tmp_path: Path) -> None:
        label_map, history = (
            LabelMap((Label(1, "circle"), Label(3, "square"))),
            ClassHistory(renamed={"triangle": None}),
        )
        for shape in shapes[:6]:
            read = self.read(shape, label_map, history, tmp_path)
            kept = shape.groundtruth.classes != LABEL_MAP.id_of("triangle")
            assert read.groundtruth.classes.tolist() == shape.groundtruth.classes[kept].tolist()
            np.testing.assert_array_equal(read.groundtruth.boxes, shape.groundtruth.boxes[kept])
