"""Prodigy as the front end. A recipe file collects its arguments and returns the result of `trainmodel` or
`servingmodel`:

    return trainmodel(TrainmodelArguments(**locals()))

Supports Prodigy 1.8 and later; `api` hides the differences between versions.
"""

from odkeras.integrations.prodigy.api import exit_on_error, require_prodigy
from odkeras.integrations.prodigy.recipes import servingmodel, trainmodel
from odkeras.integrations.prodigy.serving import ServingmodelArguments
from odkeras.session.arguments import TrainmodelArguments, split_commas, split_list
from odkeras.session.thresholds import read_threshold

__all__ = [
    "ServingmodelArguments",
    "TrainmodelArguments",
    "exit_on_error",
    "read_threshold",
    "require_prodigy",
    "servingmodel",
    "split_commas",
    "split_list",
    "trainmodel",
]
