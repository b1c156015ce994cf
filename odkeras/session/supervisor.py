"""Owns the trainer and server processes: starts them, restarts them after a crash, stops them in order.

    with Supervisor([ChildSpec("trainer", command, model_dir / "logs" / "trainer.log")], say=print) as supervisor:
        ...
        if problem := supervisor.failure():
            raise problem

Each child runs in its own session, so that Ctrl-C in a terminal reaches only the parent, which then stops its children.
A child's stdin is a pipe that only the parent holds open. If the parent dies, even by SIGKILL, the child reads
end-of-file and exits (`--stop-on-stdin-eof`; `exit_with_parent` does it for programs without that flag). A child that
hangs without exiting is noticed by its missing heartbeats, killed, and started again.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from odkeras.errors import ConfigError, OdkerasError, SetupError
from odkeras.heartbeat import HeartbeatPipe
from odkeras.project import temporary_name

LOG_TAIL_LINES = 15
MAX_LOG_BYTES = 10 * 2**20
_ROTATE_EVERY_S = 60.0
_LOG_TAIL_BYTES = 16_384
_MAX_REASON = 300
_REASON = re.compile(r"(?:error: |(?=[\w.]*(?:Error|Exception)\b: ?))(.+)")
_POLL_S = 0.1

Say = Callable[[str], None]


@dataclass(frozen=True)
class ChildSpec:
    """A process to keep running.

    Args:
        name: its name in messages ("trainer").
        command: program and arguments; no shell is involved.
        log_path: the file to which its stdout and stderr are appended; see `rotate_log`.
        pass_fds: file descriptors that it inherits, with the same numbers.
        env: variables to add to the environment.
        error: type of the exception that `failure()` returns once the process has failed.
        sends_heartbeats: it is a program of ours that calls `heartbeat.send_heartbeats`.
    """

    name: str
    command: tuple[str, ...]
    log_path: Path
    pass_fds: tuple[int, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    error: type[OdkerasError] = OdkerasError
    sends_heartbeats: bool = False


@dataclass(frozen=True)
class RestartPolicy:
    """When to restart a child.

    It counts consecutive crashes; a run of at least `healthy_s` resets the count. (With a fixed time window, a trainer
    that needs a minute to fail would be restarted forever.) After `max_crashes` the child counts as failed, and is
    tried again once in `rest_s`, because the reason may have gone: a full disk, an orphaned trainer, a wrong config.

    Args:
        first_delay_s: delay of the first restart, in seconds; doubled for each further crash.
        longest_delay_s: maximum delay in seconds.
        max_crashes: consecutive crashes after which the child counts as failed.
        healthy_s: seconds after which a run counts as healthy.
        rest_s: seconds until a failed child is tried again.
        recovered_s: seconds after which a failed child that runs again no longer counts as failed.
        final_statuses: exit statuses after which the child counts as failed at once, because the configuration or the
            installation is wrong.
        start_s: seconds until the first heartbeat of a child, after which it is killed because it hangs.
        silent_s: the same between two heartbeats. Generous: a child that is starved of CPU time must not be killed.
    """

    first_delay_s: float = 1.0
    longest_delay_s: float = 30.0
    max_crashes: int = 5
    healthy_s: float = 120.0
    rest_s: float = 300.0
    recovered_s: float = 20.0
    final_statuses: frozenset[int] = frozenset({ConfigError.exit_code, SetupError.exit_code})
    start_s: float = 300.0
    silent_s: float = 120.0

    def delay_s(self, crashes: int, exit_status: int) -> float | None:
        """Seconds to wait before the next start, after this many consecutive crashes; None: the child has failed."""
        if crashes >= self.max_crashes or exit_status in self.final_statuses:
            return None
        return float(min(self.longest_delay_s, self.first_delay_s * 2 ** (crashes - 1)))


class Supervisor:
    """Context manager for child processes. After `close()`, which is idempotent, none is left.

    Args:
        specs: the processes, started, and sent SIGTERM at the end, in this order.
        hold: names of processes that are not started before `restart`.
        policy: when to restart a child; None = the defaults.
        say: callback for messages to the user; None drops them.
        warn: callback, from another thread, for a child that exited and will be restarted; None = `say`.
        stop_timeout_s: seconds that all children together have to exit after SIGTERM, before SIGKILL.

    Raises:
        SetupError: on entering, if a program cannot be started or its log cannot be written.
    """

    def __init__(
        self,
        specs: Sequence[ChildSpec],
        *,
        hold: Collection[str] = (),
        policy: RestartPolicy | None = None,
        say: Say | None = None,
        warn: Say | None = None,
        stop_timeout_s: float = 3.0,
    ) -> None:
        self._hold = hold
        self._policy = policy or RestartPolicy()
        self._say = say or (lambda text: None)
        self._children = [_Child(spec, self._policy, warn or self._say) for spec in specs]
        self._stop_timeout_s = stop_timeout_s
        self._stopping = threading.Event()
        self._monitor = threading.Thread(target=self._watch, name="odkeras-supervisor", daemon=True)

    def __enter__(self) -> Supervisor:
        started = [child for child in self._children if child.spec.name not in self._hold]
        try:
            for child in started:
                child.start()
        except OSError as error:
            self.close()
            raise SetupError(f"cannot start the {child.spec.name} ({child.spec.command[0]}): {error}") from error
        except BaseException:
            self.close()
            raise
        for child in started:
            self._say(f"{child.spec.name}: process {child.pid}, output in {child.spec.log_path}")
        self._monitor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def pids(self) -> dict[str, int | None]:
        """Process ids by name; None for a child that is not running now."""
        return {child.spec.name: child.pid for child in self._children}

    def running(self, name: str) -> bool:
        """Whether the child's process is running now (it may still be starting up)."""
        return self.pids()[name] is not None

    def alive(self) -> bool:
        """Whether no child has failed. A child that waits for its restart counts as alive."""
        return self.failure() is None

    def failure(self) -> OdkerasError | None:
        """Why a child has failed (the first in the order of `specs`): one sentence, then the last lines of its log.

        None if no child has failed, or if it runs again.
        """
        return next((child.failure for child in self._children if child.failure is not None), None)

    def failed(self) -> str:
        """The name of the child that `failure` is about; "" if there is none."""
        return next((child.spec.name for child in self._children if child.failure is not None), "")

    def restart(self, name: str) -> None:
        """End a child with SIGTERM and start it again, without counting that as a crash; one that has failed is tried
        again. Returns at once. Without such a child, nothing happens."""
        for child in self._children:
            if child.spec.name == name:
                child.wants_restart = True

    def close(self) -> None:
        """Send SIGTERM to all children, wait up to `stop_timeout_s` seconds, then send SIGKILL. Idempotent."""
        self._stopping.set()
        try:
            if self._monitor.is_alive():
                self._monitor.join()
            for child in self._children:
                child.terminate()
            deadline = time.monotonic() + self._stop_timeout_s
            for child in self._children:
                child.wait(max(0.0, deadline - time.monotonic()))
        finally:
            for child in self._children:
                child.kill()

    def _watch(self) -> None:
        while not self._stopping.wait(_POLL_S):
            for child in self._children:
                child.check(time.monotonic())


