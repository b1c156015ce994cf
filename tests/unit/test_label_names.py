from __future__ import annotations

from pathlib import Path

import pytest

from odkeras.errors import ConfigError
from odkeras.label_names import collect_label_names


@pytest.mark.parametrize(
    "data",
    [
        b"car\nred fox\nbus\n",
        b"car\nred fox\nbus",  # the last line without its end
        b"\xef\xbb\xbfcar\nred fox\nbus\n",  # a byte order mark, as Windows' Notepad writes it
        b"car\r\nred fox\r\nbus\r\n",
        b"\n  car\t\n\n   \nred fox  \r\n\nbus\n\n",
    ],
)
def test_a_name_on_each_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "names.txt").write_bytes(data)
    assert collect_label_names([], tmp_path / "names.txt") == ["car", "red fox", "bus"]


def test_names_in_other_scripts(tmp_path: Path) -> None:
    names = ["Löwe", "猫", "собака", "o'clock"]
    (tmp_path / "names.txt").write_text("\n".join(names), encoding="utf-8")
    assert collect_label_names([], tmp_path / "names.txt") == names


def test_names_of_the_file_come_after_those_of_the_command(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("bus\n")
    assert collect_label_names(["car"], tmp_path / "names.txt") == ["car", "bus"]


@pytest.mark.parametrize(
    ("given", "data", "message"),
    [
        ([], b"car\nbus\n\ncar\n", r"names\.txt:4: duplicate label 'car' \(first at .*names\.txt:1\)"),
        (["car"], b"bus\ncar\n", r"names\.txt:2: duplicate label 'car'; each label"),
        ([], b"car\nbus,truck\n", r"names\.txt:2: label 'bus,truck' has a comma; write one name on each line"),
        ([], b"car\nb\tus\n", r"names\.txt:2: label 'b\\tus' has .* unprintable characters; write 'b us'"),
        ([], b"a,b\nc,d\n", r"names\.txt:1: .*names\.txt:2: "),  # all of them at once
        ([], "\n".join(f"{n},{n}" for n in range(8)).encode(), r"names\.txt:5: .*; and 3 more$"),
        ([], b"", "names.txt has no names; write one on each line"),
        ([], b"\xef\xbb\xbf\r\n \r\n", "names.txt has no names"),
        ([], b"car\nl\xf6we\n", r"names\.txt:2: not text in UTF-8"),
        ([], "car\n".encode("utf-16"), r"names\.txt:1: not text in UTF-8"),
    ],
)
def test_an_unusable_file_is_an_error(tmp_path: Path, given: list[str], data: bytes, message: str) -> None:
    (tmp_path / "names.txt").write_bytes(data)
    with pytest.raises(ConfigError, match=message):
        collect_label_names(given, tmp_path / "names.txt")


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the labels file .*names\.txt: No such file"):
        collect_label_names([], tmp_path / "names.txt")
