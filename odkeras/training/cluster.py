"""What the workers of a cluster tell each other, besides gradients.

    cluster = join_cluster(strategy, stop)          # None without --strategy multi-worker
    cluster.share(trainer.state)                    # all continue with the chief's weights
    agreed = cluster.agree(stop=..., failed=...)    # before every step, on all workers
    order = cluster.next_order()                    # in the loop, on all workers but the chief

Everything goes through collective operations, which all workers must call in the same order. A worker that is killed
makes them fail on the others, which end with a ClusterError.
"""

from __future__ import annotations

import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import tensorflow as tf

from odkeras.config.cluster import ClusterSpec, read_tf_config
from odkeras.errors import ClusterError
from odkeras.heartbeat import report_progress
from odkeras.model.building import reason

_log = logging.getLogger(__name__)

_WAIT, _STOP, _END, _FAILED = 1, 2, 4, 8  # flags
_FLAGS, _KIND, _STEPS, _PLAN = range(4)  # the columns of a worker's row
_ROW = 4
_MAX_UNION = 256
_POLL_S = 0.5
_CONNECT_S = 2.0
_STAY_S = 3.0
"""A worker that has lost another one stays for so long, so that the others do not take it for the lost one."""
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,  # a worker was started again, while the others still run
    tf.errors.InternalError,
)
_TASK = re.compile(r"/job:(chief|worker)/replica:\d+/task:(\d+)")


class OrderKind(IntEnum):
    """What the other workers do next, in the loop."""

    END = 1
    TRAIN = 2
    TRY = 3
    SAVE = 4
    READ = 5


@dataclass(frozen=True)
class Order:
    """What the chief has decided.

    Args:
        kind: what to do.
        steps: TRAIN: the number of steps.
        plan: TRAIN and TRY: the checksum of the plan; see `plans`.
    """

    kind: OrderKind
    steps: int = 0
    plan: int = 0


@dataclass(frozen=True)
class Agreement:
    """What all workers do before the next step.

    Args:
        stop: they take no further step now.
        failed: index of a worker that cannot read its batch; None if all can.
    """

    stop: bool
    failed: int | None


