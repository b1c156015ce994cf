"""Distribution, in processes of their own: TensorFlow's devices are set up once per process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from odkeras.data.records import read_records, write_records
from odkeras.pipeline import PipelineConfig, save_pipeline
from odkeras.project import read_jsonl

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

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
losses = {"alone": [], "together": []}
alone.train(iter([whole] * 3), 3, on_step=lambda report: losses["alone"].append(report.loss))
together.train(iter(spread(half)), 3, on_step=lambda report: losses["together"].append(report.loss))
difference = max(  # without the moving variances, which depend on the number of images
    float(np.abs(each.numpy() - alone.variables[name].numpy()).max())
    for name, each in together.variables.items() if each.trainable
)
kept = {**snapshot(together.variables), **snapshot(together.optimizer_variables())}
store = CheckpointStore(together, folder, 5)
path = store.save()
inference = InferenceModel(config.model)
copy_weights(together.weights_for_prediction(), named_variables(inference.model))
published = max(
    float(np.abs(each.numpy() - together.variables[name].numpy()).max())
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
    **losses, "difference": difference, "published": published, "failure": failure, "step": together.step,
    "undone": all(np.array_equal(kept[name], undone[name]) for name in kept),
    "resumed": all(np.array_equal(kept[name], resumed[name]) for name in kept),
    "bad_images": len(together.bad_images), "replicas": strategy.num_replicas_in_sync,
}))
"""


def with_momentum(config: PipelineConfig) -> PipelineConfig:
    optimizer = config.train_config.optimizer
    optimizer.ClearField("adam_optimizer")
    optimizer.momentum_optimizer.learning_rate.constant_learning_rate.learning_rate = 0.001
    config.train_config.gradient_clipping_by_norm = 0.0
    return config


def test_two_replicas_do_what_one_does_with_the_whole_batch(config: PipelineConfig, tmp_path: Path) -> None:
    """Batch normalisation ran as in prediction on every replica, because the switch for it is the thread's own: the
    first loss was 268 instead of 6, and the third step was not finite.

    Each has the same two images, so that what is normalised per replica (the boxes, the batch) comes out alike.
    """
    save_pipeline(with_momentum(config), tmp_path / "pipeline.config")
    command = [sys.executable, "-c", MIRRORED, str(tmp_path / "pipeline.config"), str(tmp_path / "model")]
    result = subprocess.run(command, env=ENV, capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stderr[-3000:]
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    assert found["replicas"] == 2
    assert found["together"][0] == pytest.approx(found["alone"][0], rel=1e-4)
    assert found["together"] == pytest.approx(found["alone"], rel=5e-2)  # small differences grow
    assert found["difference"] < 5e-2
    assert found["published"] == 0.0
    assert found["failure"] == "TrainingError" and found["undone"]
    assert found["bad_images"] == 2
    assert found["resumed"] and found["step"] == 3


class TestMultiWorker:
    def test_two_processes_train_one_model(self, config: PipelineConfig, tmp_path: Path) -> None:
        """Both wrote to one directory, and saved when their own clock said so, which stops a cluster."""
        self.split_records(config, tmp_path, files=2)
        save_pipeline(config, tmp_path / "pipeline.config")
        results = self.run_workers(tmp_path, "--steps", "3")
        for result in results:
            assert result["status"] == 0, result["output"][-3000:]
            assert "3 steps in" in result["output"]
        losses = {result["output"].rpartition("loss ")[2].split(";")[0] for result in results}
        assert len(losses) == 1  # the mean over both workers, on each of them
        model_dir = tmp_path / "model"
        assert sorted(path.name for path in model_dir.glob("*ckpt*")) == ["ckpt-3.data-00000-of-00001", "ckpt-3.index"]
        assert list(model_dir.glob(".tmp-*")) == []
        assert len(list((model_dir / "train").glob("events*"))) == 1  # the chief's
        assert read_jsonl(model_dir / "metrics.jsonl") == []

    def split_records(self, config: PipelineConfig, folder: Path, files: int) -> None:
        paths = config.train_input_reader.tf_record_input_reader.input_path
        examples = list(read_records(paths[0]))
        for number in range(files):
            write_records(folder / f"{number}.record", examples[number::files])
        paths[:] = [str(folder / "*.record")]

    def run_workers(self, folder: Path, *arguments: str) -> list[dict[str, Any]]:
        cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
        command = [sys.executable, "-m", "odkeras", "train", str(folder / "pipeline.config"), *arguments]
        workers = [
            subprocess.Popen(
                [*command, "--strategy", "multi-worker"],
                env={**ENV, "TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for index in range(2)
        ]
        try:
            outputs = [worker.communicate(timeout=150)[0] for worker in workers]
        finally:
            for worker in workers:
                worker.kill()
        return [
            {"status": worker.returncode, "output": output} for worker, output in zip(workers, outputs, strict=True)
        ]


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
