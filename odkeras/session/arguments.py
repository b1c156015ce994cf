"""The arguments of an annotation command, and the session options that they mean."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from odkeras.annotation import DECISIONS
from odkeras.errors import ConfigError
from odkeras.formats.prodigy import Task
from odkeras.project import config_path
from odkeras.serving.launch import find_tensorflow_serving
from odkeras.session.options import LoopOptions
from odkeras.session.setup import DEFAULT_PORT
from odkeras.session.stream import PREDICT_TOGETHER

DATASET_SOURCE = "dataset:"
_LOGGING_LEVELS = (10, 20, 30, 40, 50)


@dataclass(frozen=True)
class TrainmodelArguments:
    """Arguments of `image.trainmodel` and of `odkeras annotate`; see `recipes/image_train.py`."""

    dataset: str
    source: Any
    config_path: str
    ip: str | None = None
    port: int = 0
    model_name: str | None = None
    label_map_path: str | None = None
    label: Sequence[str] | None = None
    model_dir: str | None = None
    export_dir: str | None = None
    data_dir: str | None = None
    steps_per_epoch: int = -1
    threshold: float | str = 0.5
    control: float = 0.0
    order: str = "sequential"
    temp_files_num: int = 5
    max_checkpoints_num: int = 5
    run_eval: bool = False
    eval_steps: int = 50
    eval_split: float = 0.0
    publish_if_better: bool = False
    publish_tolerance: float = 0.01
    use_display_name: bool = False
    tf_logging_level: int = 40
    api: str | None = None
    exclude: Sequence[str] | None = None
    replay: str = "on"
    sync: bool = False
    external_trainer: bool = False
    predict_batch_size: int = PREDICT_TOGETHER
    remove_base64: bool = False


def options_of(arguments: TrainmodelArguments) -> LoopOptions:
    """The session's options from the arguments.

    With IP and PORT, the three directories default to the 2019 recipe's names in the working directory, where the
    external server of such a command line looks for versions. Otherwise they default to directories next to the config.

    Raises:
        ConfigError: a value is not allowed.
    """
    if arguments.tf_logging_level not in _LOGGING_LEVELS:
        allowed = ", ".join(map(str, _LOGGING_LEVELS))
        raise ConfigError(f"--tf-logging-level {arguments.tf_logging_level}: it must be one of {allowed}")
    if arguments.eval_steps < 1:
        raise ConfigError(f"--eval-steps {arguments.eval_steps}: it must be 1 or more")
    if not 0 <= arguments.eval_split < 1:
        raise ConfigError(f"--eval-split {arguments.eval_split:g}: it must be a share, 0 to below 1, for example 0.2")
    if not 0 <= arguments.publish_tolerance <= 1:
        raise ConfigError(f"--publish-tolerance {arguments.publish_tolerance:g}: it must be 0 to 1, for example 0.01")
    if arguments.steps_per_epoch < -1:
        raise ConfigError(f"--steps-per-epoch {arguments.steps_per_epoch}: it must be 1 or more, or -1")
    config = config_path(arguments.config_path)
    if not config.is_file():
        raise ConfigError(f"{config}: no such file; CONFIG is a pipeline.config, which `odkeras init` writes")
    served_elsewhere = bool(arguments.ip)
    return LoopOptions(
        config=config,
        data_dir=_directory(arguments.data_dir, "data_dir", served_elsewhere),
        model_dir=_directory(arguments.model_dir, "model_dir", served_elsewhere),
        export_dir=_directory(arguments.export_dir, "export_dir", served_elsewhere),
        label_map=Path(arguments.label_map_path) if arguments.label_map_path else None,
        model_name=arguments.model_name or LoopOptions.model_name,
        ip=arguments.ip or LoopOptions.ip,
        port=(arguments.port or DEFAULT_PORT) if served_elsewhere else 0,
        steps_per_epoch=arguments.steps_per_epoch,
        threshold=arguments.threshold,
        control=arguments.control,
        order=arguments.order,
        temp_files_num=arguments.temp_files_num,
        max_checkpoints_num=arguments.max_checkpoints_num,
        run_eval=arguments.run_eval,
        eval_steps=arguments.eval_steps,
        eval_split=arguments.eval_split,
        publish_if_better=arguments.publish_if_better,
        publish_tolerance=arguments.publish_tolerance,
        replay=arguments.replay,
        tf_logging_level=arguments.tf_logging_level,
        use_display_name=arguments.use_display_name,
        external_trainer=arguments.external_trainer,
        external_server=served_elsewhere,
        tensorflow_serving=not served_elsewhere and find_tensorflow_serving() is not None,
        predict_batch_size=arguments.predict_batch_size,
    )


def _directory(given: str | None, name_of_2019: str, served_elsewhere: bool) -> Path | None:
    if given:
        return Path(given)
    return Path(name_of_2019) if served_elsewhere else None


def check_dataset(dataset: Any) -> None:
    """Raises: ConfigError: not a dataset name. False is refused too, which means "do not store" in Prodigy."""
    if not isinstance(dataset, str) or not dataset.strip():
        raise ConfigError(f"DATASET is {dataset!r}; name the dataset that the answers are stored in")


def split_list(text: str | None) -> list[str] | None:
    """Split a comma-separated list, or the lines of the text file with that name; None if empty."""
    if not text:
        return None
    path = Path(text)
    with suppress(OSError, ValueError):  # too long for a file name, or a file that is not UTF-8 text
        text = ",".join(path.read_text(encoding="utf-8-sig").splitlines()) if path.is_file() else text
    return split_commas(text)


def split_commas(text: str | None) -> list[str] | None:
    """Split a comma-separated list; None if empty."""
    return [part.strip() for part in (text or "").split(",") if part.strip()] or None


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


def choose_examples(chosen: tuple[str, str], examples: Sequence[Task], *, known: Sequence[str]) -> list[Task]:
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
