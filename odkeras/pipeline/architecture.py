"""Check that the parts of a model fit each other and the size of its images.

The Object Detection API checks little of this: a size that a feature pyramid cannot take ends in a TensorFlow error
about shapes, after the model was built.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from odkeras.pipeline.problems import Problem
from odkeras.pipeline.proto import PipelineConfig, feature_extractor_type, get_model, model_type

_TOP_BACKBONE_LEVEL = 5
"""The coarsest level of a backbone. Coarser levels of an FPN are computed from it, without upsampling."""
_CENTER_NET_STRIDE = 4
_HOURGLASS_STAGES = {"hourglass_10": 1, "hourglass_20": 2, "hourglass_32": 3, "hourglass_52": 5, "hourglass_104": 5}
_DEFAULT_SSD_LAYERS = 6
_MAX_STAGES = 3


@dataclass(frozen=True)
class _Sizes:
    """The sizes in pixels that a side of an image may have.

    Args:
        lowest: the smallest size that the extractor accepts; the API asserts it.
        multiple_of: its multiples always fit.
        fits: whether a size fits.
    """

    lowest: int = 1
    multiple_of: int = 1
    fits: Callable[[int], bool] = lambda size: True

    def near(self, size: int) -> str:
        """The closest multiples below and above a size."""
        below = max(size, self.lowest - 1) // self.multiple_of * self.multiple_of
        return " or ".join(str(size) for size in (below, below + self.multiple_of) if size >= self.lowest)


def architecture_problems(config: PipelineConfig) -> Iterator[Problem]:
    """Find sizes, levels, strides and stages with which the model cannot be built or run."""
    yield from _size_problems(config)
    if model_type(config) == "ssd":
        yield from _anchor_problems(config, "model.ssd.anchor_generator", config.model.ssd.anchor_generator)
    if model_type(config) == "faster_rcnn":
        generator = config.model.faster_rcnn.first_stage_anchor_generator
        yield from _anchor_problems(config, "model.faster_rcnn.first_stage_anchor_generator", generator)
        yield from _two_stage_problems(config.model.faster_rcnn)


def _size_problems(config: PipelineConfig) -> Iterator[Problem]:
    allowed, extractor, resizer = (
        _allowed_sizes(config),
        feature_extractor_type(config),
        get_model(config).image_resizer,
    )
    kind = resizer.WhichOneof("image_resizer_oneof")
    path = f"model.{model_type(config)}.image_resizer.{kind}"
    if kind == "fixed_shape_resizer":
        sizes = {side: int(getattr(resizer.fixed_shape_resizer, side)) for side in ("height", "width")}
    elif kind == "keep_aspect_ratio_resizer" and resizer.keep_aspect_ratio_resizer.pad_to_max_dimension:
        sizes = {"max_dimension": int(resizer.keep_aspect_ratio_resizer.max_dimension)}
    elif kind == "keep_aspect_ratio_resizer" and not allowed.fits(allowed.multiple_of + 1):
        reason = f"most of the sizes that it produces are no multiples of {allowed.multiple_of}, as {extractor} needs"
        fix = "set pad_to_max_dimension: true, or use fixed_shape_resizer"
        yield Problem(path, "", reason, fix, "warning")
        return
    else:
        return
    for side, size in sizes.items():
        if size < allowed.lowest:
            reason = f"is too small: {extractor} needs {allowed.lowest} or more"
            yield Problem(f"{path}.{side}", str(size), reason, f"use {allowed.near(allowed.lowest)}")
        elif not allowed.fits(size):
            reason = f"must be a multiple of {allowed.multiple_of}, because {extractor} halves and doubles images"
            yield Problem(f"{path}.{side}", str(size), reason, f"use {allowed.near(size)}")


def _allowed_sizes(config: PipelineConfig) -> _Sizes:
    extractor, lowest = feature_extractor_type(config), 1
    if model_type(config) == "center_net":
        # The target has size // 4 cells, and the output as many as the upsampling makes of the coarsest feature map.
        multiple = _CENTER_NET_STRIDE * 2 ** _HOURGLASS_STAGES.get(extractor, 3)
        return _Sizes(lowest, multiple, lambda size: size % multiple == 0)
    if model_type(config) == "ssd":
        lowest = 33 if extractor.startswith("ssd_mobilenet") else 129
    levels, features = _levels(config), get_model(config).feature_extractor
    crops = features.use_explicit_padding if model_type(config) == "ssd" else True  # Faster R-CNN pads to 32 itself
    if levels is None or (crops and not _has_bifpn(extractor)):
        return _Sizes(lowest)
    top = levels[-1] if _has_bifpn(extractor) else min(levels[-1], _TOP_BACKBONE_LEVEL)
    pads_to = max(1, features.pad_to_multiple)

    def fits(size: int) -> bool:
        padded = math.ceil(size / pads_to) * pads_to
        sides = [math.ceil(padded / 2**level) for level in range(levels[0], top + 1)]
        return all(fine == 2 * coarse for fine, coarse in itertools.pairwise(sides))

    return _Sizes(lowest, 2**top, fits)


def _has_bifpn(extractor: str) -> bool:
    return "bifpn" in extractor


def _levels(config: PipelineConfig) -> range | None:
    """The levels of the feature pyramid; None if the extractor has none. An image of level n is 2**n times smaller."""
    extractor, features = feature_extractor_type(config), get_model(config).feature_extractor
    if _has_bifpn(extractor):
        return range(features.bifpn.min_level, features.bifpn.max_level + 1)
    if "_fpn" not in extractor:
        return None
    if not features.HasField("fpn"):  # the defaults of the API's classes
        return range(2, 7) if model_type(config) == "faster_rcnn" else range(3, 8)
    return range(features.fpn.min_level, features.fpn.max_level + 1)


def _anchor_problems(config: PipelineConfig, path: str, generator: Any) -> Iterator[Problem]:
    """Check that there is one set of anchors for each feature map."""
    kind, levels = generator.WhichOneof("anchor_generator_oneof"), _levels(config)
    if kind is None:
        usual = "multiscale_anchor_generator" if levels else "ssd_anchor_generator or grid_anchor_generator"
        yield Problem(path, "", "there is no anchor generator", f"add {usual}")
        return
    maps = len(levels) if levels is not None else _feature_maps(config)
    anchors = getattr(generator, kind)
    if kind == "multiscale_anchor_generator":
        count, own = anchors.max_level - anchors.min_level + 1, range(anchors.min_level, anchors.max_level + 1)
        if levels is not None and own != levels:
            reason = f"has levels {_span(own)}, and the feature extractor {_span(levels)}"
            fix = f"set min_level: {levels[0]} max_level: {levels[-1]}"
            yield Problem(f"{path}.{kind}", "", reason, fix, "error" if count != maps else "warning")
            return
    elif kind == "ssd_anchor_generator":
        count = anchors.num_layers
    elif kind == "flexible_grid_anchor_generator":
        count = len(anchors.anchor_grid)
    else:
        count = 1
    if count != maps:
        reason = f"makes anchors for {count} feature {'map' if count == 1 else 'maps'}, and the extractor has {maps}"
        yield Problem(f"{path}.{kind}", "", reason, "make the numbers agree")


def _span(levels: range) -> str:
    return f"{levels[0]} to {levels[-1]}" if levels else "none"


def _feature_maps(config: PipelineConfig) -> int:
    """The feature maps of an extractor without a feature pyramid."""
    if model_type(config) == "faster_rcnn":
        return 1
    features = get_model(config).feature_extractor
    return int(features.num_layers) if features.HasField("num_layers") else _DEFAULT_SSD_LAYERS


def _two_stage_problems(model: Any) -> Iterator[Problem]:
    path, stride = "model.faster_rcnn", model.feature_extractor.first_stage_features_stride
    if stride not in (8, 16):
        yield Problem(f"{path}.feature_extractor.first_stage_features_stride", str(stride), "must be 8 or 16", "use 16")
    stages = model.number_of_stages
    if not 1 < stages <= _MAX_STAGES:
        reason = "finds objects without their classes" if stages == 1 else "there are 1 to 3 stages"
        yield Problem(f"{path}.number_of_stages", str(stages), reason, "use 2, or 3 for masks")
    for field in ("initial_crop_size", "maxpool_kernel_size", "maxpool_stride"):
        if getattr(model, field) < 1:
            value = str(getattr(model, field))
            yield Problem(f"{path}.{field}", value, "must be 1 or more", "14, 2 and 2 are usual for these three fields")
