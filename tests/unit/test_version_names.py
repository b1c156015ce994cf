from __future__ import annotations

from datetime import datetime

import pytest

from odkeras.version_names import VersionNames

NOON = int(datetime(2026, 11, 28, 12, 0).timestamp())
HOUR = 3600


def names(*rows: dict[str, object]) -> VersionNames:
    return VersionNames(rows, clock=lambda: NOON)


def row(number: int, version: int | None, **more: object) -> dict[str, object]:
    return {"kind": "round", "round": number, "version": version, **more}


@pytest.mark.parametrize(
    ("version", "name"),
    [
        (NOON - HOUR, "round 7, 11:00"),
        (NOON - 2 * HOUR, "10:00"),  # of no round: the first one, or one that was brought back
        (NOON - 24 * HOUR, "27 Nov 12:00"),
        (3, "version 3"),
        (10**20, "version 100000000000000000000"),
    ],
)
def test_what_a_version_is_called(version: int, name: str) -> None:
    assert names(row(7, NOON - HOUR)).of(version) == name


def test_the_day_of_a_round_that_was_not_today() -> None:
    assert names(row(3, NOON - 48 * HOUR)).of(NOON - 48 * HOUR) == "round 3, 26 Nov 12:00"


def test_a_version_is_that_of_the_round_which_published_it() -> None:
    found = names(row(1, 17), row(2, 17, outcome="held back"), row(3, 17, failed="not finite"), row(4, 18))
    assert [found.of(version) for version in (17, 18)] == ["round 1, version 17", "round 4, version 18"]


@pytest.mark.parametrize("strange", [{}, {"kind": "evaluation", "round": 1, "version": 5}, row(1, None), {"kind": 5}])
def test_lines_that_name_no_version(strange: dict[str, object]) -> None:
    assert names(strange).of(5) == "version 5"
