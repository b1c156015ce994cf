from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from object_detection import inputs as odapi_inputs

from odkeras.annotation import Annotation
from odkeras.data.records import read_records
from odkeras.errors import ConfigError, LabelMapError
from odkeras.images import decode_rgb
from odkeras.pipeline import PipelineConfig
from odkeras.training.inputs import evaluation_dataset, example_source, training_dataset
from odkeras.training.metrics import make_metric_sets
from odkeras.training.undo import image_bucket
from odkeras.training.unjudged import UNJUDGED
from tests.fixtures_training import LABEL_MAP

pytestmark = pytest.mark.integration


@pytest.fixture
def examples(shape_records: dict[str, Path]) -> list[bytes]:
    return list(read_records(shape_records["train"]))


def in_order(examples: list[bytes]) -> Iterator[bytes]:
    while True:
        yield from examples


class TestTraining:
    def test_the_pixels_are_the_picture_s(
        self, config: PipelineConfig, trainer: Any, examples: list[bytes], shapes: list[Annotation]
    ) -> None:
        dataset = training_dataset(config, trainer.model, example_source(lambda: in_order(examples)))
        features, _ = next(iter(dataset))
        picture = tf.image.resize(decode_rgb(shapes[0].image), (96, 128)).numpy()
        expected = trainer.model._feature_extractor.preprocess(picture[np.newaxis])[0]
        assert np.abs(features["image"][0] - expected).mean() < 0.02 * np.ptp(expected)

    def test_a_new_iterator_asks_the_source_anew(
        self, config: PipelineConfig, trainer: Any, examples: list[bytes], shapes: list[Annotation]
    ) -> None:
        """The loop's data grow without anything being built again."""
        current = examples[:2]
        dataset = training_dataset(config, trainer.model, example_source(lambda: in_order(current)))
        seen = [set(next(iter(dataset))[0]["hash"].numpy())]
        current[:] = examples[4:6]
        seen.append(set(next(iter(dataset))[0]["hash"].numpy()))
        wanted = [{image_bucket(each.image_id) for each in some} for some in (shapes[:2], shapes[4:6])]
        assert seen == wanted

    def test_it_is_what_the_api_s_own_pipeline_gives(
        self, config: PipelineConfig, trainer: Any, examples: list[bytes]
    ) -> None:
        config.train_input_reader.shuffle = False
        theirs = odapi_inputs.train_input(
            config.train_config, config.train_input_reader, config.model, model=trainer.model
        )
        ours = training_dataset(config, trainer.model, example_source(lambda: in_order(examples)))
        (features, labels), (their_features, their_labels) = ours.element_spec, theirs.element_spec
        assert features == {**their_features, UNJUDGED: tf.TensorSpec((2, 3), tf.float32)}
        assert labels == their_labels
        for (features, labels), (their_features, their_labels) in islice(zip(ours, theirs, strict=False), 3):
            for name, value in their_features.items():
                np.testing.assert_array_equal(features[name], value, err_msg=name)
            for name, value in their_labels.items():
                np.testing.assert_array_equal(labels[name], value, err_msg=name)

    def test_records_that_the_config_names_without_end(self, config: PipelineConfig, trainer: Any) -> None:
        config.train_input_reader.num_epochs = 1
        batches = list(islice(training_dataset(config, trainer.model), 10))  # six are once over the twelve pictures
        assert len(batches) == 10
        assert len({bucket for features, _ in batches for bucket in features["hash"].numpy()}) == 12

    def test_the_api_s_own_reader_is_back_afterwards(
        self, config: PipelineConfig, trainer: Any, examples: list[bytes]
    ) -> None:
        before = odapi_inputs.INPUT_BUILDER_UTIL_MAP["dataset_build"]
        training_dataset(config, trainer.model, example_source(lambda: in_order(examples)))
        config.train_input_reader.tf_record_input_reader.input_path[:] = ["/nowhere/*.record"]
        with pytest.raises(ConfigError):
            training_dataset(config, trainer.model)
        assert odapi_inputs.INPUT_BUILDER_UTIL_MAP["dataset_build"] is before

    @pytest.mark.parametrize(("workers", "files", "enough"), [(2, 1, False), (2, 2, True), (1, 1, True)])
    def test_a_file_for_every_worker(
        self, config: PipelineConfig, trainer: Any, tmp_path: Path, workers: int, files: int, enough: bool
    ) -> None:
        (source,) = config.train_input_reader.tf_record_input_reader.input_path
        for number in range(files):
            (tmp_path / f"{number}.record").write_bytes(Path(source).read_bytes())
        config.train_input_reader.tf_record_input_reader.input_path[:] = [str(tmp_path / "*.record")]
        context = tf.distribute.InputContext(workers, workers - 1, workers)
        if enough:
            features, _ = next(iter(training_dataset(config, trainer.model, input_context=context)))
            assert features["image"].shape[0] == 2 // workers
        else:
            with pytest.raises(ConfigError, match="2 workers share 1 file; make at least as many files as workers"):
                training_dataset(config, trainer.model, input_context=context)

    def test_a_worker_reads_its_own_source(self, config: PipelineConfig, trainer: Any, examples: list[bytes]) -> None:
        """All of it, in batches of its part of the batch size, and without an end."""
        config.train_config.batch_size = 2
        source = example_source(lambda: iter(examples[:3]))
        dataset = training_dataset(config, trainer.model, source, tf.distribute.InputContext(2, 1, 2))
        hashes = [features["hash"].numpy().tolist() for features, _ in islice(dataset, 6)]
        assert {len(each) for each in hashes} == {1} and hashes[:3] == hashes[3:]
        assert len({each for (each,) in hashes}) == 3


