"""What a worker says when the others are gone. The workers themselves are in test_strategy.py."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
import tensorflow as tf

from odkeras.config.cluster import ClusterSpec
from odkeras.errors import ClusterError, ConfigError
from odkeras.pipeline import PipelineConfig
from odkeras.training import cluster as cluster_module
from odkeras.training.cluster import Cluster
from odkeras.training.crew import check_batch_size
from tests.workers import free_ports

pytestmark = pytest.mark.integration


@pytest.fixture
def addresses() -> Iterator[list[str]]:
    """Of three workers, of which the last does not listen."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = [each.getsockname()[1] for each in listeners]
    yield [f"127.0.0.1:{port}" for port in (*ports, *free_ports(1))]
    for each in listeners:
        each.close()


@pytest.fixture(autouse=True)
def no_need_to_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "_STAY_S", 0.0)


def cluster_of(addresses: list[str], index: int = 0) -> Cluster:
    cluster = Cluster(tf.distribute.get_strategy(), ClusterSpec(tuple(addresses), index), threading.Event())
    cluster.describe = lambda: "after step 7 (the newest checkpoint is ckpt-5)"
    return cluster


def unavailable(message: str) -> tf.errors.OpError:
    return tf.errors.UnavailableError(None, None, message)


def test_the_worker_that_cannot_be_reached_is_the_lost_one(addresses: list[str]) -> None:
    cluster = cluster_of(addresses)
    with (
        pytest.raises(ClusterError, match=r"^after step 7 \(the newest checkpoint is ckpt-5\), 20.*: ") as caught,
        cluster.watching(),
    ):
        raise unavailable("Collective ops is aborted by: task /job:worker/replica:0/task:1 ...")  # ended after it
    assert f": worker 2 ({addresses[2]}) was lost; start all workers again" in str(caught.value)
    assert "worker 1" not in str(caught.value)


def test_a_worker_that_hangs_is_named_by_tensorflow(addresses: list[str]) -> None:
    cluster = cluster_of(addresses[:2])
    error = cluster.broken(unavailable("aborted: unhealthy: /job:worker/replica:0/task:1, told /job:worker/task:0"))
    assert f": worker 1 ({addresses[1]}) was lost; start" in str(error)


def test_workers_are_counted_after_a_chief_of_its_own(addresses: list[str]) -> None:
    cluster = Cluster(
        tf.distribute.get_strategy(), ClusterSpec(tuple(addresses[:2]), 0, has_chief=True), threading.Event()
    )
    error = cluster.broken(unavailable("aborted: unhealthy: /job:worker/replica:0/task:0"))
    assert "before the first step, 20" in str(error) and f": worker 1 ({addresses[1]}) was lost" in str(error)


def test_a_worker_that_nothing_names(addresses: list[str]) -> None:
    error = cluster_of(addresses[:2]).broken(unavailable("the connection was reset"))
    assert ": a worker that cannot be named (UnavailableError: the connection was reset) was lost; start" in str(error)


def test_an_error_of_this_worker_alone(addresses: list[str]) -> None:
    """The others could not undo the step with it, so it ends."""
    error = cluster_of(addresses, 1).broken(tf.errors.ResourceExhaustedError(None, None, "no memory for 9 GB"))
    assert f": worker 1 ({addresses[1]}) failed: ResourceExhaustedError: no memory for 9 GB; start" in str(error)


def test_other_errors_are_left_alone(addresses: list[str]) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError), cluster_of(addresses).watching():
        raise tf.errors.InvalidArgumentError(None, None, "a bug")


@pytest.mark.parametrize(
    ("size", "replicas", "fitting"), [(8, 3, "6 or 9"), (2, 4, "4"), (5, 4, "4 or 8"), (1, 2, "2")]
)
def test_a_batch_that_cannot_be_divided(config: PipelineConfig, size: int, replicas: int, fitting: str) -> None:
    config.train_config.batch_size = size
    with pytest.raises(ConfigError) as caught:
        check_batch_size(config, replicas)
    wrong = f"batch size {size} cannot be divided among {replicas} devices; give --batch-size {fitting}"
    assert str(caught.value) == wrong


def test_a_batch_that_can_be_divided(config: PipelineConfig) -> None:
    config.train_config.batch_size = 12
    for replicas in (1, 2, 3, 4, 6, 12):
        check_batch_size(config, replicas)
