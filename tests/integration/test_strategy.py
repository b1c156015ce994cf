"""Distribution, in processes of their own: TensorFlow's devices are set up once per process."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from waiting import wait_until

from odkeras.annotation import Annotation
from odkeras.data.records import example_from_annotation, write_records
from odkeras.model.checkpoint import model_keys
from odkeras.model.weights import snapshot
from odkeras.pipeline import PipelineConfig, save_pipeline
from odkeras.training.process import open_rounds
from odkeras.version_dirs import list_versions
from tests.fixtures_training import LABEL_MAP, TinyProject
from tests.workers import Workers

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

CLIP = 0.5

ENV = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}

MIRRORED = """
import json, math, sys
from pathlib import Path
from odkeras import compat
compat.prepare()
import numpy as np
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
# The graphs run a few times only: optimizing them takes longer.
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
from odkeras.model.inference import InferenceModel
from odkeras.model.weights import copy_weights, named_variables, snapshot
from odkeras.pipeline import load_pipeline
from odkeras.training.inputs import training_dataset
from odkeras.training.checkpoints import CheckpointStore
from odkeras.training.trainer import Trainer

tf.keras.utils.set_random_seed(2019)
config, folder = load_pipeline(Path(sys.argv[1])), Path(sys.argv[2])
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
alone, together = Trainer(config), Trainer(config, strategy)
together.start_from(snapshot(alone.variables))
half = next(iter(training_dataset(config, alone.model)))
whole = tf.nest.map_structure(lambda value: tf.concat([value, value], 0), half)
poison = ({**half[0], "image": half[0]["image"] * math.nan}, half[1])

def spread(batch):  # one for each replica
    dataset = tf.data.Dataset.from_tensors(batch).repeat()
    return strategy.distribute_datasets_from_function(lambda context: dataset)

alone.trace(tf.data.Dataset.from_tensors(whole).element_spec)
together.trace(spread(half).element_spec)
reports, start = {"alone": [], "together": []}, snapshot(alone.variables)
alone.train(iter([whole] * 3), 3, on_step=reports["alone"].append)
together.train(iter(spread(half)), 3, on_step=reports["together"].append)

def updates(trainer):  # without the moving variances, which depend on the number of images
    return {name: each.numpy() - start[name] for name, each in trainer.variables.items() if each.trainable}

mine, theirs = updates(alone), updates(together)
difference = max(float(np.abs(mine[name] - theirs[name]).max()) for name in mine)
sizes = [float(np.sqrt(sum(np.square(each).sum() for each in update.values()))) for update in (mine, theirs)]
kept = {**snapshot(together.variables), **snapshot(together.optimizer_variables())}
store = CheckpointStore(together, folder, 5)
path = store.save()
inference = InferenceModel(config.model)
copy_weights(together.weights_for_prediction(), named_variables(inference.model))
expected = together.weights_for_prediction()
published = max(
    float(np.abs(each.numpy() - expected[name].numpy()).max())
    for name, each in named_variables(inference.model).items()
)
failure = ""
try:
    together.train(iter(spread(poison)), 9)
except Exception as error:
    failure = type(error).__name__
undone = {**snapshot(together.variables), **snapshot(together.optimizer_variables())}
for variable in together.variables.values():
    variable.assign(tf.zeros_like(variable))
