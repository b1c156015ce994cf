"""Runs a job in processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from odkeras.bulk.job import Job, Shard
from odkeras.bulk.work import ShardReport, Stopped, Transform, run_shard
from odkeras.errors import OdkerasError, RecordError

Done = Callable[[Shard, ShardReport], None]
"""Called with each shard that was written."""
_POLL_S = 0.2
_STOP_S = 3.0

_stopping = threading.Event()  # of a worker process


def cores() -> int:
    """Number of the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_locally(job: Job, shards: Sequence[Shard], transform: Transform, *, workers: int, done: Done) -> None:
    """Process the shards. On any exception, Ctrl-C among them, the workers stop between two images, at the latest after
    `_STOP_S` seconds. A shard that they have not finished leaves at most a temporary file.

    Args:
        workers: number of processes.

    Raises:
        OdkerasError: a shard failed.
        KeyboardInterrupt: Ctrl-C.
    """
    workers = max(1, min(workers, len(shards)))
    context = multiprocessing.get_context("spawn")
    reader, writer = context.Pipe(duplex=False)  # not an Event: setting that waits for ever for a worker that died
    threads = max(1, cores() // workers)
    pool = ProcessPoolExecutor(workers, context, _start_worker, (reader, threads))
    waiting, running = list(reversed(shards)), dict[Future[ShardReport], Shard]()
    try:
        while waiting or running:
            while waiting and len(running) <= workers:  # one more than run, so that no worker waits
                shard = waiting.pop()
                with _interrupt_blocked():
                    running[pool.submit(_run, job.place, shard, transform)] = shard
            ended, _ = wait(running, timeout=_POLL_S, return_when=FIRST_COMPLETED)
            for future in ended:
                report = future.result()
                done(running.pop(future), report)
    except BrokenProcessPool:
        raise RecordError(
            "a worker process died, perhaps for lack of memory; the same command continues with the shards that are "
            f"missing; try fewer workers than {workers}: --workers"
        ) from None
    finally:
        if waiting or running:
            writer.close()
        pool.shutdown(cancel_futures=True)
        writer.close()
        reader.close()


@contextmanager
def _interrupt_blocked() -> Iterator[None]:
    """Let worker processes that start in the block never get Ctrl-C, which the terminal sends to all: the first process
    decides. It gets one of the meantime after the block."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(until_closed: Any, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, str(threads))
    threading.Thread(target=_stop_when_closed, args=(until_closed,), daemon=True).start()


def _stop_when_closed(until_closed: Any) -> None:
    """Stop when the first process closes its end of the pipe, or when it died. An image from a slow server, or a large
    batch, takes longer than a person waits after Ctrl-C: then the process exits."""
    until_closed.poll(None)
    _stopping.set()
    time.sleep(_STOP_S)
    os._exit(1)


def _run(place: str, shard: Shard, transform: Transform) -> ShardReport:
    try:
        return run_shard(place, shard, transform, should_stop=_stopping.is_set)
    except Stopped:
        raise
    except OdkerasError as error:
        if type(error).__init__ is not Exception.__init__:  # it may not survive the way to the first process
            raise RecordError(f"{shard.name}: {error}") from None
        raise
