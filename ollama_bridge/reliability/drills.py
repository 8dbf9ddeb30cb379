"""Drills for the pool and for retries: a real client, over HTTP, of a simulated server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.types import ChatReply
from ..testing import faults, when
from .evidence import Pooling, Retrying
from .rig import ask, rig

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..conf import Settings

CALLS = 10
# What real servers and proxies send for a while, the likeliest first.
_PASSING = (503, 502, 504, 429, 500)


def pooling(watch: Callable[[float], None]) -> Pooling:
    """Call a healthy server again and again, and count the connections that it accepts."""
    with rig() as (server, client):
        answered = 0
        for number in range(1, CALLS + 1):
            answered += isinstance(ask(client, number), ChatReply)
            watch(number)
        return Pooling(
            calls=CALLS,
            answered=answered,
            requests=len(server.chats),
            connections=server.connections,
        )


def retries(settings: Settings, watch: Callable[[float], None]) -> Retrying:
    """Call a server that fails each first attempt with a status which the settings repeat."""
    status = next((each for each in _PASSING if each in settings.RETRY_STATUSES), None)
    if status is None or not settings.MAX_RETRIES:
        return Retrying(max_retries=settings.MAX_RETRIES, status=status)
    with rig() as (server, client):
        server.misbehave(faults.Status(status), when=when.odd_attempts())
        answered = repeated = 0
        for number in range(1, CALLS + 1):
            became = ask(client, number)
            answered += isinstance(became, ChatReply)
            repeated += max(0, len(became.attempts) - 1)
            watch(number)
        return Retrying(
            max_retries=settings.MAX_RETRIES,
            status=status,
            calls=CALLS,
            answered=answered,
            requests=len(server.chats),
            retries=repeated,
        )
