"""Faults inside a body that has begun well. They fit streams and single replies alike."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from .. import gojson
from ..exchange import Exchange
from ..outgoing import JSON, NDJSON, Reply, json_reply

_PIECE = b"x" * 65536
_BEFORE = b'{"model":"llama3.2","message":{"role":"assistant","content":"'
_AFTER = b'"},"done":true,"done_reason":"stop"}\n'
_KEPT = {"model", "created_at", "message", "response"}


@dataclass(frozen=True, slots=True)
class NotDone:
    """The text so far and no `done`: the server gave up without saying so."""

    async def reply(self, exchange: Exchange) -> None:
        reply = exchange.honest()
        parts = tuple(reply.parts)
        if reply.content_type == NDJSON:
            await exchange.send(replace(reply, parts=parts[:-1]))
        else:
            await exchange.send(json_reply(_undone(gojson.load(parts[0], "")), reply.status))


def _undone(value: dict[str, Any]) -> dict[str, Any]:
    """Return a single reply with half of its text, not done, without its counts."""
    kept = {name: value[name] for name in _KEPT & value.keys()}
    if "message" in kept:
        kept["message"] = {**kept["message"], "content": _half(kept["message"]["content"])}
    if "response" in kept:
        kept["response"] = _half(kept["response"])
    return {**kept, "done": False}


def _half(text: str) -> str:
    return text[: len(text) // 2]


@dataclass(frozen=True, slots=True)
class TruncatedJSON:
    """A whole HTTP reply whose JSON stops in the middle."""

    async def reply(self, exchange: Exchange) -> None:
        reply = exchange.honest()
        body = b"".join(reply.parts)
        await exchange.send(replace(reply, parts=(body[: len(body) // 2],)))


@dataclass(frozen=True, slots=True)
class CutBody:
    """Half of the body, then FIN: Content-Length or the last chunk are still owed."""

    async def reply(self, exchange: Exchange) -> None:
        reply = exchange.honest()
        body = b"".join(reply.parts)
        half = body[: len(body) // 2]
        await exchange.send_parts(replace(reply, parts=(half,), length=len(body)))
        exchange.close()


@dataclass(frozen=True, slots=True)
class HugeBody:
    """One JSON reply of `size` bytes of text, sent as fast as the client takes it.

    Args:
        size: Bytes.
        declared: Whether Content-Length tells; else it is chunked and comes as a surprise.
    """

    size: int = 100 * 2**20
    declared: bool = True

    async def reply(self, exchange: Exchange) -> None:
        await exchange.send(_huge(self.size, JSON, chunked=not self.declared))


@dataclass(frozen=True, slots=True)
class HugeLine:
    """A stream whose first line has `size` bytes of text and ends it well."""

    size: int = 100 * 2**20

    async def reply(self, exchange: Exchange) -> None:
        await exchange.send(_huge(self.size, NDJSON, chunked=True))


def _huge(size: int, content_type: str, *, chunked: bool) -> Reply:
    length = len(_BEFORE) + size + len(_AFTER)
    return Reply(200, _pieces(size), content_type, chunked=chunked, length=length)


def _pieces(size: int) -> Iterable[bytes]:
    yield _BEFORE
    for _ in range(size // len(_PIECE)):
        yield _PIECE
    yield _PIECE[: size % len(_PIECE)]
    yield _AFTER
