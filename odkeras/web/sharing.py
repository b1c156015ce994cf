"""The link with which other annotators open the page."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from odkeras.connections import is_loopback
from odkeras.web.security import host_name


@dataclass(frozen=True)
class Sharing:
    """Builds links to the page.

    Args:
        token: access token to include in the link; None if none is required.
        elsewhere: base URL at which other machines reach the page, such as http://192.168.1.7:8080; "" if they cannot.
    """

    token: str | None = None
    elsewhere: str = ""

    def link(self, origin: str) -> tuple[str, bool]:
        """A link to the form that asks for a name, and whether it works on other machines.

        Args:
            origin: origin of the requesting page, such as http://127.0.0.1:8080. Unless it is a loopback address or
                name, other machines can use it too (it is a network address or the name of a proxy).
        """
        name = host_name(urlsplit(origin).netloc)
        is_here = is_loopback(name) or name.endswith(".localhost")
        base = self.elsewhere if is_here and self.elsewhere else origin
        query = {"token": self.token} if self.token else {}
        return f"{base}/?{urlencode({**query, 'session': ''})}", not is_here or bool(self.elsewhere)
