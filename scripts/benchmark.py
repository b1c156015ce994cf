"""Run the benchmarks, keep the results in benchmarks.json, and write the table of docs/benchmarks.md from it.

    python scripts/benchmark.py                      # the quick ones, one after the other
    python scripts/benchmark.py --only round web     # just these
    python scripts/benchmark.py --all                # quality and work, too, which take hours
    python scripts/benchmark.py --only quality -- --raccoon raccoon/ --backbone mobilenet_v2/ckpt-1
    python scripts/benchmark.py --write              # the table from benchmarks.json, nothing is run
    python scripts/benchmark.py --check              # exit status 1 if the table is out of date

Each is scripts/bench_NAME.py in a process of its own, whose last line is JSON. A benchmark that was not run, was
interrupted or failed keeps what benchmarks.json had of it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from odkeras.project import write_atomically

ROOT = Path(__file__).parents[1]
QUICK = ("start", "round", "throughput", "inputs", "predict", "swap", "recipe", "web")
ALL = (*QUICK, "quality", "work", "labels", "added_class", "scale", "two_stage", "crowd", "bulk")
START = "<!-- benchmarks: made by scripts/benchmark.py -->"
END = "<!-- end of benchmarks -->"
STOP_TIMEOUT_S = 15
_NAMES = {"python": "Python", "tensorflow": "TensorFlow", "numpy": "NumPy"}

Entry = dict[str, Any]
Entries = dict[str, Entry]


class BenchmarkError(Exception):
    """An error that the user can fix; the message is one line."""


@dataclass(frozen=True)
class Files:
    """Paths below the repository's root."""

    root: Path

    @property
    def results(self) -> Path:
        return self.root / "benchmarks.json"

    @property
    def page(self) -> Path:
        return self.root / "docs" / "benchmarks.md"

    def script(self, name: str) -> Path:
        return self.root / "scripts" / f"bench_{name}.py"


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Run the command; returns the exit status."""
    args, names, more = parse_arguments(sys.argv[1:] if arguments is None else arguments)
    files = Files(root)
    try:
        if args.check:
            check_page(files)
            return 0
        with_tables(read_page(files), load(files))  # fail before measuring if the page cannot be written
        status = 0 if args.write else run_all(names, more, files)
        write_page(files)
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return status


def parse_arguments(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str], list[str]]:
    """The options, the benchmarks to run, and the arguments for the benchmark itself (after `--`)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--only", nargs="+", choices=ALL, metavar="NAME", help=f"of {', '.join(ALL)}")
    which.add_argument("--all", action="store_true", help="quality and work, too")
    which.add_argument("--write", action="store_true", help="run nothing")
    which.add_argument("--check", action="store_true", help="run nothing, change nothing")
    parser.add_argument("--skip", nargs="+", choices=ALL, metavar="NAME", default=[], help="all but these")
    own, more = split_at_dashes(arguments)
    args = parser.parse_args(own)
    chosen = args.only or (ALL if args.all else QUICK)
    names = [name for name in ALL if name in chosen and name not in args.skip]
    if not names:
        parser.error("nothing is left to run")
    if more and len(names) > 1:
        parser.error("arguments after -- are for one benchmark: choose it with --only NAME")
    return args, names, more


def split_at_dashes(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    given = list(arguments)
    if "--" not in given:
        return given, []
    place = given.index("--")
    return given[:place], given[place + 1 :]


def run_all(names: Sequence[str], more: Sequence[str], files: Files) -> int:
    """Run the benchmarks and save each result at once. Returns 1 if one failed, 130 after Ctrl-C."""
    failed: dict[str, str] = {}
    for name in names:
        print(f"== {name}", flush=True)
        try:
            entry = run(name, more, files)
        except BenchmarkError as error:
            failed[name] = str(error)
            print(f"error: {error}", file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            print("interrupted; what was finished is kept", file=sys.stderr)
            return 130
        else:
            save(name, entry, files)
    if failed:
        print(f"\n{len(failed)} of {len(names)} failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def run(name: str, more: Sequence[str], files: Files) -> Entry:
    """Run a benchmark; returns the JSON of its last line, with the date and the duration in seconds.

    Raises:
        BenchmarkError: the script failed, or its last line is not what `measuring.report` prints.
    """
    script = files.script(name)
    if not script.is_file():
        raise BenchmarkError(f"{name}: there is no {script}")
    started, date = time.monotonic(), datetime.now(timezone.utc)
    status, last = run_script(script, more)
    if status:
        raise BenchmarkError(f"{name}: it ended with status {status}; nothing of it is kept")
    found = {**read_last_line(name, last), "date": f"{date:%Y-%m-%d %H:%M} UTC"}
    return {**found, "seconds": round(time.monotonic() - started, 1)}


def run_script(script: Path, more: Sequence[str]) -> tuple[int, str]:
    """Run a script and echo its output; returns exit status and last line. Ctrl-C reaches the script too."""
    env = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, str(script), *more]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8", env=env)
    assert process.stdout is not None
    last = ""
    try:
        for line in process.stdout:
            print(line, end="", flush=True)
            last = line if line.strip() else last
        return process.wait(), last
    except BaseException:
        end(process)
        raise


def end(process: subprocess.Popen[str]) -> None:
    """Wait for an interrupted script, which has child processes to stop; if it does not end, send SIGINT, then kill."""
    try:
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT_S)
            return
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT_S)
    finally:
        process.kill()
        process.wait()


