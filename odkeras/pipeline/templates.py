"""The template configs of odkeras: configs/ in a source checkout, odkeras/configs/ in an installed package."""

from __future__ import annotations

import difflib
from importlib import resources
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from odkeras.errors import ConfigError

if TYPE_CHECKING:
    from importlib.abc import Traversable  # typed there for Python 3.10 too

_SUFFIX = ".config"


def list_templates() -> list[str]:
    """The sorted names of the templates, without ".config"."""
    return sorted(entry.name.removesuffix(_SUFFIX) for entry in _folder().iterdir() if entry.name.endswith(_SUFFIX))


def read_template(name: str) -> str:
    """The text of a template.

    Raises:
        ConfigError: no such template; the message lists the known ones.
    """
    names = list_templates()
    name = name.removesuffix(_SUFFIX)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(f"there is no template {name!r}; {hint}(known: {', '.join(names)})")
    return (_folder() / f"{name}{_SUFFIX}").read_text(encoding="utf-8")


def template_header(text: str) -> str:
    """The comment lines above the first setting."""
    return "\n".join(takewhile(lambda line: line.startswith("#") or not line.strip(), text.splitlines())).strip()


def _folder() -> Traversable:
    """The directory of the templates: next to the package in a source checkout, otherwise inside the package."""
    checkout = Path(__file__).parents[2] / "configs"
    if (checkout.parent / "setup.cfg").is_file() and checkout.is_dir():
        return checkout
    return resources.files("odkeras.configs")
