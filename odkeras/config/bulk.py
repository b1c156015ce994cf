"""The options of `odkeras bulk`."""

# No `from __future__ import annotations`: evaluated later, the functions in annotations would not see this module.
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from odkeras.config.option import DIRECTORIES, SERVING, SUGGESTIONS, WORK, Names, Option, Settings
from odkeras.config.settings import DEFAULT_MAX_PIXELS, MaxPixels

_ALL = "bulk-predict bulk-records bulk-import bulk-hash"
LOCAL = "local"


def _are_pairs(values: Names | None) -> bool:
    return all(value.partition("=")[0] and "=" in value for value in values or ())


class BulkSettings(Settings, frozen=True, kw_only=True):
    """How a job of `odkeras bulk` is divided, and where it runs.

    Raises:
        ConfigError: a value is not allowed.
    """

    runner: Annotated[
        str,
        Option(
            "local, for processes of this machine; or a runner of Apache Beam: DirectRunner, FlinkRunner, "
            "DataflowRunner, ... (extra beam).",
            "",
            WORK,
            _ALL,
        ),
    ] = LOCAL
    workers: Annotated[
        int | None,
        Option(
            "Worker processes, locally and with the DirectRunner; default: one for two cores.",
            "",
            WORK,
            _ALL,
            "1 or more",
            lambda value: value is None or value >= 1,
        ),
    ] = None
    beam_option: Annotated[
        Names | None,
        Option("An option of the pipeline, as NAME=VALUE; repeat for each.", "", WORK, _ALL, "NAME=VALUE", _are_pairs),
    ] = None
    shard_images: Annotated[
        int,
        Meta(ge=1),
        Option("Images of a shard: what a worker reads, processes and writes at a time.", "", WORK, _ALL, "1 or more"),
    ] = 1000
    retry_refused: Annotated[
        bool, Option("Repeat the finished shards in which images were refused.", "", WORK, _ALL)
    ] = False
    max_pixels: MaxPixels = DEFAULT_MAX_PIXELS


class BulkPredictSettings(BulkSettings, frozen=True, kw_only=True):
    """What `odkeras bulk predict` needs, besides images and output."""

    export_dir: Annotated[
        Path,
        Option("Load the newest version of this directory, or this version.", "ed", SERVING, "bulk-predict"),
    ]
    # Not ODKERAS_THRESHOLD, which may be auto: thresholds that a session learns.
    min_score: Annotated[
        float,
        Meta(ge=0, le=1),
        Option("Leave out boxes with a lower score.", "t", SUGGESTIONS, "bulk-predict", "0 to 1", flag="threshold"),
    ] = 0.5
    batch_seconds: Annotated[
        float,
        Meta(gt=0),
        Option("Seconds that a batch should take; its size follows.", "", SERVING, "bulk-predict", "more than 0"),
    ] = 1.0
    gpu: Annotated[bool, Option("Use the GPU.", "", SERVING, "bulk-predict")] = False
    label_map: Annotated[
        Path | None, Option("Label map with other names than the version's.", "lmp", DIRECTORIES, "bulk-predict")
    ] = None
