from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st

from odkeras.errors import LabelMapError
from odkeras.labels import Label, LabelMap, label_map_for_api
from odkeras.odapi import import_protos

StringIntLabelMap = import_protos("string_int_label_map_pb2").StringIntLabelMap

COCO_LIKE = """\
# ids have gaps, as in COCO
item {
  name: "/m/01g317"   # person
  id: 1
  display_name: "person"
}
item {
  name: '/m/0199g'
  id: 90
  display_name: 'bicycle'
  keypoints { id: 3 label: "pedal" }
  frequency: FREQUENT
  ancestor_ids: [4, 5]
}
"""


def test_a_map_from_names_counts_from_1() -> None:
    label_map = LabelMap.from_names(["car", "person"])
    assert label_map.labels == (Label(1, "car"), Label(2, "person"))
    assert (label_map.names, label_map.ids, label_map.max_id, len(label_map)) == (("car", "person"), (1, 2), 2, 2)


def test_a_pbtxt_with_gaps_comments_and_nested_fields() -> None:
    label_map = LabelMap.from_pbtxt(COCO_LIKE)
    assert label_map.labels == (Label(1, "/m/01g317", "person"), Label(90, "/m/0199g", "bicycle", ((3, "pedal"),)))
    assert label_map.max_id == 90
    assert label_map.id_of("/m/0199g") == label_map.id_of("bicycle") == 90
    assert label_map.name_of(1) == "/m/01g317"
    assert label_map.display_name_of(1) == "person"


TEXTS = [
    "item { id: 1 name: 'car' }",
    'item{id:1 name:"car"}',
    "item: { id: 1, name: 'car' }",  # colon, comma
    "item < id: 1; name: 'car' >",  # angle brackets, semicolon
    "item {\r\n  id: 1\r\n  name: 'car'\r\n}\r\n",  # Windows
    "item { name: 'c' 'a'\n \"r\" id: 1 }",  # strings in parts
    "item { id: 0x1 name: '\\143ar' }",  # hexadecimal number, octal escape
    "item { id: 1 name: '\\U00000063ar' }",
    "item { id: 1 display_name: 'car' }",  # no name: the display name
    "\ufeffitem { id: 1 name: 'car' }",  # byte order mark
    "item { id: 1 name: 'car' supercategory: 'item { id: 2 }' }",
    "item { id: 1 name: 'car' # item { id: 2 }\n}",
    "item: [{ id: 1 name: 'car' }]",
    "item { id: 1 name: 'car' keypoints: { id: 9 name: 'no' } lvis < x { } > }",
    "item { id: 1 name: 'car' tags: ['a', 'b'] more: [] points { x: 1 } }",
    "other: 5 another { id: 1 } item { id: 1 name: 'car' }",  # unknown at the top
    "# only a comment before\n\nitem { # here\n id: 1 name: 'car' } # there",
]


