"""Every way in which a stream can fail, before its first piece and after it, and what comes of it.

``after`` is the number of good lines, each with one piece.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ollama_bridge import errors
from ollama_bridge.testing import faults
from ollama_bridge.testing.faults.stream import split
from tests.net.faulttable import ATTEMPTS, Verdict

if TYPE_CHECKING:
    from ollama_bridge.testing.faults import Exchange, Fault

ANSWER = "Water is wet and blue."
AFTER = 2
BEGINNING = "Water is"
"""The text of so many pieces."""


@dataclass(frozen=True, slots=True)
class Tail:
    """Good lines, then these bytes, and a clean end."""

    tail: bytes
    after: int = AFTER

    async def reply(self, exchange: Exchange) -> None:
        beginning, _ = split(exchange.honest(), self.after)
        await exchange.send_parts(beginning)
        await exchange.send_rest(beginning, [self.tail])


@dataclass(frozen=True, slots=True)
class DripRest:
    """Good lines, then the rest a byte at a time: never a silence, and never another line."""

    after: int = AFTER
    interval: float = 0.02

    async def reply(self, exchange: Exchange) -> None:
        beginning, rest = split(exchange.honest(), self.after)
        await exchange.send_parts(beginning)
        for byte in b"".join(rest):
            await exchange.sleep(self.interval)
            exchange.write(exchange.framing.part(beginning, bytes([byte])))


@dataclass(frozen=True, slots=True)
class CutSlowly:
    """Good lines, a moment apart, and then a FIN in the middle."""

    after: int

    async def reply(self, exchange: Exchange) -> None:
        beginning, _ = split(exchange.honest(), self.after)
        await exchange.send_parts(replace(beginning, pace=0.005))
        exchange.close()


@dataclass(frozen=True, slots=True)
class Break:
    """A fault of a stream; with ``arguments`` the caller's, and ``settings`` the operator's."""

    name: str
    fault: Fault
    verdict: Verdict
    settings: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    """How long it takes at least, from the call to the error."""


_INTERRUPTED = Verdict(
    error=errors.StreamInterrupted,
    says="The connection to {url} broke inside the reply. See the server's log",
    status=200,
    blames="model",
    partial=True,
)
_STALLED = Verdict(
    error=errors.Timeout,
    says="Response timeout - the reply of {url} stopped in its middle. See the server's log, "
    "or raise CHUNK_TIMEOUT",
    blames="model",
    phase="idle",
    partial=True,
)
_IMPATIENT = replace(_STALLED, blames="nobody")
_OVER = Verdict(
    error=errors.Timeout,
    says="Response timeout - the reply of {url} began but did not end in time. "
    "Raise TIMEOUT, or lower max_tokens",
    phase="total",
    partial=True,
)

AFTER_THE_FIRST_PIECE = [
    Break(
        "error line",
        faults.ErrorLine(AFTER),
        replace(_INTERRUPTED, says="The model's runner crashed. See the log of the Ollama server"),
    ),
    Break(
        "error line of unknown words",
        faults.ErrorLine(AFTER, "something went wrong"),
        replace(
            _INTERRUPTED,
            says="Ollama at {url} reported an error inside its reply. See the server's log",
        ),
    ),
    Break("FIN", faults.CutStream(AFTER), _INTERRUPTED),
    Break("RST", faults.CutStream(AFTER, reset=True), _INTERRUPTED),
    Break(
        "end without done",
        Tail(b""),
        replace(
            _INTERRUPTED,
            says="The server ended its answer without saying that it is done. See its log",
        ),
    ),
    Break(
        "line that is no JSON",
        Tail(b"<html>\n"),
        replace(
            _INTERRUPTED,
            says="{url} answered with application/x-ndjson that is no reply of Ollama's. "
            "Check BASE_URL",
        ),
    ),
    Break(
        "line of another API",
        Tail(b'{"response":"wet"}\n'),
        replace(
            _INTERRUPTED,
            says="{url} answered with application/x-ndjson that is no reply of Ollama's. "
            "Check BASE_URL",
        ),
    ),
    Break(
        "huge line",
        Tail(b"x" * 30_000),
        replace(_INTERRUPTED, says="The reply of {url} is larger than MAX_RESPONSE_BYTES (20000)"),
        {"max_response_bytes": 20_000},
    ),
    Break("silence", faults.StallStream(AFTER), _STALLED, {"chunk_timeout": 0.2}, seconds=0.2),
    Break(
        "silence, longer than the caller's longer limit",
        faults.StallStream(AFTER),
        _STALLED,
        {"chunk_timeout": 0.1},
        {"chunk_timeout": 0.3},
        0.3,
    ),
    Break(
        "silence, longer than the caller's shorter limit",
        faults.StallStream(AFTER),
        _IMPATIENT,
        {},
        {"chunk_timeout": 0.2},
        0.2,
    ),
    Break(
        "silence, at the caller's end",
        faults.StallStream(AFTER),
        _OVER,
        {},
        {"timeout": 0.5},
        0.5,
    ),
    Break(
        "drip, at the caller's end",
        DripRest(),
        _OVER,
        {"chunk_timeout": 0.4},
        {"timeout": 0.7},
        0.7,
    ),
]

BEFORE_THE_FIRST_PIECE = [
    Break(
        "error line",
        faults.ErrorLine(0),
        Verdict(
            error=errors.ServerFailed,
            says="The model's runner crashed. See the log of the Ollama server",
            status=200,
            blames="model",
        ),
    ),
    Break(
        "FIN after the head",
        faults.CutStream(0),
        Verdict(
            error=errors.ConnectionFailed,
            says="The connection to {url} broke inside the reply. See the server's log",
            requests=ATTEMPTS,
            blames="model",
        ),
    ),
    Break(
        "silence after the head",
        faults.StallStream(0),
        Verdict(
            error=errors.Timeout,
            says="Response timeout - Ollama may be overloaded, or the model is still loading. "
            "Load it once by hand: ollama run llama3.2",
            phase="first_token",
            blames="model",
        ),
        {"first_token_timeout": 0.5},
        seconds=0.5,
    ),
    Break(
        "silence, longer than the caller's shorter limit",
        faults.StallStream(0),
        Verdict(
            error=errors.Timeout,
            says="Response timeout - Ollama may be overloaded, or the model is still loading. "
            "Load it once by hand: ollama run llama3.2",
            phase="first_token",
        ),
        {},
        {"first_token_timeout": 0.2},
        0.2,
    ),
    Break(
        "silence, at the caller's end",
        faults.BlackHole(),
        Verdict(
            error=errors.Timeout,
            says="Response timeout - Ollama may be overloaded, or the model is still loading. "
            "Load it once by hand: ollama run llama3.2",
            phase="total",
        ),
        {},
        {"timeout": 0.2},
        0.2,
    ),
    Break(
        "huge line",
        faults.HugeLine(),
        Verdict(
            error=errors.InvalidReply,
            says="The reply of {url} is larger than MAX_RESPONSE_BYTES (16777216)",
            blames="model",
        ),
    ),
]
