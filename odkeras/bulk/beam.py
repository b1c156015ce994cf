"""Runs a job as an Apache Beam pipeline: the numbers of the shards are distributed, each worker reads and writes files.

The folder of the job, the images and the exported version must be in places that all workers reach: object storage, or
a file system that all of them have mounted. odkeras must be installed on them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from odkeras.bulk.job import Job, Shard
from odkeras.bulk.work import ShardReport, Transform, run_shard
from odkeras.errors import ConfigError, RecordError, SetupError

_COUNTERS = ("images", "refused", "objects", "cpu_ms")


def run_on_beam(
    job: Job, shards: Sequence[Shard], transform: Transform, *, runner: str, options: Mapping[str, str], workers: int
) -> ShardReport | None:
    """Process the shards.

    Args:
        runner: name of a runner, such as DirectRunner or FlinkRunner.
        options: pipeline options.
        workers: number of processes, for the DirectRunner; others have options of their own.

    Returns:
        The sums of all shards; None if the runner does not report them.

    Raises:
        SetupError: Apache Beam is not installed.
        ConfigError: Beam refuses the runner or an option.
        RecordError: the pipeline failed.
    """
    try:
        beam: Any = import_module("apache_beam")
    except ImportError:
        raise SetupError(
            f"--runner {runner} needs Apache Beam, which is not installed; run: pip install 'odkeras[beam]'"
        ) from None
    try:
        pipeline = beam.Pipeline(options=_pipeline_options(runner, options, workers))
    except (ValueError, SystemExit) as error:
        raise ConfigError(f"--runner {runner}: Apache Beam refuses it: {error}") from error
    _ = (
        pipeline
        | "shards" >> beam.Create([(job.place, shard, transform) for shard in shards])
        | "distribute" >> beam.Reshuffle()
        | "work" >> beam.Map(_work)
    )
    result = pipeline.run()
    try:
        state = result.wait_until_finish()
    except KeyboardInterrupt:
        result.cancel()
        raise
    except Exception as error:  # each runner has its own; the message ends with that of the worker
        raise RecordError(f"the pipeline failed: {_last_line(error)}; the same command continues it") from error
    if state != "DONE":
        raise RecordError(f"the pipeline ended as {state}; the same command continues with the shards that are missing")
    return _sums(result)


def _pipeline_options(runner: str, options: Mapping[str, str], workers: int) -> Any:
    flags = [f"--runner={runner}", "--default_sdk_harness_log_level=WARNING"]
    if runner == "DirectRunner":
        flags += [f"--direct_num_workers={workers}", "--direct_running_mode=multi_processing"]
    flags += [f"--{name}={value}" for name, value in options.items()]
    return import_module("apache_beam.options.pipeline_options").PipelineOptions(flags)


def _work(element: tuple[str, Shard, Transform]) -> None:
    """Process a shard in a worker. A runner may give the same one to two workers, or repeat it."""
    metrics = import_module("apache_beam.metrics").Metrics
    report = run_shard(*element)
    values = (report.images, report.refused, report.objects, round(1000 * report.cpu_s))
    for name, value in zip(_COUNTERS, values, strict=True):
        metrics.counter("odkeras", name).inc(value)


def _sums(result: Any) -> ShardReport | None:
    try:
        rows = result.metrics().query()["counters"]
    except Exception:  # some runners have no metrics
        return None
    sums = {row.key.metric.name: row.result for row in rows if row.key.metric.namespace == "odkeras"}
    if not sums:
        return None
    images, refused, objects, cpu_ms = (int(sums.get(name, 0)) for name in _COUNTERS)
    return ShardReport(images, refused, objects, cpu_ms / 1000)


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if line.startswith("odkeras.errors.")]
    return (named or lines or [type(error).__name__])[-1][:500]
