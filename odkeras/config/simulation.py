"""The options of `odkeras simulate`, besides those of every session."""

# No `from __future__ import annotations`: evaluated later, the annotations would not see this module.
from typing import Annotated

from msgspec import Meta

from odkeras.config.option import SUGGESTIONS, TRAINING, Option
from odkeras.config.settings import SessionSettings


class SimulationSettings(SessionSettings, frozen=True, kw_only=True):
    """What a simulation needs, besides the known boxes.

    Raises:
        ConfigError: a value is not allowed.
    """

    annotations: Annotated[
        int,
        Meta(ge=1),
        Option("Images to answer in all, with those of earlier runs.", "", SUGGESTIONS, "simulate", "1 or more"),
    ] = 40
    seconds_per_image: Annotated[
        float,
        Meta(ge=0),
        Option(
            "Seconds that the annotator takes per image, while the trainer trains.",
            "",
            TRAINING,
            "simulate",
            "0 or more seconds",
        ),
    ] = 0.0
    images_per_round: Annotated[
        int, Meta(ge=1), Option("Images per round.", "", TRAINING, "simulate", "1 or more", flag="batch-size")
    ] = 10
