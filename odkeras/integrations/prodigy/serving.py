"""`image.servingmodel`: suggestions from an external model server. Nothing is trained."""

from __future__ import annotations

from odkeras.config.serving import ServingmodelSettings
from odkeras.integrations.prodigy.api import ProdigyApi
from odkeras.integrations.prodigy.recipe import Recipe
from odkeras.labels import LabelMap
from odkeras.session.reader import ImageReader
from odkeras.session.remote_model import RemoteModel
from odkeras.session.setup import chosen_labels
from odkeras.session.sources import Source
from odkeras.session.stream import TaskStream
from odkeras.session.suggester import Suggester, SuggestionRules
from odkeras.session.thresholds import FixedThreshold
from odkeras.session.web_images import WebImages


class ServingRecipe(Recipe):
    """`image.servingmodel`.

    Args:
        settings: the validated command line.
        label_map: label map of the served model.
        source: the images to annotate.
        prodigy: the installed Prodigy.
    """

    name = "image.servingmodel"

    def __init__(
        self, settings: ServingmodelSettings, label_map: LabelMap, source: Source, prodigy: ProdigyApi
    ) -> None:
        labels = chosen_labels(settings.label, label_map, use_display_name=True)
        super().__init__(prodigy, labels=labels, dataset=settings.dataset, exclude=settings.exclude or ())
        self._source = source
        self._model = RemoteModel(settings.url, settings.model_name)
        self._downloads = WebImages()
        classes = tuple(label_map.id_of(label) for label in labels) if settings.label else None
        rules = SuggestionRules(FixedThreshold(settings.threshold), use_display_name=True, classes=classes)
        self._suggester = Suggester(self._model, label_map, rules, self, batch_size=settings.predict_batch_size)

    def close(self) -> None:
        self._model.close()
        self._downloads.close()

    def _open(self) -> TaskStream:
        return TaskStream(
            self._source,
            self._suggester,
            ImageReader(self._downloads.fetch),
            exclude=self._answered,
            prepare=self._prepare,
            on_skip=self.skipped,
        )
