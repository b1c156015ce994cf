"""The label map: names <-> ids. Ids count from 1; 0 is the background, which a label map does not list.

The .pbtxt reader is our own, so that no TensorFlow is needed. It is as tolerant as protobuf's text format (comments,
either quote, `item {}` or `item: <>`, escapes, unknown and nested fields) and names the line of what is wrong.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from odkeras.errors import LabelMapError

_MAX_ID = 2**31 - 1


@dataclass(frozen=True)
class Label:
    """One class: `name` is what records hold, `display_name` what people read (None: the name)."""

    id: int
    name: str
    display_name: str | None = None


@dataclass(frozen=True)
class LabelMap:
    """All classes, in the file's order.

    Raises:
        LabelMapError: empty, an id below 1, an empty name, or an id or name that occurs twice.
    """

    labels: tuple[Label, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(self.labels))
        _check_labels([(label, None) for label in self.labels], "label map")

    @classmethod
    def from_names(cls, names: Iterable[str]) -> LabelMap:
        """Ids 1, 2, ... in the order given."""
        return cls(tuple(Label(number, name) for number, name in enumerate(names, start=1)))

    @classmethod
    def from_pbtxt(cls, text: str, source: str = "label map") -> LabelMap:
        """Read the text format of the Object Detection API's StringIntLabelMap.

        Raises:
            LabelMapError: with `source` and the line.
        """
        try:
            items = list(_read_items(_Tokens(text, source)))
        except RecursionError as error:
            raise LabelMapError(f"{source} is nested too deeply for a label map") from error
        _check_labels(items, source)
        return cls(tuple(label for label, _ in items))

    @classmethod
    def load(cls, path: Path | str) -> LabelMap:
        """Read a .pbtxt file.

        Raises:
            LabelMapError: no such file, not text, or not a label map.
        """
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
        except OSError as error:
            raise LabelMapError(f"cannot read the label map {path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise LabelMapError(f"{path} is not a text file in UTF-8 (byte {error.start})") from error
        return cls.from_pbtxt(text, source=str(path))

    def to_pbtxt(self) -> str:
        return "\n".join(_item_text(label) for label in self.labels)

    @property
    def texts(self) -> frozenset[str]:
        """The class texts that the Object Detection API finds an id for: names and display names. It drops objects with
        any other text, without a word."""
        return frozenset(text for label in self.labels for text in (label.name, label.display_name) if text)

    def save(self, path: Path | str) -> None:
        Path(path).write_text(self.to_pbtxt(), encoding="utf-8")

    def id_of(self, name: str) -> int:
        """The id of a name or, failing that, of a display name.

        Raises:
            LabelMapError: unknown, or a display name that several labels share.
        """
        if name in self._id_by_name:
            return self._id_by_name[name]
        ids = [label.id for label in self.labels if label.display_name == name]
        if len(ids) == 1:
            return ids[0]
        if ids:
            raise LabelMapError(f"label {name!r} is the display name of several ids ({_listed(ids)}); use the name")
        raise LabelMapError(self._unknown(name))

    def name_of(self, id: int) -> str:
        """Raises: LabelMapError: no such id."""
        return self._label(id).name

    def display_name_of(self, id: int) -> str:
        """The display name, or the name where there is none.

        Raises:
            LabelMapError: no such id.
        """
        label = self._label(id)
        return label.display_name or label.name

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(label.name for label in self.labels)

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(label.id for label in self.labels)

    @property
    def max_id(self) -> int:
        """What a model's num_classes must be at least: ids may have gaps (COCO: 80 labels, ids to 90)."""
        return max(self.ids)

    def __len__(self) -> int:
        return len(self.labels)

    def __contains__(self, name: object) -> bool:
        return name in self._id_by_name or any(label.display_name == name for label in self.labels if name is not None)

    @cached_property
    def _id_by_name(self) -> dict[str, int]:
        return {label.name: label.id for label in self.labels}

    @cached_property
    def _label_by_id(self) -> dict[int, Label]:
        return {label.id: label for label in self.labels}

    def _label(self, id: int) -> Label:
        label = self._label_by_id.get(int(id))
        if label is None:
            raise LabelMapError(f"id {id} is not in the label map (known: {_listed(self.ids)})")
        return label

    def _unknown(self, name: str) -> str:
        shown = [*(label.display_name for label in self.labels if label.display_name), *self.names]
        folded = {text.strip().casefold(): text for text in shown}
        near = difflib.get_close_matches(str(name).strip().casefold(), folded, n=1)
        hint = f"; did you mean {folded[near[0]]!r}?" if near else ""
        return f"label {name!r} is not in the label map (known: {_listed(self.names)}){hint}"


