"""File names, labels and answers are printed; what a terminal would obey in them is printed as an escape."""

from __future__ import annotations

import ast
import io
import logging
from pathlib import Path

import pytest

import odkeras
from odkeras.cli import main
from odkeras.logs import configure_logging
from odkeras.session.events import Event
from odkeras.text import printable, say
from odkeras.web.journal import Journal

EVIL = "\x1b]52;c;cm0=\x07\x1b[2J\x9b31m\rok\u202egpj.exe\x00\x7f.jpg"
SAFE = r"\x1b]52;c;cm0=\x07\x1b[2J\x9b31m\rok\u202egpj.exe\x00\x7f.jpg"
PACKAGE = Path(odkeras.__file__).parent


def test_control_characters_are_escaped() -> None:
    assert printable(EVIL) == SAFE
    assert printable("a\tb\nc é 例 \\x1b") == "a\tb\nc é 例 \\x1b"
    stream = io.StringIO()
    say(EVIL, file=stream, end="")
    assert stream.getvalue() == SAFE


def test_the_journal_and_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    journal = Journal()
    journal.say(EVIL)
    journal.skipped(EVIL, EVIL)
    journal.event(Event.problem(f"x\n{EVIL}"))
    configure_logging(verbose=True)
    logging.getLogger("odkeras.x").warning("%s", EVIL)
    out, err = capsys.readouterr()
    assert SAFE in out
    assert err.count(SAFE) >= 3
    assert not set(out + err) & set("\x1b\x07\x9b\r\x00\x7f\u202e")


def test_an_error_of_a_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["odkeras", "predict", f"{EVIL[:-6]}*.jpg".replace("\0", ""), "--export-dir", "x"])
    with pytest.raises(SystemExit):
        main()
    out, err = capsys.readouterr()
    assert "\\x1b]52;c" in err
    assert "\x1b" not in out + err


def test_nothing_else_prints() -> None:
    for path in sorted(PACKAGE.rglob("*.py")):
        if path == PACKAGE / "text.py":
            continue
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert not [node.lineno for node in calls if isinstance(node.func, ast.Name) and node.func.id == "print"], (
            f"{path}: odkeras.text.say"
        )
