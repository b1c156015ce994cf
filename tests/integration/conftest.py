"""Models are built once for the whole session; every test gets them as they were at first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from odkeras import compat
from odkeras.pipeline import PipelineConfig
from odkeras.shapes import ShapesDataset, generate_shapes
from odkeras.tasks import Annotation
from tests.fixtures_training import LABEL_MAP, TinyProject, read_annotations, tiny_config

compat.prepare()  # before any test module imports the Object Detection API


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
    from odkeras.data.records import csv_to_records

    folder = tmp_path_factory.mktemp("records")
    sources = {"train": pictures.train_csv, "test": pictures.test_csv}
    for name, csv_path in sources.items():
        csv_to_records(csv_path, folder / f"{name}.record", label_map=LABEL_MAP, images_dir=pictures.images_dir)
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
    from odkeras.model.inference import InferenceModel

    return InferenceModel(session_config.model)


@pytest.fixture(scope="session")
def session_trainer(session_config: PipelineConfig) -> Any:
    from odkeras.training.trainer import Trainer

    return Trainer(session_config)


@pytest.fixture
def inference(session_inference: Any) -> Iterator[Any]:
    """An `InferenceModel`; the test may give it other weights."""
    with kept_as_is(session_inference.variables):
        yield session_inference


@pytest.fixture
def trainer(session_trainer: Any) -> Iterator[Any]:
    """A `Trainer` at step 0 whose step may be traced already; the test may train it."""
    remembered = [*session_trainer.variables.values(), *session_trainer.optimizer_variables().values()]
    with kept_as_is([*remembered, session_trainer.step_variable]):
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
