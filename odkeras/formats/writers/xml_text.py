"""Text in XML files. XML 1.0 has no place for most control characters, not even escaped."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from odkeras.text import replace_surrogates

_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


def clean(text: str) -> str:
    """The text with `?` for each character that XML cannot have."""
    return _FORBIDDEN.sub("?", replace_surrogates(text))


def add(parent: ElementTree.Element, tag: str, text: object) -> ElementTree.Element:
    """Append an element with a text."""
    element = ElementTree.SubElement(parent, tag)
    element.text = clean(str(text))
    return element


def to_text(element: ElementTree.Element, indent: str = "") -> str:
    """The element as indented XML without declaration.

    Args:
        indent: of its first line; the others have two spaces more for each level.
    """
    ElementTree.indent(element, space="  ", level=len(indent) // 2)
    return f"{indent}{ElementTree.tostring(element, encoding='unicode')}\n"
