"""Names of classes from label files: which label of a project each stands for, and which are alike."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from odkeras.errors import ConfigError
from odkeras.labels import LabelMap


@dataclass
class LabelChoice:
    """Chooses the label for each name in label files.

    Args:
        label_map: the labels of the project; None takes all names, without surrounding spaces.
        renamed: label for each name that is not to be taken as it is.

    Attributes:
        taken: number of objects by (name, label), of names that are only alike.
        unknown: number of objects by name, of names that the label map lacks.
    """

    label_map: LabelMap | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)
    taken: Counter[tuple[str, str]] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    _chosen: dict[str, str | None] = field(default_factory=dict)

    def choose(self, name: str) -> str | None:
        """The label; None for a name that the label map lacks."""
        if name not in self._chosen:
            self._chosen[name] = self._find(self.renamed.get(name, name))
        label = self._chosen[name]
        if label is None:
            self.unknown[name] += 1
        elif label != name and name not in self.renamed:
            self.taken[name, label] += 1
        return label

    def keypoints(self, label: str) -> frozenset[str] | None:
        """The names of the keypoints that objects of a label can have; None: any."""
        if self.label_map is None:
            return None
        id = self.label_map.find_id(label)
        return next(frozenset(name for _, name in each.keypoints) for each in self.label_map.labels if each.id == id)

    def remarks(self) -> list[str]:
        """A sentence for each name that is taken for another label."""
        return [f"{name!r} is taken for {label!r} ({count} objects)" for (name, label), count in self.taken.items()]

    def explain_unknown(self) -> str:
        """What to do about names that the label map lacks."""
        assert self.label_map is not None
        names = ", ".join(f"{name!r} ({count} objects)" for name, count in self.unknown.most_common(10))
        more = f" and {len(self.unknown) - 10} more" if len(self.unknown) > 10 else ""
        return (
            f"not in the label map: {names}{more}; it has {', '.join(map(repr, self.label_map.names[:20]))}. Give "
            "`odkeras import` --rename NAME=LABEL for each, or --skip-other-labels, which leaves out these objects"
        )

    def _find(self, name: str) -> str | None:
        if self.label_map is None:
            return name.strip()
        for exact in (name, name.strip()):
            if exact in self.label_map:
                return exact
        alike = [label for label in self.label_map.names if fold(label) == fold(name)]
        return alike[0] if len(alike) == 1 else None


def fold(name: str) -> str:
    """What is the same for names that differ in case, spaces, hyphens and underscores only."""
    return "".join(name.casefold().replace("-", " ").replace("_", " ").split())


def alike_names(names: Iterable[str]) -> list[list[str]]:
    """Groups of names that are alike, each in its order."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys(names):
        groups[fold(name)].append(name)
    return [group for group in groups.values() if len(group) > 1]


def merge_alike(names: Iterable[str]) -> list[str]:
    """The names without surrounding spaces, of those that are alike only the first."""
    first: dict[str, str] = {}
    for name in names:
        first.setdefault(fold(name), name.strip())
    return list(first.values())


def explain_alike(groups: Sequence[Sequence[str]]) -> str:
    """Which names are alike, for people."""
    return "; ".join(" and ".join(map(repr, group)) for group in groups)


def parse_renames(texts: Sequence[str]) -> dict[str, str]:
    """The labels by name, of texts such as `Car =car`.

    Raises:
        ConfigError: a text has no `=`, or nothing on one side.
    """
    renamed: dict[str, str] = {}
    for text in texts:
        name, sign, label = text.rpartition("=")
        if not sign or not name or not label.strip():
            raise ConfigError(f"--rename must be NAME=LABEL, for example --rename 'Car =car'; got {text!r}")
        renamed[name] = label.strip()
    return renamed
