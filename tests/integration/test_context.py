"""Context R-CNN: a round of the loop without features of other images, and with those of examples."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

from odkeras.annotation import Annotation
from odkeras.data.records import example_from_annotation, read_records, write_records
from odkeras.errors import CheckpointError, ConfigError, RecordError
from odkeras.export.publish import Publisher
from odkeras.inbox import put_batch
from odkeras.labels import LabelMap
from odkeras.model.context import context_example, context_problem, read_context, with_context
from odkeras.model.inference import build_detection_model, create_variables
from odkeras.model.weights import named_variables
from odkeras.pipeline import PipelineConfig
from odkeras.training.context_features import EXTRA_NUMBERS, ContextReport, add_context
from odkeras.training.evaluation import SavedModelDetector
from odkeras.training.inputs import evaluation_dataset, example_source, training_dataset
from odkeras.training.record_checks import check_records
from odkeras.training.rounds import Rounds
from tests import fixtures_backbones
from tests.fixtures_training import LABEL_MAP, TinyProject, answer, tiny_config
from tests.integration.test_masks import MASK_R_CNN

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

small_backbones = fixtures_backbones.small_backbones

COUNT, LENGTH = 4, 6
FEATURES = np.linspace(-1, 1, 2 * LENGTH, dtype=np.float32).reshape(2, LENGTH)


def context_config(project: TinyProject) -> PipelineConfig:
    config = project.config()
    config.model.Clear()
    text_format.Merge(MASK_R_CNN, config.model)
    model = config.model.faster_rcnn
    model.number_of_stages = 2
    model.second_stage_box_predictor.mask_rcnn_box_predictor.predict_instance_masks = False
    context = f"max_num_context_features: {COUNT} context_feature_length: {LENGTH} attention_bottleneck_dimension: 8"
    text_format.Merge(context, model.context_config)
    config.train_config.batch_size = 2
    config.train_input_reader.load_context_features = config.eval_input_reader[0].load_context_features = True
    return config


def let_it_find_objects(model: Any) -> None:
    """Fresh weights make numbers so large that the scores are 0 or 1, and some images have no detection."""
    generator = np.random.default_rng(3)
    for path, variable in named_variables(model).items():
        if path.endswith("gamma") and "_context_" not in path:
            variable.assign(0.3 * tf.ones_like(variable))
        elif "_class_predictor_layers/1" in path:
            variable.assign(generator.normal(0, 0.05, variable.shape))


def example_of(shape: Annotation, features: np.ndarray | None) -> bytes:
    plain = example_from_annotation(shape, LABEL_MAP).SerializeToString()
    return plain if features is None else plain + context_example(features.ravel().tolist(), features.shape[1])


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory, shapes: list[Annotation]) -> Rounds:
    """After one round on two answers, evaluated on a record with features."""
    project = TinyProject(tmp_path_factory.mktemp("context")).write()
    config = context_config(project)
    record = project.folder / "eval.record"
    write_records(record, [example_of(shapes[2], FEATURES)])
    config.eval_input_reader[0].tf_record_input_reader.input_path[:] = [str(record)]
    project.save(config)
    put_batch(project.directories.inbox_dir, [answer(shapes[0]), answer(shapes[1])])
    rounds = Rounds(config, LABEL_MAP, project.settings(steps_per_epoch=1, run_eval=True))
    assert rounds.run_pending()
    (row,) = project.metrics()
    assert math.isfinite(row["loss"]) and "failed" not in row
    (evaluation,) = project.metrics("evaluation")
    assert "failed" not in evaluation and evaluation["metrics"]
    return rounds


@pytest.fixture(scope="module")
def version(rounds: Rounds) -> Path:
    """A version that finds objects, and for which the features matter."""
    let_it_find_objects(rounds._model.inference.model)
    folder = rounds._directories.export_dir  # has the graph
    return folder / str(Publisher(rounds._model.inference, folder, LABEL_MAP).publish(1))


def test_a_version_takes_features_from_examples(rounds: Rounds, version: Path, shapes: list[Annotation]) -> None:
    detector, model = SavedModelDetector(version), rounds._model.inference.model
    (reader,) = rounds._config.eval_input_reader
    scores = []
    for features in (None, FEATURES, np.ones((COUNT + 3, LENGTH), np.float32)):
        serialized = with_context(example_of(shapes[0], features), LENGTH)
        source = example_source(lambda serialized=serialized: iter([serialized]))
        ((batch, _),) = evaluation_dataset(rounds._config, model, reader, source)
        found, sizes = detector(batch), batch["true_image_shape"]
        expected = model.postprocess(model.predict(batch["image"], sizes, **model.get_side_inputs(batch)), sizes)
        count = int(found["num_detections"][0])
        assert count == int(expected["num_detections"][0]) > 0
        for name in ("detection_boxes", "detection_scores"):
            np.testing.assert_allclose(found[name][0, :count], expected[name][0, :count], atol=1e-5)
        scores.append(found["detection_scores"][0].numpy())
    assert not np.allclose(scores[0], scores[1], atol=1e-5) and not np.allclose(scores[1], scores[2], atol=1e-5)


def test_the_image_alone_is_an_image_without_features(version: Path, shapes: list[Annotation]) -> None:
    signatures = tf.saved_model.load(str(version)).signatures
    alone = signatures["serving_default"](image_bytes=tf.constant([shapes[0].image.data] * 2))
    without = signatures["tf_example"](examples=tf.constant([example_of(shapes[0], None)]))
    assert alone["num_detections"][0] > 0
    np.testing.assert_allclose(alone["detection_scores"][1], without["detection_scores"][0], atol=1e-6)


def test_examples_train_with_and_without_features(rounds: Rounds, shapes: list[Annotation]) -> None:
    complete = [with_context(example_of(shapes[0], features), LENGTH) for features in (FEATURES, None)]
    source = example_source(lambda: iter(complete))
    features, _ = next(iter(training_dataset(rounds._config, rounds._trainer.model, source)))
    assert features["valid_context_size"].numpy().tolist() == [2, 0]
    np.testing.assert_allclose(features["context_features"][0], np.pad(FEATURES, [(0, COUNT - 2), (0, 0)]))
    assert not np.any(features["context_features"][1])
    read = read_context(tf.constant(complete[0]), rounds._config.model)
    np.testing.assert_array_equal(read["context_features"], features["context_features"][:1])


@pytest.mark.parametrize(
    ("addition", "problem"),
    [
        (context_example([1.0] * 12, 6), ""),
        (context_example([], 6), ""),
        (context_example([1.0] * 12, 4), "image/context_feature_length is 4; the model takes features of length 6"),
        (context_example([1.0] * 13, 6), "has 13 numbers, which are no whole features of length 6"),
        (b"", "image/context_feature_length is missing"),
    ],
)
def test_features_of_a_wrong_length(addition: bytes, problem: str, shapes: list[Annotation], tmp_path: Path) -> None:
    serialized = example_of(shapes[0], None) + addition
    found = context_problem(tf.train.Example.FromString(serialized).features.feature, LENGTH)
    assert problem in found and bool(found) == bool(problem)
    assert not context_problem(tf.train.Example.FromString(serialized).features.feature, 0)
    write_records(tmp_path / "x.record", [serialized])
    reader = tiny_config().train_input_reader
    reader.tf_record_input_reader.input_path.append(str(tmp_path / "x.record"))
    if problem:
        with pytest.raises(ConfigError, match=r"example 1 .*context_feature"):
            check_records(reader, LABEL_MAP, "train_input_reader", context_length=LENGTH)
    else:
        check_records(reader, LabelMap.from_names(LABEL_MAP.names), "train_input_reader", context_length=LENGTH)


SOMEWHERE = tf.train.Example(
    features=tf.train.Features(feature={"image/seq_id": tf.train.Feature(int64_list=tf.train.Int64List(value=[7]))})
).SerializeToString()


class TestAddingContext:
    @pytest.fixture(scope="class")
    def describing(self, tmp_path_factory: pytest.TempPathFactory, rounds: Rounds) -> TinyProject:
        """A Faster R-CNN with a checkpoint."""
        project = TinyProject(tmp_path_factory.mktemp("describing")).write()
        config = context_config(project)
        config.model.faster_rcnn.ClearField("context_config")
        project.save(config)
        checkpoint = tf.train.Checkpoint(model=build_detection_model(config.model, is_training=False))
        create_variables(checkpoint.model, config.model)
        let_it_find_objects(checkpoint.model)
        checkpoint.write(str(project.directories.model_dir / "ckpt-1"))
        return project

    def test_each_image_gets_the_others_of_its_place(
        self, describing: TinyProject, shapes: list[Annotation], tmp_path: Path
    ) -> None:
        places = ["north", "south", "north", "north", "north"]
        examples = []
        for shape, place in zip(shapes, places, strict=False):
            example = example_from_annotation(shape, LABEL_MAP)
            example.features.feature["image/seq_id"].bytes_list.value.append(place.encode())
            example.features.feature["image/date_captured"].bytes_list.value.append(b"2026-06-15 12:30:00")
            examples.append(example.SerializeToString() + context_example([1.0] * 7, 7))
        write_records(tmp_path / "in.record", examples)
        done: list[int] = []
        arguments = (describing.config(), describing.directories.model_dir, tmp_path / "in.record")
        report = add_context(
            *arguments,
            tmp_path / "out.record",
            max_features=2,
            progress=lambda count, total: done.append(count),
        )
        assert report == ContextReport(images=5, places=2, length=2048 + EXTRA_NUMBERS, largest=2)
        assert done == [1, 2, 3, 4, 5]
        written = [tf.train.Example.FromString(each) for each in read_records(tmp_path / "out.record")]
        context = [
            np.array(each.features.feature["image/context_features"].float_list.value).reshape(-1, report.length)
            for each in written
        ]
        assert [len(each) for each in context] == [2, 0, 2, 2, 2]
        np.testing.assert_array_equal(context[0][0], context[3][0])  # the third image is the nearest of both
        np.testing.assert_allclose(context[0][0, -5:], [0.5, 15 / 31, 0.5, 0.5, 0])
        for each in written:
            assert not context_problem(each.features.feature, report.length)

    def test_what_it_refuses(self, describing: TinyProject, shapes: list[Annotation], tmp_path: Path) -> None:
        write_records(tmp_path / "in.record", [example_of(shapes[0], None)])
        places = (describing.directories.model_dir, tmp_path / "in.record", tmp_path / "out.record")
        with pytest.raises(RecordError, match=r"example 1 .* has no feature 'image/seq_id'.*--place-feature"):
            add_context(describing.config(), *places)
        write_records(tmp_path / "in.record", [example_of(shapes[0], None) + SOMEWHERE])
        with pytest.raises(ConfigError, match="Faster R-CNN without context_config"):
            add_context(context_config(describing), *places)
        with pytest.raises(CheckpointError, match="there is no checkpoint"):
            add_context(describing.config(), tmp_path, *places[1:])
        write_records(tmp_path / "empty.record", [])
        with pytest.raises(RecordError, match="holds no examples"):
            add_context(describing.config(), places[0], tmp_path / "empty.record", places[2])
        assert not (tmp_path / "out.record").exists()
