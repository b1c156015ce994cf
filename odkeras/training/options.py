"""Options of training rounds."""

from __future__ import annotations

from dataclasses import dataclass, fields

from odkeras.config.settings import TrainingSettings
from odkeras.errors import ConfigError

LEAST_STEPS = 100
"""Minimum steps of a round. Fewer hardly change a model; these take about as long as annotating a few images."""


@dataclass(frozen=True)
class RoundOptions:
    """Options of training rounds.

    Args:
        steps_per_epoch: steps of a round. -1 = one pass over the training set, but at least `LEAST_STEPS`; 0 means the
            same, for commands of version 0.1.0.
        max_checkpoints_num: checkpoints to keep; 0 or less keeps all.
        temp_files_num: records and versions to keep; 0 or less keeps all. Older records are merged into replay.record,
            so no answer is lost.
        replay: train on all answers so far; False trains on the newest answers only, as the 2019 recipe did.
        run_eval: evaluate after each round on the examples that `eval_input_reader` names.
        eval_steps: evaluate on a sample of this many examples (see `training.inputs`); None or 0 = all.
        eval_split: share of the images in the hold-out split, 0 <= share < 1. Their answers are never trained on;
            rounds are evaluated on them instead of on `eval_input_reader`. The split is a hash of the image's content,
            recomputed whenever examples are read (see `project.is_held_out`), so a larger share only adds images.
        publish_if_better: the publish gate: evaluate before publishing, and hold back weights that are worse than the
            served version.
        publish_tolerance: how much lower the primary metric (mAP) of published weights may be, 0 to 1.
        checkpoint_every_s: seconds between checkpoints within a long round.

    Raises:
        ConfigError: `eval_split` or `publish_tolerance` is out of range.
    """

    steps_per_epoch: int = 1000
    max_checkpoints_num: int = 5
    temp_files_num: int = 5
    replay: bool = True
    run_eval: bool = False
    eval_steps: int | None = None
    eval_split: float = 0.0
    publish_if_better: bool = False
    publish_tolerance: float = 0.01
    checkpoint_every_s: float = 60.0

    def __post_init__(self) -> None:
        if not 0 <= self.eval_split < 1:
            raise ConfigError(f"--eval-split {self.eval_split:g}: it must be a share, 0 to below 1, for example 0.2")
        if not 0 <= self.publish_tolerance <= 1:
            raise ConfigError(f"--publish-tolerance {self.publish_tolerance:g}: it must be 0 to 1, for example 0.01")

    @classmethod
    def of(cls, settings: TrainingSettings) -> RoundOptions:
        """The options of the rounds among a trainer's settings."""
        shared = {each.name: getattr(settings, each.name) for each in fields(cls) if hasattr(settings, each.name)}
        return cls(**{**shared, "replay": settings.replay == "on"})

    @property
    def evaluates(self) -> bool:
        """Whether rounds are evaluated, either on request or because another option needs it."""
        return self.run_eval or self.eval_split > 0 or self.publish_if_better


def steps_of_round(steps_per_epoch: int, one_pass: int) -> int:
    """Steps of a round, given `RoundOptions.steps_per_epoch` and the number of steps in one pass over the training
    set."""
    return steps_per_epoch if steps_per_epoch > 0 else max(one_pass, LEAST_STEPS)
