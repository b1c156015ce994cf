"""The layers: imports point from the edges to the core, and TensorFlow stays where it is needed."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "odkeras"

# Lower layers first. A module may import its own layer and those before it. A new module needs a place here.
LAYERS = {
    "core": "config errors logs locks connections colours drawing boxes keypoints polygons odapi label_map_text labels "
    "label_names label_choice natural_order orientation png images image_files data_uri image_ref numeric text "
    "annotation formats project control version_names version_dirs image_store inbox process groundtruth_csv metrics "
    "work heartbeat active_time known_labels prediction_log tfrecord damaged_files record_files splits output_folder "
    "near_duplicates video json_text crc32c database_url",
    "config": "pipeline init_project",
    "data": "data",
    "model": "compat model pretrained",
    "export": "export",
    "training": "training",
    "serving": "serving",
    "session": "session",
    "front ends": "web integrations simulation shapes bulk",
    "cli": "cli doctor upkeep __main__",
}
RANK = {name: rank for rank, names in enumerate(LAYERS.values()) for name in names.split()}
WITH_TENSORFLOW = (
    "odkeras.data",
    "odkeras.model",
    "odkeras.training",
    "odkeras.export",
    "odkeras.serving.backend",
    "odkeras.compat",
    "odkeras.pretrained.conversion",
)
UNIX_ONLY = ("fcntl", "grp", "pwd", "resource", "termios")
TENSORFLOW = {"tensorflow", "tf_keras", "keras", "orbit", "official", "tf_slim"}
STRANGERS = ({"odkeras.training", "odkeras.serving"},)  # they meet in the directories


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports_of(module: str, path: Path) -> Iterator[tuple[str, int]]:
    """Every module that is imported anywhere in a file, lazily too, with the line."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            for (
                alias
            ) in node.names:  # `from odkeras import boxes` names a module, `from odkeras.boxes import clip` does not
                whole = f"{source}.{alias.name}"
                yield (whole if whole in MODULES else source), node.lineno


IMPORTS = [(module, name, line) for module, path in MODULES.items() for name, line in imports_of(module, path)]


def layer_of(module: str) -> int:
    return RANK[module.split(".")[1]] if "." in module else 0


def test_every_module_has_a_layer() -> None:
    without = [module for module in MODULES if module != "odkeras" and module.split(".")[1] not in RANK]
    assert without == [], "give each a place in LAYERS"


def test_imports_point_to_the_core() -> None:
    upward = [
        f"{MODULES[module]}:{line} imports {name}"
        for module, name, line in IMPORTS
        if name.split(".")[0] == "odkeras" and layer_of(name) > layer_of(module)
    ]
    assert upward == []


def is_within(module: str, package: str) -> bool:
    return f"{module}.".startswith(f"{package}.")


def test_training_and_serving_do_not_import_each_other() -> None:
    met = [
        f"{MODULES[module]}:{line} imports {name}"
        for module, name, line in IMPORTS
        for pair in STRANGERS
        for own in pair
        for other in pair - {own}
        if is_within(module, own) and is_within(name, other)
    ]
    assert met == []


def is_without_tensorflow(module: str) -> bool:
    return not any(is_within(module, name) for name in WITH_TENSORFLOW)


def test_tensorflow_is_imported_in_few_places() -> None:
    elsewhere = [
        f"{MODULES[module]}:{line} imports {name}"
        for module, name, line in IMPORTS
        if is_without_tensorflow(module) and name.split(".")[0] in TENSORFLOW
    ]
    assert elsewhere == []


PROBE = """
import importlib, json, sys
loaded = {}
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != "prodigy":  # needs a licence
            raise
    loaded[name] = sorted({"tensorflow", "keras", "tf_keras"} & set(sys.modules))
print(json.dumps(loaded))
"""


def loaded_by(*modules: str, before: str = "") -> dict[str, list[str]]:
    command = [sys.executable, "-W", "error::DeprecationWarning:odkeras", "-c", before + PROBE, *modules]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_all_that_needs_no_tensorflow_imports_without_it() -> None:
    modules = ["odkeras", *(module for module in MODULES if is_without_tensorflow(module))]
    loaded = loaded_by(*modules)
    assert {name: packages for name, packages in loaded.items() if packages} == {}


def test_all_that_needs_no_tensorflow_imports_on_windows() -> None:
    """A lock imported `fcntl`, which only Unix has, so that no host could be imported on Windows."""
    modules = ["odkeras", *(module for module in MODULES if is_without_tensorflow(module))]
    loaded_by(*modules, before=f"import sys\nsys.modules.update(dict.fromkeys({UNIX_ONLY!r}))")


def test_the_package_itself_imports_nothing_heavy() -> None:
    command = [sys.executable, "-c", "import sys, odkeras; print('numpy' in sys.modules, 'PIL' in sys.modules)"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.stdout.split() == ["False", "False"], result.stderr


# --- the test's own eyes


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import odkeras.boxes", {"odkeras.boxes"}),
        ("from odkeras import boxes, __version__", {"odkeras.boxes", "odkeras"}),
        ("from odkeras.boxes import clip", {"odkeras.boxes"}),
        ("from odkeras.data import records", {"odkeras.data.records"}),
        ("from . import records", {"odkeras.data.records"}),
        ("from .records import write_records", {"odkeras.data.records"}),
        ("from ..boxes import clip", {"odkeras.boxes"}),
        ("def f():\n    import tensorflow as tf", {"tensorflow"}),
        ("if TYPE_CHECKING:\n    from odkeras.cli import main", {"odkeras.cli"}),
    ],
)
def test_imports_are_seen_however_they_are_written(tmp_path: Path, source: str, expected: set[str]) -> None:
    path = tmp_path / "module.py"
    path.write_text(source)
    assert {name for name, _ in imports_of("odkeras.data.module", path)} == expected


def test_no_two_test_files_have_the_same_name() -> None:
    """pytest imports them by it: the second one could not be collected where both are run by one process."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
