"""Keys of several endpoints, and what finds them where they must not be."""

from __future__ import annotations

import pickle
import secrets
import traceback
from typing import TYPE_CHECKING, Any

from ollama_bridge.testing import FakeOllama, faults
from tests.net.test_canary import family, held

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ollama_bridge.testing import RecordedRequest

HEADER = "X-Tenant"
LURE = "lured"


class Keys:
    """A key and a secret header for each server by name."""

    def __init__(self, servers: Mapping[str, FakeOllama]) -> None:
        self.servers = servers
        self.of = {
            name: tuple(f"{kind}{name}{secrets.token_hex(8)}" for kind in ("key", "tenant"))
            for name in servers
        }

    def endpoints(self) -> dict[str, dict[str, Any]]:
        """Return the settings of an endpoint for each server."""
        return {
            name: {
                "BASE_URL": server.url,
                "API_KEY": self.of[name][0],
                "HEADERS": {HEADER: self.of[name][1]},
            }
            for name, server in self.servers.items()
        }

    def lure(self, from_: str, to: str, path: str | None = "/api/chat") -> None:
        """Let one server send all who ask on to another one."""
        address = f"{self.servers[to].url}/api/{LURE}"
        cookie = ("Set-Cookie", f"{LURE}={self.of[from_][0]}")
        redirect = faults.Status(307, headers=(("Location", address), cookie))
        self.servers[from_].misbehave(redirect, path=path)

    def told(self, *texts: str) -> list[str]:
        """Return which of all secrets are in these texts."""
        every = [secret for found in self.of.values() for secret in found]
        return [secret for secret in every if any(secret in text for text in texts)]

    def strays(self) -> list[str]:
        """Return what any server was sent that is another's, or that no client should send.

        Every request must have its own server's key and header: else there would be no secrets to
        find.
        """
        found = []
        for name, server in self.servers.items():
            assert server.requests, f"nobody has asked {name}"
            for request in server.requests:
                sent = _sent(request)
                told = self.told(sent)
                assert {*told} >= {*self.of[name]}, request
                found += [secret for secret in told if secret not in self.of[name]]
                found += [word for word in (LURE, "cookie") if word in sent.lower()]
        return found


def _sent(request: RecordedRequest) -> str:
    head = " ".join(f"{name}: {value}" for name, value in request.headers.items())
    return f"{request.method} {request.target} {head} {request.body!r}"


def words_of(error: BaseException) -> Iterator[str]:
    """Yield all that an exception says or holds, and what it came from; and its pickle."""
    yield "".join(traceback.format_exception(error))
    yield repr(pickle.dumps(error))
    for member in family(error):
        yield str(member)
        yield repr(member)
        yield from held(member)
