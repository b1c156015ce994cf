"""Reads XML of other programs, one element after the other, with line numbers.

A document type declaration is refused. Without one there are no entities of the document's own, so that a small file
cannot expand to gigabytes, and nothing outside the file is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from odkeras.errors import RecordError

_CHUNK = 2**16
_MAX_DEPTH = 50
_MAX_TEXT = 2**20


@dataclass
class Element:
    """An element, with what is in it.

    Args:
        tag: its name.
        attributes: by name.
        line: the line on which it starts.
        text: all text directly in it, without surrounding spaces once it has ended.
        children: in order.
    """

    tag: str
    attributes: Mapping[str, str]
    line: int
    text: str = ""
    children: list[Element] = field(default_factory=list)

    def find(self, tag: str) -> Element | None:
        """The first child with this name; None if there is none."""
        return next((child for child in self.children if child.tag == tag), None)

    def find_all(self, tag: str) -> list[Element]:
        return [child for child in self.children if child.tag == tag]

    def text_of(self, tag: str) -> str | None:
        """The text of the first child with this name; None if there is none."""
        child = self.find(tag)
        return None if child is None else child.text


def iter_elements(path: Path, root: str) -> Iterator[Element]:
    """The children of the root element, each as soon as it has been read.

    Args:
        root: the name that the root element must have.

    Raises:
        RecordError: the file cannot be read, is not XML, has a document type declaration or another root; elements
            before the error are yielded first.
    """
    builder = _Builder(path, root)
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                builder.feed(chunk, final=False)
                yield from builder.take()
            builder.feed(b"", final=True)
            yield from builder.take()
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror}") from error


class _Builder:
    def __init__(self, path: Path, root: str) -> None:
        self._path = path
        self._root = root
        self._open: list[Element] = []
        self._done: list[Element] = []
        self._parser = expat.ParserCreate()
        self._parser.buffer_text = True
        self._parser.StartDoctypeDeclHandler = self._refuse_doctype
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._add_text

    def feed(self, data: bytes, *, final: bool) -> None:
        try:
            self._parser.Parse(data, final)
        except expat.ExpatError as error:
            reason = expat.errors.messages.get(error.code, str(error))
            raise RecordError(f"{self._path}:{error.lineno}: not XML: {reason}") from error
        except (LookupError, ValueError) as error:  # an unknown encoding
            raise RecordError(f"{self._where}: not XML: {error}") from error

    def take(self) -> list[Element]:
        done, self._done = self._done, []
        return done

    @property
    def _where(self) -> str:
        return f"{self._path}:{self._parser.CurrentLineNumber}"

    def _refuse_doctype(self, *_: object) -> None:
        raise RecordError(f"{self._where}: has a document type declaration (<!DOCTYPE ...>); remove it")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        if not self._open and tag != self._root:
            raise RecordError(f"{self._where}: the outer element must be <{self._root}>; got <{tag[:40]}>")
        if len(self._open) >= _MAX_DEPTH:
            raise RecordError(f"{self._where}: elements are nested more than {_MAX_DEPTH} deep")
        self._open.append(Element(tag, attributes, self._parser.CurrentLineNumber))

    def _end(self, tag: str) -> None:
        element = self._open.pop()
        element.text = element.text.strip()
        if len(self._open) == 1:
            self._done.append(element)
        elif self._open:
            self._open[-1].children.append(element)

    def _add_text(self, text: str) -> None:
        if len(self._open) > 1:
            if len(self._open[-1].text) > _MAX_TEXT:
                raise RecordError(f"{self._where}: the text of <{self._open[-1].tag[:40]}> is too long")
            self._open[-1].text += text
