"""Steps that fail are undone, and images with which steps fail again and again, or kill the process, are left out.

A step fails with a loss, gradients or weights that are not finite, or for lack of memory. One image must not end the
training of all others.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any, TypeVar

import tensorflow as tf
from object_detection import inputs as odapi_inputs

from odkeras.data.stored_example import StoredExample
from odkeras.errors import UndoneStepsError
from odkeras.model.weights import copy_weights, snapshot
from odkeras.project import Project, append_jsonl, read_jsonl
from odkeras.training.deaths import TrainingDeaths

if TYPE_CHECKING:
    from odkeras.training.trainer import Trainer

T = TypeVar("T")

_DEADLY = "the trainer died again in a step with this image alone; it is not trained on until it is answered again"

_log = logging.getLogger(__name__)

_SNAPSHOT_EVERY_STEPS = 50
_MAX_RESTORES = 3
_MAX_SUSPECTS = 3
NOT_FINITE = "the loss or the weights were not finite"
OUT_OF_MEMORY = "a step needed more memory than there is"
_ADVICE = {
    NOT_FINITE: "Lower the learning rate, set gradient_clipping_by_norm, or look at the images that the log names",
    OUT_OF_MEMORY: "Lower batch_size or the size of the image_resizer, or look at the images that the log names",
}


class StepGuard:
    """Takes snapshots of good weights during a call of `Trainer.train`, and restores them after a failed step.

    The snapshot includes the optimizer: its momentum slots keep a NaN forever.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._state = {**trainer.variables, **trainer.optimizer_variables()}
        self._good = snapshot(self._state)
        self._good_step = trainer.step
        self._since_snapshot = 0
        self._restores = 0

    @property
    def has_undone(self) -> bool:
        """Whether a step was undone since the last snapshot."""
        return self._restores > 0

    def accept(self) -> bool:
        """Accept a step with a finite loss. Every `_SNAPSHOT_EVERY_STEPS` steps the weights are checked, too.

        Returns:
            False if the weights are not finite; the step is undone then.
        """
        self._since_snapshot += 1
        if self._since_snapshot >= _SNAPSHOT_EVERY_STEPS:
            if not self._trainer.is_finite:
                self.undo()
                return False
            self._good = snapshot(self._state)
            self._good_step = self._trainer.step
            self._since_snapshot = 0
            self._restores = 0
        return True

    def undo(self, features: Mapping[str, Any] | None = None, why: str = NOT_FINITE) -> None:
        """Restore the last snapshot.

        Args:
            features: features of the batch that caused it; None if the batch is unknown.
            why: `NOT_FINITE` or `OUT_OF_MEMORY`.

        Raises:
            UndoneStepsError: `_MAX_RESTORES` restores since the last snapshot.
        """
        step = self._trainer.step
        if features is not None:
            bad: set[int] = set()
            for buckets in self._trainer.strategy.experimental_local_results(features[odapi_inputs.HASH_KEY]):
                bad.update(int(bucket) for bucket in tf.reshape(buckets, [-1]).numpy())
            self._trainer.bad_images |= self._trainer.cluster.union(bad) if self._trainer.cluster else bad
        self.restore()
        self._since_snapshot = 0
        self._restores += 1
        if self._restores >= _MAX_RESTORES:
            raise UndoneStepsError(
                f"{why} {self._restores} times in less than {_SNAPSHOT_EVERY_STEPS} steps, the last time at step "
                f"{step}; the weights of step {self._good_step} are kept. {_ADVICE[why]}"
            )

    def restore(self) -> None:
        """The trainer has the weights and the step of the last snapshot."""
        with self._trainer.strategy.scope():
            copy_weights(self._good, self._state)
            self._trainer.step_variable.assign(self._good_step)


class SuspectImages:
    """The images that training leaves out because steps with them failed. A new answer about the image tries it again,
    and so does the next process, unless it died with it.

    Args:
        project: rejected.jsonl gets a line for each image.

    Attributes:
        deaths: finds the images that kill the process; `train` reads its examples with `deaths.noting`.
    """

    def __init__(self, project: Project) -> None:
        self._rejected_path = project.rejected_path
        self.deaths = TrainingDeaths(project)
        self._left_out = set(self.deaths.left_out)  # image id, batch of the answer
        self._note(
            {"batch": batch, "number": 0, "reason": _DEADLY, "answer": {"image_id": image_id}}
            for image_id, batch in self.deaths.left_out
        )

    def without(self, examples: Sequence[StoredExample]) -> Sequence[StoredExample]:
        """The examples that are not left out; `examples` itself if that are all."""
        if not self._left_out:
            return examples
        return [example for example in examples if (example.image_id, example.batch) not in self._left_out]

    def train_without(
        self,
        examples: Sequence[StoredExample],
        train: Callable[[Sequence[StoredExample]], T],
        bad_images: Set[int],
        fails: Callable[[StoredExample], bool],
    ) -> tuple[T, Sequence[StoredExample]]:
        """Call `train`, and again without the images that fail, until its steps succeed. Returns its result, and
        the examples that it was successful with.

        If steps fail whatever is left out, the images are not the reason, and none is left out.

        Args:
            examples: the examples to train on.
            train: trains on some of the examples.
            bad_images: `image_bucket`s of the images in the batches that failed; changed by `train`.
            fails: whether a step with nothing but this example fails.

        Raises:
            UndoneStepsError: see above.
        """
        left: Sequence[StoredExample] = examples
        suspects: list[StoredExample] = []
        reason = ""
        self.deaths.try_alone(examples, fails)
        while True:
            try:
                with self.deaths.watch():
                    result = train(left)
            except UndoneStepsError as error:
                failing = [example for example in _log_bad_images(left, bad_images) if fails(example)]
                suspects += failing
                if not failing or len(failing) == len(left) or len(suspects) > max(_MAX_SUSPECTS, len(examples) // 20):
                    raise
                names = [example.image_id for example in failing]
                left = [example for example in left if example.image_id not in names]
                _log.warning("%s. Trying again without %s", error, ", ".join(names))
                reason = str(error).partition(";")[0]
            else:
                _log_bad_images(left, bad_images)
                self._leave_out(suspects, reason)
                return result, left

    def _leave_out(self, examples: Sequence[StoredExample], reason: str) -> None:
        self._left_out.update((example.image_id, example.batch) for example in examples)
        rows = []
        for example in examples:
            text = f"{example.path}: with this image {reason}; it is not trained on until the next start"
            _log.error("image %s in %s", example.image_id, text)
            rows.append({"batch": example.batch, "number": 0, "reason": text, "answer": {"image_id": example.image_id}})
        append_jsonl(self._rejected_path, rows)

    def _note(self, rows: Iterable[dict[str, Any]]) -> None:
        """Append rows that are not in the file yet."""
        rows = list(rows)
        if rows:
            known = read_jsonl(self._rejected_path)
            append_jsonl(self._rejected_path, [row for row in rows if row not in known])


def _log_bad_images(examples: Sequence[StoredExample], bad_images: Set[int]) -> list[StoredExample]:
    """Log the examples whose steps were undone, and return them."""
    bad = [example for example in examples if image_bucket(example.image_id) in bad_images] if bad_images else []
    if bad:
        names = ", ".join(example.image_id for example in bad)
        _log.error("steps with these images failed and were undone: %s", names)
    return bad


def image_bucket(image_id: str) -> int:
    """The number that identifies an image in a batch: the Object Detection API's input pipeline hashes the image id."""
    return int(tf.strings.to_hash_bucket_fast(image_id, odapi_inputs.HASH_BINS).numpy())
