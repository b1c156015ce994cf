"""Prodigy as the host. A recipe file holds arguments and returns what `trainmodel` or `servingmodel` makes of them.

    return trainmodel(TrainmodelArguments(**locals()))

Written for every Prodigy from 1.8 on: what differs between them is in `api`.
"""

from odkeras.hosts.prodigy.api import exit_on_error, require_prodigy
from odkeras.hosts.prodigy.recipes import ServingmodelArguments, TrainmodelArguments, servingmodel, trainmodel
from odkeras.hosts.prodigy.source import split_commas, split_list
from odkeras.loop.thresholds import read_threshold

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
