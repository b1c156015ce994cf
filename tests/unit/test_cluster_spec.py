"""TF_CONFIG, as people write it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from odkeras.config.cluster import ClusterSpec, read_tf_config
from odkeras.errors import ConfigError


def read(cluster: dict[str, Any], task_type: str = "worker", index: Any = 0) -> ClusterSpec:
    return read_tf_config({"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": task_type, "index": index}})})


def test_the_first_worker_is_the_chief() -> None:
    machines = {"worker": ["a:1", "b:2"]}
    assert read(machines) == ClusterSpec(("a:1", "b:2"), 0)
    assert read(machines).is_chief and not read(machines, index=1).is_chief
    assert read(machines, index=1).name_of(0) == "worker 0 (a:1, the chief)"
    assert read(machines, index=1).name_of(1) == "worker 1 (b:2)"


def test_a_chief_comes_before_the_workers() -> None:
    machines = {"worker": ["b:2", "c:3"], "chief": ["a:1"]}
    assert read(machines, "chief") == ClusterSpec(("a:1", "b:2", "c:3"), 0, has_chief=True)
    assert read(machines, "worker", 1) == ClusterSpec(("a:1", "b:2", "c:3"), 2, has_chief=True)


def test_an_index_may_be_text_as_tensorflow_takes_it() -> None:
    assert read({"worker": ["a:1", "b:2"]}, index="1").index == 1


@pytest.mark.parametrize(
    ("cluster", "task_type", "index", "message"),
    [
        ({"worker": ["a:1"], "ps": ["b:1"]}, "worker", 0, "must be chief and worker; got ps"),
        ({"worker": ["a:1"]}, "worker", 1, "has no task worker 1; it has 1 workers"),
        ({"worker": ["a:1"]}, "evaluator", 0, "has no task evaluator 0"),
        ({"worker": ["a"]}, "worker", 0, "must be HOST:PORT; got 'a'"),
        ({"worker": ["a:1", "a:1"]}, "worker", 0, "a:1 is there twice"),
        ({"chief": ["a:1", "b:1"]}, "chief", 0, "one chief; got 2"),
    ],
)
def test_what_cannot_work_is_refused(cluster: dict[str, Any], task_type: str, index: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(cluster, task_type, index)
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"cluster": {}}', '{"cluster": 3, "task": {"type": "worker"}}'])
def test_what_is_no_cluster_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match="TF_CONFIG") as caught:
        read_tf_config({"TF_CONFIG": text})
    assert '"cluster": {"worker": ["10.0.0.1:4000"' in str(caught.value)


def test_this_process_s_own_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["[::1]:4000"]}, "task": {"type": "worker", "index": 0}}')
    assert read_tf_config() == ClusterSpec(("[::1]:4000",), 0)
