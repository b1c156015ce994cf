"""Every augmentation step of the Object Detection API trains, or is refused before anything starts."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import cycle
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from object_detection.builders import image_resizer_builder
from object_detection.protos import preprocessor_pb2
from object_detection.utils import shape_utils
from PIL import Image

from odkeras.errors import ConfigError
from odkeras.pipeline import PipelineConfig, Problem
from odkeras.pipeline.augmentation import augmentation_problems
from odkeras.training.inputs import example_source, training_dataset

pytestmark = pytest.mark.integration

STEPS = [field.name for field in preprocessor_pb2.PreprocessingStep.DESCRIPTOR.oneofs[0].fields]
SIZE_HW = (48, 64)
BOXES = [(0.1, 0.2, 0.5, 0.6), (0.4, 0.5, 0.9, 0.9), (0.0, 0.0, 1.0, 1.0)]
SWAP = "keypoint_flip_permutation: 1 keypoint_flip_permutation: 0"
CROP = "min_object_covered: 0.5 min_area: 0.1 max_area: 1 overlap_thresh: 0.3 clip_boxes: true random_coef: 0.1"
ASPECT = "min_aspect_ratio: 0.75 max_aspect_ratio: 1.33"
BLACK = "pad_color: 0 pad_color: 0 pad_color: 0"
RATIOS = "min_padded_size_ratio: 1 min_padded_size_ratio: 1 max_padded_size_ratio: 1.5 max_padded_size_ratio: 1.5"
PARAMETERS = {
    "normalize_image": "original_minval: 0 original_maxval: 255 target_minval: 0 target_maxval: 1",
    "random_horizontal_flip": f"{SWAP} probability: 0.9",
    "random_vertical_flip": f"{SWAP} probability: 0.9",
    "random_rotation90": "keypoint_rot_permutation: 1 keypoint_rot_permutation: 0 probability: 0.9",
    "random_pixel_value_scale": "minval: 0.8 maxval: 1.2",
    "random_image_scale": "min_scale_ratio: 0.6 max_scale_ratio: 1.5",
    "random_rgb_to_gray": "probability: 0.8",
    "random_adjust_brightness": "max_delta: 0.3",
    "random_adjust_contrast": "min_delta: 0.7 max_delta: 1.1",
    "random_adjust_hue": "max_delta: 0.1",
    "random_adjust_saturation": "min_delta: 0.7 max_delta: 1.1",
    "random_distort_color": "color_ordering: 1",
    "random_jitter_boxes": "ratio: 0.1 jitter_mode: SHRINK_SYMMETRIC",
    "random_crop_image": f"{CROP} {ASPECT}",
    "random_pad_image": f"min_image_height: 60 min_image_width: 70 max_image_height: 90 max_image_width: 90 {BLACK}",
    "random_crop_pad_image": f"{CROP} {ASPECT} {RATIOS} {BLACK}",
    "random_crop_to_aspect_ratio": "aspect_ratio: 1.5 overlap_thresh: 0.5 clip_boxes: false",
    "random_black_patches": "max_black_patches: 3 probability: 0.9 size_to_image_ratio: 0.2",
    "random_resize_method": "target_height: 40 target_width: 50",
    "scale_boxes_to_pixel_coordinates": "",
    "resize_image": "new_height: 40 new_width: 50 method: BILINEAR",
    "subtract_channel_mean": "means: 1 means: 2 means: 3",
    "ssd_random_crop": f"operations {{ {CROP} {ASPECT} }} operations {{ {CROP} {ASPECT} }}",
    "ssd_random_crop_pad": f"operations {{ {CROP} {ASPECT} {RATIOS} pad_color_r: 0.5 }}",
    "ssd_random_crop_fixed_aspect_ratio": f"operations {{ {CROP} }} aspect_ratio: 1.5",
    "ssd_random_crop_pad_fixed_aspect_ratio": f"operations {{ {CROP} {ASPECT} }} aspect_ratio: 1.5 {RATIOS}",
    "rgb_to_gray": "",
    "convert_class_logits_to_softmax": "temperature: 2",
    "random_absolute_pad_image": f"max_height_padding: 10 max_width_padding: 20 {BLACK}",
    "random_self_concat_image": "concat_vertical_probability: 0.9 concat_horizontal_probability: 0.9",
    "autoaugment_image": "policy_name: 'v1'",
    "drop_label_probabilistically": "label: 1 drop_probability: 0.5",
    "remap_labels": "original_labels: 1 new_label: 2",
    "random_jpeg_quality": "random_coef: 0.1 min_jpeg_quality: 50 max_jpeg_quality: 90",
    "random_downscale_to_target_pixels": "random_coef: 0.1 min_target_pixels: 500 max_target_pixels: 1000",
    "random_patch_gaussian": "random_coef: 0.1 min_patch_size: 2 max_patch_size: 10 max_gaussian_stddev: 0.5",
    "random_square_crop_by_scale": "max_border: 16 scale_min: 0.5 scale_max: 1.5 num_scales: 4",
    "random_scale_crop_and_pad_to_square": "output_size: 64 scale_min: 0.5 scale_max: 1.5",
    "adjust_gamma": "gamma: 0.5 gain: 2",
}
TOGETHER = (
    "random_pixel_value_scale",
    "random_rgb_to_gray",
    "random_adjust_brightness",
    "random_adjust_contrast",
    "random_adjust_hue",
    "random_adjust_saturation",
    "random_distort_color",
    "random_black_patches",
    "random_jpeg_quality",
    "random_patch_gaussian",
    "adjust_gamma",
    "drop_label_probabilistically",
    "remap_labels",
)
"""Steps that change colours or classes alone: one pipeline has them all, because building one takes seconds."""
REFUSED = {
    ("normalize_image", ""): "original_minval: must be set",
    ("random_horizontal_flip", ""): "must name the 2 keypoints",
    ("random_vertical_flip", ""): "must name the 2 keypoints",
    ("random_image_scale", ""): "scales masks along the wrong axes",
    ("random_image_scale", PARAMETERS["random_image_scale"]): "scales masks along the wrong axes",
    ("random_resize_method", ""): "target_height '0': must be above 0",
    ("resize_image", ""): "new_height '0': must be above 0",
    ("subtract_channel_mean", ""): "means: has 0 values, and the API needs 3",
    ("rgb_to_gray", ""): "makes images of one channel",
    ("convert_class_logits_to_softmax", ""): "needs the scores of all classes",
    ("convert_class_logits_to_softmax", "temperature: 2"): "needs the scores of all classes",
    ("autoaugment_image", ""): "needs tf.contrib",
    ("autoaugment_image", "policy_name: 'v1'"): "needs tf.contrib",
}
"""What is refused with masks and keypoints, and without the scores of all classes."""


def encode(pixels: np.ndarray, format: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format)
    return file.getvalue()


def serialized_example(objects: int) -> bytes:
    """An example with masks and two keypoints for each object."""
    features = tf.train.Features()
    boxes = BOXES[:objects]
    texts: dict[str, list[bytes]] = {
        "image/encoded": [encode(np.full((*SIZE_HW, 3), 99, np.uint8), "JPEG")],
        "image/format": [b"jpeg"],
        "image/source_id": [b"%d" % objects],
        "image/object/class/text": [b"circle", b"square", b"circle"][:objects],
        "image/object/mask": [encode(np.ones(SIZE_HW, np.uint8), "PNG")] * objects,
        "image/object/keypoint/text": [b"left", b"right"] * objects,
    }
    for name, values in texts.items():
        features.feature[name].bytes_list.value.extend(values)
    for number, side in enumerate(("ymin", "xmin", "ymax", "xmax")):
        features.feature[f"image/object/bbox/{side}"].float_list.value.extend(box[number] for box in boxes)
    for axis in "yx":
        features.feature[f"image/object/keypoint/{axis}"].float_list.value.extend([0.45, 0.55] * objects)
    features.feature["image/object/keypoint/visibility"].int64_list.value.extend([2, 2] * objects)
    for name, value in (("height", SIZE_HW[0]), ("width", SIZE_HW[1])):
        features.feature[f"image/{name}"].int64_list.value.append(value)
    return tf.train.Example(features=features).SerializeToString()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, session_config: PipelineConfig) -> PipelineConfig:
    """A config that loads boxes."""
    path = tmp_path_factory.mktemp("labels") / "label_map.pbtxt"
    keypoints = "keypoints { id: 0 label: 'left' } keypoints { id: 1 label: 'right' }"
    path.write_text(f"item {{ id: 1 name: 'circle' {keypoints} }} item {{ id: 2 name: 'square' }}")
    config = type(session_config)()
    config.CopyFrom(session_config)
    config.train_config.batch_size = 1
    config.train_input_reader.label_map_path = str(path)
    return config


@pytest.fixture(scope="module")
def everything(plain: PipelineConfig) -> PipelineConfig:
    """A config that loads masks and keypoints, too."""
    config = type(plain)()
    config.CopyFrom(plain)
    text_format.Merge("load_instance_masks: true mask_type: PNG_MASKS num_keypoints: 2", config.train_input_reader)
    return config


def with_steps(base: PipelineConfig, *steps: str) -> PipelineConfig:
    config = type(base)()
    config.CopyFrom(base)
    for step in steps:
        text_format.Parse(step, config.train_config.data_augmentation_options.add())
    return config


def problems_of(config: PipelineConfig, severity: str = "error") -> list[Problem]:
    return [problem for problem in augmentation_problems(config) if problem.severity == severity]


def run(config: PipelineConfig) -> None:
    """Build the pipeline, and read an image with objects and one without."""
    resize = image_resizer_builder.build(config.model.center_net.image_resizer)
    model = SimpleNamespace(preprocess=lambda image: shape_utils.resize_images_and_return_shapes(image, resize))
    examples = [serialized_example(3), serialized_example(0)]

    def generate() -> Iterator[bytes]:
        return cycle(examples)

    dataset: Any = training_dataset(config, model, example_source(generate))
    for features, labels in dataset.take(2):
        assert np.isfinite(features["image"]).all() and features["image"].shape[-1] == 3
        count = int(labels["num_groundtruth_boxes"][0])
        assert not labels["groundtruth_weights"][0, count:].numpy().any()
        assert np.isfinite(labels["groundtruth_boxes"]).all()


def test_the_list_of_parameters_is_complete() -> None:
    assert set(PARAMETERS) == set(STEPS)


@pytest.mark.parametrize(
    "names", [*((name,) for name in STEPS if name not in TOGETHER), TOGETHER], ids=lambda names: names[0]
)
def test_a_step_trains_or_is_refused(names: tuple[str, ...], everything: PipelineConfig) -> None:
    """With and without parameters. Several ended in a traceback, after the model was built. One of them is
    `random_square_crop_by_scale`, which 12 configs of the model zoo use."""
    accepted = []
    for name in names:
        for parameters in dict.fromkeys(("", PARAMETERS[name])):
            step = f"{name} {{ {parameters} }}"
            problems = problems_of(with_steps(everything, step))
            if problems:
                assert REFUSED.get((name, parameters), "not expected") in str(problems[0])
            else:
                assert (name, parameters) not in REFUSED
                accepted.append(step)
    if accepted:
        run(with_steps(everything, *accepted))


@pytest.mark.parametrize("step", ["random_horizontal_flip {}", "random_vertical_flip {}", "random_image_scale {}"])
def test_steps_that_only_masks_or_keypoints_prevent(step: str, plain: PipelineConfig) -> None:
    config = with_steps(plain, step)
    assert problems_of(config) == []
    run(config)


def test_scores_of_all_classes(plain: PipelineConfig) -> None:
    """Without them, `use_multiclass_scores` was a KeyError."""
    config = with_steps(plain, "convert_class_logits_to_softmax {}")
    config.train_config.use_multiclass_scores = True
    fields = ["train_config.data_augmentation_options.convert_class_logits_to_softmax"]
    assert [problem.field for problem in problems_of(config)] == [*fields, "train_config.use_multiclass_scores"]
    config.train_input_reader.load_multiclass_scores = True
    assert problems_of(config) == []
    run(config)


@pytest.mark.parametrize(
    ("step", "field"),
    [
        ("convert_class_logits_to_softmax { temperature: 0 }", "temperature"),
        ("adjust_gamma { gamma: -1 }", "gamma"),
        ("random_black_patches { size_to_image_ratio: 0 }", "size_to_image_ratio"),
        ("random_black_patches { size_to_image_ratio: 2 }", "size_to_image_ratio"),
        ("random_crop_to_aspect_ratio { aspect_ratio: 0 }", "aspect_ratio"),
        ("random_crop_image { min_area: 0 }", "min_area"),
        ("random_crop_image { max_area: 2 }", "max_area"),
        ("random_crop_pad_image { max_aspect_ratio: 0 }", "max_aspect_ratio"),
        ("ssd_random_crop { operations { min_area: 0.1 max_area: 1 } }", "max_aspect_ratio"),
        ("ssd_random_crop_pad { operations { min_area: 0.1 max_area: 1 } }", "min_padded_size_ratio"),
        ("random_crop_image { clip_boxes: false random_coef: 0.5 }", "clip_boxes"),
        ("random_distort_color { color_ordering: 2 }", "color_ordering"),
        ("random_downscale_to_target_pixels { min_target_pixels: 9 max_target_pixels: 9 }", "min_target_pixels"),
        (
            f"random_horizontal_flip {{ {SWAP} keypoint_flip_permutation: 2 probability: 1 }}",
            "keypoint_flip_permutation",
        ),
        ("random_image_scale { min_scale_ratio: 0 max_scale_ratio: 0 }", "min_scale_ratio"),
        ("random_jpeg_quality { min_jpeg_quality: 90 max_jpeg_quality: 90 }", "min_jpeg_quality"),
        ("random_jpeg_quality { min_jpeg_quality: 150 max_jpeg_quality: 200 }", "min_jpeg_quality"),
        ("random_pad_image { min_image_height: 60 }", "min_image_width"),
        ("random_pad_image { pad_color: 1 pad_color: 2 }", "pad_color"),
        ("random_crop_pad_image { min_padded_size_ratio: 1 }", "min_padded_size_ratio"),
        ("random_patch_gaussian { min_patch_size: 0 }", "min_patch_size"),
        ("random_patch_gaussian { min_patch_size: 5 max_patch_size: 5 }", "min_patch_size"),
        ("random_resize_method { target_height: 40 }", "target_width"),
        ("random_scale_crop_and_pad_to_square { output_size: 0 }", "output_size"),
        ("random_square_crop_by_scale { num_scales: 0 }", "num_scales"),
    ],
)
def test_parameters_that_the_api_cannot_take(
    step: str, field: str, plain: PipelineConfig, everything: PipelineConfig
) -> None:
    """Each of them fails in the API, and none of them gets there."""
    config = with_steps(everything if field in ("clip_boxes", "keypoint_flip_permutation") else plain, step)
    assert field in [problem.field.rpartition(".")[2] for problem in problems_of(config)]
    with pytest.raises((ConfigError, tf.errors.OpError)):
        run(config)


@pytest.mark.parametrize("name", ["random_crop_pad_image", "ssd_random_crop_pad", "random_self_concat_image"])
def test_steps_that_leave_masks_and_keypoints_behind(name: str, everything: PipelineConfig) -> None:
    """The API trains with them, on masks of other objects."""
    warnings = problems_of(with_steps(everything, f"{name} {{}}"), "warning")
    assert ["masks" in warnings[0].reason, "keypoints" in warnings[1].reason] == [True, True]


@pytest.mark.parametrize(
    ("steps", "step"),
    [("AUTOGRAPH_STEPS", "random_square_crop_by_scale {}"), ("LEGACY_FUNCTION_STEPS", "ssd_random_crop_pad {}")],
)
def test_only_steps_that_need_it_are_built_differently(
    steps: str, step: str, plain: PipelineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Autograph takes most of the time of building. Without the exceptions these steps fail."""
    monkeypatch.setattr(f"odkeras.training.inputs.{steps}", frozenset())
    with pytest.raises((ConfigError, tf.errors.OpError)):
        run(with_steps(plain, step))
