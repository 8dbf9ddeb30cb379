"""Faults of the connection: it breaks, hangs or crawls."""

from dataclasses import dataclass
from typing import Literal

from ..exchange import Exchange

_ENDS = {"headers": b"\r\n", "body": b"\r\n\r\n"}
"""What ends the part before."""


@dataclass(frozen=True, slots=True)
class Reset:
    """RST instead of a reply: the server's process was killed."""

    async def reply(self, exchange: Exchange) -> None:
        exchange.abort()


@dataclass(frozen=True, slots=True)
class Drop:
    """FIN instead of a reply: the server closed an idle connection as the request arrived."""

    async def reply(self, exchange: Exchange) -> None:
        exchange.close()


@dataclass(frozen=True, slots=True)
class CloseAfterReply:
    """A good reply that promises keep-alive; then the connection is closed without a word.

    A client that pools it finds it dead at its next request: "every second request fails".
    """

    async def reply(self, exchange: Exchange) -> None:
        await exchange.send(exchange.honest())
        exchange.close()


@dataclass(frozen=True, slots=True)
class BlackHole:
    """Takes the request and never answers, until the client leaves."""

    async def reply(self, exchange: Exchange) -> None:
        await exchange.outwait_client()


@dataclass(frozen=True, slots=True)
class Stall:
    """Says nothing for `seconds`, then answers: the model is loading."""

    seconds: float = 1.0

    async def reply(self, exchange: Exchange) -> None:
        await exchange.sleep(self.seconds)
        await exchange.send(exchange.honest())


@dataclass(frozen=True, slots=True)
class Drip:
    """A good reply, one byte each `interval` seconds from `part` on; what is before comes at once.

    Each byte restarts a client's read timeout: only a deadline ends this.
    """

    part: Literal["status", "headers", "body"] = "status"
    interval: float = 0.05

    async def reply(self, exchange: Exchange) -> None:
        reply = exchange.honest()
        whole = exchange.framing.whole(reply)
        end = _ENDS.get(self.part, b"")
        start = whole.index(end) + len(end)
        exchange.write(whole[:start])
        for at in range(start, len(whole)):
            exchange.write(whole[at : at + 1])
            await exchange.sleep(self.interval)
        if exchange.framing.closes(reply):
            exchange.close()


@dataclass(frozen=True, slots=True)
class Garbage:
    """Bytes that are not HTTP, then FIN."""

    async def reply(self, exchange: Exchange) -> None:
        exchange.write(b"\x00\x15\x03\x01 this is not HTTP\r\n\r\n")
        exchange.close()
