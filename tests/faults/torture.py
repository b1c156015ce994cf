"""Runs every session with a fault at every n-th call, and checks what is left after a restart.

    make torture                                                     # every call, three seeds
    python -m tests.faults.torture --sessions page --every 20 --seeds 1 --modes kill full

Each run is a process of its own, forked from this one, so that a kill is a kill. Prints a table, and a last line of
JSON; exit status 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.layer import FOR_A_WHILE, Layer, exec_with_layer

ROOT = Path(__file__).parents[2]
NAMES = ("page", "ingest", "import", "export", "rollback", "backup", "prodigy", "simulate", "trainer")
FAULTS = ("kill", "torn", "error", "full", "readonly", "denied", "gone", "cut", "delay")
_CALLS = {"readonly": 60, "denied": 60, "gone": 60}
"""For how many calls these last. Most of those that are counted read, or are on sockets."""
_HANGS_S = 60.0
Say = Callable[[str], None]


@dataclass
class Outcome:
    """What a forked process did."""

    acknowledged: list[str] = field(default_factory=list)
    calls: int = 0
    what: str = ""
    problems: list[str] = field(default_factory=list)
    killed: bool = False


def fork(work: Callable[[Say], dict[str, Any]]) -> Outcome:
    """Run `work` in a child process. It may say something through a pipe, which survives its death, and returns values
    of `Outcome`."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reading)
        status = 1
        try:
            os.setsid()
            for descriptor in (1, 2):
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
            said = work(lambda text: _send(writing, {"acknowledged": text}))
            _send(writing, said)
            status = 0
        except BaseException:
            Layer().disarm()
            _send(writing, {"problems": [traceback.format_exc()]})
        os._exit(status)
    os.close(writing)
    return _read_outcome(process, reading)


def _send(descriptor: int, row: dict[str, Any]) -> None:
    os.write(descriptor, json.dumps(row).encode() + b"\n")


def _read_outcome(process: int, reading: int) -> Outcome:
    outcome = Outcome()
    with os.fdopen(reading, "rb") as pipe:
        watch = signal.signal(signal.SIGALRM, lambda *_: os.kill(process, signal.SIGKILL))
        signal.setitimer(signal.ITIMER_REAL, _HANGS_S)
        started = time.monotonic()
        rows = [json.loads(line) for line in pipe]
        _, status = os.waitpid(process, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, watch)
    outcome.acknowledged = [row["acknowledged"] for row in rows if "acknowledged" in row]
    for row in rows:
        outcome.problems += row.get("problems", [])
        outcome.calls, outcome.what = row.get("calls", outcome.calls), row.get("what", outcome.what)
    outcome.killed = os.WIFSIGNALED(status)
    if time.monotonic() - started >= _HANGS_S:
        outcome.problems.append(f"hung for {_HANGS_S:.0f} s")
    return outcome


class Bench:
    """The runs of one session with one seed.

    Args:
        name: a key of `sessions.SESSIONS`.
    """

    def __init__(self, name: str, seed: int, folder: Path) -> None:
        from tests.faults.front_ends import FRONT_ENDS
        from tests.faults.sessions import SESSIONS

        self._make = lambda: {**SESSIONS, **FRONT_ENDS}[name](seed)
        self._folder = folder
        self._template = folder / "template"
        self._template.mkdir(parents=True)
        prepared = fork(lambda say: self._make().prepare(self._template) or {})
        assert not prepared.problems, prepared.problems

    @contextmanager
    def _copy(self) -> Iterator[Path]:
        place = self._folder / "run"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self._template, place)
        yield place

    def run(self, mode: str, at: int) -> Outcome:
        """The session with a fault, then checks and a restart."""
        from odkeras.errors import OdkerasError

        def work(say: Say) -> dict[str, Any]:
            session, layer = self._make(), Layer()
            problems = []
            layer.arm(place, mode, at, _CALLS.get(mode, FOR_A_WHILE))
            try:
                session.work(place, say)
            except (OdkerasError, OSError):  # which the command line makes one line of
                pass
            except BaseException:
                layer.disarm()
                problems.append(f"raised: {traceback.format_exc()}")
            return {"calls": layer.disarm(), "what": layer.what, "problems": problems}

        with self._copy() as place:
            first = fork(work)
            acknowledged = first.acknowledged

            def look(say: Say) -> dict[str, Any]:
                session = self._make()
                return {"problems": session.check_at_once(place, acknowledged) + session.restart(place, acknowledged)}

            first.problems += fork(look).problems
        return first


def torture(name: str, modes: list[str], seeds: list[int], every: int, say: Say) -> Counter[str]:
    """Run one session with all faults; returns what happened how often, and says what was wrong."""
    row: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as temporary:
        for seed in seeds:
            bench = Bench(name, seed, Path(temporary) / str(seed))
            whole = bench.run("count", 0)
            row["calls"] = max(row["calls"], whole.calls)
            _report(row, whole, f"{name}, seed {seed}, no fault", say)
            for mode in modes:
                print(f"{name}, seed {seed}: {mode}, so far {dict(row)}", file=sys.stderr, flush=True)
                for at in range(1 + seed % every, whole.calls + 1, every):
                    outcome = bench.run(mode, at)
                    row[mode] += outcome.killed or bool(outcome.what)
                    _report(row, outcome, f"{name}, seed {seed}, {mode} at {at} of {whole.calls} ({outcome.what})", say)
    return row


def _report(row: Counter[str], outcome: Outcome, where: str, say: Say) -> None:
    row["acknowledged"] += len(outcome.acknowledged)
    row["problems"] += len(outcome.problems)
    for problem in outcome.problems:
        say(f"{where}: {problem}")


def torture_trainer(modes: list[str], seeds: list[int], every: int, say: Say) -> Counter[str]:
    """As `torture`, in a process of pytest, which has the models; see trainer_session.py."""
    chosen = ["dead" if mode == "kill" else mode for mode in modes if mode != "torn"]
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "result.json"
        options = {"seeds": seeds, "modes": chosen, "every": every, "out": str(out)}
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/faults/trainer_session.py"]
        env = {**os.environ, "ODKERAS_FAULTS": json.dumps(options)}
        done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            say(done.stdout)
            return Counter(problems=1)
        result = json.loads(out.read_text())
    for problem in result["problems"]:
        say(problem)
    row = Counter(result["row"])
    row["kill"] = row.pop("dead", 0)
    return row


def main() -> int:
    exec_with_layer("tests.faults.torture", sys.argv[1:])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sessions", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--modes", nargs="+", choices=FAULTS, default=list(FAULTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every N-th call")
    options = parser.parse_args()
    columns = ["calls", *options.modes, "acknowledged", "problems"]
    _say("| session | " + " | ".join(columns) + " |")
    _say("| --- |" + " ---: |" * len(columns))
    rows = {}
    for name in options.sessions:
        chosen = (options.modes, options.seeds, options.every, _say)
        row = rows[name] = torture_trainer(*chosen) if name == "trainer" else torture(name, *chosen)
        _say(f"| {name} | " + " | ".join(str(row[column]) for column in columns) + " |")
    total = {column: sum(row[column] for row in rows.values()) for column in columns[1:]}
    _say(json.dumps(total))
    return 1 if total["problems"] else 0


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
