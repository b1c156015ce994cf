"""Shared by the benchmarks (`bench_*.py`): timing, percentiles, machine facts, a table with goals, JSON output."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from odkeras.export.info import read_export_info, write_export_info
from odkeras.version_dirs import list_versions, version_dir

ROOT = Path(__file__).parents[1]
WIDTH, HEIGHT = 1152, 896  # 1.03 megapixels
DEFAULT_TEMPLATE = "ssd_mobilenet_v2_fpnlite_320"
_WRITTEN_HERE = ("benchmarks.json", "docs")
_PACKAGES = ("tensorflow", "tf-keras", "numpy")


@dataclass(frozen=True)
class Row:
    """One line of a benchmark's table.

    Args:
        text: what was measured; indented by two spaces if it is a part of the line above.
        key: name of the result.
        unit: for example "ms"; "x" for a ratio.
        at_most: the goal, if lower is better.
        at_least: the goal, if higher is better.
        shown: whether the table in docs/benchmarks.md includes the row.
    """

    text: str
    key: str
    unit: str
    at_most: float | None = None
    at_least: float | None = None
    shown: bool = False

    @property
    def goal(self) -> str:
        """The goal as text; "" without one."""
        if self.at_most is not None:
            return f"≤ {self.at_most:g}"
        return f"≥ {self.at_least:g}" if self.at_least is not None else ""

    def is_met(self, value: float) -> bool | None:
        """Whether `value` reaches the goal; None without a goal."""
        if self.at_most is not None:
            return value <= self.at_most
        return value >= self.at_least if self.at_least is not None else None


def report(benchmark: str, rows: Sequence[Row], found: Mapping[str, Any], **about: Any) -> None:
    """Print a table of `rows` and, as the last line, everything as JSON.

    Args:
        benchmark: name of the benchmark, as in `bench_NAME.py`.
        rows: lines of the table; rows whose key was not measured are left out.
        found: results by key; may contain more than the table shows.
        about: settings that are needed to repeat the measurement, such as the configuration.
    """
    measured = [row for row in rows if row.key in found]
    width = max(len(row.text) for row in measured)
    for row in measured:
        value = found[row.key]
        missed = "   MISSED" if row.is_met(value) is False else ""
        goal = f"goal {row.goal}" if row.goal else ""
        print(f"{row.text:{width}} {value:10.2f} {row.unit:8} {goal}{missed}".rstrip())
    lines = [
        {"text": row.text, "key": row.key, "unit": row.unit, "value": rounded(found[row.key])}
        | ({"goal": row.goal, "met": row.is_met(found[row.key])} if row.goal else {})
        | ({"shown": True} if row.shown else {})
        for row in measured
    ]
    print(
        json.dumps(
            {"benchmark": benchmark, **environment(), "about": about, "results": rounded(dict(found)), "rows": lines},
            ensure_ascii=False,
        )
    )


def environment() -> dict[str, Any]:
    """The commit, the machine and the package versions."""
    versions = {"python": platform.python_version(), **{name: _suggested_version(name) for name in _PACKAGES}}
    return {"commit": _commit(), "machine": _machine(), "versions": versions}


def rounded(value: Any, digits: int = 4) -> Any:
    """Round all floats in `value`, including nested ones."""
    if isinstance(value, dict):
        return {name: rounded(item, digits) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item, digits) for item in value]
    return round(float(value), digits) if isinstance(value, float | np.floating) else value


def say(part: str) -> None:
    """Report on stderr what is being measured; stdout is for the table."""
    print(f"measuring: {part}", file=sys.stderr, flush=True)


def milliseconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - started)


def percentile(values: Sequence[float], percent: float) -> float:
    return float(np.percentile(values, percent, method="higher"))


def summary_of(values: Sequence[float], name: str, unit: str = "ms") -> dict[str, float]:
    """Median, 95th and 99th percentile as `NAME_p50_UNIT` and so on."""
    return {
        f"{name}_p50_{unit}": statistics.median(values),
        f"{name}_p95_{unit}": percentile(values, 95),
        f"{name}_p99_{unit}": percentile(values, 99),
    }


def wait_until(condition: Callable[[], Any], timeout_s: float = 180, poll_s: float = 0.05) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("waited in vain")
        time.sleep(poll_s)


def mark_as_learned(export_dir: Path) -> None:
    """Mark the newest version as learned, because versions without training are not asked for suggestions."""
    directory = version_dir(export_dir, list_versions(export_dir)[-1])
    info = read_export_info(directory)
    assert info is not None
    write_export_info(directory, replace(info, learned=True))


def memory_mb(pid: int | str = "self") -> float:
    """Resident memory of a process in MB (Linux only)."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(text.split("VmRSS:")[1].split()[0]) / 1024


def quiet_environment() -> dict[str, str]:
    """Environment for a process that uses TensorFlow, without its log messages."""
    return {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "TF_USE_LEGACY_KERAS": "1", "PYTHONWARNINGS": "ignore"}


def draw_photograph(generator: np.random.Generator) -> Image.Image:
    """Draw soft shapes with grain, `WIDTH` x `HEIGHT`, whose JPEG is about as large as that of a real photograph."""
    coarse = generator.integers(0, 255, (14, 18, 3), np.uint8)
    image = Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    grain = generator.normal(0, 6, (HEIGHT, WIDTH, 3))
    noisy = np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8)
    return Image.fromarray(noisy).filter(ImageFilter.GaussianBlur(0.6))


def write_photographs(folder: Path, number: int) -> list[Path]:
    """Write `number` photographs as JPEG files. They are the same in every run."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    paths = [folder / f"{index:03}.jpg" for index in range(number)]
    for path in paths:
        draw_photograph(generator).save(path, quality=90)
    return paths


def _suggested_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The current commit, with "-dirty" if there are changes other than to the benchmarks' own output."""
    changes = ["status", "--porcelain", "--untracked-files=no", "--", ".", *(f":!{name}" for name in _WRITTEN_HERE)]
    try:
        commit, changed = (
            subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
            for command in (["rev-parse", "--short", "HEAD"], changes)
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit}-dirty" if changed else commit


def _machine() -> dict[str, Any]:
    facts: dict[str, Any] = {"cpus": os.cpu_count(), "cpu": platform.processor() or platform.machine()}
    cpuinfo, meminfo = Path("/proc/cpuinfo"), Path("/proc/meminfo")
    if cpuinfo.exists():
        text = cpuinfo.read_text(encoding="utf-8")
        facts["cpu"] = next((line.split(":", 1)[1].strip() for line in text.splitlines() if "model name" in line), "")
    if meminfo.exists():
        facts["memory_gb"] = round(int(meminfo.read_text(encoding="ascii").split()[1]) / 2**20, 1)
    return facts
