"""Plain training on the records a pipeline.config names: the loop's step without the loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from odkeras.errors import ConfigError
from odkeras.model.checkpoint import list_checkpoints
from odkeras.model.inference import InferenceModel
from odkeras.model.setup import Setup
from odkeras.model.weights import RestoreReport, named_variables, restore_fine_tune_checkpoint
from odkeras.training.inputs import training_dataset
from odkeras.training.store import CheckpointStore
from odkeras.training.strategy import make_strategy
from odkeras.training.summaries import TrainingSummaries
from odkeras.training.trainer import StepReport, Trainer, TrainingResult

_DEFAULT_CHECKPOINT_EVERY_S = 120.0


def train_on_records(
    setup: Setup,
    model_dir: Path,
    *,
    steps: int | None = None,
    strategy: str = "none",
    max_checkpoints_num: int = 5,
    checkpoint_every_s: float = _DEFAULT_CHECKPOINT_EVERY_S,
    on_step: Callable[[StepReport], None] = lambda report: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TrainingResult:
    """Train until the global step is `steps`; goes on from the newest checkpoint in `model_dir`.

    Args:
        setup: of `prepare_setup(..., purpose="train")`.
        model_dir: where checkpoints and TensorBoard events go.
        steps: None takes `train_config.num_steps`.
        strategy: see `make_strategy`; every worker of a cluster runs the same command.
        max_checkpoints_num: checkpoints kept; 0 or less keeps all.
        checkpoint_every_s: seconds between checkpoints.
        on_step: told of every step.
        should_stop: asked between steps; a checkpoint is written before it ends.

    Raises:
        ConfigError: no number of steps, or no records.
        CheckpointError: the checkpoints do not fit the model.
        TrainingError: the loss stays non-finite; the last good weights are in the newest checkpoint.
    """
    target = steps if steps is not None else setup.config.train_config.num_steps
    if target <= 0:
        raise ConfigError("how many steps? give --steps, or set train_config.num_steps in the pipeline.config")
    distribution = make_strategy(strategy)
    trainer = Trainer(setup.config, distribution)
    store = CheckpointStore(trainer, model_dir, max_checkpoints_num)
    if store.restore() is None:
        start_from_fine_tune_checkpoint(trainer, setup)
    if distribution is None:
        dataset = training_dataset(setup.config, trainer.model)
    else:
        dataset = distribution.distribute_datasets_from_function(
            lambda context: training_dataset(setup.config, trainer.model, input_context=context)
        )
    with TrainingSummaries(model_dir) as summaries:
        saver = _Saver(store, checkpoint_every_s)

        def note(report: StepReport) -> None:
            summaries.step(report)
            on_step(report)
            saver.save_when_due()

        try:
            return trainer.train(iter(dataset), max(0, target - trainer.step), on_step=note, should_stop=should_stop)
        finally:
            store.save()


def start_from_fine_tune_checkpoint(trainer: Trainer, setup: Setup) -> RestoreReport | None:
    """Give the trainer the weights of the config's fine-tune checkpoint; None when it names none."""
    train = setup.config.train_config
    if not train.fine_tune_checkpoint:
        return None
    inference = InferenceModel(setup.config.model)
    report = restore_fine_tune_checkpoint(inference.model, train.fine_tune_checkpoint, train.fine_tune_checkpoint_type)
    trainer.start_from(named_variables(inference.model))
    return report


def has_checkpoints(model_dir: Path) -> bool:
    """Whether training would go on rather than start."""
    return bool(list_checkpoints(model_dir))


class _Saver:
    def __init__(self, store: CheckpointStore, every_s: float) -> None:
        self._store = store
        self._every_s = every_s
        self._saved_s = time.monotonic()

    def save_when_due(self) -> None:
        if time.monotonic() - self._saved_s > self._every_s:
            self._store.save()
            self._saved_s = time.monotonic()