class _Token(NamedTuple):
    kind: str  # "word", "string", "mark", "end"
    text: str
    line: int


_TOKEN = re.compile(
    r"""(?P<space>[\s,;]+|\#[^\n]*)|(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    |(?P<word>[\w.+\-]+|\[[\w./]+\])|(?P<mark>[][{}<>:])""",
    re.VERBOSE,
)
_CLOSING = {"{": "}", "<": ">"}
_ESCAPE = re.compile(r"\\(?:([0-7]{1,3})|[xX]([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)
_SHORT_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


class _Tokens:
    """The tokens of a text, with one to look ahead."""

    def __init__(self, text: str, source: str) -> None:
        self.source = source
        self._stream = self._split(text)
        self.next = next(self._stream)

    def take(self) -> _Token:
        token = self.next
        if token.kind != "end":
            self.next = next(self._stream)
        return token

    def error(self, token: _Token, wanted: str) -> LabelMapError:
        found = "the end of the file" if token.kind == "end" else repr(token.text)
        return LabelMapError(f"{self.source}:{token.line}: expected {wanted}, found {found}")

    def _split(self, text: str) -> Iterator[_Token]:
        position, line = 0, 1
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                what = "unclosed quote" if text[position] in "\"'" else f"unexpected {text[position]!r}"
                raise LabelMapError(f"{self.source}:{line}: {what}")
            if match.lastgroup != "space":
                yield _Token(str(match.lastgroup), match.group(), line)
            line += match.group().count("\n")
            position = match.end()
        yield _Token("end", "", line)


def _read_items(tokens: _Tokens) -> Iterator[tuple[Label, int | None]]:
    while tokens.next.kind != "end":
        start = tokens.take()
        if start.kind != "word":
            raise tokens.error(start, "'item {'")
        if start.text != "item":
            _skip_value(tokens)
            continue
        if tokens.next.text == ":":
            tokens.take()
        opening = tokens.take()
        if opening.kind != "mark" or opening.text not in _CLOSING:
            raise tokens.error(opening, "'{' after 'item'")
        yield _label_of(_read_fields(tokens, opening), start, tokens.source), start.line


def _read_fields(tokens: _Tokens, opening: _Token) -> dict[str, str]:
    """The scalar fields of a message, up to its closing brace; the last of several wins, as in protobuf."""
    found: dict[str, str] = {}
    while True:
        token = tokens.take()
        if token.kind == "mark" and token.text == _CLOSING[opening.text]:
            return found
        if token.kind == "end":
            raise LabelMapError(f"{tokens.source}:{opening.line}: {opening.text!r} is never closed")
        if token.kind != "word":
            raise tokens.error(token, "a field name")
        value = _skip_value(tokens)
        if value is not None:
            found[token.text] = value


def _skip_value(tokens: _Tokens) -> str | None:
    """The scalar after a field name, or None for a nested message, which is read past."""
    colon = tokens.next.kind == "mark" and tokens.next.text == ":"
    if colon:
        tokens.take()
    token = tokens.take()
    if token.kind == "mark" and token.text in _CLOSING:
        _read_fields(tokens, token)
        return None
    if token.kind == "mark" and token.text == "[":
        _skip_list(tokens, token)
        return None
    if not colon:
        raise tokens.error(token, "':'")
    if token.kind == "word":
        return token.text
    if token.kind != "string":
        raise tokens.error(token, "a value")
    parts = [token]
    while tokens.next.kind == "string":
        parts.append(tokens.take())
    return _unquote(parts, tokens.source)


def _skip_list(tokens: _Tokens, opening: _Token) -> None:
    while (token := tokens.take()).text != "]" or token.kind != "mark":
        if token.kind == "end":
            raise LabelMapError(f"{tokens.source}:{opening.line}: '[' is never closed")
        if token.kind == "mark" and token.text in _CLOSING:
            _read_fields(tokens, token)


def _unquote(parts: list[_Token], source: str) -> str:
    raw = b"".join(_unescape(part.text[1:-1]) for part in parts)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise LabelMapError(f"{source}:{parts[0].line}: {parts[0].text} is not UTF-8") from error


def _unescape(text: str) -> bytes:
    """Escapes give bytes, not characters: protobuf writes e-acute as \\303\\251."""
    out, position = bytearray(), 0
    for match in _ESCAPE.finditer(text):
        out += text[position : match.start()].encode("utf-8", "surrogatepass")
        octal, hexadecimal, short_code, long_code, single = match.groups()
        if octal or hexadecimal:
            out.append((int(octal, 8) if octal else int(hexadecimal, 16)) & 0xFF)
        elif short_code or long_code:
            out += chr(min(int(short_code or long_code, 16), 0x10FFFF)).encode("utf-8", "surrogatepass")
        else:
            out += _SHORT_ESCAPES.get(single, single).encode("utf-8", "surrogatepass")
        position = match.end()
    return bytes(out + text[position:].encode("utf-8", "surrogatepass"))


def _label_of(found: dict[str, str], start: _Token, source: str) -> Label:
    where = f"{source}:{start.line}"
    if "id" not in found:
        raise LabelMapError(f"{where}: item without an id; add for example 'id: 1'")
    try:
        id = int(found["id"], 0)
    except ValueError as error:
        raise LabelMapError(f"{where}: id must be a whole number from 1; got {found['id']!r}") from error
    display_name = found.get("display_name") or None
    name = found.get("name") or display_name
    if name is None:
        raise LabelMapError(f"{where}: item {id} has no name; add for example \"name: 'raccoon'\"")
    return Label(id, name, display_name)


def _check_labels(labels: list[tuple[Label, int | None]], source: str) -> None:
    """`labels` come with their line, or None where there is no file."""
    if not labels:
        raise LabelMapError(f"{source} is empty; it needs at least one item {{ id: 1 name: '...' }}")
    first_lines: dict[int | str, int | None] = {}
    for label, line in labels:
        where = f"{source}:{line}" if line else source
        if not 1 <= label.id <= _MAX_ID:
            hint = "; ids count from 1, the background is not listed" if label.id == 0 else ""
            raise LabelMapError(f"{where}: id must be from 1 to {_MAX_ID}; got {label.id}{hint}")
        if not label.name.strip():
            raise LabelMapError(f"{where}: id {label.id} has an empty name")
        for what, value in (("id", label.id), ("name", label.name)):
            if value in first_lines:
                first = f" (first in line {first_lines[value]})" if line else ""
                raise LabelMapError(f"{where}: {what} {value!r} is used twice{first}")
            first_lines[value] = line


def _item_text(label: Label) -> str:
    lines = [f"  id: {label.id}", f"  name: {_quote(label.name)}"]
    if label.display_name:
        lines.append(f"  display_name: {_quote(label.display_name)}")
    return "\n".join(["item {", *lines, "}"]) + "\n"


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda match: f"\\{ord(match.group()):03o}", escaped) + '"'


def _listed(values: Iterable[object], most: int = 12) -> str:
    shown = [str(value) for value in values]
    more = f", ... {len(shown) - most} more" if len(shown) > most else ""
    return ", ".join(shown[:most]) + more
