"""The commands that are not recipes, as far as tests need them."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence

from prodigy.components.db import connect
from prodigy.configuration import prodigy_home
from prodigy.eras import current_era


def stats(args: Sequence[str]) -> int:
    """`stats [NAME]`."""
    database = connect()
    print(f"Version {current_era().version} (test double)\nLocation {prodigy_home()}\nDatasets {len(database)}")
    for name in args:
        counts = Counter(example.get("answer") for example in database.get_dataset(name) or [])
        print(f"Dataset {name}", *(f"{answer} {count}" for answer, count in sorted(counts.items())), sep="\n")
    return 0


def db_out(args: Sequence[str]) -> int:
    """`db-out NAME`."""
    examples = connect().get_dataset(args[0]) if args else None
    if examples is None:
        return _not_found(args)
    for example in examples:
        print(json.dumps(example))
    return 0


def drop(args: Sequence[str]) -> int:
    """`drop NAME`."""
    database = connect()
    if not args or args[0] not in database:
        return _not_found(args)
    database.drop_dataset(args[0])
    print(f"✔ Removed '{args[0]}' from the database")
    return 0


def _not_found(args: Sequence[str]) -> int:
    print(f"✘ Can't find dataset {' '.join(args)!r}", file=sys.stderr)
    return 1


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {"stats": stats, "db-out": db_out, "drop": drop}
