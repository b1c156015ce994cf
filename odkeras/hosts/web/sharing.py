"""The link that a person gives to a colleague."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from odkeras.connections import is_loopback
from odkeras.hosts.web.security import host_name


@dataclass(frozen=True)
class Sharing:
    """How others reach the page.

    Args:
        token: what their link has to hold; None where none is asked for.
        elsewhere: where other machines find a page that was opened on this one, such as http://192.168.1.7:8080; "" if
            they cannot.
    """

    token: str | None = None
    elsewhere: str = ""

    def link(self, origin: str) -> tuple[str, bool]:
        """A link to the form that asks for a name, and whether it works on other machines.

        Args:
            origin: where the page that asks was opened, such as http://127.0.0.1:8080. If that is not this machine
                alone (an address of its network, the name of a proxy), others can go there, too.
        """
        name = host_name(urlsplit(origin).netloc)
        is_here = is_loopback(name) or name.endswith(".localhost")
        base = self.elsewhere if is_here and self.elsewhere else origin
        query = {"token": self.token} if self.token else {}
        return f"{base}/?{urlencode({**query, 'session': ''})}", not is_here or bool(self.elsewhere)
