"""Images in the text of a record: `data:` URIs."""

from __future__ import annotations

import base64
import urllib.parse

from odkeras.errors import ImageError


def bytes_from_data_uri(uri: str) -> bytes:
    """The bytes of a `data:` URI, base64 or percent-encoded.

    Raises:
        ImageError: not a data URI, invalid base64, or not valid text.
    """
    header, comma, payload = uri.partition(",")
    if not header.lower().startswith("data:") or not comma:
        raise ImageError(f"not a data URI: {uri[:40]!r}")
    if not header.lower().endswith(";base64"):
        try:
            return urllib.parse.unquote_to_bytes(payload)
        except UnicodeEncodeError as error:  # a lone surrogate, which JSON can contain
            raise ImageError(f"the data URI is not valid text: {error.reason}") from error
    if "%" in payload:
        payload = urllib.parse.unquote(payload)
    if any(space in payload for space in " \t\r\n"):
        payload = "".join(payload.split())
    try:
        return base64.b64decode(payload, validate=True)
    except ValueError as error:
        raise ImageError(f"broken base64 in the data URI: {error}") from error
