"""Collect and validate the class names of a new label map, given as arguments and in a text file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from odkeras.errors import ConfigError, LabelMapError

_MAX_PROBLEMS = 5


def collect_label_names(names: Sequence[str], file: Path | str | None = None) -> list[str]:
    """All names: `names` first, then those of the file.

    Args:
        names: class names, stored unchanged.
        file: a UTF-8 text file, with or without a byte order mark, with one name per line. Blank lines and surrounding
            spaces are ignored. None for no file.

    Raises:
        ConfigError: no names, an invalid name, or a duplicate; with file and line where there is a file.
        LabelMapError: the file cannot be read, or is not UTF-8.
    """
    if isinstance(names, str):
        names = []  # a str is a Sequence[str] of single letters, which is never intended
    given = [("", name) for name in names] + (list(_names_in(Path(file))) if file is not None else [])
    if not given:
        raise ConfigError(_nothing(file))
    problems = list(_problems(given))
    if problems:
        more = f"; and {len(problems) - _MAX_PROBLEMS} more" if len(problems) > _MAX_PROBLEMS else ""
        raise ConfigError("; ".join(problems[:_MAX_PROBLEMS]) + more)
    return [name for _, name in given]


def _nothing(file: Path | str | None) -> str:
    if file is not None:
        return f"{file} has no names; write one on each line"
    return "give at least one label, for example --label raccoon, or --labels-file with a name on each line"


def _names_in(path: Path) -> Iterator[tuple[str, str]]:
    """(`file:line`, name) for each name in the file."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise LabelMapError(f"cannot read the labels file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise LabelMapError(f"{path}:{line}: not text in UTF-8; save the file in that encoding") from error
    for number, line_text in enumerate(text.split("\n"), start=1):
        if name := line_text.strip():
            yield f"{path}:{number}", name


def _problems(given: Sequence[tuple[str, str]]) -> Iterator[str]:
    places: dict[str, str] = {}
    for place, name in given:
        where = f"{place}: " if place else ""
        if problem := _problem(name, in_file=bool(place)):
            yield f"{where}{problem}"
        elif name in places:
            first = f" (first at {places[name]})" if places[name] else ""
            yield f"{where}duplicate label {name!r}{first}; each label must be unique"
        places.setdefault(name, place)


def _problem(name: str, *, in_file: bool) -> str:
    """Why a name cannot be used; "" if it can."""
    if not name.strip():
        return f"a label is empty: {name!r}; give a name, for example --label raccoon"
    if name != name.strip() or not name.isprintable():
        return f"label {name!r} has surrounding spaces or unprintable characters; write {_printable(name)!r}"
    if "," in name:
        hint = "write one name on each line" if in_file else "give --label once per label"
        return f"label {name!r} has a comma; {hint}"
    return ""


def _printable(name: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in name).strip()
