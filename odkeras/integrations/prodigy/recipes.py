"""The two recipes: they turn arguments into components. Everything is validated before anything is started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from odkeras.config.option import check_value, field_types, is_path
from odkeras.config.parsing import is_host
from odkeras.config.settings import DEFAULT_REST_PORT, AnnotateSettings
from odkeras.errors import ConfigError
from odkeras.integrations.prodigy.api import ProdigyApi, exit_on_error
from odkeras.integrations.prodigy.recipe import Components
from odkeras.integrations.prodigy.serving import ServingmodelArguments, ServingRecipe
from odkeras.integrations.prodigy.source import open_recipe_source
from odkeras.integrations.prodigy.training import TrainingRecipe
from odkeras.labels import LabelMap
from odkeras.session.arguments import check_dataset, resolve
from odkeras.session.setup import SessionSetup, check_server, how_to_serve


def trainmodel(*, config_path: str, **arguments: Any) -> Components:
    """The components of `image.trainmodel`. Exits with a one-line error if an argument is invalid.

    Args:
        config_path: the project folder, or its pipeline.config.
        arguments: the other arguments of the recipe; None for those that were not given.
    """
    with exit_on_error(TrainingRecipe.name):
        prodigy = ProdigyApi.installed()
        given = {name: value for name, value in arguments.items() if value is not None}
        types = field_types(AnnotateSettings)
        for name, value in given.items():
            if not is_path(types[name]):
                check_value(name, value, types[name], origin=f"--{name.replace('_', '-')}")
        settings = resolve(AnnotateSettings(config=Path(config_path), **{"source": None, **given}))
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


def servingmodel(arguments: ServingmodelArguments) -> Components:
    """The components of `image.servingmodel`. Exits with a one-line error if an argument is invalid."""
    with exit_on_error(ServingRecipe.name):
        prodigy = ProdigyApi.installed()
        label_map = LabelMap.load(arguments.label_map_path)
        check_dataset(arguments.dataset)
        for name, value, ok in (
            ("threshold", arguments.threshold, 0 <= arguments.threshold <= 1),
            ("predict-batch-size", arguments.predict_batch_size, arguments.predict_batch_size >= 1),
        ):
            if not ok:
                raise ConfigError(f"--{name} {value}: out of range")
        if not is_host(arguments.ip) or not 0 < arguments.port < 65536:
            raise ConfigError(
                f"IP is {arguments.ip!r} and PORT is {arguments.port}; give an address or host name, without http://, "
                f"and the REST port, usually {DEFAULT_REST_PORT}"
            )
        source = open_recipe_source(arguments.source, arguments.api or None, prodigy)
        recipe = ServingRecipe(arguments, label_map, source, prodigy)
        check_server(arguments.url, arguments.model_name, recipe.warn, "start it, with that model")
        return recipe.components()
