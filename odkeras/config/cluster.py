"""The cluster that the environment variable TF_CONFIG describes, for `--strategy multi-worker`.

    TF_CONFIG='{"cluster": {"worker": ["10.0.0.1:4000", "10.0.0.2:4000"]}, "task": {"type": "worker", "index": 0}}'

All machines have the same "cluster"; "task" says which of them this is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from odkeras.errors import ConfigError

_EXAMPLE = (
    'TF_CONFIG=\'{"cluster": {"worker": ["10.0.0.1:4000", "10.0.0.2:4000"]}, "task": {"type": "worker", "index": 0}}\''
)
_JOBS = ("chief", "worker")


@dataclass(frozen=True)
class ClusterSpec:
    """The workers of a cluster, and which of them this process is.

    Args:
        addresses: HOST:PORT of each worker; the chief is the first.
        index: position of this process in `addresses`.
        has_chief: the chief is a job of its own, so that the tasks of the workers count from the second address.
    """

    addresses: tuple[str, ...]
    index: int
    has_chief: bool = False

    @property
    def is_chief(self) -> bool:
        """Whether this process decides, and writes checkpoints: the chief, or worker 0 of a cluster without one."""
        return self.index == 0

    def name_of(self, index: int) -> str:
        """A worker's name in messages."""
        return f"worker {index} ({self.addresses[index]}{', the chief' if index == 0 else ''})"


def read_tf_config(environment: Mapping[str, str] | None = None) -> ClusterSpec:
    """The cluster in TF_CONFIG.

    Args:
        environment: the environment variables; None for those of this process.

    Raises:
        ConfigError: it is not set, not JSON, or describes no cluster of workers that this process belongs to.
    """
    text = (os.environ if environment is None else environment).get("TF_CONFIG", "")
    if not text:
        raise ConfigError(f"--strategy multi-worker needs the environment variable TF_CONFIG, for example {_EXAMPLE}")
    try:
        document = json.loads(text)
        jobs, task = document["cluster"], document["task"]
        job, index = task["type"], int(task["index"])
    except (ValueError, KeyError, TypeError) as error:
        wrong = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise ConfigError(f"TF_CONFIG cannot be read: {wrong}; it is {text!r}, and should be like {_EXAMPLE}") from None
    if unknown := [name for name in jobs if name not in _JOBS]:
        raise ConfigError(f"TF_CONFIG: the jobs of the cluster must be chief and worker; got {', '.join(unknown)}")
    tasks = [(name, number) for name in _JOBS for number in range(len(jobs.get(name, ())))]
    addresses = tuple(str(address) for name in _JOBS for address in jobs.get(name, ()))
    _check(jobs, addresses, (job, index) in tasks, f"{job} {index}")
    return ClusterSpec(addresses, tasks.index((job, index)), has_chief=bool(jobs.get("chief")))


def _check(jobs: Mapping[str, Any], addresses: tuple[str, ...], has_task: bool, task: str) -> None:
    if len(jobs.get("chief", ())) > 1:
        raise ConfigError(f"TF_CONFIG: a cluster has one chief; got {len(jobs['chief'])}")
    for address in addresses:
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise ConfigError(f"TF_CONFIG: the address of a worker must be HOST:PORT; got {address!r}")
    if repeated := sorted({address for address in addresses if addresses.count(address) > 1}):
        raise ConfigError(f"TF_CONFIG: every worker needs an address of its own; {', '.join(repeated)} is there twice")
    if not has_task:
        raise ConfigError(f"TF_CONFIG: the cluster has no task {task}; it has {len(addresses)} workers")