def test_batches_of_every_source_are_alike(config: PipelineConfig, trainer: Any, examples: list[bytes]) -> None:
    """A step that is traced with the one takes the other."""
    of_loop = training_dataset(config, trainer.model, example_source(lambda: in_order(examples)))
    of_records = training_dataset(config, trainer.model)
    assert of_loop.element_spec == of_records.element_spec
    features, _ = next(iter(of_records))
    assert not np.any(features[UNJUDGED])


def test_no_iterator_waits_for_the_tuner(config: PipelineConfig, trainer: Any, examples: list[bytes]) -> None:
    """An iterator at its end waited for a thread that slept, for up to as long as it had lived."""
    reader = config.eval_input_reader[0]
    for dataset in (
        training_dataset(config, trainer.model),
        training_dataset(config, trainer.model, example_source(lambda: in_order(examples))),
        evaluation_dataset(config, trainer.model, reader),
    ):
        assert dataset.options().autotune.enabled is False


class TestEvaluation:
    def test_every_example_once_in_order(
        self, config: PipelineConfig, trainer: Any, shape_records: dict[str, Path]
    ) -> None:
        ids = [
            tf.train.Example.FromString(each).features.feature["image/source_id"].bytes_list.value[0].decode()
            for each in read_records(shape_records["test"])
        ]
        dataset = evaluation_dataset(config, trainer.model, config.eval_input_reader[0])
        found = [(features, labels) for features, labels in dataset]
        assert [int(features["hash"][0]) for features, _ in found] == [image_bucket(image_id) for image_id in ids]
        for features, labels in found:
            assert features["image"].shape.as_list() == [1, 96, 128, 3]
            assert labels["groundtruth_classes"].shape[-1] == len(LABEL_MAP)

    def test_no_records(self, config: PipelineConfig, trainer: Any) -> None:
        reader = config.eval_input_reader[0]
        reader.tf_record_input_reader.input_path[:] = ["/nowhere/*.record"]
        with pytest.raises(ConfigError, match="eval_input_reader: the input pipeline cannot be built: "):
            evaluation_dataset(config, trainer.model, reader)


def test_a_label_map_that_the_api_would_refuse(
    config: PipelineConfig, trainer: Any, examples: list[bytes], tmp_path: Path
) -> None:
    """All checks passed, and the API's own parser ended the training with a TypeError."""
    path = tmp_path / "map.pbtxt"
    items = "".join(
        f"item {{ id: {label.id} name: '{label.name}' supercategory: 'x' }}\n" for label in LABEL_MAP.labels
    )
    path.write_text(f"\ufeff{items}", encoding="utf-8")
    reader = config.train_input_reader
    reader.label_map_path = str(path)
    source = example_source(lambda: in_order(examples))
    for dataset in (
        training_dataset(config, trainer.model, source),
        evaluation_dataset(config, trainer.model, reader, source),
    ):
        _, labels = next(iter(dataset))
        assert labels["groundtruth_classes"].numpy().any()
    (metrics, *_) = make_metric_sets(config.eval_config, str(path))
    assert metrics.evaluate() is not None
    path.write_text("item { id: 1 name: 'a'\n item { id: 2 name: 'b' } }")
    with pytest.raises(LabelMapError, match=r"map.pbtxt:2: an item inside the item of line 1"):
        training_dataset(config, trainer.model, source)