class _Child:
    """One child process and its crashes. Not thread-safe: used by the monitor thread, and after its end by `close`."""

    def __init__(self, spec: ChildSpec, policy: RestartPolicy, warn: Say) -> None:
        self.spec = spec
        self.failure: OdkerasError | None = None
        self.wants_restart = False
        self._policy = policy
        self._warn = warn
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._start_again_at: float | None = None
        self._is_ending = False
        self._crashes = 0
        self._heartbeat: HeartbeatPipe | None = None
        self._hung = ""
        self._rotated_at = -_ROTATE_EVERY_S

    @property
    def pid(self) -> int | None:
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    def start(self) -> None:
        self._start_again_at = None
        self._started_at = time.monotonic()
        self.spec.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.spec.log_path.open("ab") as log:
            log.write(f"\n--- {time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(self.spec.command)}\n".encode())
            log.flush()
            env, pass_fds = {**os.environ, **self.spec.env}, self.spec.pass_fds
            if self.spec.sends_heartbeats:
                self._heartbeat = HeartbeatPipe()
                env, pass_fds = {**env, **self._heartbeat.env}, (*pass_fds, self._heartbeat.writing)
            try:
                self._process = subprocess.Popen(
                    self.spec.command,
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=env,
                    pass_fds=pass_fds,
                    start_new_session=True,
                    bufsize=0,
                )
            except BaseException:
                self._forget()
                raise
            if self._heartbeat is not None:
                self._heartbeat.started()

    def check(self, now: float) -> None:
        """Poll the process: handle its exit, kill it if it hangs, or restart it when its delay is over."""
        if now - self._rotated_at >= _ROTATE_EVERY_S:
            self._rotated_at = now
            rotate_log(self.spec.log_path)
        self._kill_if_hung(now)
        if self.wants_restart:
            self._restart(now)
        elif self._start_again_at is not None and now >= self._start_again_at:
            try:
                self.start()
            except OSError as error:
                self._crashed(now, OdkerasError.exit_code, f"could not be started: {error}")
        elif self._process is not None and self._process.poll() is not None:
            status, hung = self._process.returncode, self._hung
            self._forget()
            self._crashed(now, status, hung or describe_status(status))
        elif self.failure is not None and self.pid and now - self._started_at >= self._policy.recovered_s:
            self.failure = None

    def _kill_if_hung(self, now: float) -> None:
        """SIGKILL, because a stopped process does not act on SIGTERM."""
        if self._heartbeat is None or self._process is None or self._hung:
            return
        silent_s, policy = self._heartbeat.silent_s(now), self._policy
        if silent_s >= (policy.silent_s if self._heartbeat.has_beaten else policy.start_s):
            self._hung = f"did not respond for {silent_s:.0f} s and was killed"
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _restart(self, now: float) -> None:
        """Ask the process to end, or start it if it has ended. Polled, because it may end by itself at any time."""
        if self._process is not None and self._process.poll() is None:
            if not self._is_ending:
                self._process.terminate()
            self._is_ending = True
            return
        self._forget()
        self.wants_restart = self._is_ending = False
        self.failure, self._crashes, self._start_again_at = None, 0, now

    def _crashed(self, now: float, status: int, what: str) -> None:
        self._crashes = 1 if now - self._started_at >= self._policy.healthy_s else self._crashes + 1
        delay_s = self._policy.delay_s(self._crashes, status)
        if delay_s is None:
            self._start_again_at = now + self._policy.rest_s
            self.failure = self._failure_of(status, what)
            return
        self._start_again_at = now + delay_s
        self._warn(f"{self.spec.name} {what}; restarting it in {delay_s:g} s (log: {self.spec.log_path})")

    def _failure_of(self, status: int, what: str) -> OdkerasError:
        kinds: dict[int, type[OdkerasError]] = {ConfigError.exit_code: ConfigError, SetupError.exit_code: SetupError}
        times = "" if self._crashes == 1 else f", {self._crashes} times in a row"
        tail = log_tail(self.spec.log_path)
        sentence = f"the {self.spec.name} {what}{times}{_reason_in(tail)}"
        return kinds.get(status, self.spec.error)(f"{sentence}\nthe end of {self.spec.log_path}:\n{tail}")

    def terminate(self) -> None:
        self._start_again_at = None
        if self._process is not None and self._process.poll() is None:
            with suppress(ProcessLookupError):
                self._process.terminate()

    def wait(self, timeout_s: float) -> None:
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout_s)

    def kill(self) -> None:
        """Kill the process and its process group, if it is still running. Idempotent."""
        if self._process is None:
            return
        if self._process.poll() is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._forget()

    def _forget(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None
        if self._heartbeat is not None:
            self._heartbeat.close()
        self._heartbeat, self._hung = None, ""


def describe_status(status: int) -> str:
    """An exit status in words: `ended with status 1`, `was killed by SIGKILL`."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"was killed by {name}"


def _reason_in(tail: str) -> str:
    """`: ` and the error in the last line of a log; "" if that line is not an error."""
    lines = tail.splitlines()
    match = _REASON.match(lines[-1].strip()) if lines else None
    if match is None:
        return ""
    reason = match[1]
    return f": {reason if len(reason) <= _MAX_REASON else reason[:_MAX_REASON] + '…'}"


def rotate_log(path: Path, max_bytes: int = MAX_LOG_BYTES) -> None:
    """Move the content of a log that has grown too large to `<name>.1`, in place of an earlier one.

    Copied and truncated, because the running child has the file open, for appending: it goes on at its new end. What
    it writes between the two is lost. On a full disk the log is left as it is.
    """
    with suppress(OSError):
        if path.stat().st_size > max_bytes:
            old, partial = path.with_name(f"{path.name}.1"), path.with_name(temporary_name())
            try:
                shutil.copyfile(path, partial)
                partial.replace(old)
            except OSError:
                partial.unlink(missing_ok=True)
                raise
            os.truncate(path, 0)


def log_tail(path: Path, lines: int = LOG_TAIL_LINES, *, most_bytes: int = _LOG_TAIL_BYTES) -> str:
    """The last lines of a log, read from its last `most_bytes` bytes; "" if there is no log."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - most_bytes))
            text = log.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.strip().splitlines()[-lines:])
