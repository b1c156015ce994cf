"""Distribution strategies for the training step."""

from __future__ import annotations

import sys

import tensorflow as tf

from odkeras.config.cluster import read_tf_config
from odkeras.config.devices import STRATEGIES
from odkeras.errors import ConfigError
from odkeras.process import default_signals
from odkeras.text import say


def make_strategy(name: str) -> tf.distribute.Strategy | None:
    """Create the strategy that `--strategy` names; None for "none".

    "mirrored" uses every GPU of this machine. "multi-worker" uses the cluster that the environment variable TF_CONFIG
    describes, and waits until all its workers have started.

    Raises:
        ConfigError: unknown name, or TF_CONFIG describes no cluster.
    """
    if name == "none":
        return None
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    if name == "multi-worker":
        spec = read_tf_config()
        others = [spec.name_of(index) for index in range(len(spec.addresses)) if index != spec.index]
        if others:
            say(f"{spec.name_of(spec.index)} waits for {', '.join(others)}", file=sys.stderr, flush=True)
        with default_signals():
            return tf.distribute.MultiWorkerMirroredStrategy()
    raise ConfigError(f"--strategy must be one of {', '.join(STRATEGIES)}; got {name!r}")


def is_multi_worker(strategy: tf.distribute.Strategy | None) -> bool:
    """Whether other processes take part. Their collective operations, such as saving, must be at the same step."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def is_chief(strategy: tf.distribute.Strategy | None) -> bool:
    """Whether this process writes checkpoints and events: the chief of a cluster, or its worker 0 if it has no chief.
    Always true without a cluster."""
    if strategy is None or not is_multi_worker(strategy):
        return True
    resolver = strategy.cluster_resolver
    chief = "chief" if "chief" in resolver.cluster_spec().jobs else "worker"
    return (resolver.task_type, resolver.task_id) == (chief, 0)


def grow_gpu_memory() -> None:
    """Allocate GPU memory on demand, so that other processes can use the rest. Call before the first use of a GPU."""
    for device in tf.config.list_physical_devices("GPU"):
        try:
            tf.config.experimental.set_memory_growth(device, True)
        except RuntimeError:
            return  # this process has initialised its GPUs already, and the setting cannot change any more