def read_last_line(name: str, line: str) -> Entry:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise BenchmarkError(f"{name}: its last line is not JSON: {line.strip()[:80]!r}") from error
    if not isinstance(found, dict) or not isinstance(found.get("rows"), list):
        raise BenchmarkError(f"{name}: the JSON in its last line has no rows")
    return found


def save(name: str, entry: Entry, files: Files) -> None:
    entries = {**load(files), name: entry}
    ordered = {each: entries[each] for each in sorted(entries, key=_place)}
    write_atomically(files.results, json.dumps(ordered, indent=1, ensure_ascii=False) + "\n")


def load(files: Files) -> Entries:
    """The content of benchmarks.json; empty if the file does not exist.

    Raises:
        BenchmarkError: the file does not contain benchmarks.
    """
    try:
        entries = json.loads(files.results.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise BenchmarkError(f"{files.results} is not JSON ({error}); mend it or move it away") from error
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise BenchmarkError(f"{files.results} does not hold benchmarks by name; mend it or move it away")
    return entries


def _place(name: str) -> tuple[int, str]:
    return (ALL.index(name) if name in ALL else len(ALL)), name


def check_page(files: Files) -> None:
    """Check that the page is up to date.

    Raises:
        BenchmarkError: the page differs from benchmarks.json.
    """
    before = read_page(files)
    if with_tables(before, load(files)) != before:
        raise BenchmarkError(f"{files.page} is out of date: run python scripts/benchmark.py --write")


def write_page(files: Files) -> None:
    write_atomically(files.page, with_tables(read_page(files), load(files)))


def read_page(files: Files) -> str:
    try:
        return files.page.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise BenchmarkError(f"there is no {files.page} to write the tables into") from error


def with_tables(text: str, entries: Entries) -> str:
    """The text with the part between the two markers regenerated.

    Raises:
        BenchmarkError: a marker is missing, duplicated or in the wrong place.
    """
    lines = text.split("\n")
    places = [[number for number, line in enumerate(lines) if line.strip() == marker] for marker in (START, END)]
    if [len(each) for each in places] != [1, 1] or places[0] > places[1]:
        raise BenchmarkError(f"the page must have these two lines, once each and in this order: {START} and {END}")
    first, last = places[0][0], places[1][0]
    return "\n".join([*lines[: first + 1], "", *tables_of(entries), "", *lines[last:]])


def tables_of(entries: Entries) -> list[str]:
    """Markdown lines: where the measurements were made, and a table of the rows to show."""
    shown = {name: rows for name in sorted(entries, key=_place) if (rows := list(shown_rows(entries[name])))}
    if not shown:
        return ["Nothing has been measured yet: `make bench` does."]
    about = list(about_of({name: entries[name] for name in shown}))
    table = ["| what | measured | goal |", "| --- | ---: | --- |"]
    for name, rows in shown.items():
        table += [f"| **{name}** (`scripts/bench_{name}.py`) | | |", *rows]
    return [*about, "", *table]


def about_of(entries: Entries) -> Iterator[str]:
    """One line for each combination of machine and package versions."""
    groups: dict[str, list[str]] = {}
    for name, entry in entries.items():
        groups.setdefault(_place_measured(entry), []).append(name)
    for number, (place, names) in enumerate(groups.items()):
        commits = dict.fromkeys(f"`{commit}`" for name in names for commit in commits_of(entries[name]))
        of_these = f" ({', '.join(names)})" if len(groups) > 1 else ""
        ending = "" if number == len(groups) - 1 else "  "
        at = "commits" if len(commits) > 1 else "commit"
        yield f"Measured{of_these} on {place}; {at} {', '.join(commits)}.{ending}"


def commits_of(entry: Entry) -> list[str]:
    """The commit of an entry; several if the benchmark was resumed from earlier runs."""
    return list((entry.get("about") or {}).get("commits") or [entry.get("commit") or "unknown"])


def _place_measured(entry: Entry) -> str:
    machine, versions = entry.get("machine") or {}, entry.get("versions") or {}
    where = f"{machine.get('cpus', '?')} cores of {machine.get('cpu') or 'an unknown processor'}"
    parts = [where, *_other_facts(machine)]
    parts += [f"{_NAMES.get(name, name)} {number}" for name, number in versions.items() if number]
    return ", ".join(parts)


def _other_facts(machine: Mapping[str, Any]) -> Iterator[str]:
    """The accelerator, if there is one, and the memory."""
    if machine.get("gpu"):
        yield str(machine["gpu"])
    if machine.get("memory_gb"):
        yield f"{machine['memory_gb']:.0f} GB of memory"


def shown_rows(entry: Entry) -> Iterator[str]:
    """The table's lines. An indented row gets the text of the row above it as a prefix."""
    above: list[tuple[int, str]] = []
    for row in entry["rows"]:
        text = str(row["text"])
        indent = len(text) - len(text.lstrip())
        above = [each for each in above if each[0] < indent]
        if row.get("shown") or row.get("goal"):
            heads = [_head(each) for _, each in above[-1:]]
            what = ": ".join([*heads, text.strip()]).replace("|", "\\|")
            yield f"| {what} | {measured(row)} | {goal(row)} |"
        above.append((indent, text.strip()))


def _head(text: str) -> str:
    """The subject of a row, without the name of the figure."""
    return text.rpartition(": ")[0] or text


def measured(row: Mapping[str, Any]) -> str:
    value = float(row["value"])
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:,.{digits}f} {row.get('unit') or ''}".strip()


def goal(row: Mapping[str, Any]) -> str:
    missed = " (missed)" if row.get("met") is False else ""
    return f"{row.get('goal') or ''}{missed}"


if __name__ == "__main__":
    sys.exit(main())
