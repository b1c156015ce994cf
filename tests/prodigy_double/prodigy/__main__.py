"""`python -m prodigy RECIPE [arguments] [-F file.py]`, and `db-out NAME`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from prodigy.app import serve
from prodigy.components.db import connect
from prodigy.controller import Controller
from prodigy.core import find_recipe


def main(argv: Sequence[str]) -> int:
    (name, *args), path = split_path(argv)
    if name == "db-out":
        for example in connect().get_dataset(args[0]) or []:
            print(json.dumps(example))
        return 0
    found = find_recipe(name, path)
    if found is None:
        print(f"✘ Can't find recipe or command '{name}'.", file=sys.stderr)
        return 1
    components = found.run(args)
    if components is not None:
        serve(Controller.from_components(name, components))
    return 0


def split_path(argv: Sequence[str]) -> tuple[list[str], str | None]:
    """Takes `-F file.py` out, wherever it is."""
    args = list(argv)
    if "-F" not in args:
        return args, None
    place = args.index("-F")
    return args[:place] + args[place + 2 :], args[place + 1]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
