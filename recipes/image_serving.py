"""Label images with the suggestions of a model that a TensorFlow Serving serves; nothing is trained.

    prodigy image.servingmodel DATASET IP PORT MODEL_NAME LABEL_MAP SOURCE -F recipes/image_serving.py

The package `odkeras` declares the arguments and does the work. See README.md.
"""

import sys
from functools import partial
from typing import Any, Dict

try:
    from odkeras.integrations.prodigy import recipe_arguments, require_prodigy, servingmodel, with_recipe_signature
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"{error}: odkeras, or a package that it needs, is not installed for {sys.executable}, where Prodigy runs; "
        "install it there as its README says",
        name=error.name,
    ) from None

prodigy = require_prodigy()


@prodigy.recipe("image.servingmodel", **recipe_arguments("servingmodel"))
@partial(with_recipe_signature, command="servingmodel")
def image_servingmodel(**arguments: Any) -> Dict[str, Any]:
    """Label images with the suggestions of a model that a TensorFlow Serving serves; nothing is trained.

    Example: prodigy image.servingmodel raccoons localhost 8501 raccoon labels.pbtxt images/ -F recipes/image_serving.py
    """
    return servingmodel(**arguments)
