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


def grow_gpu_memory() -> None:
    """Let other processes have the rest of the GPU's memory. Must run before the first use of a GPU."""
    for device in tf.config.list_physical_devices("GPU"):
        try:
            tf.config.experimental.set_memory_growth(device, True)
        except RuntimeError:
            return  # already in use by this process, with the setting it has
