"""Names of exported images: unique, readable, and valid on every system."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odkeras.formats.writers.file_names import FileNames

ID = "0123456789abcdef" * 2


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cat.jpg", "cat.jpg"),
        ("my cat.v2.JPG", "my cat.v2.JPG"),
        ("naïve ☃ 🦝.png", "naïve ☃ 🦝.png"),
        ('a<b>:"c|d?e*.jpg', "a_b___c_d_e_.jpg"),
        ("tab\tnew\nline.jpg", "tab_new_line.jpg"),
        ("aux.jpg", "_aux.jpg"),
        ("COM1.tar.jpg", "_COM1.tar.jpg"),
        ("..hidden.jpg", "hidden.jpg"),
        (" . .jpg", f"{ID}.jpg"),
        ("", ID),
        ("no suffix", "no suffix"),
    ],
)
def test_names_stay_as_they_are_where_that_is_possible(name: str, expected: str) -> None:
    assert FileNames().unique(name, ID) == expected


def test_a_composed_and_a_decomposed_letter_are_one_name() -> None:
    """macOS stores names in decomposed form; both would be one file there."""
    names = FileNames()
    composed, decomposed = (unicodedata.normalize(form, "é.jpg") for form in ("NFC", "NFD"))
    assert [names.unique(composed, ID), names.unique(decomposed, ID)] == [composed, f"é-{ID[:8]}.jpg"]


def test_names_differ_in_their_stems_also_without_case() -> None:
    names = FileNames()
    ids = [f"{number:08x}" * 4 for number in range(4)]
    found = [
        names.unique(name, id) for name, id in zip(("a.jpg", "A.png", "a.jpg", "a-00000001.jpg"), ids, strict=True)
    ]
    assert found == ["a.jpg", "A-00000001.png", "a-00000002.jpg", "a-00000001-00000003.jpg"]


def test_the_same_id_twice_is_counted() -> None:
    names = FileNames()
    assert [names.unique("a.jpg", ID) for _ in range(3)] == ["a.jpg", f"a-{ID[:8]}.jpg", f"a-{ID[:8]}-2.jpg"]


@given(st.lists(st.tuples(st.text(max_size=300), st.text(max_size=40)), max_size=6), st.booleans())
def test_any_text_becomes_a_unique_and_valid_name(pairs: list[tuple[str, str]], spaces: bool) -> None:
    names = FileNames(spaces=spaces)
    found = [names.unique(name, id, ".jpg") for name, id in pairs]
    stems = [unicodedata.normalize("NFC", name.removesuffix(".jpg").casefold()) for name in found]
    assert len(set(stems)) == len(stems)
    for name in found:
        assert len(name.encode("utf-8")) <= 200 and not set(name) & set('<>:"/\\|?*\n\0')
        assert name == name.strip(" .") and name.endswith(".jpg")
        assert spaces or not any(char.isspace() for char in name)
