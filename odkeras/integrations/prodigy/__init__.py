"""Prodigy as the front end. A recipe file returns the result of `trainmodel` or `servingmodel`:

    return trainmodel(**arguments)

Supports Prodigy 1.8 and later; `api` hides the differences between versions.
"""

from odkeras.integrations.prodigy.api import exit_on_error, require_prodigy
from odkeras.integrations.prodigy.command_line import recipe_arguments, with_recipe_signature
from odkeras.integrations.prodigy.recipes import servingmodel, trainmodel

__all__ = [
    "exit_on_error",
    "recipe_arguments",
    "require_prodigy",
    "servingmodel",
    "trainmodel",
    "with_recipe_signature",
]
