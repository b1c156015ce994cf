"""The options that limit what training takes of the machine: time, steps, disk space."""

# No `from __future__ import annotations`: evaluated later, the annotations would not see this module.
from typing import Annotated

from msgspec import Meta

from odkeras.config.option import TRAINING, Option

_LOOP = "annotate simulate trainer recipe"

TrainingShare = Annotated[
    float,
    Meta(gt=0, le=1),
    Option(
        "Share of the time that training may take, such as 0.5 on a battery or a shared machine.",
        "tsh",
        TRAINING,
        _LOOP,
        "above 0, at most 1",
    ),
]
StepsPerHour = Annotated[
    int, Meta(ge=0), Option("Most training steps per hour; 0: no limit.", "sph", TRAINING, _LOOP, "0 or more steps")
]
MinFree = Annotated[
    float,
    Meta(ge=0),
    Option(
        "Gigabytes of free space on the disks of the directories, below which no round starts; 0: no limit.",
        "mfr",
        TRAINING,
        _LOOP,
        "0 or more gigabytes, such as 0.5",
    ),
]
