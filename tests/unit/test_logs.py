from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Iterator

import pytest

from odkeras.logs import configure_logging

LOGGERS = ("odkeras", "tensorflow", "absl")
VARIABLE = "TF_CPP_MIN_LOG_LEVEL"


@pytest.fixture(autouse=True)
def logging_kept_as_is(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(VARIABLE, "")  # so that it has its value back afterwards
    monkeypatch.delenv(VARIABLE)
    before = [(log, log.level, log.handlers[:], log.propagate) for log in map(logging.getLogger, LOGGERS)]
    with warnings.catch_warnings():
        yield
    for log, level, handlers, propagate in before:
        log.setLevel(level)
        log.handlers[:] = handlers
        log.propagate = propagate


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (10, "0"),
        (20, "0"),
        (30, "1"),
        (40, "3"),  # C++ logs an error on every machine without a GPU
        (50, "3"),
    ],
)
def test_tensorflow_s_log_level_follows_the_option(level: int, expected: str) -> None:
    configure_logging(level)
    assert os.environ[VARIABLE] == expected
    assert [logging.getLogger(name).level for name in ("tensorflow", "absl")] == [level, level]


def test_lines_appear_once_however_often_logging_is_configured(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        configure_logging()
    assert len(logging.getLogger("odkeras").handlers) == 1
    logging.getLogger("odkeras.training.rounds").info("round %d", 3)
    output = capsys.readouterr()
    assert re.fullmatch(r"\d\d:\d\d:\d\d INFO round 3\n", output.err)
    assert output.out == ""


@pytest.mark.parametrize(
    ("verbose", "expected"), [(True, ["INFO told", "WARNING warned"]), (False, ["WARNING warned"])]
)
def test_informative_lines_can_be_left_out(
    capsys: pytest.CaptureFixture[str], verbose: bool, expected: list[str]
) -> None:
    configure_logging(verbose=verbose)
    log = logging.getLogger("odkeras.model")
    log.debug("explained")
    log.info("told")
    log.warning("warned")
    assert [line.split(" ", 1)[1] for line in capsys.readouterr().err.splitlines()] == expected


@pytest.mark.parametrize(("level", "shown"), [(30, 1), (40, 0)])
def test_python_warnings_of_the_api_follow_the_level(level: int, shown: int) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        configure_logging(level)
        warnings.warn_explicit("old", DeprecationWarning, "inputs.py", 1, module="object_detection.inputs")
        warnings.warn_explicit("ours", DeprecationWarning, "files.py", 1, module="odkeras.files")
    assert len(seen) == shown + 1
