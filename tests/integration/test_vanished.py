"""A directory is deleted, or unmounted, while the trainer runs."""

from __future__ import annotations

import shutil

import pytest

from odkeras.annotation import Annotation
from odkeras.version_dirs import list_versions
from tests.fixtures_training import TinyProject
from tests.integration.test_rounds import begin

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("shared_models")]


@pytest.mark.parametrize("name", ["data", "model", "export"])
def test_training_goes_on_with_the_next_answers(name: str, project: TinyProject, shapes: list[Annotation]) -> None:
    """Without the data directory every round failed until a restart, since the store still had the lost examples; and
    the page showed a traceback as the reason."""
    rounds = begin(project)
    project.put(shapes[:2])
    assert rounds.run_pending()
    shutil.rmtree(project.folder / name)
    assert rounds.run_pending() is False
    rounds.heartbeat()
    for number in (2, 4):
        batch = project.put(shapes[number : number + 2])
        assert rounds.run_pending()
        row = project.metrics()[-1]
        assert (row["batches"], "failed" in row) == ([batch], False)
    assert project.metrics()[-1]["examples"] == (4 if name == "data" else 6)
    assert list_versions(project.directories.export_dir)[-1] == project.metrics()[-1]["version"]
    rounds.close()
    again = begin(project)
    assert again.run_pending() is False
    assert again._trainer.step == rounds._trainer.step
    again.close()
