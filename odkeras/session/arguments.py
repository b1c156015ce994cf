"""What the front ends do with the arguments of an annotation command before they start a session."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from odkeras.annotation import DECISIONS
from odkeras.config.annotate import AnnotateSettings
from odkeras.errors import ConfigError
from odkeras.formats.prodigy import Record
from odkeras.project import config_path
from odkeras.serving.launch import find_tensorflow_serving

DATASET_SOURCE = "dataset:"


def resolve(settings: AnnotateSettings) -> AnnotateSettings:
    """The settings with the pipeline.config's path and what depends on the model server.

    With IP, the three directories default to the 2019 recipe's names in the working directory, where the external
    server of such a command line looks for versions. Otherwise they default to directories next to the config, and
    an installed `tensorflow_model_server` is used.

    Raises:
        ConfigError: there is no such config, or DATASET is not a name.
    """
    check_dataset(settings.dataset)
    config = config_path(settings.config)
    if not config.is_file():
        raise ConfigError(f"{config}: no such file; CONFIG is a pipeline.config, which `odkeras init` writes")
    if not settings.external_server:
        found = find_tensorflow_serving() is not None
        return msgspec.structs.replace(settings, config=config, tensorflow_serving=found)
    directories = {name: getattr(settings, name) or Path(name) for name in ("data_dir", "model_dir", "export_dir")}
    return msgspec.structs.replace(settings, config=config, **directories)


def check_dataset(dataset: Any) -> None:
    """Raises: ConfigError: not a dataset name. False is refused too, which means "do not store" in Prodigy."""
    if not isinstance(dataset, str) or not dataset.strip():
        raise ConfigError(f"DATASET is {dataset!r}; name the dataset that the answers are stored in")


def split_dataset(source: Any) -> tuple[str, str] | None:
    """The name and the decision ("" for all) of a source `dataset:NAME` or `dataset:NAME:accept`; None for any other.

    Raises:
        ConfigError: an unknown decision.
    """
    if not isinstance(source, str) or not source.startswith(DATASET_SOURCE):
        return None
    name, _, decision = source.removeprefix(DATASET_SOURCE).partition(":")
    if decision and decision not in DECISIONS:
        raise ConfigError(f"source {source}: the answer must be one of {', '.join(DECISIONS)}")
    return name, decision


def choose_examples(chosen: tuple[str, str], examples: Sequence[Record], *, known: Sequence[str]) -> list[Record]:
    """The examples of a dataset that have the decision.

    Args:
        chosen: name and decision, from `split_dataset`.
        examples: all examples of the dataset.
        known: names of all datasets, for the message.

    Raises:
        ConfigError: there are none.
    """
    name, decision = chosen
    if not examples:
        names = ", ".join(known) or "none"
        raise ConfigError(f"source dataset:{name}: there is no dataset {name!r} with examples (known: {names})")
    found = [example for example in examples if not decision or example.get("answer") == decision]
    if not found:
        raise ConfigError(f"source dataset:{name}:{decision}: none of its {len(examples)} examples has that answer")
    return found
