"""What the training dataset of the loop reads: the examples drawn by the chief, of which each worker reads its part."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from odkeras.data.example_set import DrawnExamples
from odkeras.data.stored_example import StoredExample
from odkeras.project import Project
from odkeras.training.cluster import Cluster
from odkeras.training.plans import Plan, read_plan, write_plan


class ExampleFeed:
    """The examples of the next steps. Each new iterator of the dataset calls `generate` again.

    Args:
        read: reads an example.
        directories: through the model directory the workers of a cluster get the plan.
        batch_size: of all workers together.
        cluster: None if this process trains alone.
    """

    def __init__(
        self,
        read: Callable[[StoredExample], bytes],
        directories: Project,
        batch_size: int,
        cluster: Cluster | None = None,
    ) -> None:
        self._read = read
        self._directories = directories
        self._batch_size = batch_size
        self._cluster = cluster
        self._drawn = DrawnExamples()
        self._plan = Plan((), ())

    def generate(self) -> Iterator[bytes]:
        """The serialized examples, endlessly; none before the first `draw` or `follow`."""
        if self._cluster is None:
            return self._drawn.draw(self._read)
        spec = self._cluster.spec
        return self._plan.share(self._read, spec.index, len(spec.addresses), self._batch_size)

    def draw(self, drawn: DrawnExamples, steps: int) -> int:
        """Read these examples from now on; returns the checksum of the plan in a cluster, else 0.

        Args:
            steps: how many steps are planned. More steps repeat the examples of a plan.
        """
        self._drawn = drawn
        if self._cluster is None:
            return 0
        self._plan = Plan.of(drawn, steps * self._batch_size)
        return write_plan(self._plan, self._directories)

    def follow(self, checksum: int) -> None:
        """Read the examples that the chief has drawn.

        Raises:
            ClusterError: this machine does not see the plan.
        """
        self._plan = read_plan(checksum, self._directories)
