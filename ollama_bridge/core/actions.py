"""What a flow asks of its driver, and what a driver reports when the network fails.

A flow yields an action and is sent its result. When the network fails, the driver throws a
``TransportFault`` into the flow instead: it says what happened, the core decides what that means.
All times are moments on the monotonic clock, in seconds.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

if TYPE_CHECKING:
    from .limiter import Ticket
    from .types import Delta, Endpoint, Request

T = TypeVar("T")


class Send(NamedTuple):
    """Do a whole exchange by ``until``; the result is a ``Response``.

    ``fresh`` asks for a new connection rather than one that was kept alive.
    """

    endpoint: Endpoint
    request: Request
    until: float
    fresh: bool = False


class Open(NamedTuple):
    """Begin an exchange, closing the one before it; the result is a ``Head``."""

    endpoint: Endpoint
    request: Request
    until: float
    fresh: bool = False


class Read(NamedTuple):
    """Read what comes next of the open exchange by ``until``; ``b""`` is the end of its body."""

    until: float


@dataclass(frozen=True, slots=True)
class Finish:
    """End the open exchange. Its connection is kept if the body ends by ``until``, else closed."""

    until: float


class Emit(NamedTuple):
    """Hand a piece of the answer to the caller."""

    delta: Delta

    def __repr__(self) -> str:
        """Return nothing of the answer, for logs and error reports."""
        return "Emit()"


@dataclass(frozen=True, slots=True)
class Sleep:
    """Let this many seconds pass."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait until ``ticket.waits`` no more, for a slot, a store, or somebody else's answer.

    The result tells whether it was granted.
    """

    ticket: Ticket
    until: float


Action: TypeAlias = Send | Open | Read | Finish | Emit | Sleep | Wait
Flow: TypeAlias = Generator[Action, Any, T]


class Cancelled(BaseException):  # as asyncio.CancelledError, and for the same reason
    """What a blocking driver raises when another thread has cancelled its conversation."""


class FaultKind(Enum):
    """How an exchange can fail below HTTP."""

    UNRESOLVED = auto()  # the host has no address
    REFUSED = auto()  # nobody listens
    UNREACHABLE = auto()  # no way to the host, or the connect failed otherwise
    CONNECT_TIMEOUT = auto()
    TLS = auto()
    PROXY = auto()
    DROPPED = auto()  # the connection ended before the first byte of the response
    CUT = auto()  # the connection ended inside the response
    GARBLED = auto()  # what came is not HTTP
    SILENT = auto()  # ``until`` passed before the first byte of the response
    SLOW = auto()  # ``until`` passed inside the response
    TOO_LARGE = auto()  # the body is larger than the endpoint allows


class TransportFault(Exception):  # noqa: N818  # a report to the core, which makes the error of it
    """What a driver throws into a flow.

    ``detail`` is the operating system's word for it, ``seen`` names the exceptions it came from.
    """

    def __init__(self, kind: FaultKind, detail: str = "", seen: str = "") -> None:
        super().__init__(kind, detail, seen)
        self.kind = kind
        self.detail = detail
