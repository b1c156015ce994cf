from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odkeras import inbox
from odkeras.errors import InboxError
from odkeras.inbox import list_batches, put_batch, read_batch

ROOT = Path(__file__).parents[2]


def answers_of(path: Path) -> list[dict]:
    pairs = list(read_batch(path))
    assert [error for _, error in pairs] == [None] * len(pairs)
    return [answer for answer, _ in pairs if answer is not None]


def test_a_batch_comes_out_as_it_went_in(tmp_path: Path) -> None:
    answers = [{"answer": "accept", "text": "é\u2028\n"}, {"spans": [{"x": 1.5}], "none": None}]
    path = put_batch(tmp_path / "new/inbox", answers)
    assert answers_of(path) == answers
    assert re.fullmatch(rf"\d{{20}}-{os.getpid()}-[0-9a-f]{{8}}\.jsonl", path.name)
    assert {each.name for each in path.parent.iterdir()} == {path.name, ".last-stamp"}


@given(
    st.lists(
        st.dictionaries(st.text(max_size=5), st.none() | st.booleans() | st.integers() | st.text(max_size=9)),
        min_size=1,
    )
)
def test_any_answers_survive(tmp_path_factory: pytest.TempPathFactory, answers: list[dict]) -> None:
    assert answers_of(put_batch(tmp_path_factory.mktemp("inbox"), answers)) == answers


def test_a_clock_that_was_set_back_does_not_make_answers_older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a restart with an empty inbox a later answer about the same image used to lose."""
    first = put_batch(tmp_path, [{"number": 1}])
    first.unlink()  # taken
    monkeypatch.setattr(inbox, "_last_stamp_ns", 0)  # another process
    monkeypatch.setattr(inbox.time, "time_ns", lambda: 1_000)
    assert put_batch(tmp_path, [{"number": 2}]).name > first.name


def test_batches_are_listed_in_the_order_they_came(tmp_path: Path) -> None:
    paths = [put_batch(tmp_path, [{"number": number}]) for number in range(20)]
    assert list_batches(tmp_path) == paths


def test_the_order_holds_when_the_clock_is_set_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = put_batch(tmp_path, [{"number": 1}])
    monkeypatch.setattr(time, "time_ns", lambda: 1_000)
    second = put_batch(tmp_path, [{"number": 2}])
    monkeypatch.setattr(inbox, "_last_stamp_ns", 0)  # as in another process
    third = put_batch(tmp_path, [{"number": 3}])
    assert list_batches(tmp_path) == [first, second, third]


def test_threads_do_not_share_a_name(tmp_path: Path) -> None:
    threads = [threading.Thread(target=put_batch, args=(tmp_path, [{"n": n}])) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers_of(path)[0]["n"] for path in list_batches(tmp_path)) == [*range(8)]


def test_only_whole_batches_are_listed(tmp_path: Path) -> None:
    for name in [".tmp-1-2-x.jsonl", "notes.txt", ".hidden.jsonl", "dropped-by-hand.jsonl"]:
        (tmp_path / name).touch()
    assert [path.name for path in list_batches(tmp_path)] == ["dropped-by-hand.jsonl"]
    assert list_batches(tmp_path / "missing") == []


def test_a_line_that_is_no_answer_is_reported_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "batch.jsonl"
    path.write_bytes(b'{"a": 1}\n\nnot json\n[1]\n{"bad": "\xff"}\n' + b"[" * 200_000 + b'\n{"b": 2}')
    pairs = list(read_batch(path))
    assert [answer for answer, _ in pairs] == [{"a": 1}, None, None, None, None, {"b": 2}]
    errors = [error or "" for _, error in pairs]
    assert errors[1].startswith("batch.jsonl:3: not JSON")
    assert errors[2] == "batch.jsonl:4: an answer must be a JSON object; got list"
    assert errors[3].startswith("batch.jsonl:5: not JSON")
    assert errors[4].startswith("batch.jsonl:6: not JSON")


def test_a_missing_batch_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InboxError, match=r"cannot read the batch .*gone\.jsonl: No such file"):
        list(read_batch(tmp_path / "gone.jsonl"))


def test_an_answer_that_is_not_json(tmp_path: Path) -> None:
    with pytest.raises(InboxError, match=r"answer 2 of the batch cannot be written as JSON: .*bytes"):
        put_batch(tmp_path, [{}, {"image": b"raw"}])
    assert list_batches(tmp_path) == []


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        with pytest.raises(InboxError, match=r"cannot store 1 answers in .*: No space left on device"):
            put_batch(tmp_path, [{"a": 1}])
    assert [path.name for path in tmp_path.iterdir()] == [".last-stamp"]
    assert answers_of(put_batch(tmp_path, [{"a": 1}])) == [{"a": 1}]


WRITER = """
import sys
from odkeras.inbox import put_batch
number = 0
while True:
    put_batch(sys.argv[1], [{"batch": number, "answer": answer, "image": "x" * 100_000} for answer in range(5)])
    print(number, flush=True)
    number += 1
"""


@pytest.mark.parametrize("reported", [1, 4])
def test_a_killed_writer_leaves_whole_batches_only(tmp_path: Path, reported: int) -> None:
    """Each batch that put_batch returned for is there, and what was being written is not, whenever SIGKILL comes."""
    writer = subprocess.Popen([sys.executable, "-c", WRITER, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    try:
        for _ in range(reported):
            last = int(writer.stdout.readline())
        time.sleep(0.0007 * reported)  # somewhere in the middle of the next one
    finally:
        writer.send_signal(signal.SIGKILL)
        rest = writer.communicate(timeout=10)[0].split()
    last = int(rest[-1]) if rest else last
    batches = [answers_of(path) for path in list_batches(tmp_path)]
    assert [len(batch) for batch in batches] == [5] * len(batches)
    assert [batch[0]["batch"] for batch in batches] == [*range(len(batches))]
    assert len(batches) in (last + 1, last + 2)  # the last one may be stored, but not reported yet


def test_a_write_costs_the_same_however_many_batches_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each write listed all batches for its timestamp."""
    listed: list[Path] = []

    def counted(directory: Path) -> list[Path]:
        listed.append(directory)
        return list_batches(directory)

    monkeypatch.setattr(inbox, "list_batches", counted)
    names = [put_batch(tmp_path, [{"a": number}]).name for number in range(30)]
    assert names == sorted(names) == [path.name for path in list_batches(tmp_path)]
    assert len(listed) == 1  # the first write of the process
    (tmp_path / ".last-stamp").unlink()
    assert put_batch(tmp_path, [{}]).name > names[-1]
    assert len(listed) == 2


def test_whether_a_batch_waits(tmp_path: Path) -> None:
    assert not inbox.has_batches(tmp_path / "missing")
    (tmp_path / "images").mkdir()
    (tmp_path / "directory.jsonl").mkdir()
    (tmp_path / ".last-stamp").touch()
    (tmp_path / ".tmp-1.jsonl").touch()
    assert not inbox.has_batches(tmp_path)
    put_batch(tmp_path, [{}])
    assert inbox.has_batches(tmp_path)
