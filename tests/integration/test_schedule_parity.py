"""The learning rates that the checks compute without TensorFlow are those that the API trains with."""

from __future__ import annotations

import pytest

from odkeras import compat
from odkeras.pipeline import learning_rate_at, parse_pipeline, read_template

pytestmark = pytest.mark.integration

CONSTANT = "constant_learning_rate { learning_rate: 0.001 }"
SCHEDULES = [
    CONSTANT,
    "cosine_decay_learning_rate { learning_rate_base: 0.1 total_steps: 100 warmup_steps: 9 warmup_learning_rate: 0 }",
    "cosine_decay_learning_rate { learning_rate_base: 0.1 total_steps: 100 warmup_steps: 0 hold_base_rate_steps: 20 }",
    "exponential_decay_learning_rate { initial_learning_rate: 0.1 decay_steps: 7 decay_factor: 0.5 }",
    "exponential_decay_learning_rate { initial_learning_rate: 0.1 decay_steps: 7 decay_factor: 0.5 staircase: false "
    "burnin_steps: 5 burnin_learning_rate: 0.02 min_learning_rate: 0.001 }",
    "manual_step_learning_rate { initial_learning_rate: 0.1 schedule { step: 10 learning_rate: 0.01 } "
    "schedule { step: 90 learning_rate: 0.001 } }",
    "manual_step_learning_rate { initial_learning_rate: 0.0 warmup: true schedule { step: 10 learning_rate: 0.1 } }",
]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_rate_at_a_step_is_the_api_s(schedule: str) -> None:
    compat.prepare()
    import tensorflow as tf
    from object_detection.builders import optimizer_builder

    text = read_template("ssd_mobilenet_v2_fpnlite_320").replace(CONSTANT, schedule)
    config = parse_pipeline(text, source="template")
    step = tf.Variable(0, dtype=tf.int64)
    _, (rate,) = optimizer_builder.build(config.train_config.optimizer, global_step=step)
    for number in (0, 1, 5, 9, 10, 11, 20, 21, 50, 89, 90, 99, 100, 101, 1000):
        step.assign(number)
        expected = float(rate() if callable(rate) else rate)
        assert learning_rate_at(config, number) == pytest.approx(expected, rel=1e-4, abs=1e-8), f"step {number}"
