"""Parse the text of a label map: the Object Detection API's StringIntLabelMap. Needs protobuf, but no TensorFlow.

Fields of other tools are left out. Text that protobuf would read otherwise than its author meant it is refused: an item
inside an item, a field that occurs twice, a misspelt field.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from odkeras.errors import LabelMapError
from odkeras.odapi import import_protos, parse_error_reason

_SINGLE_FIELDS = ("id", "name", "display_name")
_ADVICE = {
    "Expected string": "; write the text in quotes",
    "Couldn't parse integer": "; write a whole number without quotes",
}
_SIMILAR = 0.7  # `display` for `display_name`, `items` for `item`
_TOKEN = re.compile(
    r"""\#[^\n]* | "(?:[^"\\]|\\.)*" | '(?:[^'\\]|\\.)*'     # comments and strings are skipped
    | (?P<name>[A-Za-z_]\w*)\s*(?=[:{<]) | (?P<open>[{<]) | (?P<close>[}>])""",
    re.DOTALL | re.VERBOSE,
)


def read_items(text: str, source: str) -> list[tuple[Any, int | None]]:
    """Each `StringIntLabelMapItem` with its line, or None where the line is unknown. Each item has its `name`: the
    display name if the text has no other.

    Raises:
        LabelMapError: not a label map, or an ambiguous one; the message has `source` and the line.
        SetupError: the Object Detection API is not installed.
    """
    text = text.removeprefix("\ufeff")
    message = import_protos("string_int_label_map_pb2").StringIntLabelMap()
    known = message.DESCRIPTOR.fields_by_name["item"].message_type.fields_by_name
    blocks = _check_fields(text, source, known)
    _parse(text, message, source)
    for item in message.item:
        item.name = item.name or item.display_name
    lines = [block.line for block in blocks if block.name == "item"]
    known_lines = lines if len(lines) == len(message.item) else [None] * len(message.item)
    return list(zip(message.item, known_lines, strict=True))


def normalise(text: str, source: str) -> str:
    """The items of `read_items` as text in ASCII, which the API reads like `read_items`."""
    from google.protobuf import text_format

    message = import_protos("string_int_label_map_pb2").StringIntLabelMap()
    message.item.extend(item for item, _ in read_items(text, source))
    return str(text_format.MessageToString(message, as_utf8=False))


def _parse(text: str, message: Any, source: str) -> None:
    from google.protobuf import text_format

    try:
        text_format.Parse(text, message, allow_unknown_field=True)
    except text_format.ParseError as error:
        where = f"{source}:{error.GetLine()}:{error.GetColumn()}"
        reason = parse_error_reason(error)
        advice = next((text for start, text in _ADVICE.items() if reason.startswith(start)), "")
        raise LabelMapError(f"{where}: {reason}{advice}") from error
    except RecursionError as error:
        raise LabelMapError(f"{source} is nested too deeply for a label map") from error


@dataclass
class _Block:
    """A message between braces.

    Args:
        name: its field, such as "item".
        line: the line of its opening brace.
        fields: (name, line) of its fields, in order.
    """

    name: str
    line: int
    fields: list[tuple[str, int]] = field(default_factory=list)


def _check_fields(text: str, source: str, known: Collection[str]) -> list[_Block]:
    """The blocks at the top of the text, after a check of the names of all fields at the top and inside of items."""
    top = _Block("", 1)
    blocks = list(_top_blocks(text, top))
    for block in blocks:
        if block.name == "item":
            _check_item(block, source, known)
    for name, line in top.fields:
        if name != "item":
            _check_spelling(name, ("item",), f"{source}:{line}")
    return blocks


def _check_item(item: _Block, source: str, known: Collection[str]) -> None:
    lines: dict[str, int] = {}
    for name, line in item.fields:
        where = f"{source}:{line}"
        if name == "item":
            raise LabelMapError(f"{where}: an item inside the item of line {item.line}; is a }} missing before it?")
        if name in _SINGLE_FIELDS and name in lines:
            advice = "write one item per class, or is a } missing?"
            raise LabelMapError(f"{where}: a second {name} in the item of line {item.line}; {advice}")
        if name not in known:
            _check_spelling(name, _SINGLE_FIELDS, where)
        lines[name] = line


def _check_spelling(name: str, wanted: Collection[str], where: str) -> None:
    if near := difflib.get_close_matches(name.lower(), wanted, n=1, cutoff=_SIMILAR):
        raise LabelMapError(f"{where}: unknown field {name!r}; did you mean {near[0]!r}? If not, remove it")


def _top_blocks(text: str, top: _Block) -> Iterator[_Block]:
    """Yields the blocks at the top, each with the fields directly inside. Fields at the top are added to `top`."""
    stack, line, position = [top], 1, 0
    for match in _TOKEN.finditer(text):
        line, position = line + text.count("\n", position, match.start()), match.start()
        if match["name"]:
            stack[-1].fields.append((match["name"], line))
        elif match["open"]:
            above = stack[-1].fields
            stack.append(_Block(above[-1][0] if above else "", line))
        elif match["close"] and len(stack) > 1:
            block = stack.pop()
            if len(stack) == 1:
                yield block
    yield from stack[1:2]  # its closing brace is missing
