"""`python -m prodigy RECIPE [arguments] [-F file.py]`."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence

from prodigy.app import serve
from prodigy.commands import COMMANDS
from prodigy.core import find_recipe, load_recipes, make_controller
from prodigy.eras import current_era

USAGE = "usage: prodigy RECIPE [arguments] [-F recipes.py], or: prodigy stats | db-out NAME | drop NAME"


def main(argv: Sequence[str]) -> int:
    args, path = split_path(argv)
    if not args or args[0] in ("-h", "--help"):
        print(f"{USAGE}\nThis is a test double of Prodigy {current_era().version}, not Prodigy.")
        return 0 if args else 1
    name, *rest = args
    if path is not None:
        load_recipes(path)
    found = find_recipe(name)
    if found is None:
        if name in COMMANDS:
            return COMMANDS[name](rest)
        print(f"✘ Can't find recipe or command '{name}'.", file=sys.stderr)
        return 1
    controller = make_controller(name, found.run(rest))
    if controller is not None:
        serve(controller)
    return 0


def split_path(argv: Sequence[str]) -> tuple[list[str], str | None]:
    """Takes `-F file.py` out, wherever it is."""
    args = list(argv)
    if "-F" not in args:
        return args, None
    place = args.index("-F")
    if place + 1 == len(args):
        raise SystemExit("✘ -F needs the path of a file with recipes")
    return args[:place] + args[place + 2 :], args[place + 1]


if __name__ == "__main__":
    for output in (sys.stdout, sys.stderr):
        if isinstance(output, io.TextIOWrapper):
            output.reconfigure(encoding="utf-8")
    sys.exit(main(sys.argv[1:]))
