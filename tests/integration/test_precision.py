"""Training in 16 bits: what computes in which precision, and that nothing after the training notices."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from odkeras.data.records import read_records
from odkeras.export.command import export_version
from odkeras.model.setup import Setup
from odkeras.model.weights import snapshot
from odkeras.pipeline import PipelineConfig
from odkeras.training.checkpoints import CheckpointStore
from odkeras.training.evaluation import evaluate_checkpoint
from odkeras.training.inputs import example_source, training_dataset
from odkeras.training.trainer import StepReport, Trainer
from tests.fixtures_training import BATCH_SIZE, LABEL_MAP

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def trained(
    session_config: PipelineConfig, session_trainer: Trainer, shape_records: dict[str, Path]
) -> Callable[[str], tuple[Trainer, list[StepReport]]]:
    """A trainer of this precision after two steps, from the weights of `session_trainer` at first."""
    start = snapshot(session_trainer.variables)
    built: dict[str, tuple[Trainer, list[StepReport]]] = {}

    def train(precision: str) -> tuple[Trainer, list[StepReport]]:
        if precision not in built:
            trainer, reports = Trainer(session_config, precision=precision), list[StepReport]()
            trainer.start_from(start)
            dataset = batches(session_config, trainer, shape_records["train"])
            trainer.trace(dataset.element_spec)
            trainer.train(iter(dataset), 2, on_step=reports.append)
            built[precision] = (trainer, reports)
        return built[precision]

    return train


def batches(config: PipelineConfig, trainer: Trainer, record: Path) -> tf.data.Dataset:
    """The same batch, over and over: with another one after an update that is skipped, losses would not compare."""
    return training_dataset(config, trainer.model, example_source(lambda: first_batch(record)))


def first_batch(record: Path) -> Iterator[bytes]:
    return itertools.cycle(list(itertools.islice(read_records(record), BATCH_SIZE)))


def layers(trainer: Trainer) -> list[Any]:
    return [each for each in trainer.model._feature_extractor.submodules if isinstance(each, tf.keras.layers.Conv2D)]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
class TestTraining:
    def test_layers_compute_in_it_and_weights_do_not(self, trained: Any, trainer: Trainer, precision: str) -> None:
        short = trained(precision)[0]
        assert {each.compute_dtype for each in layers(short)} == {precision}
        assert {each.compute_dtype for each in layers(trainer)} == {"float32"}
        assert {each.dtype for each in short.variables.values()} == {each.dtype for each in trainer.variables.values()}
        assert {path: each.shape for path, each in short.variables.items()} == {
            path: each.shape for path, each in trainer.variables.items()
        }
        assert tf.keras.mixed_precision.global_policy().name == "float32"  # of what is built later

    def test_steps_are_those_of_float32_but_for_rounding(
        self,
        trained: Any,
        trainer: Trainer,
        session_dataset: tuple[Any, dict[str, Any]],
        shape_records: dict[str, Path],
        precision: str,
    ) -> None:
        dataset, feed = session_dataset
        feed["generate"] = lambda: first_batch(shape_records["train"])
        reports: list[StepReport] = []
        trainer.train(iter(dataset), 2, on_step=reports.append)
        found = trained(precision)[1]
        assert [each.step for each in found] == [1, 2]
        assert found[0].loss == pytest.approx(reports[0].loss, rel=0.03)
        assert found[0].gradient_norm == pytest.approx(reports[0].gradient_norm, rel=0.2)
        assert found[0].loss != reports[0].loss

    def test_its_checkpoint_continues_in_float32_is_evaluated_and_exported(
        self,
        trained: Any,
        trainer: Trainer,
        config: PipelineConfig,
        tmp_path: Path,
        shared_models: None,
        precision: str,
    ) -> None:
        short = trained(precision)[0]
        CheckpointStore(short, tmp_path / "model", 1).save()
        CheckpointStore(trainer, tmp_path / "model", 1).restore()
        for path, value in trainer.state.items():
            np.testing.assert_array_equal(value.numpy(), short.state[path].numpy(), err_msg=path)
        setup = Setup(config, LABEL_MAP)
        metrics = evaluate_checkpoint(setup, tmp_path / "model", max_examples=1)
        assert all(np.isfinite(value) for value in metrics.values())
        result = export_version(setup, tmp_path / "model", tmp_path / "export")
        assert result.step == 2
        graph = SavedModel.FromString((result.directory / "saved_model.pb").read_bytes()).meta_graphs[0]
        outputs = graph.signature_def["serving_default"].outputs.values()
        assert {tf.as_dtype(output.dtype) for output in outputs} == {tf.float32}
        nodes = itertools.chain(*(function.node_def for function in graph.graph_def.library.function))
        computed = {tf.as_dtype(node.attr["T"].type) for node in nodes if node.op == "Conv2D"}
        assert computed == {tf.float32}

    def test_a_checkpoint_of_float32_continues_in_it(
        self, trained: Any, trainer: Trainer, tmp_path: Path, precision: str
    ) -> None:
        short, before = trained(precision)[0], snapshot(trained(precision)[0].state)
        trainer.step_variable.assign(7)
        CheckpointStore(trainer, tmp_path, 1).save()
        store = CheckpointStore(short, tmp_path, 1)
        store.restore()
        assert short.step == 7
        for path, value in trainer.variables.items():
            np.testing.assert_array_equal(value.numpy(), short.variables[path].numpy(), err_msg=path)
        for path, variable in short.state.items():
            variable.assign(before[path])


class TestLossScale:
    def test_an_update_with_an_overflow_is_skipped(
        self, trained: Any, session_config: PipelineConfig, shape_records: dict[str, Path]
    ) -> None:
        """And the scale halved, until the gradients fit into float16."""
        trainer, reports = trained("float16")[0], list[StepReport]()
        before, first_step = snapshot(trainer.state), trainer.step
        trainer._loss_scale._scale.assign(2.0**26)
        updates = itertools.count()
        dataset = batches(session_config, trainer, shape_records["train"])
        iterator = (next(updates) * 0 or batch for batch in dataset)
        trainer.train(iterator, 1, on_step=reports.append)
        scale = float(trainer._loss_scale._scale.numpy())
        skipped = next(updates) - 1
        assert skipped > 0 and scale == 2.0 ** (26 - skipped)
        assert [each.step for each in reports] == [first_step + 1]  # a skipped update is no step
        assert trainer.is_finite and not trainer.bad_images
        for path, variable in trainer.state.items():
            variable.assign(before[path])

    def test_the_scale_grows_after_many_steps_without_one(
        self, trained: Any, session_config: PipelineConfig, shape_records: dict[str, Path]
    ) -> None:
        trainer = trained("float16")[0]
        before = snapshot(trainer.state)
        trainer._loss_scale._scale.assign(2.0**8)
        trainer._loss_scale._good_steps.assign(1999)
        trainer.train(iter(batches(session_config, trainer, shape_records["train"])), 1)
        assert float(trainer._loss_scale._scale.numpy()) == 2.0**9
        assert int(trainer._loss_scale._good_steps.numpy()) == 0
        for path, variable in trainer.state.items():
            variable.assign(before[path])
