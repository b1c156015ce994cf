"""Models are built once for the whole session; every test gets them as they were at first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from odkeras import compat
from odkeras.annotation import Annotation
from odkeras.pipeline import PipelineConfig
from odkeras.shapes import ShapesDataset, generate_shapes
from tests.fixtures_training import LABEL_MAP, TinyProject, read_annotations, tiny_config

compat.prepare()  # before any test module imports the Object Detection API


@pytest.fixture(scope="module", autouse=True)
def nothing_leaks() -> Iterator[None]:
    """A module leaves TensorFlow's and Keras's global state as it was."""
    import tensorflow as tf
    from tf_keras.src import backend

    yield
    assert [device.name for device in tf.config.list_logical_devices("CPU")] == ["/device:CPU:0"]
    assert not backend.global_learning_phase_is_set() and not tf.distribute.has_strategy()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> ShapesDataset:
    return generate_shapes(tmp_path_factory.mktemp("shapes"), train_images=12, test_images=4)


@pytest.fixture(scope="session")
def shapes(pictures: ShapesDataset) -> list[Annotation]:
    """Twelve annotated pictures."""
    return read_annotations(pictures, pictures.train_csv)


@pytest.fixture(scope="session")
def shape_records(pictures: ShapesDataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """TFRecords of the pictures: "train" with twelve, "test" with four."""
    from odkeras.data.conversion import labels_to_records

    folder = tmp_path_factory.mktemp("records")
    sources = {"train": pictures.train_csv, "test": pictures.test_csv}
    for name, csv_path in sources.items():
        labels_to_records(csv_path, folder / f"{name}.record", label_map=LABEL_MAP, images_dir=pictures.images_dir)
    return {name: folder / f"{name}.record" for name in sources}


@pytest.fixture(scope="session")
def session_config(shape_records: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> PipelineConfig:
    label_map_path = tmp_path_factory.mktemp("labels") / "label_map.pbtxt"
    LABEL_MAP.save(label_map_path)
    return tiny_config(
        label_map_path=str(label_map_path),
        train_records=(str(shape_records["train"]),),
        eval_records=(str(shape_records["test"]),),
    )


@pytest.fixture
def config(session_config: PipelineConfig) -> PipelineConfig:
    """The tiny model's configuration with records to read; may be changed."""
    copy = type(session_config)()
    copy.CopyFrom(session_config)
    return copy


@pytest.fixture(scope="session")
def session_inference(session_config: PipelineConfig) -> Any:
    import tensorflow as tf

    from odkeras.model.inference import InferenceModel

    tf.keras.utils.set_random_seed(2019)  # the same weights in every session
    return InferenceModel(session_config.model)


@pytest.fixture(scope="session")
def session_trainer(session_config: PipelineConfig) -> Any:
    import tensorflow as tf

    from odkeras.training.trainer import Trainer

    tf.keras.utils.set_random_seed(2020)  # other weights than the inference model's
    return Trainer(session_config)


@pytest.fixture(scope="session")
def saved_once(session_inference: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version of the session's model."""
    from odkeras.export.publish import Publisher

    folder = tmp_path_factory.mktemp("export")
    return folder / str(Publisher(session_inference, folder, LABEL_MAP).publish(0))


@pytest.fixture
def inference(session_inference: Any) -> Iterator[Any]:
    """An `InferenceModel`; the test may give it other weights."""
    with kept_as_is(session_inference.variables):
        yield session_inference


@pytest.fixture
def trainer(session_trainer: Any) -> Iterator[Any]:
    """A `Trainer` at step 0 whose step may be traced already; the test may train it."""
    with kept_as_is(_state_of(session_trainer)):
        session_trainer.bad_images.clear()
        yield session_trainer


class kept_as_is:
    """Context manager: the variables have their values back afterwards."""

    def __init__(self, variables: list[Any]) -> None:
        self._variables = variables

    def __enter__(self) -> None:
        self._values = [variable.numpy() for variable in self._variables]

    def __exit__(self, *_: object) -> None:
        for variable, value in zip(self._variables, self._values, strict=True):
            variable.assign(value)


@pytest.fixture
def project(tmp_path: Path) -> TinyProject:
    """A project without answers, checkpoints and versions."""
    return TinyProject(tmp_path / "project").write()


@pytest.fixture(scope="session")
def session_dataset(session_config: PipelineConfig, session_trainer: Any) -> tuple[Any, dict[str, Any]]:
    """Training batches of the examples that `feed["generate"]` generates, and `feed`."""
    from odkeras.training.inputs import example_source, training_dataset

    feed: dict[str, Any] = {}
    source = example_source(lambda: feed["generate"]())
    dataset = training_dataset(session_config, session_trainer.model, source)
    session_trainer.trace(dataset.element_spec)
    return dataset, feed


@pytest.fixture
def shared_models(
    session_dataset: tuple[Any, dict[str, Any]],
    saved_once: Path,
    inference: Any,
    trainer: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Code that builds the tiny model (the loop, plain training, evaluation, export) gets the session's model with its
    initial weights. Nothing is traced, and no graph saved, a second time. Other models are built as usual."""
    from odkeras.export.publish import Publisher, graph_fingerprint
    from odkeras.model.inference import InferenceModel
    from odkeras.training.inputs import example_source, training_dataset
    from odkeras.training.trainer import Trainer

    first_day = {id(each): each.numpy() for each in (*inference.variables, *_state_of(trainer))}
    dataset, feed = session_dataset
    real_find_template, saved_graph = Publisher._find_template, graph_fingerprint(inference.model_config)

    def build_inference(model_config: Any) -> Any:
        if model_config != inference.model_config:
            return InferenceModel(model_config)
        for variable in inference.variables:
            variable.assign(first_day[id(variable)])
        return inference

    def build_trainer(config: Any, strategy: Any = None, precision: str = "float32") -> Any:
        if strategy is not None or precision != "float32" or not _trains_alike(config, trainer.config):
            return Trainer(config, strategy, precision=precision)
        for variable in _state_of(trainer):
            variable.assign(first_day[id(variable)])
        return trainer

    def build_source(generate: Any) -> Any:
        feed["generate"] = generate
        return example_source(generate)

    def build_dataset(config: Any, model: Any, source: Any = None, input_context: Any = None) -> Any:
        if model is trainer.model and source is not None:
            return dataset
        return training_dataset(config, model, source, input_context)

    def find_template(publisher: Any) -> Path | None:
        return real_find_template(publisher) or (saved_once if publisher._graph == saved_graph else None)

    for module in ("training.serving_model", "training.train", "training.evaluation", "export.command"):
        monkeypatch.setattr(f"odkeras.{module}.InferenceModel", build_inference)
    for module in ("training.rounds", "training.train"):
        monkeypatch.setattr(f"odkeras.{module}.Trainer", build_trainer)
    monkeypatch.setattr("odkeras.training.inputs.training_dataset", build_dataset)
    monkeypatch.setattr("odkeras.training.crew.example_source", build_source)
    monkeypatch.setattr(trainer, "trace", lambda element_spec: None)
    monkeypatch.setattr(Publisher, "_find_template", find_template)


def _state_of(trainer: Any) -> list[Any]:
    return [*trainer.variables.values(), *trainer.optimizer_variables().values(), trainer.step_variable]


def _trains_alike(a: PipelineConfig, b: PipelineConfig) -> bool:
    return a.model == b.model and all(
        getattr(a.train_config, name) == getattr(b.train_config, name)
        for name in ("optimizer", "gradient_clipping_by_norm", "batch_size", "data_augmentation_options")
    )
