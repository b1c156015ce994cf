"""Label images with bounding boxes while a model learns from the answers and suggests the next boxes.

    prodigy image.trainmodel DATASET SOURCE CONFIG [IP] [PORT] [MODEL_NAME] -F recipes/image_train.py

The package `odkeras` declares the arguments (names, abbreviations and defaults are those of the 2019 recipe) and does
the work. It also registers the recipe, so that -F is not needed once it is installed. See README.md.
"""

import sys
from typing import Any, Dict

try:
    from odkeras.integrations.prodigy import recipe_arguments, require_prodigy, trainmodel, with_recipe_signature
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"{error}: odkeras, or a package that it needs, is not installed for {sys.executable}, where Prodigy runs; "
        "install it there as its README says",
        name=error.name,
    ) from None

prodigy = require_prodigy()


@prodigy.recipe("image.trainmodel", **recipe_arguments())
@with_recipe_signature
def image_trainmodel(**arguments: Any) -> Dict[str, Any]:
    """Label images with bounding boxes while a model learns from the answers and suggests the next boxes.

    Example: prodigy image.trainmodel raccoons images/ raccoons/pipeline.config -spe 100 -F recipes/image_train.py
    """
    return trainmodel(**arguments)
