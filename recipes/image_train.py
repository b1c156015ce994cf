"""Label images with bounding boxes while a model learns from the answers and suggests the next boxes.

    prodigy image.trainmodel DATASET SOURCE CONFIG [IP] [PORT] [MODEL_NAME] -F recipes/image_train.py

This file holds the arguments alone: names, abbreviations and defaults are those of the 2019 recipe. The work is done in
the package `odkeras`, which also registers the recipe, so that -F is not needed once it is installed. See README.md.
"""

# No `from __future__ import annotations`: Prodigy's command line reads the type hints as they are.
import sys
from typing import Any, Dict, List, Optional

try:
    from odkeras.integrations.prodigy import (
        TrainmodelArguments,
        read_threshold,
        require_prodigy,
        split_commas,
        split_list,
        trainmodel,
    )
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"{error}: odkeras, or a package that it needs, is not installed for {sys.executable}, where Prodigy runs; "
        "install it there as its README says",
        name=error.name,
    ) from None

prodigy = require_prodigy()


@prodigy.recipe(
    "image.trainmodel",
    dataset=("Dataset that the answers are stored in", "positional", None, str),
    source=("Directory of images, image, JSONL file, dataset:NAME, or - for JSONL on stdin", "positional", None, str),
    config_path=("Path of the pipeline.config", "positional", None, str),
    ip=("Address of a running TensorFlow Serving; without it a model server is started", "positional", None, str),
    port=("Its REST port; 8501 if only IP is given", "positional", None, int),
    model_name=("Its model's name; odkeras if not given", "positional", None, str),
    label_map_path=("Label map (.pbtxt); the one that CONFIG names if not given", "option", "lmp", str),
    label=("Comma-separated labels to choose from, or a file of them; all if not given", "option", "l", split_list),
    model_dir=("Checkpoints and TensorBoard; model/ beside CONFIG, with IP ./model_dir", "option", "md", str),
    export_dir=("Model versions for the server; export/ beside CONFIG, with IP ./export_dir", "option", "ed", str),
    data_dir=("Answers and TFRecords; data/ beside CONFIG, with IP ./data_dir", "option", "dd", str),
    steps_per_epoch=(
        "Training steps per round; -1: chosen, once over all answers so far but at least 100",
        "option",
        "spe",
        int,
    ),
    threshold=("Lowest score of a suggestion, 0 to 1; auto: learnt from the answers", "option", "t", read_threshold),
    control=("Share of images shown without suggestions, for comparison, such as 0.05", "option", "ctl", float),
    order=("Order of the images: sequential, random or uncertain", "option", "o", str),
    temp_files_num=("TFRecords and model versions to keep; 0 keeps all", "option", "tfn", int),
    max_checkpoints_num=("Checkpoints to keep; 0 keeps all", "option", "mcn", int),
    run_eval=("Evaluate after each round, on CONFIG's eval_input_reader", "flag", "E", bool),
    eval_steps=("Images to evaluate on", "option", "es", int),
    eval_split=(
        "Share of the answers that is kept for evaluation after each round and not trained on, such as 0.2",
        "option",
        "esp",
        float,
    ),
    publish_if_better=(
        "Evaluate first, and publish only what is not worse than the version that is served",
        "flag",
        "pib",
        bool,
    ),
    publish_tolerance=("How much worse it may be, in mAP from 0 to 1", "option", "pt", float),
    use_display_name=("Show the label map's display names", "flag", "D", bool),
    tf_logging_level=("How much TensorFlow says in its log: 10 debug, 20, 30, 40, 50 fatal", "option", "tl", int),
    api=("API loader of Prodigy's to read SOURCE with (old versions only)", "option", "a", str),
    exclude=("Comma-separated datasets whose images are left out", "option", "e", split_commas),
    replay=("on: train on all answers so far; off: on the newest only, as in 2019", "option", "rp", str),
    sync=("Wait after each batch until the model trained on it is served, as in 2019", "flag", "S", bool),
    external_trainer=("Start no trainer: `odkeras trainer` runs elsewhere on the same directories", "flag", "xt", bool),
    predict_batch_size=("Images per prediction request", "option", "pbs", int),
    remove_base64=(
        "Store paths in the database, not images (Prodigy 1.10 and later)",
        "flag",
        "R",
        bool,
    ),
)
def image_trainmodel(
    dataset: str,
    source: str,
    config_path: str,
    ip: Optional[str] = None,
    port: int = 0,
    model_name: Optional[str] = None,
    label_map_path: Optional[str] = None,
    label: Optional[List[str]] = None,
    model_dir: Optional[str] = None,
    export_dir: Optional[str] = None,
    data_dir: Optional[str] = None,
    steps_per_epoch: int = -1,
    threshold: float = 0.5,
    control: float = 0.0,
    order: str = "sequential",
    temp_files_num: int = 5,
    max_checkpoints_num: int = 5,
    run_eval: bool = False,
    eval_steps: int = 50,
    eval_split: float = 0.0,
    publish_if_better: bool = False,
    publish_tolerance: float = 0.01,
    use_display_name: bool = False,
    tf_logging_level: int = 40,
    api: Optional[str] = None,
    exclude: Optional[List[str]] = None,
    replay: str = "on",
    sync: bool = False,
    external_trainer: bool = False,
    predict_batch_size: int = 5,
    remove_base64: bool = False,
) -> Dict[str, Any]:
    """Label images with bounding boxes while a model learns from the answers and suggests the next boxes.

    Example: prodigy image.trainmodel raccoons images/ raccoons/pipeline.config -spe 100 -F recipes/image_train.py
    """
    return trainmodel(TrainmodelArguments(**locals()))
