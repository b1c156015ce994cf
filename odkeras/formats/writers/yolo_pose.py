"""YOLO's text files with keypoints, for the pose models of Ultralytics. The layout is that of `yolo`.

A line has the class, the box, and x, y and visibility of all keypoints of the label map; 0 0 0 for one that is not
labelled or not of the object's class. Other models of Ultralytics would take these lines for polygons.
"""

from __future__ import annotations

from functools import cached_property

from odkeras.annotation import Span
from odkeras.errors import ConfigError
from odkeras.formats.writers.yolo import YoloWriter, to_shares
from odkeras.keypoints import NOT_LABELLED
from odkeras.labels import LabelMap


class YoloPoseWriter(YoloWriter):
    """One small file for each image."""

    holds_polygons = False
    holds_keypoints = True

    def begin(self) -> None:
        if not self._keypoint_names:
            raise ConfigError("the label map names no keypoints, and the dataset has none; use --format yolo")
        super().begin()

    @property
    def writes_polygons(self) -> bool:
        return False

    @cached_property
    def _keypoint_names(self) -> tuple[str, ...]:
        return LabelMap(self.target.labels).keypoint_names if self.target.labels else ()

    def extra_settings(self) -> str:
        return f"kpt_shape: [{len(self._keypoint_names)}, 3]\n"

    def line(self, span: Span, size_hw: tuple[int, int]) -> str:
        height, width = size_hw
        own = self.target.keypoint_names[span.label]
        points = {point.name: point for point in span.keypoints if point.name in own}
        words = [super().line(span, size_hw)]
        for name in self._keypoint_names:
            point = points.get(name)
            if point is None or point.visibility == NOT_LABELLED:
                words.append("0 0 0")
            else:
                words += [*to_shares([point.x_px / width, point.y_px / height]), str(point.visibility)]
        return " ".join(words)