class Cluster:
    """One worker's connection to the others.

    Args:
        strategy: of all workers.
        spec: the workers.
        stop: set by this worker's signals; also set once another worker is asked to end, because all end together.

    Attributes:
        describe: returns where the training is, and what there is to continue from, for messages.
    """

    def __init__(self, strategy: tf.distribute.Strategy, spec: ClusterSpec, stop: threading.Event) -> None:
        self._strategy = strategy
        self._stop = stop
        self.spec = spec
        # In a thread, so that signals are handled while this worker waits for the others.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cluster")
        self._sums: dict[tuple[str, int], Any] = {}
        self.describe: Callable[[], str] = lambda: "before the first step"

    @property
    def is_chief(self) -> bool:
        """Whether this worker decides."""
        return self.spec.is_chief

    @property
    def replicas(self) -> int:
        """Number of devices on all workers."""
        return int(self._strategy.num_replicas_in_sync)

    def check_same(self, values: Mapping[str, int]) -> None:
        """Check that the workers were started with the same settings.

        Args:
            values: name -> a number below 2^63, the same names on all workers.

        Raises:
            ClusterError: another worker has another value.
        """
        rows = self._exchange(list(values.values()))
        for index, row in enumerate(rows):
            if different := [name for name, mine, other in zip(values, rows[0], row, strict=True) if mine != other]:
                raise ClusterError(
                    f"{self.spec.name_of(index)} and {self.spec.name_of(0)} differ in: {', '.join(different)}; start "
                    "all workers with the same pipeline.config and options"
                )

    def share(self, variables: Mapping[str, Any]) -> None:
        """Set the variables of every worker to the values of the chief.

        Args:
            variables: by path, the same on all workers. Paths and order come from the model.
        """
        by_type: dict[str, list[Any]] = {}
        for variable in variables.values():
            by_type.setdefault(variable.dtype.name, []).append(variable)
        for name, group in by_type.items():
            is_shared = name if name in ("float32", "float64", "int64") else "float64"  # exact for bool, int32, float16
            local = [self._strategy.experimental_local_results(each)[0].numpy() for each in group]
            flat = np.concatenate([value.reshape(-1).astype(is_shared) for value in local])
            shared = self._sum(flat if self.is_chief else np.zeros_like(flat))
            ends = np.cumsum([value.size for value in local])
            with self._strategy.scope():
                for variable, value, part in zip(group, local, np.split(shared, ends[:-1]), strict=True):
                    variable.assign(part.reshape(value.shape).astype(value.dtype), read_value=False)

    def agree(self, *, stop: bool, failed: bool) -> Agreement:
        """Agree with the others what to do before the next step. All workers must call it.

        Args:
            stop: this worker is to take no further step. Of the others than the chief, only a signal counts.
            failed: this worker has no batch to continue with.
        """
        rows = self._wait_for_others((_STOP if stop else 0) | (_FAILED if failed else 0))
        flags = rows[:, _FLAGS]
        broken = np.flatnonzero(flags & _FAILED)
        stops = bool(flags[0] & _STOP) or bool(np.any(flags & _END))
        return Agreement(stops, int(broken[0]) if broken.size else None)

    def union(self, numbers: Iterable[int]) -> set[int]:
        """The numbers of all workers, not negative; at most `_MAX_UNION` of each. All workers must call it."""
        mine = sorted(set(numbers))[:_MAX_UNION]
        rows = self._exchange([number + 1 for number in mine], _MAX_UNION)
        return {int(number) - 1 for number in rows.flat if number}

    def least(self, number: int) -> int:
        """The smallest of the workers' numbers. All workers must call it."""
        return int(self._exchange([number])[:, 0].min())

    def order(self, order: Order) -> None:
        """The chief tells the others what to do next. They are in `next_order` then."""
        self._note_ends(self._exchange([0, order.kind, order.steps, order.plan]))

    def next_order(self) -> Order:
        """Wait for the next order of the chief."""
        rows = self._wait_for_others(0)
        kind, steps, plan = (int(rows[0][column]) for column in (_KIND, _STEPS, _PLAN))
        return Order(OrderKind(kind), steps, plan)

    def idle(self) -> None:
        """The chief tells the others, which wait for it, that it is still there."""
        self._note_ends(self._exchange([_WAIT | self._end_flag()]))

    def _wait_for_others(self, flags: int) -> np.ndarray:
        while True:
            rows = self._exchange([flags | self._end_flag()])
            self._note_ends(rows)
            if not rows[0][_FLAGS] & _WAIT:
                return rows

    def _end_flag(self) -> int:
        return _END if self._stop.is_set() else 0

    def _note_ends(self, rows: np.ndarray) -> None:
        if np.any(rows[:, _FLAGS] & _END):
            self._stop.set()

    def _exchange(self, row: Sequence[int], length: int = _ROW) -> np.ndarray:
        """All workers' rows, int64 (workers, length)."""
        table = np.zeros([len(self.spec.addresses), max(length, len(row))], np.int64)
        table[self.spec.index, : len(row)] = row
        return self._sum(table)

    def _sum(self, value: np.ndarray) -> np.ndarray:
        """The sum over the workers. Each of their devices has the value of the first, and zeros otherwise."""
        key = (value.dtype.name, value.ndim)
        if key not in self._sums:
            spec = tf.TensorSpec([None] * value.ndim, value.dtype)
            self._sums[key] = tf.function(self._sum_on_devices, input_signature=[spec], autograph=False)
        future: Future[np.ndarray] = self._thread.submit(lambda: self._sums[key](tf.constant(value)).numpy())
        while True:
            report_progress()
            with suppress(FutureTimeoutError), self.watching():
                return future.result(_POLL_S)

    def _sum_on_devices(self, value: tf.Tensor) -> tf.Tensor:
        def sum_on_device(value: tf.Tensor) -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            if self._strategy.extended._num_devices_per_worker > 1:
                first = context.replica_id_in_sync_group % self._strategy.extended._num_devices_per_worker == 0
                value = tf.where(first, value, tf.zeros_like(value))
            return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(value))  # on the device of the replica

        return self._strategy.experimental_local_results(self._strategy.run(sum_on_device, args=(value,)))[0]

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Raise a ClusterError instead of the error of TensorFlow, if another worker is lost within the block."""
        try:
            yield
        except tf.errors.OpError as error:
            if isinstance(error, _LOST):
                raise self.broken(error) from error
            raise

    def broken(self, error: tf.errors.OpError) -> ClusterError:
        """The error to end with after an operation that the workers run together has failed."""
        at, where = time.strftime("%Y-%m-%d %H:%M:%S"), self.describe()
        _log.debug("an operation of the cluster failed", exc_info=error)
        how = "; start all workers again, with the same number or another"
        if not isinstance(error, _LOST):
            return ClusterError(f"{where}, {at}: {self.spec.name_of(self.spec.index)} failed: {reason(error)}{how}")
        who = self._unreachable() or self._named_in(str(error))
        time.sleep(_STAY_S)
        names = [self.spec.name_of(index) for index in who] or [f"a worker that cannot be named ({reason(error)})"]
        return ClusterError(f"{where}, {at}: {' and '.join(f'{name} was lost' for name in names)}{how}")

    def _unreachable(self) -> list[int]:
        return [
            index
            for index, address in enumerate(self.spec.addresses)
            if index != self.spec.index and not _is_reachable(address)
        ]

    def _named_in(self, message: str) -> list[int]:
        first = {"chief": 0, "worker": int(self.spec.has_chief)}
        named = {int(task) + first[job] for job, task in _TASK.findall(message)}
        return sorted(index for index in named if index != self.spec.index and index < len(self.spec.addresses))


def _is_reachable(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with suppress(OSError), socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S):
        return True
    return False


def join_cluster(strategy: tf.distribute.Strategy | None, stop: threading.Event) -> Cluster | None:
    """The cluster of a strategy; None if it is of one process."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return None
    return Cluster(strategy, read_tf_config(), stop)
