"""What fails while something is built becomes one line with the field; the traceback goes to the log."""

from __future__ import annotations

import logging

import pytest
import tensorflow as tf

from odkeras.errors import ConfigError, SetupError
from odkeras.model.building import building, reason

pytestmark = pytest.mark.integration


def from_autograph() -> None:
    @tf.function(autograph=True)
    def broken(x: tf.Tensor) -> tf.Tensor:
        raise ValueError("sizes differ")

    broken(tf.constant(1))


def from_keras() -> None:
    tf.keras.layers.Lambda(lambda x: tf.matmul(x, x))(tf.zeros([2, 3]))


def from_a_graph() -> None:
    tf.function(lambda x: tf.reshape(x, [7]))(tf.Variable(tf.zeros([3])) + tf.random.uniform([3]))


def from_an_operation() -> None:
    tf.image.resize(tf.zeros([0, 0, 3]), [2, 2])


def from_a_dictionary() -> None:
    {}["multiclass_scores"]


def without_words() -> None:
    raise AssertionError


@pytest.mark.parametrize(
    ("fail", "expected"),
    [
        (from_autograph, "sizes differ"),
        (from_keras, "Matrix size-incompatible"),
        (from_a_graph, "cannot reshape"),
        (from_an_operation, "must be of non-zero size"),
        (from_a_dictionary, "KeyError: 'multiclass_scores'"),
        (without_words, "AssertionError"),
    ],
)
def test_anything_becomes_one_line(fail: object, expected: str, caplog: pytest.LogCaptureFixture) -> None:
    """Only some exceptions were translated; a TypeError of the API went through as a traceback."""
    assert callable(fail)
    caplog.set_level(logging.INFO, "odkeras")
    logging.getLogger("odkeras").propagate = True
    with pytest.raises(ConfigError) as caught, building("train_input_reader", "the input pipeline"):
        fail()
    said = str(caught.value)
    assert said.startswith("train_input_reader: the input pipeline cannot be built: ")
    assert expected.lower() in said.lower() and "\n" not in said and "[[" not in said, said
    assert "Traceback" in caplog.text and fail.__name__ in caplog.text


def test_our_own_errors_stay_as_they_are() -> None:
    with pytest.raises(SetupError, match=r"^install it$"), building("model", "the model"):
        raise SetupError("install it")


def test_the_reason_of_an_error_while_a_step_runs() -> None:
    lines = "Graph execution error:\n\nDetected at node Loss/mul_1 defined at:\n  File x\n\n"
    error = tf.errors.InvalidArgumentError(None, None, f"{lines}Incompatible shapes: [1,2] vs. [1,3]\n\t [[{{{{a}}}}]]")
    assert reason(error) == "Incompatible shapes: [1,2] vs. [1,3]"
