"""The two recipes: they turn arguments into components. Everything is validated before anything is started."""

from __future__ import annotations

from typing import Any

from odkeras.config.annotate import AnnotateSettings
from odkeras.config.serving import ServingmodelSettings
from odkeras.config.sources import effective_values
from odkeras.integrations.prodigy.api import ProdigyApi, exit_on_error
from odkeras.integrations.prodigy.recipe import Components
from odkeras.integrations.prodigy.serving import ServingRecipe
from odkeras.integrations.prodigy.source import open_recipe_source
from odkeras.integrations.prodigy.training import TrainingRecipe
from odkeras.labels import LabelMap
from odkeras.project import config_path as find_config
from odkeras.session.arguments import check_dataset, resolve
from odkeras.session.setup import SessionSetup, check_server, how_to_serve


def trainmodel(*, config_path: str, **arguments: Any) -> Components:
    """The components of `image.trainmodel`. Exits with a one-line error if an argument is invalid.

    Args:
        config_path: the project folder, or its pipeline.config.
        arguments: the other arguments of the recipe; None, or False for a flag, for those that were not given. They
            come from the environment, the project file, or the default.
    """
    with exit_on_error(TrainingRecipe.name):
        prodigy = ProdigyApi.installed()
        config = find_config(config_path)
        given = {name: value for name, value in arguments.items() if value is not None}
        flags = {name: value for name, value in given.items() if value is not False}
        options = {row.declared.name: row.value for row in effective_values(config, "recipe", flags)}
        settings = resolve(AnnotateSettings(config=config, **{"source": None, **given, **options}))
        source = open_recipe_source(settings.source, settings.api or None, prodigy)
        setup = SessionSetup.of(settings, settings.label)
        setup.project.create()
        recipe = TrainingRecipe(
            setup,
            source,
            prodigy,
            dataset=settings.dataset,
            exclude=settings.exclude or (),
            sync=settings.sync,
            remove_base64=settings.remove_base64,
        )
        if settings.external_server:
            check_server(settings.server_url, settings.model_name, recipe.warn, how_to_serve(settings))
        return recipe.components()


def servingmodel(**arguments: Any) -> Components:
    """The components of `image.servingmodel`. Exits with a one-line error if an argument is invalid.

    Args:
        arguments: the arguments of the recipe; None for those that were not given, as in `trainmodel`.
    """
    with exit_on_error(ServingRecipe.name):
        prodigy = ProdigyApi.installed()
        given = {name: value for name, value in arguments.items() if value is not None}
        options = {row.declared.name: row.value for row in effective_values(None, "servingmodel", given)}
        settings = ServingmodelSettings(**{**given, **options})
        check_dataset(settings.dataset)
        label_map = LabelMap.load(settings.label_map_path)
        source = open_recipe_source(settings.source, settings.api or None, prodigy)
        recipe = ServingRecipe(settings, label_map, source, prodigy)
        check_server(settings.url, settings.model_name, recipe.warn, "start it, with that model")
        return recipe.components()