@pytest.mark.parametrize("text", TEXTS)
def test_all_ways_to_write_an_item(text: str) -> None:
    label_map = LabelMap.from_pbtxt(text)
    assert (label_map.ids, label_map.display_name_of(1), label_map.id_of("car")) == ((1,), "car", 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "m.pbtxt is empty"),
        ("# nothing", "m.pbtxt is empty"),
        ("item { id: 1 name: 'a' }\nitem { id: 1 name: 'b' }", "m.pbtxt:2: id 1 is used twice (first in line 1)"),
        ("item { id: 1 name: 'a' }\n\nitem { id: 2 name: 'a' }", "m.pbtxt:3: name 'a' is used twice (first in line 1)"),
        ("\nitem { id: 0 name: 'a' }", "m.pbtxt:2: id must be from 1 to 2147483647; got 0; ids count from 1"),
        ("item { id: 1.5 name: 'a' }", "m.pbtxt:1:12: Couldn't parse integer: 1.5"),
        ("item { name: 'a' }", "m.pbtxt:1: item without an id"),
        ("item { id: 1 }", "m.pbtxt:1: item 1 has no name"),
        ("item { id: 1 name: ' ' }", "m.pbtxt:1: id 1 has an empty name"),
        ("# item {\nitem { id: 3 name: 'item {' }\nitem { name: 'b' }", "m.pbtxt:3: item without an id"),
        ("item: [{ id: 1 name: 'a' },\n{ id: 1 name: 'b' }]", "m.pbtxt:2: id 1 is used twice (first in line 1)"),
        ("item {\n id: 1\n name: 'a'\n", 'm.pbtxt:3:8: Expected "}".'),
        (
            "item { id: '1' name: 'a' }",
            "m.pbtxt:1:12: Couldn't parse integer: '1'; write a whole number without quotes",
        ),
        ("item { id: 1 name: a }", "m.pbtxt:1:20: Expected string but found: 'a'; write the text in quotes"),
        (
            "item { id: 1 name: 'a'\n item { id: 2 name: 'b' } }",
            "m.pbtxt:2: an item inside the item of line 1; is a } missing before it?",
        ),
        ("item {\n id: 1 name: 'a'\nitem: <\n id: 2 name: 'b' >", "m.pbtxt:3: an item inside the item of line 1"),
        ("item { id: 1 name: 'a'\n id: 2 name: 'b' }", "m.pbtxt:2: a second id in the item of line 1"),
        ("item { id: 1 name: 'a'\n name: 'b' }", "m.pbtxt:2: a second name in the item of line 1"),
        ("item { id: 1 display_name: 'a' name: 'c' display_name: 'b' }", "m.pbtxt:1: a second display_name"),
        ("item { id: 1\n nme: 'a' }", "m.pbtxt:2: unknown field 'nme'; did you mean 'name'?"),
        ("item { ID: 1 name: 'a' }", "m.pbtxt:1: unknown field 'ID'; did you mean 'id'?"),
        ("item { id: 1 name: 'a' display: 'b' }", "m.pbtxt:1: unknown field 'display'; did you mean 'display_name'?"),
        (
            "item { id: 1 name: 'a' }\nitems { id: 2 name: 'b' }",
            "m.pbtxt:2: unknown field 'items'; did you mean 'item'?",
        ),
        ("item { id: 1 name: 'a' }\nItem { id: 2 }", "m.pbtxt:2: unknown field 'Item'; did you mean 'item'?"),
        ("item {\n name: 'a\n}", "m.pbtxt:2:8: String missing ending quote"),
        ("item { id: 1 name: 'a' } }", "m.pbtxt:1:26: Expected identifier or number, got }."),
        ("item { id: 1 name: '\\377' }", "m.pbtxt:1:27: Couldn't parse string: 'utf-8' codec can't decode"),
        ('{"1": "car"}', "m.pbtxt:1:1: Expected identifier or number, got {."),  # JSON by mistake
        ("car\nperson\n", 'm.pbtxt:2:1: Expected "{".'),  # a list of names by mistake
    ],
)
def test_errors_name_their_line(text: str, message: str) -> None:
    with pytest.raises(LabelMapError) as raised:
        LabelMap.from_pbtxt(text, source="m.pbtxt")
    assert message in str(raised.value)


_names = st.text(min_size=1, max_size=12).filter(lambda name: bool(name.strip()))


@given(
    st.lists(
        st.builds(Label, st.integers(1, 2**31 - 1), _names, st.none() | _names),
        min_size=1,
        max_size=5,
        unique_by=(lambda label: label.id, lambda label: label.name),
    )
)
def test_any_map_survives_the_file_format(labels: list[Label]) -> None:
    label_map = LabelMap(tuple(labels))
    assert LabelMap.from_pbtxt(label_map.to_pbtxt()) == label_map


@given(st.text(alphabet="item{}<>:id name'\"\\# \n01,;é?", max_size=60))
def test_any_text_is_a_map_or_a_label_map_error(text: str) -> None:
    with contextlib.suppress(LabelMapError):
        assert len(LabelMap.from_pbtxt(text)) > 0


@pytest.mark.parametrize("text", [*TEXTS, COCO_LIKE, 'item { id: 3 name: "café \\"x\\" \\n" display_name: "é" }'])
def test_the_api_is_given_a_file_that_it_reads_alike(tmp_path: Path, text: str) -> None:
    """The API's own parser refuses unknown fields and a byte order mark, and reads an item without a name as ''."""
    path = tmp_path / "map.pbtxt"
    path.write_text(text, encoding="utf-8")
    message = StringIntLabelMap()
    with label_map_for_api(path) as given:
        text_format.Merge(Path(given).read_text(encoding="ascii"), message)  # as the API reads it
    assert not Path(given).exists()
    given_labels = [(item.id, item.name, item.display_name or None) for item in message.item]
    assert given_labels == [(label.id, label.name, label.display_name) for label in LabelMap.load(path).labels]


