from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odkeras import project
from odkeras.errors import ConfigError, SetupError
from odkeras.project import (
    JsonlTail,
    Project,
    append_jsonl,
    atomic_path,
    find_round,
    plan_retention,
    read_jsonl,
    read_status,
    remove_stale_temporaries,
    temporary_name,
    write_atomically,
)
from odkeras.version_dirs import list_versions, next_version, reveal_version, version_dir, version_dirs


@pytest.fixture
def directories(tmp_path: Path) -> Project:
    return Project(tmp_path / "a/data", tmp_path / "model", tmp_path / "export")


def test_create_makes_what_is_missing_and_may_be_called_again(directories: Project) -> None:
    directories.create()
    directories.create()
    assert directories.inbox_dir.is_dir()
    assert directories.model_dir.is_dir()
    assert directories.export_dir.is_dir()
    assert [*directories.data_dir.iterdir()] == [directories.inbox_dir]  # the probe is gone
    assert [*directories.export_dir.iterdir()] == []


@pytest.mark.parametrize("blocked", ["a", "a/data", "a/data/inbox", "model", "export"])
def test_a_file_in_place_of_a_directory_is_an_error(directories: Project, tmp_path: Path, blocked: str) -> None:
    (tmp_path / blocked).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / blocked).touch()
    with pytest.raises(ConfigError, match=f"must be a directory, but {tmp_path / blocked} is a file"):
        directories.create()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_directory_is_an_error(directories: Project) -> None:
    directories.create()
    directories.export_dir.chmod(0o500)
    with pytest.raises(SetupError, match=r"cannot write to the directory .*export: Permission denied"):
        directories.create()


def test_train_records_come_oldest_first_by_number(directories: Project) -> None:
    directories.create()
    names = ["9_train.record", "10_train.record", "1700000000_train.record"]
    others = [
        "replay.record",
        "x_train.record",
        ".tmp-1-11_train.record",
        "12_train.record.bak",
        "13_train.jsonl",
        "_train.record",
    ]
    for name in names + others:
        (directories.data_dir / name).touch()
    assert [path.name for path in directories.train_records()] == names


def test_versions_are_the_directories_named_by_a_whole_number(tmp_path: Path) -> None:
    too_large = str(2**63)
    for name in ["1700000000", "9", "10", ".tmp-11", "12.5", "-13", "014", "latest", "1e3", "٣", "0", "00", too_large]:
        (tmp_path / name).mkdir()
    (tmp_path / "99").touch()  # a file
    assert list_versions(tmp_path) == [9, 10, 14, 1700000000]


def test_leading_zeros_are_part_of_the_directory_s_name_alone(tmp_path: Path) -> None:
    """TensorFlow Serving's example models are in `00000123`, which was not seen at all."""
    for name in ["00000123", "0124", "00124", "000125", "125", "3"]:
        (tmp_path / name).mkdir()
    found = version_dirs(tmp_path)
    assert list(found) == list_versions(tmp_path) == [3, 123, 124, 125]
    assert [path.name for path in found.values()] == ["3", "00000123", "0124", "125"]
    assert [version_dir(tmp_path, version).name for version in found] == ["3", "00000123", "0124", "125"]
    assert version_dir(tmp_path, 7) == tmp_path / "7"
    assert next_version(found, 0.0) == 126


