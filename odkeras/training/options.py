"""How rounds go."""

from __future__ import annotations

from dataclasses import dataclass

from odkeras.errors import ConfigError

LEAST_STEPS = 100
"""Fewer steps hardly change a model; these take about as long as a person needs for the next few images."""


@dataclass(frozen=True)
class RoundOptions:
    """How rounds go; wrong shares are refused at construction.

    Args:
        steps_per_epoch: steps of a round; -1 = once over the training set, but at least `LEAST_STEPS`. 0 means
            the same, as in commands of version 0.1.0.
        max_checkpoints_num: checkpoints kept; 0 or less keeps all.
        temp_files_num: records and versions kept; 0 or less keeps all. Older records are merged into replay.record,
            nothing is lost.
        replay: train on everything so far; False trains on the newest answers only, as the 2019 recipe did.
        run_eval: evaluate after each round on the examples that `eval_input_reader` names.
        eval_steps: evaluate on a sample of this many examples (see `training.examples`); None or 0 = all.
        eval_split: the share of the images, 0 to below 1, whose answers are never trained on but evaluated on after
            each round, in place of `eval_input_reader`. Which images they are hangs on their content alone (see
            `project.is_held_out`); with another share it is decided anew.
        publish_if_better: evaluate first, and publish only what is not worse than the version that is served.
        publish_tolerance: how much worse it may be, in units of the primary metric (mAP).
        checkpoint_every_s: in long rounds, seconds between checkpoints.
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

    @property
    def evaluates(self) -> bool:
        """Whether rounds are evaluated: also where another option needs it."""
        return self.run_eval or self.eval_split > 0 or self.publish_if_better


def steps_of_round(steps_per_epoch: int, one_pass: int) -> int:
    """Steps of a round when so many make one pass over the training set."""
    return steps_per_epoch if steps_per_epoch > 0 else max(one_pass, LEAST_STEPS)
