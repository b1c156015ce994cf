"""Check the data augmentation of a pipeline.config.

The Object Detection API checks few of the parameters of its augmentation steps (`preprocessor.proto`), and none before
TensorFlow builds the input pipeline. `tests/integration/test_augmentation.py` runs every step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from odkeras.pipeline.problems import Problem
from odkeras.pipeline.proto import PipelineConfig, loads_masks

AUTOGRAPH_STEPS = frozenset({"random_square_crop_by_scale"})
"""The steps with an `if` on a tensor. The others need no autograph, which takes most of the time of building."""

LEGACY_FUNCTION_STEPS = frozenset({"ssd_random_crop_pad"})
"""The steps that choose a branch with the TensorFlow 1 operations `Switch` and `Merge`, and assert something in it. In
a function of TensorFlow 2, the assertions of all branches wait for each other, and all branches but one never run. The
API's own reader of records maps with a function of TensorFlow 1."""

_OPTIONS = "train_config.data_augmentation_options"
_UNUSABLE = {
    "autoaugment_image": ("needs tf.contrib, which TensorFlow 2 does not have", "remove it"),
    "rgb_to_gray": (
        "makes images of one channel, and the models take three",
        "use random_rgb_to_gray { probability: 1 }, whose gray images have three",
    ),
}
_REQUIRED = {"normalize_image": ("original_minval", "original_maxval", "target_minval", "target_maxval")}
_POSITIVE = {
    "resize_image": ("new_height", "new_width"),
    "random_resize_method": ("target_height", "target_width"),
    "random_downscale_to_target_pixels": ("min_target_pixels", "max_target_pixels"),
    "random_patch_gaussian": ("min_patch_size",),
    "random_black_patches": ("size_to_image_ratio",),
    "random_image_scale": ("min_scale_ratio", "max_scale_ratio"),
    "random_crop_to_aspect_ratio": ("aspect_ratio",),
    "random_scale_crop_and_pad_to_square": ("output_size", "scale_min", "scale_max"),
    "random_square_crop_by_scale": ("scale_min", "scale_max", "num_scales"),
    "ssd_random_crop_fixed_aspect_ratio": ("aspect_ratio",),
    "ssd_random_crop_pad_fixed_aspect_ratio": ("aspect_ratio",),
    "convert_class_logits_to_softmax": ("temperature",),
}
_WITHIN: dict[str, dict[str, tuple[float, float]]] = {
    "random_distort_color": {"color_ordering": (0, 1)},
    "random_jpeg_quality": {"min_jpeg_quality": (0, 100), "max_jpeg_quality": (0, 100)},
    "random_black_patches": {"size_to_image_ratio": (0, 1)},
    "adjust_gamma": {"gamma": (0, math.inf)},
}
_BELOW = {
    "random_jpeg_quality": ("min_jpeg_quality", "max_jpeg_quality"),
    "random_downscale_to_target_pixels": ("min_target_pixels", "max_target_pixels"),
    "random_patch_gaussian": ("min_patch_size", "max_patch_size"),
}
"""The pairs of which the first must be below the second, because the API draws an integer between them."""
_LENGTHS = {"means": (3,), "pad_color": (1, 3), "min_padded_size_ratio": (2,), "max_padded_size_ratio": (2,)}
_NEEDED_LISTS = {
    "subtract_channel_mean": ("means",),
    "ssd_random_crop_pad.operations": ("min_padded_size_ratio", "max_padded_size_ratio"),
}
_CROP_RANGES = {"min_aspect_ratio": math.inf, "max_aspect_ratio": math.inf, "min_area": 1.0, "max_area": 1.0}
"""The fields of crops that must be above 0, with their highest values."""
_FLIPS = ("random_horizontal_flip", "random_vertical_flip")
_LEAVES_SHAPES = ("random_crop_pad_image", "ssd_random_crop_pad", "random_self_concat_image")
"""The steps that move and drop boxes, but neither masks nor keypoints."""


def step_names(config: PipelineConfig) -> frozenset[str]:
    """The names of the augmentation steps of a config."""
    names = (option.WhichOneof("preprocessing_step") for option in config.train_config.data_augmentation_options)
    return frozenset(name for name in names if name)


def augmentation_problems(config: PipelineConfig) -> Iterator[Problem]:
    """Find the steps that the API refuses, that fail while they run, or that spoil masks or keypoints."""
    for option in config.train_config.data_augmentation_options:
        name = option.WhichOneof("preprocessing_step")
        if name is None:
            yield Problem(_OPTIONS, "", "has no step", "name one, for example random_horizontal_flip {}, or remove it")
        elif name in _UNUSABLE:
            reason, fix = _UNUSABLE[name]
            yield Problem(f"{_OPTIONS}.{name}", "", reason, fix)
        else:
            step = getattr(option, name)
            yield from _parameter_problems(name, step)
            yield from _score_problems(config, name)
            yield from _mask_problems(config, name)
            yield from _keypoint_problems(config, name, step)
    if config.train_config.use_multiclass_scores and not config.train_input_reader.load_multiclass_scores:
        yield _without_scores("train_config.use_multiclass_scores")