together.step_variable.assign(99)
store.restore()
resumed = {**snapshot(together.variables), **snapshot(together.optimizer_variables())}
print(json.dumps({
    **{who: [each.loss for each in steps] for who, steps in reports.items()}, "difference": difference, "sizes": sizes,
    "norms": {who: [each.gradient_norm for each in steps] for who, steps in reports.items()},
    "published": published, "failure": failure, "step": together.step,
    "undone": all(np.array_equal(kept[name], undone[name]) for name in kept),
    "resumed": all(np.array_equal(kept[name], resumed[name]) for name in kept),
    "bad_images": len(together.bad_images), "replicas": strategy.num_replicas_in_sync,
}))
"""


def with_momentum(config: PipelineConfig, *, clip: float, moving_average: bool) -> PipelineConfig:
    optimizer = config.train_config.optimizer
    optimizer.ClearField("adam_optimizer")
    optimizer.momentum_optimizer.learning_rate.constant_learning_rate.learning_rate = 0.001
    optimizer.use_moving_average = moving_average
    config.train_config.gradient_clipping_by_norm = clip
    return config


def test_two_replicas_do_what_one_does_with_the_whole_batch(config: PipelineConfig, tmp_path: Path) -> None:
    """Each replica clipped its own gradients before they were summed, so that the update was up to twice as long.

    Batch normalisation ran as in prediction on every replica, because the switch for it is the thread's own: the
    first loss was 268 instead of 6, and the third step was not finite.

    Each has the same two images, so that what is normalised per replica (the boxes, the batch) comes out alike.
    """
    save_pipeline(with_momentum(config, clip=CLIP, moving_average=True), tmp_path / "pipeline.config")
    command = [sys.executable, "-c", MIRRORED, str(tmp_path / "pipeline.config"), str(tmp_path / "model")]
    result = subprocess.run(command, env=ENV, capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stderr[-3000:]
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    assert found["replicas"] == 2
    assert found["together"][0] == pytest.approx(found["alone"][0], rel=1e-4)
    assert found["together"] == pytest.approx(found["alone"], rel=5e-2)  # small differences grow
    assert found["norms"]["together"][0] == pytest.approx(found["norms"]["alone"][0], rel=1e-3)
    assert found["norms"]["alone"][0] > 2 * CLIP  # so that clipping does something, also with half of it
    assert found["difference"] < 5e-2
    assert found["sizes"][1] == pytest.approx(found["sizes"][0], rel=2e-2)
    assert found["published"] == 0.0
    assert found["failure"] == "UndoneStepsError" and found["undone"]
    assert found["bad_images"] == 2
    assert found["resumed"] and found["step"] == 3


@pytest.fixture(scope="module")
def alone(
    session_config: PipelineConfig, shapes: list[Annotation], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, PipelineConfig, dict[str, Any], dict[str, Any]]:
    """One process trains two steps on batches of four times the same image.

    Returns:
        A model directory with the checkpoint of the start, the config without records, the weights at the start and
        at the end.
    """
    from odkeras.training.checkpoints import CheckpointStore
    from odkeras.training.inputs import training_dataset
    from odkeras.training.trainer import Trainer

    folder = tmp_path_factory.mktemp("alone")
    config = type(session_config)()
    config.CopyFrom(session_config)
    with_momentum(config, clip=CLIP, moving_average=False).train_config.batch_size = 4
    write_records(folder / "one.record", [example_from_annotation(shapes[0], LABEL_MAP).SerializeToString()])
    config.train_input_reader.tf_record_input_reader.input_path[:] = [str(folder / "one.record")]
    trainer = Trainer(config)
    CheckpointStore(trainer, folder / "model", 0).save()
    start, dataset = snapshot(trainer.variables), training_dataset(config, trainer.model)
    trainer.trace(dataset.element_spec)
    norms: list[float] = []
    trainer.train(iter(dataset), 2, on_step=lambda report: norms.append(report.gradient_norm))
    assert min(norms) > 4 * CLIP  # so that clipping does something, also if each of four clips its part
    return folder, config, start, snapshot(trainer.variables)


class TestMultiWorker:
    @pytest.mark.parametrize("count", [2, 4])
    def test_workers_do_what_one_does_with_the_whole_batch_and_end_together(
        self, alone: tuple[Path, PipelineConfig, dict[str, Any], dict[str, Any]], tmp_path: Path, count: int
    ) -> None:
        """Each worker clipped its own gradients. Both wrote to one directory, and saved when their own clock said so,
        which stops a cluster. Ctrl-C on one of them left the others with a raw error of a collective operation.

        Of two, one is asked to end; of four, the chief is killed.
        """
        folder, config, start, expected = alone
        self.prepare(tmp_path, folder, config, count)
        model_dir = tmp_path / "model"
        steps = ["--steps", "100000", "--checkpoint-steps", "2", "--max-checkpoints-num", "0"]
        with Workers(tmp_path, count, ["train", str(tmp_path / "pipeline.config"), *steps]) as workers:
            workers.wait_for_checkpoint(model_dir, 2)
            workers.send(0 if count == 4 else 1, signal.SIGKILL if count == 4 else signal.SIGTERM)
            codes, outputs = workers.exit_codes(), [workers.output(index) for index in range(count)]
        self.check_update(model_dir / "ckpt-2", start, expected)
        for index in range(1, count):
            assert "Traceback" not in outputs[index], outputs[index][-3000:]
        assert len(list((model_dir / "train").glob("events*"))) == 1  # the chief's
        if count == 4:
            assert codes == [-signal.SIGKILL, 5, 5, 5], outputs[1][-3000:]
            for output in outputs[1:]:
                assert f"worker 0 ({workers.addresses[0]}, the chief) was lost" in output
            return
        assert codes == [0, 0], outputs[1][-3000:]
        (last,) = {int(output.rpartition(" steps in")[0].split()[-1]) for output in outputs}
        assert (model_dir / f"ckpt-{last}.index").exists()
        assert list(model_dir.glob(".tmp-*")) == []

    def prepare(self, tmp_path: Path, alone: Path, config: PipelineConfig, count: int) -> None:
        shutil.copytree(alone / "model", tmp_path / "model")
        for number in range(count):
            shutil.copy(alone / "one.record", tmp_path / f"{number}.record")
        copy = type(config)()
        copy.CopyFrom(config)
        copy.train_input_reader.tf_record_input_reader.input_path[:] = [str(tmp_path / "*.record")]
        save_pipeline(copy, tmp_path / "pipeline.config")

    def check_update(self, checkpoint: Path, start: dict[str, Any], expected: dict[str, Any]) -> None:
        """The checkpoint has the weights of one process, but for rounding, which grows: they differ by less than 2 % of
        the update. Moving statistics are left out: they depend on the number of images."""
        reader = tf.train.load_checkpoint(str(checkpoint))
        weights = {path: reader.get_tensor(key) for key, (path, slot) in model_keys(reader).items() if slot is None}
        assert weights.keys() == expected.keys()
        trained = [path for path in weights if "moving_" not in path]
        update = math.sqrt(sum(float(np.square(expected[path] - start[path]).sum()) for path in trained))
        error = math.sqrt(sum(float(np.square(weights[path] - expected[path]).sum()) for path in trained))
        assert update == pytest.approx(2 * 0.001 * CLIP, rel=0.5)  # learning rate, steps; momentum adds to it
        assert error < 0.02 * update

    @pytest.mark.usefixtures("shared_models")
    def test_a_round_of_the_loop_goes_on_with_another_number_of_workers(
        self, project: TinyProject, shapes: list[Annotation], tmp_path: Path
    ) -> None:
        """A worker of two is killed in the second round; a process alone ends the round."""
        first, model_dir = project.put(shapes[:4]), project.directories.model_dir
        options = ["--steps-per-epoch", "6", "--checkpoint-steps", "2"]
        with Workers(tmp_path, 2, ["trainer", str(project.config_path), *options]) as workers:
            wait_until(project.metrics, "the first round", 200)
            assert [(row["steps"], row["step"], row["batches"]) for row in project.metrics()] == [(6, 6, [first])]
            second = project.put(shapes[4:8])
            wait_until(lambda: project.status()["step"] >= 9, "the second round", 200)
            workers.send(1, signal.SIGKILL)
            codes, output = workers.exit_codes(), workers.output(0)
        reached = project.status()["step"]
        assert codes == [5, -signal.SIGKILL], output[-3000:]
        lost = f"worker 1 ({workers.addresses[1]}) was lost"
        assert lost in output.splitlines()[-1] and lost in project.status()["reason"]
        assert project.status()["state"] == "failed"
        assert [row["version"] for row in project.metrics()] == list_versions(project.directories.export_dir)[1:]
        for run in ("train", "loop"):
            assert len(list((model_dir / run).glob("events*"))) == 1  # no worker but the chief writes any

        settings = project.settings(steps_per_epoch=6)
        with open_rounds(project.config(), LABEL_MAP, settings) as rounds:
            start = rounds._trainer.step
            assert 6 <= start <= reached and reached - start <= 2 + 1  # the status may be one step behind a checkpoint
            assert rounds.run_pending()
        assert [(row["step"], row["batches"]) for row in project.metrics()] == [(6, [first]), (12, [second])]