def test_a_number_that_was_taken_meanwhile_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number was chosen before the files were written: a rollback in the same second ended the round."""
    partial = tmp_path / ".tmp-1"
    partial.mkdir()
    (tmp_path / "1000").mkdir()
    (tmp_path / "1000" / "saved_model.pb").touch()
    listed = [[], [1000]]  # the rollback comes right after the versions were listed
    monkeypatch.setattr("odkeras.version_dirs.list_versions", lambda directory: listed.pop(0) if listed else [1000])
    assert reveal_version(partial, tmp_path, 1000.0) == 1001
    assert not partial.exists() and (tmp_path / "1001").is_dir()


@pytest.mark.parametrize(
    ("versions", "now_s", "expected"),
    [
        ([], 1700000000.9, 1700000000),
        ([5, 6], 1700000000.0, 1700000000),
        ([1700000000], 1700000000.5, 1700000001),  # twice within a second
        ([1800000000, 3], 1700000000.0, 1800000001),  # the clock went back
    ],
)
def test_the_next_version_is_larger_than_all(versions: list[int], now_s: float, expected: int) -> None:
    assert next_version(versions, now_s) == expected


@given(st.lists(st.integers(0, 50), unique=True), st.integers(-2, 20), st.sets(st.integers(0, 50)))
def test_retention_never_takes_the_newest_or_a_protected_one(items: list[int], keep: int, protected: set[int]) -> None:
    deleted = plan_retention(items, keep, protected)
    left = [item for item in items if item not in deleted]
    assert not protected & set(deleted)
    assert left[-keep:] == items[-keep:] if keep > 0 else left == items
    assert len(left) <= max(keep, 0) + len(protected) or keep <= 0


# --- whole files


@pytest.mark.parametrize(("data", "content"), [(b"\x00\xff", b"\x00\xff"), ("é", b"\xc3\xa9"), (b"", b"")])
def test_a_file_is_written_or_replaced(tmp_path: Path, data: bytes | str, content: bytes) -> None:
    path = tmp_path / "file"
    for _ in range(2):
        write_atomically(path, data)
        assert path.read_bytes() == content
    assert [*tmp_path.iterdir()] == [path]


def test_a_failure_leaves_the_old_content_and_no_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")

    def fsync(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [*tmp_path.iterdir()] == [path]


def test_atomic_path_renames_when_the_block_ends(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "file") as temporary:
        temporary.write_text("new")
        assert temporary.name.startswith(project.TEMPORARY_PREFIX)
        assert temporary.parent == tmp_path
        assert not (tmp_path / "file").exists()
    assert (tmp_path / "file").read_text() == "new"


def test_atomic_path_removes_the_file_of_a_failed_block(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "file") as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert [*tmp_path.iterdir()] == []


# --- lines


def test_a_torn_line_is_ignored_and_does_not_spoil_the_next(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append_jsonl(path, [{"row": 1}, {"row": 2}])
    path.write_bytes(path.read_bytes()[:-4])
    assert read_jsonl(path) == [{"row": 1}]
    append_jsonl(path, [{"row": 3}])
    assert read_jsonl(path) == [{"row": 1}, {"row": 3}]


class TestJsonlTail:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "rows.jsonl"

    def test_each_row_once(self, path: Path) -> None:
        tail = JsonlTail(path)
        assert tail.read() == []  # not there yet
        append_jsonl(path, [{"row": 1}, {"text": "line\nbreak, é, \u2028"}])
        assert tail.read() == [{"row": 1}, {"text": "line\nbreak, é, \u2028"}]
        assert tail.read() == []
        append_jsonl(path, [{"row": 3}])
        assert tail.read() == [{"row": 3}]

    @pytest.mark.parametrize("cut", [0, 1, 5, -2, -1])
    def test_a_line_that_is_still_being_written_comes_next_time(self, path: Path, cut: int) -> None:
        line = b'{"row": 2}\n'
        tail = JsonlTail(path)
        path.write_bytes(b'{"row": 1}\n' + line[:cut])
        assert tail.read() == [{"row": 1}]
        assert tail.read() == []
        path.write_bytes(b'{"row": 1}\n' + line)
        assert tail.read() == [{"row": 2}]
        assert tail.read() == []

    def test_a_torn_line_is_skipped(self, path: Path) -> None:
        tail = JsonlTail(path)
        append_jsonl(path, [{"row": 1}, {"row": 2}])
        path.write_bytes(path.read_bytes()[:-4])
        assert tail.read() == [{"row": 1}]
        append_jsonl(path, [{"row": 3}])
        assert tail.read() == [{"row": 3}]

    def test_empty_and_strange_lines_are_left_out(self, path: Path) -> None:
        tail = JsonlTail(path)
        path.write_bytes(b'\n\n[1]\n\xff\nnonsense\n{"row": 1}\n\n')
        assert tail.read() == [{"row": 1}]
        path.write_bytes(path.read_bytes() + b"\n\n")
        assert tail.read() == []
        append_jsonl(path, [{"row": 2}])
        assert tail.read() == [{"row": 2}]

    def test_what_was_there_is_left_out_after_skip(self, path: Path) -> None:
        append_jsonl(path, [{"row": 1}, {"row": 2}])
        tail = JsonlTail(path)
        tail.skip()
        assert tail.read() == []
        append_jsonl(path, [{"row": 3}])
        assert tail.read() == [{"row": 3}]

    @pytest.mark.parametrize("rows", [1, 2, 5])
    def test_another_file_is_read_from_its_start(self, path: Path, rows: int) -> None:
        tail = JsonlTail(path)
        append_jsonl(path, [{"row": "a"}, {"row": "b"}])
        tail.read()
        write_atomically(path, '{"row": "c"}\n' * rows)
        assert tail.read() == [{"row": "c"}] * rows


def test_the_first_round_that_trained_on_a_batch() -> None:
    rows: list[dict[str, Any]] = [
        {"kind": "round", "round": 1, "batches": ["a", "b"]},
        {"kind": "evaluation", "round": 1, "batches": ["c"]},
        {"kind": "round", "round": 2, "batches": None},
        {"kind": "round", "round": 3},
        {"batches": ["c"]},
        {"kind": "round", "round": 4, "batches": ["b", "c"]},
    ]
    assert find_round(rows, "a") == find_round(rows, "b") == rows[0]
    assert find_round(rows, "c") == rows[5]
    assert find_round(rows, "d") is None
    assert find_round([], "a") is None


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b'{"state": "training"}', {"state": "training"}),
        (b"", None),
        (b'{"state"', None),
        (b"[1]", None),
        (b"\xff", None),
    ],
)
def test_the_status_or_none(tmp_path: Path, content: bytes, status: dict[str, str] | None) -> None:
    (tmp_path / "status.json").write_bytes(content)
    assert read_status(tmp_path / "status.json") == status


# --- what a killed process left


def test_only_old_temporaries_are_removed(tmp_path: Path) -> None:
    old_s = time.time() - 3600
    for name in [".tmp-old", ".tmp-new", "12", ".hidden"]:
        (tmp_path / name).write_text(name)
        os.utime(tmp_path / name, (old_s, old_s))
    os.utime(tmp_path / ".tmp-new")
    (tmp_path / ".tmp-old-dir").mkdir()
    (tmp_path / ".tmp-old-dir/file").touch()
    os.utime(tmp_path / ".tmp-old-dir", (old_s, old_s))
    removed = remove_stale_temporaries(tmp_path)
    assert sorted(path.name for path in removed) == [".tmp-old", ".tmp-old-dir"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", ".tmp-new", "12"]


def test_temporaries_of_this_machine_live_as_long_as_their_writer(tmp_path: Path) -> None:
    """A trainer that started during `odkeras rollback` deleted the copy that was being made, whatever its age."""
    script = "from odkeras.project import temporary_name; print(temporary_name())"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    running = temporary_name()
    elsewhere = running.replace(running[len(".tmp-") :][:8], "00000000")
    for name in (ended, running, elsewhere):
        (tmp_path / name).mkdir()
    os.utime(tmp_path / running, (0, 0))
    assert [path.name for path in remove_stale_temporaries(tmp_path)] == [ended]
