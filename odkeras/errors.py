"""The exception hierarchy of odkeras.

A message names the problem, the offending value, the valid values and what to do. Each edge translates errors once:
the command line prints one line and exits with `exit_code`, the model server returns `{"error": ...}`.
"""

from __future__ import annotations


class OdkerasError(Exception):
    """Base class of every error that a user can cause or fix."""

    exit_code = 1


def error_reason(error: Exception) -> str:
    """The message of one of our errors; for any other, which nobody expected, its type as well."""
    return str(error) if isinstance(error, OdkerasError) else f"{type(error).__name__}: {error}"


class SetupError(OdkerasError):
    """The installation or the machine is not ready: a package is missing, Keras 3 is running, a port is taken."""

    exit_code = 3


class InUseError(SetupError):
    """Another process uses a directory. It may be about to end, so a later try can succeed."""

    exit_code = 4


class ConfigError(OdkerasError):
    """A pipeline.config, an option, or a combination of both is invalid."""

    exit_code = 2


class LabelMapError(ConfigError):
    """A label map cannot be read, or lacks a label."""


class ImageError(OdkerasError):
    """An image cannot be used.

    Args:
        reason: short text for messages, without the file name ("truncated", "no image data: text/html").
        source: file name or task that the image came from; "" if unknown.
    """

    def __init__(self, reason: str, source: str = "") -> None:
        super().__init__(f"{source}: {reason}" if source else reason)
        self.reason = reason
        self.source = source


class AnswerError(OdkerasError):
    """An annotator's answer cannot be used for training."""


class InboxError(OdkerasError):
    """The inbox of answers cannot be read or written (disk full, no permission)."""


class DatabaseError(OdkerasError):
    """The database of answers cannot be read or written (disk full, no permission, not a database)."""


class RecordError(OdkerasError):
    """A CSV, JSONL or TFRecord file cannot be read or written."""


class CheckpointError(OdkerasError):
    """A checkpoint is missing, unreadable, or belongs to another model."""


class WeightsError(OdkerasError):
    """Pretrained weights cannot be downloaded, unpacked or converted."""


class TrainingError(OdkerasError):
    """A training round cannot continue."""


class UnreadableBatchError(TrainingError):
    """The input pipeline cannot decode an example, or the Object Detection API refuses it."""


class UndoneStepsError(TrainingError):
    """Steps fail again and again, and were undone."""


class ClusterError(OdkerasError):
    """The workers of a cluster cannot go on together: one was lost, or they do not fit each other. Every worker ends
    with it, and can be started again."""

    exit_code = 5


class ServingError(OdkerasError):
    """The model server could not answer a request."""


class ServerUnavailableError(ServingError):
    """The model server is unreachable, or has not loaded a version yet."""


class RequestError(ServingError):
    """The model server refused a request.

    Args:
        status: HTTP status code.
        message: the server's error text.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
