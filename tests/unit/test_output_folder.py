"""A folder that is written completely or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from filelock import FileLock

from odkeras.errors import ConfigError, RecordError
from odkeras.output_folder import output_folder

MARKER = "export.json"


def write(out: Path, text: str = "new", *, overwrite: bool = False) -> None:
    with output_folder(out, MARKER, overwrite=overwrite) as folder:
        assert not (out / MARKER).is_file() or overwrite
        (folder / MARKER).write_text(text)


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_it_is_there_at_the_end(tmp_path: Path) -> None:
    write(tmp_path / "deep" / "out")
    assert entries(tmp_path / "deep") == ["out"]
    assert entries(tmp_path / "deep" / "out") == [MARKER]


def test_an_empty_folder_may_exist(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write(tmp_path / "out")
    assert entries(tmp_path) == ["out"]


@pytest.mark.parametrize(
    ("name", "content", "overwrite", "message"),
    [
        ("out", MARKER, False, "out has an export already; --overwrite replaces it"),
        ("out", "thesis.txt", False, "out has other files, and is left as it is"),
        ("out", "thesis.txt", True, "out has other files, and is left as it is"),
        ("out/thesis.txt", "thesis.txt", True, "thesis.txt is a file"),
        ("out/thesis.txt/deeper", "thesis.txt", False, "cannot write .*nothing was written"),
    ],
)
def test_what_is_there_is_not_lost(tmp_path: Path, name: str, content: str, overwrite: bool, message: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / content).write_text("old")
    with pytest.raises((ConfigError, RecordError), match=message):
        write(tmp_path / name, overwrite=overwrite)
    assert (tmp_path / "out" / content).read_text() == "old"
    assert entries(tmp_path) == ["out"]


def test_an_earlier_export_can_be_replaced(tmp_path: Path) -> None:
    write(tmp_path / "out", "old")
    (tmp_path / "out" / "more").mkdir()
    write(tmp_path / "out", overwrite=True)
    assert entries(tmp_path) == ["out"] and entries(tmp_path / "out") == [MARKER]
    assert (tmp_path / "out" / MARKER).read_text() == "new"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt),
        (OSError(28, "No space left on device"), RecordError),
        (ValueError("a bug"), ValueError),
    ],
)
def test_a_failure_leaves_what_was_there(tmp_path: Path, error: BaseException, expected: type[BaseException]) -> None:
    write(tmp_path / "out", "old")
    with pytest.raises(expected) as raised, output_folder(tmp_path / "out", MARKER, overwrite=True) as folder:
        (folder / MARKER).write_text("new")
        raise error
    assert expected is not RecordError or str(raised.value).endswith("No space left on device; nothing was written")
    assert entries(tmp_path) == ["out"] and (tmp_path / "out" / MARKER).read_text() == "old"


def test_what_a_killed_process_left_is_deleted_and_not_what_another_one_writes(tmp_path: Path) -> None:
    killed, running = (tmp_path / f".out.odkeras-{name}" for name in ("11111111", "22222222"))
    for folder in (killed, running):
        folder.mkdir()
        (folder / "data.yaml").touch()
    with FileLock(running / ".lock"):
        write(tmp_path / "out")
    assert entries(tmp_path) == [running.name, "out"]


def test_a_link_to_a_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    write(tmp_path / "out")
    assert (tmp_path / "disk" / MARKER).read_text() == "new"


def test_a_file_system_without_locks_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise NotImplementedError("FileSystem does not appear to support flock")

    (tmp_path / ".out.odkeras-11111111").mkdir()  # it may belong to a running process
    monkeypatch.setattr(FileLock, "acquire", refuse)
    write(tmp_path / "out")
    assert entries(tmp_path) == [".out.odkeras-11111111", "out"] and entries(tmp_path / "out") == [MARKER]
