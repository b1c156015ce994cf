"""Runs a job, or what is left of it, on the executor that the settings name."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from odkeras.bulk.beam import run_on_beam
from odkeras.bulk.job import Entry, Job, Shard, find_job, prepare_job
from odkeras.bulk.local import cores, run_locally
from odkeras.bulk.store import open_store
from odkeras.bulk.work import ShardReport, Transform
from odkeras.config.bulk import LOCAL, BulkSettings

_POLL_S = 1.0


@dataclass(frozen=True)
class Plan:
    """What shall be done.

    Args:
        out: the folder of the job.
        identity: see `find_job`.
        entries: lists the images; called if the folder has no job.
        transform: what is done with each shard.
        suffix: of the files of the shards.
    """

    out: str
    identity: Mapping[str, Any]
    entries: Callable[[], Iterable[Entry]]
    transform: Transform
    suffix: str


def run_plan(
    plan: Plan,
    settings: BulkSettings,
    *,
    progress: Callable[[int, int], None],
    say: Callable[[str], None] = lambda line: None,
) -> tuple[Job, ShardReport | None]:
    """Do what is left of a plan.

    Args:
        progress: callback with the number of images done, and of all.
        say: called with lines for the user.

    Returns:
        The job, and the sums of what was done by this call; None if the runner does not report them.

    Raises:
        OdkerasError: see `find_job`, `run_locally` and `run_on_beam`.
        KeyboardInterrupt: Ctrl-C or SIGTERM.
    """
    store = open_store(plan.out)
    with _sigterm_as_interrupt(), store.in_use():
        job = find_job(store, plan.identity)
        if job is None:
            job = prepare_job(
                store, plan.identity, plan.entries(), shard_images=settings.shard_images, suffix=plan.suffix
            )
        shards = job.unfinished(retry_refused=settings.retry_refused)
        if len(shards) < len(job.shards):
            say(f"{plan.out}: {len(job.shards) - len(shards)} of {len(job.shards)} shards are finished already")
        progress(job.images - _images(shards), job.images)
        try:
            return job, _run(plan, job, shards, settings, progress)
        except KeyboardInterrupt:
            finished = len(job.shards) - len(job.unfinished())
            say(f"{plan.out}: {finished} of {len(job.shards)} shards are finished; the same command continues")
            raise


def _run(
    plan: Plan, job: Job, shards: Sequence[Shard], settings: BulkSettings, progress: Callable[[int, int], None]
) -> ShardReport | None:
    reports: list[ShardReport] = []
    before = job.images - _images(shards)

    def done(shard: Shard, report: ShardReport) -> None:
        reports.append(report)
        progress(before + sum(each.images for each in reports), job.images)

    if not shards:
        return None
    workers = settings.workers or max(1, cores() // 2)
    if settings.runner == LOCAL:
        run_locally(job, shards, plan.transform, workers=workers, done=done)
        return ShardReport(
            sum(each.images for each in reports),
            sum(each.refused for each in reports),
            sum(each.objects for each in reports),
            sum(each.cpu_s for each in reports),
        )
    options = dict(option.split("=", 1) for option in settings.beam_option or ())
    with _watched(job, progress):
        return run_on_beam(job, shards, plan.transform, runner=settings.runner, options=options, workers=workers)


def _images(shards: Iterable[Shard]) -> int:
    return sum(shard.images for shard in shards)


@contextmanager
def _watched(job: Job, progress: Callable[[int, int], None]) -> Iterator[None]:
    """Report the progress of workers elsewhere, by the shards that appear."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_POLL_S):
            progress(job.images - _images(job.unfinished()), job.images)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does. No effect outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
