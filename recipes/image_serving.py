"""Label images with the suggestions of a model that a TensorFlow Serving serves; nothing is trained.

    prodigy image.servingmodel DATASET IP PORT MODEL_NAME LABEL_MAP SOURCE -F recipes/image_serving.py

This file holds the arguments alone; see README.md.
"""

# No `from __future__ import annotations`: Prodigy's command line reads the type hints as they are.
import sys
from typing import Any, Dict, List, Optional

try:
    from odkeras.integrations.prodigy import (
        ServingmodelArguments,
        require_prodigy,
        servingmodel,
        split_commas,
        split_list,
    )
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"{error}: odkeras, or a package that it needs, is not installed for {sys.executable}, where Prodigy runs; "
        "install it there as its README says",
        name=error.name,
    ) from None

prodigy = require_prodigy()


@prodigy.recipe(
    "image.servingmodel",
    dataset=("Dataset that the answers are stored in", "positional", None, str),
    ip=("Address of the TensorFlow Serving", "positional", None, str),
    port=("Its REST port, usually 8501", "positional", None, int),
    model_name=("Its model's name", "positional", None, str),
    label_map_path=("Label map (.pbtxt) that the model was trained with", "positional", None, str),
    source=("Directory of images, image, JSONL file, dataset:NAME, or - for JSONL on stdin", "positional", None, str),
    threshold=("Lowest score of a suggestion, 0 to 1", "option", "t", float),
    api=("API loader of Prodigy's to read SOURCE with (old versions only)", "option", "a", str),
    exclude=("Comma-separated datasets whose images are left out", "option", "e", split_commas),
    label=("Comma-separated labels to choose from, or a file of them; all if not given", "option", "l", split_list),
    predict_batch_size=("Images per prediction request", "option", "pbs", int),
)
def image_servingmodel(
    dataset: str,
    ip: str,
    port: int,
    model_name: str,
    label_map_path: str,
    source: str = "-",
    threshold: float = 0.5,
    api: Optional[str] = None,
    exclude: Optional[List[str]] = None,
    label: Optional[List[str]] = None,
    predict_batch_size: int = 5,
) -> Dict[str, Any]:
    """Label images with the suggestions of a model that a TensorFlow Serving serves; nothing is trained.

    Example: prodigy image.servingmodel raccoons localhost 8501 raccoon labels.pbtxt images/ -F recipes/image_serving.py
    """
    return servingmodel(ServingmodelArguments(**locals()))
