"""How pretrained weights are downloaded: the options of `odkeras init` and `odkeras weights download`."""

# No `from __future__ import annotations`: evaluated later, the annotations would not see this module.
from typing import Annotated

from msgspec import Meta

from odkeras.config.option import Option, Settings

DOWNLOADS = "Download of weights"
_COMMANDS = "init weights"


class DownloadSettings(Settings, frozen=True, kw_only=True):
    """Where weights are downloaded from.

    Args:
        mirror: address that replaces the original one; "" for the original.

    Raises:
        ConfigError: a value is not allowed.
    """

    mirror: Annotated[
        str, Option("Address to download from instead of the original one.", "", DOWNLOADS, _COMMANDS)
    ] = ""
    offline: Annotated[bool, Option("Do not download; use the cache alone.", "", DOWNLOADS, _COMMANDS)] = False
    download_timeout: Annotated[
        float,
        Meta(gt=0),
        Option("Seconds to wait for more of a download.", "", DOWNLOADS, _COMMANDS, "more than 0 seconds"),
    ] = 30.0
