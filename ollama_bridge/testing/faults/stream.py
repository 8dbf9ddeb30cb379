"""Faults in the middle of a stream.

`after` is the number of good lines before the fault. A request that wants no stream meets the
nearest thing: half of its one reply, or the status that the error would have had.
"""

from dataclasses import dataclass, replace

from .. import gojson
from ..exchange import Exchange
from ..outgoing import NDJSON, Reply, error_reply
from .status import KILLED


def is_stream(reply: Reply) -> bool:
    return reply.content_type == NDJSON


def split(reply: Reply, after: int) -> tuple[Reply, tuple[bytes, ...]]:
    """Return the good beginning, declaring the whole length, and the parts that it lacks."""
    parts = tuple(reply.parts)
    if not is_stream(reply):
        body = b"".join(parts)
        parts, after = (body[: len(body) // 2], body[len(body) // 2 :]), 1
    length = None if reply.chunked else reply.size
    return replace(reply, parts=parts[:after], length=length), parts[after:]


@dataclass(frozen=True, slots=True)
class ErrorLine:
    """Good lines, then `{"error": text}` and a clean end: the model's runner died."""

    after: int = 1
    text: str = KILLED

    async def reply(self, exchange: Exchange) -> None:
        reply = exchange.honest()
        if not is_stream(reply):
            await exchange.send(error_reply(500, self.text))
            return
        line = gojson.dump({"error": self.text}) + b"\n"
        await exchange.send(replace(reply, parts=(*tuple(reply.parts)[: self.after], line)))


@dataclass(frozen=True, slots=True)
class CutStream:
    """Good lines, then the connection ends without the last chunk: the server was stopped.

    Args:
        after: How many lines.
        reset: End with RST instead of FIN.
    """

    after: int = 1
    reset: bool = False

    async def reply(self, exchange: Exchange) -> None:
        beginning, _rest = split(exchange.honest(), self.after)
        await exchange.send_parts(beginning)
        if self.reset:
            exchange.abort()
        else:
            exchange.close()


@dataclass(frozen=True, slots=True)
class StallStream:
    """Good lines, then silence for `seconds` (None: until the client leaves), then the rest."""

    after: int = 1
    seconds: float | None = None

    async def reply(self, exchange: Exchange) -> None:
        beginning, rest = split(exchange.honest(), self.after)
        await exchange.send_parts(beginning)
        if self.seconds is None:
            await exchange.outwait_client()
        else:
            await exchange.sleep(self.seconds)
        await exchange.send_rest(beginning, rest)


@dataclass(frozen=True, slots=True)
class Resplit:
    """The same bytes in TCP pieces, and chunks, of `size` bytes: lines and characters are cut."""

    size: int = 1

    async def reply(self, exchange: Exchange) -> None:
        reply = exchange.honest()
        body = b"".join(reply.parts)
        await exchange.send_parts(replace(reply, parts=(), length=len(body)))
        pieces = (body[at : at + self.size] for at in range(0, len(body), self.size))
        await exchange.send_rest(reply, pieces)
