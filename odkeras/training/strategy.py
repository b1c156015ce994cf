"""How the step is distributed."""

from __future__ import annotations

import tensorflow as tf

from odkeras.errors import ConfigError

STRATEGIES = ("none", "mirrored", "multi-worker")


def make_strategy(name: str) -> tf.distribute.Strategy | None:
    """A strategy by the name that the command line gives it; None for "none".

    "mirrored" uses every GPU of this machine, "multi-worker" those of the cluster that the environment variable
    TF_CONFIG describes.

    Raises:
        ConfigError: unknown name.
    """
    if name == "none":
        return None
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    if name == "multi-worker":
        return tf.distribute.MultiWorkerMirroredStrategy()
    raise ConfigError(f"--strategy must be one of {', '.join(STRATEGIES)}; got {name!r}")


def is_multi_worker(strategy: tf.distribute.Strategy | None) -> bool:
    """Whether other processes take the same steps: then all must do alike, and at the same step."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def is_chief(strategy: tf.distribute.Strategy | None) -> bool:
    """Whether this process is the one that writes: the chief of a cluster, else its worker 0; alone, always."""
    if strategy is None or not is_multi_worker(strategy):
        return True
    resolver = strategy.cluster_resolver
    chief = "chief" if "chief" in resolver.cluster_spec().jobs else "worker"
    return (resolver.task_type, resolver.task_id) == (chief, 0)


def grow_gpu_memory() -> None:
    """Let other processes have the rest of the GPU's memory. Must run before the first use of a GPU."""
    for device in tf.config.list_physical_devices("GPU"):
        try:
            tf.config.experimental.set_memory_growth(device, True)
        except RuntimeError:
            return  # already in use by this process, with the setting it has
