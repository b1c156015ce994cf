"""The layout of TensorBoard's "Custom Scalars" dashboard: charts grouped by the question that they answer."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tensorboard.compat.proto import summary_pb2
from tensorboard.plugins.custom_scalar import layout_pb2, metadata
from tensorboard.util import tensor_util

ALL_RUNS = ("train", "eval", "loop")

_READER = r"(.+/)?"  # with more than one `eval_input_reader`, metric names start with the reader's name


@dataclass(frozen=True)
class Chart:
    """One chart; it draws a line for every matching tag.

    Args:
        title: shown above the chart. About forty characters fit.
        tags: a regular expression that tags must match.
        run: the event directory that the tags are in. Without it the chart would be empty.
    """

    title: str
    tags: str
    run: str


CATEGORIES: Mapping[str, Sequence[Chart]] = {
    "Is it learning?": (
        Chart("total loss", r"^Loss/total_loss$", "train"),
        Chart("mAP, and mAP at IoU 0.5", rf"^{_READER}\w+_Precision/mAP(@0?\.50?IOU)?$", "eval"),
        Chart("suggestions kept, and right (share)", r"^work/(kept|precision)$", "loop"),
    ),
    "Evaluation": (
        Chart(
            "average precision of each class, IoU 0.5",
            rf"^{_READER}\w+PerformanceByCategory/(mAP@\.50IOU|AP50|AP@.+)/.+$",
            "eval",
        ),
        Chart("mAP at IoU 0.75", rf"^{_READER}\w+_Precision/mAP@\.75IOU$", "eval"),
        Chart("average recall", rf"^{_READER}\w+_Recall/AR@\d+$", "eval"),
    ),
    "Losses": (
        Chart("losses but the total", r"^Loss/(?!total_loss$).+$", "train"),
        Chart("learning rate", r"^optimizer/learning_rate$", "train"),
        Chart("gradient norm, before clipping", r"^optimizer/gradient_norm$", "train"),
    ),
    "Speed": (
        Chart("images per second", r"^speed/images_per_s$", "train"),
        Chart("seconds of training, of waiting for data", r"^seconds/(train|input)_s$", "loop"),
        Chart("seconds of a round's other stages", r"^seconds/(?!(train|input)_s$).+$", "loop"),
        Chart("steps per second", r"^speed/steps_per_s$", "train"),
        Chart("images trained on", r"^round/examples$", "loop"),
    ),
    "Work saved": (
        Chart("what became of the suggestions (share)", r"^work/(kept|adjusted|relabelled|deleted)$", "loop"),
        Chart("precision and recall of suggestions", r"^work/(control_)?(precision|recall)$", "loop"),
        Chart("boxes per image, suggested and added", r"^work/(added|suggested)_per_image$", "loop"),
        Chart("seconds saved per image, estimated", r"^work/seconds_saved_per_image$", "loop"),
    ),
}
"""In display order: TensorBoard opens the first category. Custom Scalars draws no line for a tag with parentheses, such
as "mAP (small)"; those tags appear in the other dashboards."""


def layout(runs: Collection[str] = ALL_RUNS) -> Any:
    """The `layout_pb2.Layout` of the charts whose event directory is in `runs`. Empty categories are left out."""
    filled = {title: [chart for chart in charts if chart.run in runs] for title, charts in CATEGORIES.items()}
    return layout_pb2.Layout(
        category=[
            layout_pb2.Category(title=title, chart=[_as_proto(chart) for chart in charts])
            for title, charts in filled.items()
            if charts
        ]
    )


def _as_proto(chart: Chart) -> Any:
    return layout_pb2.Chart(title=chart.title, multiline=layout_pb2.MultilineChartContent(tag=[chart.tags]))


def layout_summary(runs: Collection[str] = ALL_RUNS) -> Any:
    """The layout as a `summary_pb2.Summary`.

    TensorBoard's own `custom_scalar.summary.pb` does not set `data_class`, and TensorBoard's fast loader drops
    summaries without one.
    """
    about = metadata.create_summary_metadata()
    about.data_class = summary_pb2.DATA_CLASS_TENSOR
    tensor = tensor_util.make_tensor_proto(layout(runs).SerializeToString())
    value = summary_pb2.Summary.Value(tag=metadata.CONFIG_SUMMARY_TAG, metadata=about, tensor=tensor)
    return summary_pb2.Summary(value=[value])