def test_the_api_is_given_what_odkeras_does_not_use(tmp_path: Path) -> None:
    (tmp_path / "map.pbtxt").write_text(COCO_LIKE)
    with label_map_for_api(tmp_path / "map.pbtxt") as given:
        message = text_format.Parse(Path(given).read_text(), StringIntLabelMap())
    assert message.item[1].keypoints[0].label == "pedal"
    assert list(message.item[1].ancestor_ids) == [4, 5]


def test_keypoints() -> None:
    keypoints = "keypoints { id: 2 label: 'hand' } keypoints { id: 0 label: 'nose' }"
    label_map = LabelMap.from_pbtxt(f"item {{ id: 1 name: 'car' }} item {{ id: 3 name: 'man' {keypoints} }}")
    assert label_map.labels[1].keypoints == ((2, "hand"), (0, "nose"))
    assert (label_map.num_keypoints, label_map.keypoint_names) == (3, ("nose", "", "hand"))
    assert LabelMap.from_pbtxt(label_map.to_pbtxt()) == label_map
    assert (LabelMap.from_names(["a"]).num_keypoints, LabelMap.from_names(["a"]).keypoint_names) == (0, ())


def test_the_api_is_not_given_an_invalid_label_map(tmp_path: Path) -> None:
    (tmp_path / "map.pbtxt").write_text("item { id: 1 name: 'a' } item { id: 2 name: 'a' }")
    with pytest.raises(LabelMapError, match="name 'a' is used twice"), label_map_for_api(tmp_path / "map.pbtxt"):
        pass


def test_deep_nesting_is_an_error_not_a_crash() -> None:
    with pytest.raises(LabelMapError, match="nested too deeply"):
        LabelMap.from_pbtxt("item { id: 1 name: 'a' " + "x { " * 100_000)


def test_load_and_save(tmp_path: Path) -> None:
    label_map = LabelMap.from_names(["café", 'say "hi"', "back\\slash", "line\nbreak"])
    label_map.save(tmp_path / "map.pbtxt")
    assert LabelMap.load(tmp_path / "map.pbtxt") == label_map
    assert "café" in (tmp_path / "map.pbtxt").read_text(encoding="utf-8")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(LabelMapError, match=r"cannot read the label map .*No such file"):
        LabelMap.load(tmp_path / "missing.pbtxt")
    with pytest.raises(LabelMapError, match=r"cannot read the label map .*directory"):
        LabelMap.load(tmp_path)
    (tmp_path / "binary").write_bytes(b"item \xff\xfe")
    with pytest.raises(LabelMapError, match="not a text file"):
        LabelMap.load(tmp_path / "binary")


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ("car ", "did you mean 'car'?"),
        ("Car", "did you mean 'car'?"),
        ("preson", "did you mean 'person'?"),
        ("zebra", "(known: car, person)"),
    ],
)
def test_an_unknown_label_gets_a_hint(asked: str, hint: str, label_map: LabelMap) -> None:
    with pytest.raises(LabelMapError) as raised:
        label_map.id_of(asked)
    assert f"label {asked!r} is not in the label map (known: car, person)" in str(raised.value)
    assert hint in str(raised.value)


def test_a_shared_display_name_is_ambiguous_unless_it_is_a_name() -> None:
    label_map = LabelMap((Label(1, "a", "thing"), Label(2, "b", "thing"), Label(3, "thing")))
    assert label_map.id_of("thing") == 3
    with pytest.raises(LabelMapError, match=r"display name of several ids \(1, 2\)"):
        LabelMap(label_map.labels[:2]).id_of("thing")


def test_unknown_ids(label_map: LabelMap) -> None:
    with pytest.raises(LabelMapError, match=r"id 3 is not in the label map \(known: 1, 2\)"):
        label_map.name_of(3)
    with pytest.raises(LabelMapError, match="id 0 "):
        label_map.display_name_of(0)


def test_membership() -> None:
    label_map = LabelMap((Label(1, "a", "thing"), Label(2, "b")))
    assert "a" in label_map
    assert "thing" in label_map
    assert "c" not in label_map
    assert None not in label_map
