"""Learning-rate schedules without TensorFlow: the rate at a step, and problems of a schedule.

Source of the formulas: object_detection/utils/learning_schedules.py, which computes the rate during training.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

from odkeras.pipeline.problems import Problem
from odkeras.pipeline.proto import PipelineConfig

OPTIMIZERS = "momentum_optimizer, adam_optimizer or rms_prop_optimizer"
_OPTIMIZER = "train_config.optimizer"
_PRACTICALLY_ENDED = 1e-3
"""A schedule counts as ended when its rate is below this fraction of its maximum: the weights hardly change then."""


def learning_rate_at(config: PipelineConfig, step: int) -> float:
    """The learning rate at a global step (from 0).

    Raises:
        ValueError: no learning rate is set, or the schedule has problems (see `schedule_problems`).
    """
    problem = next(schedule_problems(config), None)
    if problem is not None:
        raise ValueError(str(problem))
    kind, schedule = _schedule(config)
    if kind == "constant_learning_rate":
        return float(schedule.learning_rate)
    if kind == "exponential_decay_learning_rate":
        return _exponential(schedule, step)
    if kind == "cosine_decay_learning_rate":
        return _cosine(schedule, step)
    return _manual(schedule, step)


def schedule_problems(config: PipelineConfig) -> Iterator[Problem]:
    """Find settings that the API refuses, or that make it divide by zero."""
    if config.train_config.optimizer.WhichOneof("optimizer") is None:
        yield Problem(_OPTIMIZER, "", "no optimizer is set", f"add {OPTIMIZERS}")
        return
    kind, schedule = _schedule(config)
    if schedule is None:
        example = "add for example constant_learning_rate { learning_rate: 0.001 }"
        yield Problem(_field(config), "", "no learning rate is set", example)
    elif kind == "constant_learning_rate":
        yield from _positive(f"{_field(config, kind)}.learning_rate", schedule.learning_rate)
    elif kind == "exponential_decay_learning_rate":
        yield from _exponential_problems(_field(config, kind), schedule)
    elif kind == "cosine_decay_learning_rate":
        yield from _cosine_problems(_field(config, kind), schedule)
    else:
        yield from _manual_problems(_field(config, kind), schedule)


def horizon_problems(config: PipelineConfig, step: int, when: str = "where training resumes") -> Iterator[Problem]:
    """Check whether the schedule has ended by `step`. The schedule must have no `schedule_problems`.

    Args:
        when: what happens at `step`, for the message.
    """
    kind, schedule = _schedule(config)
    rate, share = learning_rate_at(config, step), _PRACTICALLY_ENDED
    if kind == "cosine_decay_learning_rate":
        warmup_steps, highest = schedule.warmup_steps, schedule.learning_rate_base
    elif kind == "exponential_decay_learning_rate":
        warmup_steps, highest = schedule.burnin_steps, schedule.initial_learning_rate
    elif kind == "manual_step_learning_rate":  # low rates are set on purpose here, so only 0 counts as ended
        warmup_steps, highest, share = schedule.schedule[0].step, max(_manual_rates(schedule)), 0.0
    else:
        return
    if step < warmup_steps or rate > highest * share:
        return
    yield Problem(
        _field(config, kind),
        "",
        f"the rate has decayed: at step {step}, {when}, it is {rate:.3g} (at first {highest:.3g})",
        "use constant_learning_rate { learning_rate: 0.001 } or a longer schedule, or start in an empty model_dir",
        "warning" if rate > 0.0 else "error",
    )


def problem_past_end(config: PipelineConfig, step: int) -> Problem | None:
    """The problem of a running training whose schedule has ended before `step`; None if it has not.

    Unlike for `horizon_problems`, the flat last part of a cosine decay does not count as ended, because a training with
    a schedule of its own length takes these steps, too.
    """
    kind, schedule = _schedule(config)
    if kind == "cosine_decay_learning_rate" and step <= schedule.total_steps:
        return None
    return next(horizon_problems(config, step, "and training continues"), None)


def _schedule(config: PipelineConfig) -> tuple[str | None, PipelineConfig]:
    optimizer = config.train_config.optimizer
    learning_rate = getattr(optimizer, optimizer.WhichOneof("optimizer")).learning_rate
    kind = learning_rate.WhichOneof("learning_rate")
    return kind, getattr(learning_rate, kind) if kind else None


def _field(config: PipelineConfig, kind: str | None = None) -> str:
    path = f"{_OPTIMIZER}.{config.train_config.optimizer.WhichOneof('optimizer')}.learning_rate"
    return f"{path}.{kind}" if kind else path


def _exponential(schedule: PipelineConfig, step: int) -> float:
    if step < schedule.burnin_steps:
        return float(schedule.burnin_learning_rate or schedule.initial_learning_rate)
    periods = (step - schedule.burnin_steps) / schedule.decay_steps
    decay = schedule.decay_factor ** (math.floor(periods) if schedule.staircase else periods)
    return float(max(schedule.initial_learning_rate * decay, schedule.min_learning_rate))


def _cosine(schedule: PipelineConfig, step: int) -> float:
    base, warmup, hold = schedule.learning_rate_base, schedule.warmup_steps, schedule.hold_base_rate_steps
    if step < warmup:
        return float(schedule.warmup_learning_rate + (base - schedule.warmup_learning_rate) * step / warmup)
    if step > schedule.total_steps:
        return 0.0
    if hold and step <= warmup + hold:
        return float(base)
    progress = (step - warmup - hold) / (schedule.total_steps - warmup - hold)
    return float(0.5 * base * (1.0 + math.cos(math.pi * progress)))


def _manual(schedule: PipelineConfig, step: int) -> float:
    steps = [part.step for part in schedule.schedule]
    rates = _manual_rates(schedule)
    if schedule.warmup and step < steps[0]:
        return float(rates[0] + (rates[1] - rates[0]) * step / steps[0])
    return float(rates[sum(step >= boundary for boundary in steps)])


def _manual_rates(schedule: PipelineConfig) -> list[float]:
    return [schedule.initial_learning_rate, *(part.learning_rate for part in schedule.schedule)]


def _positive(field: str, rate: float) -> Iterator[Problem]:
    if not rate > 0.0 or math.isinf(rate):
        yield Problem(
            field, f"{rate:g}", "a learning rate must be above 0", "0.001 suits Adam, 0.01 momentum with batch size 8"
        )


def _exponential_problems(field: str, schedule: PipelineConfig) -> Iterator[Problem]:
    yield from _positive(f"{field}.initial_learning_rate", schedule.initial_learning_rate)
    if schedule.decay_steps < 1:
        yield Problem(
            f"{field}.decay_steps", "0", "the schedule has no length", "set it to 1 or more, for example 1000"
        )
    if not 0.0 < schedule.decay_factor <= 1.0:
        value = f"{schedule.decay_factor:g}"
        yield Problem(f"{field}.decay_factor", value, "must be above 0 and at most 1", "0.95 is usual")


def _cosine_problems(field: str, schedule: PipelineConfig) -> Iterator[Problem]:
    yield from _positive(f"{field}.learning_rate_base", schedule.learning_rate_base)
    before_decay = schedule.warmup_steps + schedule.hold_base_rate_steps
    if schedule.total_steps <= before_decay:
        reason = f"the schedule has no length: warmup_steps + hold_base_rate_steps are {before_decay} already"
        fix = f"set total_steps above {before_decay}, or lower warmup_steps (where it is not set, it is 10000)"
        yield Problem(f"{field}.total_steps", str(schedule.total_steps), reason, fix)
    if schedule.warmup_steps and schedule.warmup_learning_rate > schedule.learning_rate_base:
        reason = f"must not be above learning_rate_base, {schedule.learning_rate_base:g}"
        yield Problem(
            f"{field}.warmup_learning_rate", f"{schedule.warmup_learning_rate:g}", reason, "lower it, for example to 0"
        )


def _manual_problems(field: str, schedule: PipelineConfig) -> Iterator[Problem]:
    yield from _positive(field, max(_manual_rates(schedule)))
    steps = [part.step for part in schedule.schedule]
    if not steps:
        yield Problem(f"{field}.schedule", "", "the schedule is empty", "add schedule { step: ... learning_rate: ... }")
    elif steps[0] < 1 or any(later <= earlier for earlier, later in pairwise(steps)):
        yield Problem(f"{field}.schedule.step", str(steps), "steps must be 1 or more and increase", "put them in order")
