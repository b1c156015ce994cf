"""`image.servingmodel`: suggestions from an external model server. Nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from odkeras.config.settings import PREDICT_BATCH_SIZE, reachable
from odkeras.integrations.prodigy.api import ProdigyApi
from odkeras.integrations.prodigy.recipe import Recipe
from odkeras.labels import LabelMap
from odkeras.serving.client import ServingClient
from odkeras.session.events import Event
from odkeras.session.session import VERSION_TIMEOUT_S
from odkeras.session.setup import chosen_labels
from odkeras.session.sources import Source
from odkeras.session.stream import TaskStream
from odkeras.session.suggester import Suggester
from odkeras.session.web_images import WebImages


@dataclass(frozen=True)
class ServingmodelArguments:
    """Command line of `image.servingmodel`; see `recipes/image_serving.py`."""

    dataset: str
    ip: str
    port: int
    model_name: str
    label_map_path: str
    source: Any = None
    threshold: float = 0.5
    api: str | None = None
    exclude: Sequence[str] | None = None
    label: Sequence[str] | None = None
    predict_batch_size: int = PREDICT_BATCH_SIZE

    @property
    def url(self) -> str:
        """Base URL of the model server."""
        return f"http://{reachable(self.ip)}:{self.port}"


class ServingRecipe(Recipe):
    """`image.servingmodel`.

    Args:
        arguments: the validated command line.
        label_map: label map of the served model.
        source: the images to annotate.
        prodigy: the installed Prodigy.
    """

    name = "image.servingmodel"

    def __init__(
        self, arguments: ServingmodelArguments, label_map: LabelMap, source: Source, prodigy: ProdigyApi
    ) -> None:
        labels = chosen_labels(arguments.label, label_map, use_display_name=True)
        super().__init__(prodigy, labels=labels, dataset=arguments.dataset, exclude=arguments.exclude or ())
        self._source = source
        self._batch_size = arguments.predict_batch_size
        self._client = ServingClient(arguments.url, arguments.model_name)
        self._version_client = ServingClient(
            arguments.url, arguments.model_name, timeout_s=VERSION_TIMEOUT_S, retries=0
        )
        self._downloads = WebImages()
        self._suggester = Suggester(
            self._client,
            label_map,
            threshold=arguments.threshold,
            use_display_name=True,
            classes=[label_map.id_of(label) for label in labels] if arguments.label else None,
            available_version=self._version_client.available_version,
            on_problem=self._report_suggestions,
            on_suggested=self.suggested,
            warn=self.warn,
        )

    def close(self) -> None:
        for resource in (self._client, self._version_client, self._downloads):
            resource.close()

    def _open(self) -> TaskStream:
        return TaskStream(
            self._source,
            self._suggester,
            is_fresh=self._suggester.is_fresh,
            exclude=self._answered,
            prepare=self._prepare,
            on_skip=self.skipped,
            fetch=self._downloads.fetch,
            batch_size=self._batch_size,
        )

    def _report_suggestions(self, problem: str) -> None:
        self.event(Event(f"no suggestions: {problem}" if problem else "suggestions are available again"))
