"""The plan through which the chief of a cluster tells the others what to train on."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from odkeras.data.example_set import DrawnExamples
from odkeras.data.stored_example import StoredExample
from odkeras.errors import ClusterError
from odkeras.project import Project
from odkeras.training.plans import Plan, read_plan, write_plan

pytestmark = pytest.mark.integration


@pytest.fixture
def directories(tmp_path: Path) -> Project:
    project = Project(tmp_path / "data", tmp_path / "model", tmp_path / "export")
    project.create()
    return project


def examples(data_dir: Path, count: int) -> list[StoredExample]:
    return [
        StoredExample(f"image {number}", "batch", data_dir / "records" / "1.record", number, 9, frozenset({"b", "a"}))
        for number in range(count)
    ]


def read(example: StoredExample) -> bytes:
    return example.image_id.encode()


def batches(plan: Plan, workers: int, count: int, size: int = 4) -> list[list[bytes]]:
    """The batches of all workers together."""
    parts = [list(islice(plan.share(read, index, workers, size), count * size // workers)) for index in range(workers)]
    part = size // workers
    return [[each for share in parts for each in share[number * part : (number + 1) * part]] for number in range(count)]


class TestPlan:
    def test_the_batches_are_the_same_with_any_number_of_workers(self, directories: Project) -> None:
        """Also past the end of the plan, where it is repeated."""
        plan = Plan.of(DrawnExamples(examples(directories.data_dir, 7)), 10)
        alone = batches(plan, 1, 6)
        assert batches(plan, 2, 6) == alone and batches(plan, 4, 6) == alone
        assert [each for batch in alone for each in batch][:10] == [
            read(plan.examples[position]) for position in plan.draws
        ]

    def test_it_is_as_long_as_the_steps_need(self, directories: Project) -> None:
        plan = Plan.of(DrawnExamples(examples(directories.data_dir, 1000)), 12)
        assert len(plan.draws) == len(plan.examples) == 12  # each once in the first pass
        few = Plan.of(DrawnExamples(examples(directories.data_dir, 3)), 12)
        assert (len(few.draws), len(few.examples)) == (12, 3)

    def test_without_examples_nothing_is_read(self) -> None:
        assert list(Plan.of(DrawnExamples(), 5).share(read, 0, 2, 4)) == []


class TestItsFile:
    def test_another_machine_sees_the_directories_elsewhere(self, directories: Project, tmp_path: Path) -> None:
        plan = Plan.of(DrawnExamples(examples(directories.data_dir, 5)), 8)
        checksum = write_plan(plan, directories)
        there = Project(tmp_path / "mnt", directories.model_dir, tmp_path / "x")
        found = read_plan(checksum, there)
        assert found.draws == plan.draws
        assert found.examples == [
            StoredExample(each.image_id, "batch", tmp_path / "mnt/records/1.record", each.offset, 9, each.classes)
            for each in plan.examples
        ]

    def test_an_earlier_plan_is_not_taken_for_it(self, directories: Project) -> None:
        write_plan(Plan.of(DrawnExamples(examples(directories.data_dir, 5)), 8), directories)
        with pytest.raises(ClusterError, match="is not the plan that the chief has written 0 s ago; all workers need"):
            read_plan(1, directories, visible_s=0.0)

    def test_a_machine_without_the_model_directory(self, tmp_path: Path) -> None:
        with pytest.raises(ClusterError, match="same data and model directories"):
            read_plan(1, Project(tmp_path / "a", tmp_path / "b", tmp_path / "c"), visible_s=0.0)
