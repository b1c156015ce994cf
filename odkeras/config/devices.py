"""The options of the devices that train: how many, and in which precision."""

# No `from __future__ import annotations`: evaluated later, the annotations would not see this module.
from typing import Annotated

from msgspec import Meta

from odkeras.config.option import TRAINING, Option
from odkeras.config.parsing import AUTO, read_batch_size

STRATEGIES = ("none", "mirrored", "multi-worker")
FLOAT32, BFLOAT16, FLOAT16 = PRECISIONS = ("float32", "bfloat16", "float16")

BatchSize = Annotated[
    int | str | None,
    Option(
        "Images per training step, on all devices together; auto: as their memory allows; default: CONFIG's.",
        "",
        TRAINING,
        "trainer train",
        "a number of images, 1 or more, or auto",
        lambda value: value is None or value == AUTO or (not isinstance(value, str) and value >= 1),
        parse=read_batch_size,
    ),
]
Strategy = Annotated[
    str,
    Option(
        "How to distribute training: none, mirrored (all GPUs here), multi-worker (the machines in TF_CONFIG).",
        "",
        TRAINING,
        "simulate trainer train",
        choices=STRATEGIES,
    ),
]
Precision = Annotated[
    str,
    Option(
        "What layers compute in during training: float32, bfloat16, float16. Weights and versions are float32.",
        "prc",
        TRAINING,
        "annotate simulate trainer recipe train",
        choices=PRECISIONS,
    ),
]
CheckpointSteps = Annotated[
    int,
    Meta(ge=0),
    Option(
        "Most training steps between two checkpoints; 0: by time alone, or 100 with multi-worker.",
        "",
        TRAINING,
        "trainer train",
        "a number of steps, 0 or more",
    ),
]