def _parameter_problems(name: str, step: Any) -> Iterator[Problem]:
    path = f"{_OPTIONS}.{name}"
    for field in _REQUIRED.get(name, ()):
        if not step.HasField(field):
            yield Problem(f"{path}.{field}", "", "must be set: the API has no default for it", "add it")
    for field in _POSITIVE.get(name, ()):
        if not getattr(step, field) > 0:
            yield Problem(f"{path}.{field}", f"{getattr(step, field):g}", "must be above 0", "correct it")
    for field, (lowest, highest) in _WITHIN.get(name, {}).items():
        if not lowest <= getattr(step, field) <= highest:
            allowed = f"{lowest} or more" if math.isinf(highest) else f"{lowest} to {highest}"
            yield Problem(f"{path}.{field}", f"{getattr(step, field):g}", f"must be {allowed}", "correct it")
    if name in _BELOW:
        low, high = _BELOW[name]
        if not getattr(step, low) < getattr(step, high):
            reason = f"must be below {high}, {getattr(step, high)}"
            yield Problem(f"{path}.{low}", str(getattr(step, low)), reason, "correct one of them")
    if name == "random_pad_image":
        for height, width in (("min_image_height", "min_image_width"), ("max_image_height", "max_image_width")):
            if step.HasField(height) != step.HasField(width):
                field, other = (width, height) if step.HasField(height) else (height, width)
                yield Problem(f"{path}.{field}", "", f"must be set where {other} is set", f"add it, or remove {other}")
    yield from _message_problems(path, step, _NEEDED_LISTS.get(name, ()))
    for number, operation in enumerate(getattr(step, "operations", ())):
        needed = _NEEDED_LISTS.get(f"{name}.operations", ())
        yield from _message_problems(f"{path}.operations[{number}]", operation, needed)


def _message_problems(path: str, message: Any, needed_lists: Sequence[str]) -> Iterator[Problem]:
    """Check the fields that are the same in several steps, and in the operations of a step."""
    for field, lengths in _LENGTHS.items():
        values = list(getattr(message, field, ()))
        if len(values) not in lengths and (values or field in needed_lists):
            needed = " or ".join(map(str, lengths))
            shown = ", ".join(f"{value:g}" for value in values)
            reason = f"has {len(values)} values, and the API needs {needed}"
            yield Problem(f"{path}.{field}", shown, reason, f"give {needed}")
    for field, highest in _CROP_RANGES.items():
        value = getattr(message, field, 1.0)
        if not 0 < value <= highest:
            allowed = "above 0" if math.isinf(highest) else f"above 0 and at most {highest:g}"
            yield Problem(f"{path}.{field}", f"{value:g}", f"must be {allowed}", "correct it")


def _score_problems(config: PipelineConfig, name: str) -> Iterator[Problem]:
    if name == "convert_class_logits_to_softmax" and not config.train_input_reader.load_multiclass_scores:
        yield _without_scores(f"{_OPTIONS}.{name}")


def _without_scores(field: str) -> Problem:
    fix = "set train_input_reader.load_multiclass_scores: true, or remove it"
    return Problem(field, "", "needs the scores of all classes, and the reader does not load them", fix)


def _mask_problems(config: PipelineConfig, name: str) -> Iterator[Problem]:
    if not loads_masks(config):
        return
    if name == "random_image_scale":
        reason = "scales masks along the wrong axes, and fails on images without objects"
        fix = "use random_scale_crop_and_pad_to_square, or load_instance_masks: false"
        yield Problem(f"{_OPTIONS}.{name}", "", reason, fix)
    elif name in _LEAVES_SHAPES:
        reason = "moves and drops boxes, but leaves their masks as they were, so that masks and boxes no longer match"
        yield Problem(f"{_OPTIONS}.{name}", "", reason, "use random_crop_image or ssd_random_crop", "warning")


def _keypoint_problems(config: PipelineConfig, name: str, step: Any) -> Iterator[Problem]:
    count, path = int(config.train_input_reader.num_keypoints), f"{_OPTIONS}.{name}"
    if not count:
        return
    if name in _FLIPS or (name == "random_rotation90" and step.keypoint_rot_permutation):
        field = "keypoint_flip_permutation" if name in _FLIPS else "keypoint_rot_permutation"
        order = list(getattr(step, field))
        if sorted(order) != list(range(count)):
            reason = f"must name the {count} keypoints of the reader (num_keypoints), each once"
            fix = f"give the numbers 0 to {count - 1} in the order after the step"
            yield Problem(f"{path}.{field}", ", ".join(map(str, order)), reason, fix)
    if name == "random_crop_image" and not step.clip_boxes:
        reason = "loses the visibilities of keypoints"
        yield Problem(f"{path}.clip_boxes", "false", reason, "set clip_boxes: true, or remove the step")
    if name in _LEAVES_SHAPES:
        reason = "moves and drops boxes, but leaves their keypoints as they were, so that they no longer match"
        yield Problem(path, "", reason, "use random_crop_image or ssd_random_crop", "warning")
