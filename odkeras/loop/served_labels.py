"""Does the version that is served mean the same classes by its ids as the label map?"""

from __future__ import annotations

import json
from pathlib import Path

from odkeras.errors import ConfigError
from odkeras.labels import LabelMap
from odkeras.project import version_dirs

_INFO = Path("assets.extra", "odkeras.json")


def served_labels(export_dir: Path) -> dict[int, str]:
    """Ids and names that the newest version was made with; empty if there is none, or it does not tell."""
    for directory in reversed(version_dirs(export_dir).values()):
        try:
            labels = json.loads((directory / _INFO).read_text(encoding="utf-8"))["labels"]
            return {int(id): str(name) for id, name in labels}
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return {}


def check_served_labels(export_dir: Path, label_map: LabelMap) -> None:
    """New labels may be added to a label map; what is there must keep its id.

    Raises:
        ConfigError: an id stands for another class: suggestions would carry wrong names, and training would teach
            them.
    """
    ours = {label.id: label.name for label in label_map.labels}
    changed = [
        f"{id} is {name!r} there and {ours[id]!r} here" if id in ours else f"{id}, {name!r} there, is missing here"
        for id, name in served_labels(export_dir).items()
        if ours.get(id) != name
    ]
    if changed:
        raise ConfigError(
            f"the model in {export_dir} was trained with another label map: id {'; id '.join(changed)}. Give that "
            "label map (new labels may follow with new ids), or new directories with --model-dir, --export-dir, "
            "--data-dir"
        )
