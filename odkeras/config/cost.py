"""The time that an annotator needs for each action: the options of `odkeras stats`."""

# No `from __future__ import annotations`: evaluated later, the annotations would not see this module.
from typing import Annotated

from msgspec import Meta

from odkeras.config.option import COST, Option, Settings

Seconds = Annotated[float, Meta(ge=0)]


def _seconds(text: str) -> Option:
    return Option(f"Seconds to {text}.", "", COST, "stats", "0 or more seconds")


class CostModel(Settings, frozen=True, kw_only=True):
    """Seconds that an annotator needs per box.

    Sources: drawing a box takes 25.5 s (median of the crowd workers for ImageNet; Su, Deng, Fei-Fei, "Crowdsourcing
    annotations for visual object detection", HCOMP 2012) or 7.0 s (extreme clicking; Papadopoulos et al., ICCV 2017).
    Verifying a suggested box takes 1.6 to 2.4 s (Papadopoulos et al., "We don't need no bounding-boxes", CVPR 2016).
    The defaults are the published values that favour the suggestions least. Two values are assumptions, as we know no
    published ones. Adjusting a box: half the time of drawing one, for two of its four sides. Picking a candidate: a
    verification and the travel of the pointer to the object, 3 s in all.

    Args:
        draw_seconds: draw a box from scratch.
        pick_seconds: pick one of the model's candidates instead of drawing it.
        verify_seconds: verify a suggested box; every suggestion costs this.
        adjust_seconds: correct the position of a box.
        relabel_seconds: change the label of a box.
        delete_seconds: delete a box.

    Raises:
        ConfigError: a negative number.
    """

    draw_seconds: Annotated[Seconds, _seconds("draw a box")] = 7.0
    pick_seconds: Annotated[Seconds, _seconds("pick a candidate")] = 3.0
    verify_seconds: Annotated[Seconds, _seconds("look at a suggested box")] = 2.4
    adjust_seconds: Annotated[Seconds, _seconds("adjust a box")] = 3.5
    relabel_seconds: Annotated[Seconds, _seconds("give a box another label")] = 1.6
    delete_seconds: Annotated[Seconds, _seconds("delete a box")] = 1.6
