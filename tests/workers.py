"""The workers of a cluster, as processes of this machine. TensorFlow is imported once, in a process that forks them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from waiting import wait_until

_IMPORT_AND_FORK = """
import json, os, sys
from odkeras import compat
compat.prepare()
import tensorflow as tf
import odkeras.cli, odkeras.training.following, odkeras.training.process, odkeras.training.train
folder, arguments, addresses = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
pids = []
for index in range(len(addresses)):
    pid = os.fork()
    if pid == 0:
        task = {"type": "worker", "index": index}
        os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
        log = os.open(f"{folder}/worker-{index}.log", os.O_CREAT | os.O_WRONLY)
        os.dup2(log, 1)
        os.dup2(log, 2)
        # The graphs run a few times only: optimizing them takes longer.
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
        sys.argv = ["odkeras", *arguments]
        odkeras.cli.main()
        sys.exit(0)
    pids.append(pid)
print(json.dumps(pids), flush=True)
print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]), flush=True)
"""


class Workers:
    """Context manager: `odkeras *arguments --strategy multi-worker` on every worker.

    Args:
        folder: gets their output.
        count: how many.
        arguments: of the command.
    """

    def __init__(self, folder: Path, count: int, arguments: Sequence[str]) -> None:
        self._folder = folder
        self.addresses = [f"127.0.0.1:{port}" for port in free_ports(count)]
        given = [str(folder), json.dumps([*arguments, "--strategy", "multi-worker"]), json.dumps(self.addresses)]
        self._parent = subprocess.Popen(
            [sys.executable, "-c", _IMPORT_AND_FORK, *given],
            env={
                **os.environ,
                "TF_CPP_MIN_LOG_LEVEL": "3",
                "TF_NUM_INTRAOP_THREADS": "1",  # their threads would wait for each other on few cores
                "CUDA_VISIBLE_DEVICES": "-1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._parent.stdout is not None
        line = self._parent.stdout.readline()
        assert line, self._parent.communicate()[1]
        self.pids: list[int] = json.loads(line)

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._parent.poll() is None:
            for pid in self.pids:
                self.send(self.pids.index(pid), signal.SIGKILL)
            self._parent.communicate(timeout=60)

    def send(self, index: int, number: signal.Signals) -> None:
        """Send a signal to a worker; without effect if it has ended, because its parent waits for it."""
        os.kill(self.pids[index], number)

    def exit_codes(self, timeout_s: float = 200) -> list[int]:
        """Wait for all; their exit codes, -9 for one that was killed."""
        output, _ = self._parent.communicate(timeout=timeout_s)
        codes: list[int] = json.loads(output)
        return codes

    def output(self, index: int) -> str:
        """What a worker has printed so far."""
        return (self._folder / f"worker-{index}.log").read_text(errors="replace")

    def wait_for_checkpoint(self, model_dir: Path, step: int, timeout_s: float = 300) -> None:
        """Wait until the checkpoint of a step is complete. Fails if all workers have ended."""

        def is_there() -> bool:
            assert self._parent.poll() is None, [self.output(index)[-2000:] for index in range(len(self.pids))]
            listed = model_dir / "checkpoint"  # written when the files of the checkpoint are
            return listed.exists() and f'"ckpt-{step}"' in listed.read_text()

        wait_until(is_there, f"the checkpoint of step {step}", timeout_s)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
