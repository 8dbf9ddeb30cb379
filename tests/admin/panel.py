"""The page of endpoints as a browser without JavaScript meets it."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

from django.contrib.messages import get_messages
from django.urls import reverse

if TYPE_CHECKING:
    from django.test import Client

PAGE = reverse("admin:ollama_bridge_endpointstate_changelist")


class Shown(HTMLParser):
    """A page: its tags with their attributes, and its text with single blanks."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self._texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self._texts).split())

    def of(self, *names: str) -> list[dict[str, str | None]]:
        return [attrs for tag, attrs in self.tags if tag in names]

    @property
    def actions(self) -> list[str]:
        """The last words of the addresses that the page's own forms post to."""
        own = [attrs.get("action") or "" for attrs in self.of("form")]
        return [action.split("/")[-2] for action in own if action.startswith(PAGE)]


class Visit:
    """Somebody at the page."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def page(self) -> Shown:
        response = self.client.get(PAGE)
        assert response.status_code == 200, response
        return Shown(response.content.decode())

    def post(self, action: str, name: str = "default", **fields: str) -> Any:
        return self.client.post(f"{PAGE}{name}/{action}/", fields)

    def act(self, action: str, name: str = "default", **fields: str) -> str:
        """Press a button, and return what the next page says about it."""
        response = self.post(action, name, **fields)
        assert (response.status_code, response.url) == (302, PAGE)
        following = self.client.get(PAGE)
        return " ".join(str(message) for message in get_messages(following.wsgi_request))
