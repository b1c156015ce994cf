"""Override settings of a pipeline.config by command-line options."""

from __future__ import annotations

import re
from dataclasses import dataclass

from odkeras.config.settings import TrainingSettings
from odkeras.pipeline.proto import CHECKPOINT_V2, PipelineConfig, get_label_map_path, set_num_classes

_CHECKPOINT_FILE = re.compile(r"\.(?:index|meta|data-\d{5}-of-\d{5})$")


@dataclass(frozen=True)
class Overrides:
    """New values for settings. None and () keep the value of the config.

    Args:
        batch_size: images per training step, summed over all replicas.
        fine_tune_checkpoint: prefix such as ".../ckpt-0", with or without ".index"; "" removes the setting, so that
            training starts from random weights. Also sets fine_tune_checkpoint_version to V2, the only version that
            TensorFlow 2 supports.
        fine_tune_checkpoint_type: "classification", "detection" or "full".
        label_map_path: set for the training reader and all evaluation readers.
        num_classes: of the model.
        train_records: paths or glob patterns of TFRecord files.
        eval_records: the same for the first evaluation reader, which is added if there is none.
    """

    batch_size: int | None = None
    fine_tune_checkpoint: str | None = None
    fine_tune_checkpoint_type: str | None = None
    label_map_path: str | None = None
    num_classes: int | None = None
    train_records: tuple[str, ...] = ()
    eval_records: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: TrainingSettings) -> Overrides:
        """The overrides among a trainer's settings."""
        path = settings.label_map_path
        size = settings.batch_size if isinstance(settings.batch_size, int) else None  # auto: once the model is built
        return cls(batch_size=size, label_map_path=None if path is None else str(path))


def apply_overrides(config: PipelineConfig, overrides: Overrides) -> PipelineConfig:
    """Return a copy of `config` with the overrides applied.

    A fine_tune_checkpoint that names a file of the checkpoint is replaced by the prefix.
    """
    result = type(config)()
    result.CopyFrom(config)
    if overrides.num_classes is not None:
        set_num_classes(result, overrides.num_classes)
    _override_training(result.train_config, overrides)
    _override_readers(result, overrides)
    return result


def checkpoint_prefix(path: str) -> str:
    """The prefix to restore from: .../ckpt-0 for .../ckpt-0.index and .../ckpt-0.data-00000-of-00001."""
    return _CHECKPOINT_FILE.sub("", path)


def _override_training(train: PipelineConfig, overrides: Overrides) -> None:
    if overrides.batch_size is not None:
        train.batch_size = overrides.batch_size
    if overrides.fine_tune_checkpoint is not None:
        train.fine_tune_checkpoint = overrides.fine_tune_checkpoint
        train.fine_tune_checkpoint_version = CHECKPOINT_V2
    if overrides.fine_tune_checkpoint_type is not None:
        train.fine_tune_checkpoint_type = overrides.fine_tune_checkpoint_type
    if train.fine_tune_checkpoint:
        train.fine_tune_checkpoint = checkpoint_prefix(train.fine_tune_checkpoint)


def _override_readers(config: PipelineConfig, overrides: Overrides) -> None:
    if overrides.eval_records and not config.eval_input_reader:
        config.eval_input_reader.add(shuffle=False, num_epochs=1, label_map_path=get_label_map_path(config) or "")
    readers = [config.train_input_reader, *config.eval_input_reader]
    if overrides.label_map_path is not None:
        for reader in readers:
            reader.label_map_path = overrides.label_map_path
    for reader, records in zip(readers, (overrides.train_records, overrides.eval_records), strict=False):
        if records:
            reader.tf_record_input_reader.input_path[:] = records
