"""`odkeras weights`: list and download pretrained weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from odkeras.cli.options import Given, with_options
from odkeras.cli.progress import progress_bar
from odkeras.config.downloads import DownloadSettings
from odkeras.text import say

if TYPE_CHECKING:
    from odkeras.pretrained.cache import WeightsCache
    from odkeras.pretrained.catalogue import Backbone, ZooModel


def add_commands(app: typer.Typer) -> None:
    weights = typer.Typer(help="List and download pretrained weights, to start a training from.", no_args_is_help=True)
    weights.command("list", epilog="Example: odkeras weights list")(list_weights)
    weights.command("download", epilog="Example: odkeras weights download ssd_mobilenet_v2_fpnlite_320x320")(download)
    app.add_typer(weights, name="weights")


def list_weights() -> None:
    """List all weights that `odkeras init --weights` and `odkeras weights download` take by name."""
    from odkeras.pretrained.cache import WeightsCache
    from odkeras.pretrained.catalogue import BACKBONES, ZOO

    cache = WeightsCache()
    say("Detectors trained on COCO (TensorFlow 2 Detection Model Zoo)")
    say("mAP: COCO mAP in %, after a slash of masks or keypoints; ms: time per image on a GPU; both as published.")
    say("CPU: a round of training takes minutes on two cores; MB: download, where known. init drops keypoints.\n")
    say(f"{'name':44} {'pixels':>9} {'mAP':>9} {'ms':>4} {'CPU':3} {'MB':>4}  {'outputs':16}  cached")
    for model in ZOO:
        size = "" if model.archive_bytes is None else round(model.archive_bytes / 1e6)
        say(
            f"{model.name:44} {model.input_size:>9} {model.coco_map:>9} {model.speed_ms or '':>4} "
            f"{'yes' if model.fits_cpu else '':3} {size:>4}  {model.outputs:16}  {_cached(cache, model)}".rstrip()
        )
    say("\nBackbones trained on ImageNet (Keras Applications); top-1: published accuracy in %\n")
    say(f"{'name':44} {'top-1':>9} {'CPU':3}  {'template':28}  cached")
    for backbone in BACKBONES:
        say(
            f"{backbone.name:44} {backbone.top1:>9} {'yes' if backbone.fits_cpu else '':3}  {backbone.template:28}  "
            f"{_cached(cache, backbone)}".rstrip()
        )
    say(
        "\nCenterNet with MobileNetV2 downloads mobilenet_v2_imagenet when its training starts. Keras has no weights "
        "for Hourglass and ResNet-18/34."
    )


def _cached(cache: WeightsCache, weights: ZooModel | Backbone) -> str:
    return "yes" if cache.has(weights) else ""


@with_options("weights")
def download(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name from `odkeras weights list`.")], *, given: Given
) -> None:
    """Download weights into the cache, for later use without a network.

    The cache is the folder in the environment variable ODKERAS_CACHE, otherwise the platform's cache directory. An
    interrupted download continues with the next call. The proxy is that of the environment (HTTPS_PROXY and the like).
    """
    from odkeras.pretrained.catalogue import ZooModel, find_weights

    weights = find_weights(name)
    with open_cache(weights.name, given.build(DownloadSettings)) as cache:
        say(cache.zoo_model(weights) if isinstance(weights, ZooModel) else cache.keras_file(weights))


@contextmanager
def open_cache(what: str, settings: DownloadSettings) -> Iterator[WeightsCache]:
    """The cache of weights, whose downloads show a progress bar labelled `what`."""
    from odkeras.pretrained.cache import WeightsCache

    with progress_bar(what, in_bytes=True) as advance:
        yield WeightsCache(settings=settings, progress=advance)
