"""The feature extractors that the Object Detection API's model_builder.py supports, and their special requirements."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from odkeras.pipeline.proto import PipelineConfig, model_type

_EFFICIENTNETS = tuple(f"ssd_efficientnet-b{size}_bifpn_keras" for size in range(8))
_HOURGLASSES = tuple(f"hourglass_{depth}" for depth in (10, 20, 32, 52, 104))
_TF2: dict[str, tuple[str, ...]] = {
    "ssd": (
        "ssd_mobilenet_v1_keras",
        "ssd_mobilenet_v1_fpn_keras",
        "ssd_mobilenet_v2_keras",
        "ssd_mobilenet_v2_fpn_keras",
        "ssd_resnet50_v1_fpn_keras",
        "ssd_resnet101_v1_fpn_keras",
        "ssd_resnet152_v1_fpn_keras",
        *_EFFICIENTNETS,
    ),
    "faster_rcnn": (
        "faster_rcnn_resnet50_keras",
        "faster_rcnn_resnet101_keras",
        "faster_rcnn_resnet152_keras",
        "faster_rcnn_inception_resnet_v2_keras",
        "faster_rcnn_resnet50_fpn_keras",
        "faster_rcnn_resnet101_fpn_keras",
        "faster_rcnn_resnet152_fpn_keras",
    ),
    "center_net": (
        "resnet_v2_50",
        "resnet_v2_101",
        "resnet_v1_18_fpn",
        "resnet_v1_34_fpn",
        "resnet_v1_50_fpn",
        "resnet_v1_101_fpn",
        *_HOURGLASSES,
        "mobilenet_v2",
        "mobilenet_v2_fpn",
        "mobilenet_v2_fpn_sep_conv",
    ),
}

TF1_ONLY: dict[str, str] = {
    **{name.removesuffix("_keras"): name for name in _TF2["ssd"] if name not in _EFFICIENTNETS},
    **{name.removesuffix("_keras"): name for name in _TF2["faster_rcnn"] if not name.endswith("_fpn_keras")},
    **dict.fromkeys(
        (
            "ssd_inception_v2",
            "ssd_inception_v3",
            "ssd_mobilenet_v1_ppn",
            "ssd_mobilenet_v2_mnasfpn",
            "ssd_mobilenet_v3_large",
            "ssd_mobilenet_v3_small",
            "ssd_mobilenet_v3_small_pruned",
            "ssd_mobilenet_edgetpu",
            "ssd_resnet50_v1_ppn",
            "ssd_resnet101_v1_ppn",
            "ssd_resnet152_v1_ppn",
            "embedded_ssd_mobilenet_v1",
            "ssd_pnasnet",
            "ssd_mobiledet_cpu",
            "ssd_mobiledet_dsp",
            "ssd_mobiledet_edgetpu",
            "ssd_mobiledet_gpu",
            "ssd_spaghettinet",
            "faster_rcnn_nas",
            "faster_rcnn_pnas",
            "faster_rcnn_inception_v2",
        ),
        "",
    ),
}
"""TensorFlow 1 name -> name of its TensorFlow 2 counterpart; "" if there is none."""

NEEDS_OFFICIAL = frozenset(_EFFICIENTNETS)
NO_BACKBONE = frozenset(_HOURGLASSES)
"""Hourglass networks have no classification backbone, so the API refuses fine_tune_checkpoint_type "classification"."""
DOWNLOADS_WEIGHTS = frozenset({"mobilenet_v2", "mobilenet_v2_fpn", "mobilenet_v2_fpn_sep_conv"})


def known(meta_architecture: str) -> tuple[str, ...]:
    """The TensorFlow 2 feature extractors of "ssd", "faster_rcnn" or "center_net"."""
    return _TF2.get(meta_architecture, ())


def near(name: str, meta_architecture: str) -> str:
    """The hint for an unknown name: the closest known name, or all of them."""
    names = known(meta_architecture)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(names)}"


def is_registered(name: str) -> bool:
    """Whether the installed API has a feature extractor that is not in the lists here, as forks of the API do.

    Searches the text of model_builder.py, without importing it.
    """
    if any(name in names for names in _TF2.values()):
        return False
    try:
        spec = importlib.util.find_spec("object_detection.builders")
    except ModuleNotFoundError:
        return False
    for root in spec.submodule_search_locations or () if spec is not None else ():
        builder = Path(root) / "model_builder.py"
        if name and builder.is_file() and f"'{name}':" in builder.read_text(encoding="utf-8"):
            return True
    return False


def mask_parts(config: PipelineConfig) -> list[str]:
    """The config fields that make the model learn masks; [] if it learns only boxes."""
    if model_type(config) == "center_net":
        fields = ("mask_estimation_task", "deepmac_mask_estimation")
        return [f"model.center_net.{field}" for field in fields if config.model.center_net.HasField(field)]
    if model_type(config) == "faster_rcnn":
        predictor = "second_stage_box_predictor.mask_rcnn_box_predictor"
        if config.model.faster_rcnn.second_stage_box_predictor.mask_rcnn_box_predictor.predict_instance_masks:
            return [f"model.faster_rcnn.{predictor}.predict_instance_masks"]
    return []


def needs_more_than_shapes(config: PipelineConfig) -> Iterator[tuple[str, str, str]]:
    """The parts of the model that boxes, masks and keypoints cannot train.

    Yields:
        Config field, what it learns from, and the field of `train_input_reader` that loads that.
    """
    if model_type(config) != "center_net":
        return
    model = config.model.center_net
    if model.HasField("densepose_estimation_task"):
        yield "model.center_net.densepose_estimation_task", "dense poses", "load_dense_pose"
    if model.HasField("track_estimation_task"):
        yield "model.center_net.track_estimation_task", "tracks", "load_track_id"


def takes_context(config: PipelineConfig) -> bool:
    """Whether the model takes features of other images besides the image (Context R-CNN)."""
    return model_type(config) == "faster_rcnn" and config.model.faster_rcnn.HasField("context_config")


def cannot_train(config: PipelineConfig) -> str | None:
    """The config field of a part of the model that cannot be trained; None if there is none."""
    if model_type(config) == "center_net" and config.model.center_net.HasField("temporal_offset_task"):
        return "model.center_net.temporal_offset_task"
    return None
