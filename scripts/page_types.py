"""Generate the TypeScript types of the page's requests and of the replies: `python scripts/page_types.py`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from inspect import cleandoc
from pathlib import Path
from typing import Any, Literal, get_origin

import msgspec

from odkeras.web import replies, requests

TARGET = Path(__file__).resolve().parent.parent / "frontend" / "src" / "messages.ts"
HEAD = "/** The JSON between the page and the server. Generated from Python by scripts/page_types.py: do not edit. */\n"
PRIMITIVES = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean", "null": "null"}


def main() -> None:
    TARGET.write_text(generate(), encoding="utf-8")


def generate() -> str:
    """The text of frontend/src/messages.ts."""
    declared = {**vars(requests), **vars(replies)}
    structs = [type_ for type_ in declared.values() if isinstance(type_, type) and issubclass(type_, msgspec.Struct)]
    structs.remove(msgspec.Struct)
    aliases = {name: type_ for name, type_ in declared.items() if get_origin(type_) in (Literal, tuple)}
    types, components = msgspec.json.schema_components([*aliases.values(), *structs])
    names = {to_type(schema, {}): name for name, schema in zip(aliases, types, strict=False)}
    parts = [f"export type {name} = {text};\n" for text, name in names.items()]
    for name, schema in components.items():
        parts.append("".join(declare(name, schema, declared[name].__base__, names)))
    return "\n".join([HEAD, *parts])


def declare(name: str, schema: Mapping[str, Any], base: type, names: Mapping[str, str]) -> Iterator[str]:
    """Lines that declare a component of the JSON schema.

    Args:
        base: the base class of the Python type.
        names: as for `to_type`.
    """
    yield from comment(schema, indent="")
    if "properties" not in schema:
        yield f"export type {name} = {to_type(schema, names)};\n"
        return
    inherited = getattr(base, "__struct_fields__", ())
    yield f"export interface {name} {f'extends {base.__name__} ' if inherited else ''}{{\n"
    for key, value in schema["properties"].items():
        if key in inherited:
            continue
        yield from comment(value, indent="  ")
        yield f"  {key}{'' if key in schema['required'] else '?'}: {to_type(value, names)};\n"
    yield "}\n"


def comment(schema: Mapping[str, Any], indent: str) -> Iterator[str]:
    lines = cleandoc(schema.get("description", "")).splitlines()
    if len(lines) == 1:
        yield f"{indent}/** {lines[0]} */\n"
    elif lines:
        yield f"{indent}/**\n"
        yield from (f"{indent} * {line}".rstrip() + "\n" for line in lines)
        yield f"{indent} */\n"


def to_type(schema: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """The TypeScript type of a JSON schema.

    Args:
        names: names of types, which replace their declarations.
    """
    text = _to_type(schema, names)
    return names.get(text, text)


def _to_type(schema: Mapping[str, Any], names: Mapping[str, str]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if "anyOf" in schema:
        return " | ".join(dict.fromkeys(to_type(choice, names) for choice in schema["anyOf"]))
    if "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema["enum"])
    if schema.get("type") == "array":
        if "prefixItems" in schema:
            return f"[{', '.join(to_type(item, names) for item in schema['prefixItems'])}]"
        item = to_type(schema["items"], names)
        return f"({item})[]" if " " in item else f"{item}[]"
    if schema.get("type") == "object":
        return f"Record<string, {to_type(schema['additionalProperties'], names)}>"
    return PRIMITIVES[schema["type"]]


if __name__ == "__main__":
    main()
