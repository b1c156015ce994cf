"""`--batch-size auto`: the largest batch that the memory of a device is enough for, by an estimate.

Trying batches until one fails is no way to find it: without a GPU the system would kill the process. The estimate adds
what the forward pass of one image produces, which the backward pass needs, and compares it with the memory.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.python.client import device_lib

from odkeras.config.parsing import AUTO
from odkeras.config.settings import TrainingSettings
from odkeras.errors import ConfigError
from odkeras.training.cluster import Cluster
from odkeras.training.inputs import example_source, training_dataset
from odkeras.training.trainer import Trainer, learning_phase

_log = logging.getLogger(__name__)

LARGEST = 64
"""Of one device. Larger batches need another learning rate than that of a config."""
_SHARE = 0.7  # of the memory; the rest is for the workspace of kernels, the input pipeline, and what the estimate lacks
_WITHOUT_MEMORY = [
    "Const",
    "Identity",
    "IdentityN",
    "Placeholder",
    "ReadVariableOp",
    "Reshape",
    "Squeeze",
    "ExpandDims",
]
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")  # of a container


def set_batch_size(config: Any, settings: TrainingSettings, trainer: Trainer, cluster: Cluster | None) -> None:
    """With `--batch-size auto`, set the batch size of the config.

    Args:
        config: a resolved `TrainEvalPipelineConfig`, which is changed.
        settings: have the batch size, and the precision.
        trainer: has the model and the strategy.
        cluster: its workers take the smallest of their sizes; None if this process trains alone.

    Raises:
        ConfigError: the images have no fixed size, or one needs more memory than there is.
    """
    if settings.batch_size != AUTO:
        return
    free, replicas = free_memory(), trainer.strategy.num_replicas_in_sync
    # Distributed weights cannot be read outside of the replicas, so that the forward pass is that of a model alone.
    alone = trainer if replicas == 1 and cluster is None else Trainer(config, precision=settings.precision)
    weights, image = bytes_of_weights(alone), bytes_of_image(alone)
    size = plan_batch_size(free, weights, image)
    if cluster is not None:
        size = cluster.least(size)
    config.train_config.batch_size = size * replicas
    _log.info(
        "--batch-size auto: %d images on each of %d devices; an image needs %.3f GB, the weights %.3f GB, of %.1f GB",
        *(size, replicas, image / 1e9, weights / 1e9, free / 1e9),
    )


def plan_batch_size(free: int, weights: int, image: int) -> int:
    """The largest power of two, at most `LARGEST`, that fits into `_SHARE` of the memory.

    Args:
        free: bytes of memory.
        weights: bytes that a batch of any size needs.
        image: bytes that each image needs.

    Raises:
        ConfigError: not even one image fits.
    """
    fitting = int((free * _SHARE - weights) / max(image, 1))
    if fitting < 1:
        raise ConfigError(
            f"--batch-size auto: a step with one image needs {(weights + image) / 1e9:.2f} GB, and a device has "
            f"{free / 1e9:.2f} GB; make the image_resizer or the model smaller, or try --batch-size 1"
        )
    return min(LARGEST, 2 ** (fitting.bit_length() - 1))


def bytes_of_weights(trainer: Trainer) -> int:
    """The weights, the optimizer's state and the gradients."""
    variables = [*trainer.state.values(), *trainer.trained_variables]
    return sum(variable.shape.num_elements() * variable.dtype.size for variable in variables)


def bytes_of_image(trainer: Trainer) -> int:
    """What the forward pass of one image produces in a training step.

    Raises:
        ConfigError: the images have no fixed size.
    """
    config = type(trainer.config)()
    config.CopyFrom(trainer.config)
    config.train_config.batch_size = 1
    spec = training_dataset(config, trainer.model, example_source(lambda: iter(()))).element_spec
    if None in spec[0]["image"].shape:
        raise ConfigError(
            "--batch-size auto needs images of one size: set fixed_shape_resizer, or pad_to_max_dimension, in the "
            "image_resizer, or give a number"
        )

    def forward(features: dict[str, tf.Tensor], labels: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        with learning_phase(training=True):
            return trainer.losses(features, labels)

    graph = tf.function(forward, input_signature=tuple(spec), autograph=False).get_concrete_function().graph
    operations = [operation for operation in graph.get_operations() if operation.type not in _WITHOUT_MEMORY]
    return sum(_bytes(tensor) for operation in operations for tensor in operation.outputs)


def _bytes(tensor: tf.Tensor) -> int:
    count = tensor.shape.num_elements()
    return 0 if count is None or not tensor.dtype.is_floating else int(count * tensor.dtype.size)


def free_memory() -> int:
    """Bytes of the GPU with the least memory; without a GPU, of this machine or container, as far as they are free."""
    gpus = [device.memory_limit for device in device_lib.list_local_devices() if device.device_type == "GPU"]
    return int(min(gpus)) if gpus else free_host_memory(_MEMINFO, _CGROUP)


def free_host_memory(meminfo: Path, cgroup: Path) -> int:
    """Bytes that Linux could give to this process.

    Args:
        meminfo: `/proc/meminfo`.
        cgroup: directory with `memory.max` and `memory.current` of a container; may be missing.

    Raises:
        ConfigError: the system does not say.
    """
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text(encoding="ascii").splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError, IndexError):
        raise ConfigError(
            "--batch-size auto: this system does not say how much memory is free; give a number"
        ) from None
    try:
        limit, used = ((cgroup / name).read_text(encoding="ascii").strip() for name in ("memory.max", "memory.current"))
        return min(free, max(0, int(limit) - int(used)))
    except (OSError, ValueError):  # no container, or "max"
        return free
