"""Splits of a dataset: stable, equal to --eval-split, whole groups."""

from __future__ import annotations

import hashlib

import pytest

from odkeras.errors import ConfigError
from odkeras.splits import GroupBy, Splits, group_key, is_held_out

IDS = [hashlib.sha256(str(number).encode()).hexdigest()[:32] for number in range(2000)]


@pytest.mark.parametrize(
    ("text", "shares"),
    [
        ("1", (1.0,)),
        ("0.8/0.2", (0.8, 0.2)),
        ("0.8/0.1/0.1", (0.8, 0.1, 0.1)),
        ("80/10/10", (0.8, 0.1, 0.1)),
        ("0/1", (0.0, 1.0)),
    ],
)
def test_shares_are_read(text: str, shares: tuple[float, ...]) -> None:
    assert Splits.parse(text).shares == pytest.approx(shares)


@pytest.mark.parametrize("text", ["", "a/b", "0.8/0.1", "0.5/0.5/0.2/-0.2", "1.2/-0.2", "nan", "inf/0", "0.8,0.2"])
def test_other_texts_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--split must .*0\.8/0\.1/0\.1"):
        Splits.parse(text)


@pytest.mark.parametrize("text", ["0.8/0.2", "0.7/0.2/0.1"])
def test_val_is_what_eval_split_holds_out(text: str) -> None:
    splits = Splits.parse(text)
    assert [splits.of(id) == "val" for id in IDS] == [is_held_out(id, 0.2) for id in IDS]


def test_the_shares_are_met() -> None:
    splits = Splits.parse("0.7/0.2/0.1")
    counts = {name: sum(splits.of(id) == name for id in IDS) / len(IDS) for name in splits.names}
    assert counts == pytest.approx({"train": 0.7, "val": 0.2, "test": 0.1}, abs=0.03)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("1", {"train"}),
        ("0/1", {"val"}),
        ("0/0/1", {"test"}),
        ("0/0.5/0.5", {"val", "test"}),
        ("0.5/0/0.5", {"train", "test"}),
    ],
)
def test_a_split_without_a_share_gets_no_image(text: str, names: set[str]) -> None:
    splits = Splits.parse(text)
    assert set(splits.names) == names
    assert {splits.of(id) for id in [*IDS, "0" * 32, "f" * 32]} == names


@pytest.mark.parametrize(
    ("group_by", "name", "folder", "group"),
    [
        ("folder", "a.jpg", "/videos/one", "/videos/one"),
        ("folder", "a.jpg", None, None),
        (r"^(.*)_\d+", "cat_0012.jpg", None, "cat"),
        (r"^[a-z]+", "cat_0012.jpg", None, "cat"),
        (r"^(.*)_\d+", "cat.jpg", None, None),
        (r"cat|(dog)", "cat.jpg", None, None),  # the parenthesis matched nothing
    ],
)
def test_groups(group_by: str, name: str, folder: str | None, group: str | None) -> None:
    assert GroupBy.parse(group_by).group(name, folder) == group
    assert str(GroupBy.parse(group_by)) == group_by


def test_an_invalid_expression_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--group-by must be 'folder' or a regular expression .* got '\('"):
        GroupBy.parse("(")


def test_the_name_of_a_group_is_not_read_as_an_id() -> None:
    """`00000000` would always be in val, and names such as `deadbeef-1` and `deadbeef-2` always together."""
    assert len({group_key(f"00000000-{number}")[:8] for number in range(100)}) == 100
