"""Drills for pool, retries and broken streams: a real client, over HTTP, of a simulated server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.types import ChatReply
from ..errors import StreamInterrupted
from ..testing import faults, when
from .evidence import TRIES, Cuts, Pooling, Retrying
from .rig import ask, rig

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..conf import Settings
    from .askers import Asker

CALLS = 10
# What real servers and proxies send for a while, the likeliest first.
_PASSING = (503, 502, 504, 429, 500)
# What a stream's end can be in its middle, after two pieces at least.
_BREAKS = (faults.CutStream(after=2), faults.ErrorLine(after=2), faults.NotDone())
_WHOLE = "One, two, three, four, five."
CUTS = TRIES * len(_BREAKS)


def pooling(asker: Asker, watch: Callable[[float], None]) -> Pooling:
    """Call a healthy server again and again, and count the connections that it accepts."""
    with rig() as (server, client):
        answered = 0
        for number in range(1, CALLS + 1):
            answered += isinstance(ask(asker, client, number), ChatReply)
            watch(number)
        return Pooling(
            calls=CALLS,
            answered=answered,
            requests=len(server.chats),
            connections=server.connections,
        )


def retries(asker: Asker, settings: Settings, watch: Callable[[float], None]) -> Retrying:
    """Call a server that fails each first attempt with a status which the settings repeat."""
    status = next((each for each in _PASSING if each in settings.RETRY_STATUSES), None)
    if status is None or not settings.MAX_RETRIES:
        return Retrying(max_retries=settings.MAX_RETRIES, status=status)
    with rig() as (server, client):
        server.misbehave(faults.Status(status), when=when.odd_attempts())
        answered = repeated = 0
        for number in range(1, CALLS + 1):
            became = ask(asker, client, number)
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


def cuts(asker: Asker, watch: Callable[[float], None]) -> Cuts:
    """Stream from a server whose every answer breaks off: by its connection, an error, or no end.

    Without a circuit, which would open, and without a bound of our own, which would come before.
    """
    with rig(_WHOLE, circuit_breaker=False, max_chunks=None) as (server, client):
        told = 0
        for number in range(1, CUTS + 1):
            server.behave()
            server.misbehave(_BREAKS[number % len(_BREAKS)])
            told += _is_told(ask(asker, client, number))
            watch(number)
        return Cuts(calls=CUTS, told=told, requests=len(server.chats))


def _is_told(became: object) -> bool:
    """Tell whether a call says that its answer broke off, and has the beginning of it."""
    if not isinstance(became, StreamInterrupted):
        return False
    return bool(became.partial) and _WHOLE.startswith(became.partial)
