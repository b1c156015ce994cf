"""The host of `image.servingmodel`: the callbacks that Prodigy calls when nothing is trained."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from odkeras.integrations.prodigy.api import ProdigyApi
from odkeras.integrations.prodigy.host import Components, Host
from odkeras.labels import LabelMap
from odkeras.serving.client import ServingClient
from odkeras.session.components import VERSION_TIMEOUT_S
from odkeras.session.sources import Source
from odkeras.session.stream import TaskStream
from odkeras.session.suggester import Suggester
from odkeras.session.web_images import WebImages


class ServingHost(Host):
    """`image.servingmodel`: suggestions from an external model server. Nothing is trained.

    Args:
        url: base URL of the server.
        model_name: name of the model on it.
        source, prodigy, labels, dataset, exclude, classes: as in `TrainingHost`.
        label_map: label map of the served model.
        threshold: suggestions below this score are not shown.
        predict_batch_size: images per prediction request.
    """

    recipe = "image.servingmodel"

    def __init__(
        self,
        url: str,
        model_name: str,
        source: Source,
        prodigy: ProdigyApi,
        *,
        label_map: LabelMap,
        labels: Sequence[str],
        dataset: str,
        exclude: Sequence[str] = (),
        classes: Collection[int] | None = None,
        threshold: float = 0.5,
        predict_batch_size: int,
    ) -> None:
        super().__init__(prodigy, source, labels=labels, dataset=dataset, exclude=exclude, classes=classes)
        self._client = ServingClient(url, model_name)
        self._quick = ServingClient(url, model_name, timeout_s=VERSION_TIMEOUT_S, retries=0)
        self._label_map = label_map
        self._threshold = threshold
        self._together = predict_batch_size
        self._web = WebImages()

    def components(self) -> Components:
        """The components that the recipe returns to Prodigy."""
        return {
            "dataset": self._dataset,
            "view_id": "image_manual",
            "stream": self,
            "exclude": self._exclude or None,
            "on_load": self.on_load,
            "on_exit": self.on_exit,
            "config": self._config(),
        }

    def close(self) -> None:
        """Close the clients. Idempotent."""
        for each in (self._client, self._quick, self._web):
            each.close()

    def _open(self) -> TaskStream:
        suggest = Suggester(
            self._client,
            self._label_map,
            threshold=self._threshold,
            use_display_name=True,
            classes=self._classes,
            available_version=self._quick.available_version,
            on_problem=self._problem,
            on_suggested=self._suggested,
            warn=self.warn,
        )
        return TaskStream(
            self._source,
            suggest,
            is_fresh=suggest.is_fresh,
            exclude=self._answered,
            prepare=self._prepare,
            on_skip=self._skipped,
            fetch=self._web.fetch,
            together=self._together,
        )
