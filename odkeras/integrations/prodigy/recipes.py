"""The two recipes: they turn arguments into components. Everything is validated before anything is started."""

from __future__ import annotations

from odkeras.errors import ConfigError
from odkeras.integrations.prodigy.api import ProdigyApi, exit_on_error
from odkeras.integrations.prodigy.recipe import Components
from odkeras.integrations.prodigy.serving import ServingmodelArguments, ServingRecipe
from odkeras.integrations.prodigy.source import open_recipe_source
from odkeras.integrations.prodigy.training import TrainingRecipe
from odkeras.labels import LabelMap
from odkeras.session.arguments import TrainmodelArguments, check_dataset, options_of
from odkeras.session.children import server_url
from odkeras.session.options import is_host
from odkeras.session.setup import DEFAULT_PORT, SessionSetup, check_server, how_to_serve


def trainmodel(arguments: TrainmodelArguments) -> Components:
    """The components of `image.trainmodel`. Exits with a one-line error if an argument is invalid."""
    with exit_on_error(TrainingRecipe.name):
        prodigy = ProdigyApi.installed()
        check_dataset(arguments.dataset)
        options = options_of(arguments)
        source = open_recipe_source(arguments.source, arguments.api or None, prodigy)
        setup = SessionSetup.of(options, arguments.label)
        setup.project.create()
        recipe = TrainingRecipe(
            setup,
            source,
            prodigy,
            dataset=arguments.dataset,
            exclude=arguments.exclude or (),
            sync=arguments.sync,
            remove_base64=arguments.remove_base64,
        )
        if options.external_server:
            check_server(server_url(options.ip, options.port), options.model_name, recipe.warn, how_to_serve(options))
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
                f"and the REST port, usually {DEFAULT_PORT}"
            )
        source = open_recipe_source(arguments.source, arguments.api or None, prodigy)
        recipe = ServingRecipe(arguments, label_map, source, prodigy)
        check_server(arguments.url, arguments.model_name, recipe.warn, "start it, with that model")
        return recipe.components()
