"""scripts/benchmark.py with benchmarks that take no time."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


def import_script(name: str) -> ModuleType:
    sys.path.insert(0, str(SCRIPTS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(SCRIPTS))


benchmark = import_script("benchmark")

MACHINE = {"cpus": 2, "cpu": "ACME 9", "memory_gb": 15.6}
VERSIONS = {"python": "3.11.7", "tensorflow": "2.21.0", "tf-keras": None}
PAGE = f"# Title\n\n{benchmark.START}\nold\n{benchmark.END}\n\nThe end.\n"
ABOUT = "Measured on 2 cores of ACME 9, 16 GB of memory, Python 3.11.7, TensorFlow 2.21.0; commit `abc`."


def row(text: str, value: float, **more: Any) -> dict[str, Any]:
    return {"text": text, "key": text.strip(), "unit": "s", "value": value, "shown": True, **more}


def entry(*rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"benchmark": "b", "commit": "abc", "machine": MACHINE, "versions": VERSIONS, "rows": list(rows), **more}


def put_script(root: Path, name: str, code: str) -> None:
    (root / "scripts").mkdir(exist_ok=True)
    (root / "scripts" / f"bench_{name}.py").write_text(code, encoding="utf-8")


def put_benchmark(root: Path, name: str, found: dict[str, Any]) -> None:
    put_script(root, name, f"print('a table')\nprint({json.dumps(found)!r})\n")


def results(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / "benchmarks.json").read_text(encoding="utf-8"))
    return found


def put_results(root: Path, entries: dict[str, Any]) -> str:
    text = json.dumps(entries)
    (root / "benchmarks.json").write_text(text, encoding="utf-8")
    return text


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "benchmarks.md").write_text(PAGE, encoding="utf-8")
    return tmp_path


def test_a_run_is_kept_and_shown(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    put_benchmark(root, "start", entry(row("command to page", 1.234, goal="≤ 2", met=True)))
    assert benchmark.main(["--only", "start"], root) == 0
    found = results(root)["start"]
    assert found["rows"][0]["value"] == 1.234
    assert found["date"].endswith(" UTC") and found["seconds"] >= 0
    page = (root / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert page == (
        f"# Title\n\n{benchmark.START}\n\n{ABOUT}\n\n"
        "| what | measured | goal |\n| --- | ---: | --- |\n"
        "| **start** (`scripts/bench_start.py`) | | |\n"
        "| command to page | 1.23 s | ≤ 2 |\n\n"
        f"{benchmark.END}\n\nThe end.\n"
    )
    assert "a table" in capfd.readouterr().out


def test_earlier_entries_are_kept_and_stand_in_the_usual_order(root: Path) -> None:
    earlier = {"quality": entry(row("mAP", 0.8)), "start": entry(row("old", 9.0)), "other": entry(row("x", 1.0))}
    put_results(root, earlier)
    put_benchmark(root, "round", entry(row("round", 3.0)))
    put_benchmark(root, "start", entry(row("new", 1.0)))
    assert benchmark.main(["--only", "round", "start"], root) == 0
    found = results(root)
    assert list(found) == ["start", "round", "quality", "other"]
    assert found["quality"] == earlier["quality"]
    assert found["start"]["rows"][0]["text"] == "new"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise SystemExit(3)", "web: it ended with status 3"),
        ("print('done')", "web: its last line is not JSON: 'done'"),
        ("print('[1]')", "web: the JSON in its last line has no rows"),
        ("", "web: its last line is not JSON: ''"),
        (None, "web: there is no"),
    ],
)
def test_one_that_fails_keeps_its_entry_and_the_others_run(
    root: Path, capfd: pytest.CaptureFixture[str], code: str | None, reason: str
) -> None:
    put_results(root, {"web": entry(row("page", 1.0))})
    if code is not None:
        put_script(root, "web", code)
    put_benchmark(root, "recipe", entry(row("update", 2.0)))
    put_benchmark(root, "quality", entry(row("mAP", 3.0)))
    assert benchmark.main(["--only", "recipe", "web", "quality"], root) == 1
    error = capfd.readouterr().err
    assert reason in error
    assert "1 of 3 failed: web" in error
    found = results(root)
    assert found["web"] == entry(row("page", 1.0))
    assert set(found) == {"recipe", "web", "quality"}
    assert "| page | 1.00 s |" in (root / "docs" / "benchmarks.md").read_text(encoding="utf-8")


def test_all_but_the_skipped_ones_run(root: Path) -> None:
    for name in benchmark.ALL:
        put_benchmark(root, name, entry(row(name, 1.0)))
    assert benchmark.main(["--skip", "web", "round"], root) == 0
    assert list(results(root)) == ["start", "throughput", "inputs", "predict", "swap", "recipe"]
    assert benchmark.main(["--all", "--skip", "web"], root) == 0
    quick = ["start", "round", "throughput", "inputs", "predict", "swap", "recipe"]
    assert list(results(root)) == [
        *quick,
        "quality",
        "work",
        "labels",
        "added_class",
        "scale",
        "two_stage",
        "crowd",
        "bulk",
    ]


def test_arguments_are_passed_on_to_one(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    put_script(root, "quality", f"import sys\nprint(sys.argv[1:])\nprint({json.dumps(entry(row('mAP', 0.5)))!r})\n")
    assert benchmark.main(["--only", "quality", "--", "--seeds", "1"], root) == 0
    assert "['--seeds', '1']" in capfd.readouterr().out
    with pytest.raises(SystemExit):
        benchmark.main(["--", "--seeds", "1"], root)
    assert "choose it with --only" in capfd.readouterr().err


def test_check_changes_nothing(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = put_results(root, {"web": entry(row("page", 1.0))})
    assert benchmark.main(["--check"], root) == 1
    assert "is out of date: run python scripts/benchmark.py --write" in capfd.readouterr().err
    assert (root / "docs" / "benchmarks.md").read_text(encoding="utf-8") == PAGE
    assert benchmark.main(["--write"], root) == 0
    assert benchmark.main(["--check"], root) == 0
    assert (root / "benchmarks.json").read_text(encoding="utf-8") == before


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"value": 2.004, "goal": "≤ 2", "met": False}, "| w | 2.00 s | ≤ 2 (missed) |"),
        ({"value": 12.345}, "| w | 12.3 s |  |"),
        ({"value": 1234.5, "unit": "MB"}, "| w | 1,234 MB |  |"),
        ({"value": 0.8333, "unit": "", "goal": "≥ 0.65", "met": True}, "| w | 0.83 | ≥ 0.65 |"),
        ({"value": 1, "text": "a|b"}, "| a\\|b | 1.00 s |  |"),
    ],
)
def test_a_row_in_the_table(values: dict[str, Any], line: str) -> None:
    assert list(benchmark.shown_rows(entry({**row("w", 0), **values}))) == [line]


def test_every_benchmark_is_known() -> None:
    assert {path.stem.removeprefix("bench_") for path in SCRIPTS.glob("bench_*.py")} <= set(benchmark.ALL)
