"""From exceptions of requests, urllib3 and the system to the core's few kinds of fault.

The original is not kept as a cause. It holds the request, and its frames hold prompt, answer and
key as local variables, which error reporters send away. What it was is told by names.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
from http.client import BadStatusLine, LineTooLong, RemoteDisconnected, UnknownProtocol
from typing import TYPE_CHECKING

from urllib3 import exceptions

from ..core.actions import FaultKind, TransportFault

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .sockets import Exchange

Kinds = tuple[type[BaseException], ...]

# The first row that any exception of the chain belongs to, from special to general.
_TABLE: tuple[tuple[Kinds, FaultKind], ...] = (
    ((exceptions.NameResolutionError,), FaultKind.UNRESOLVED),
    ((ssl.SSLCertVerificationError,), FaultKind.TLS),
    ((ConnectionRefusedError,), FaultKind.REFUSED),
    ((exceptions.NewConnectionError,), FaultKind.UNREACHABLE),
    ((exceptions.ConnectTimeoutError,), FaultKind.CONNECT_TIMEOUT),
)
_ENDED: Kinds = (ssl.SSLEOFError, ssl.SSLZeroReturnError)
_SILENCE: Kinds = (exceptions.ReadTimeoutError, TimeoutError)
# As http.client words it; what follows the status is the proxy's own text.
_REFUSED_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})\b", re.ASCII)
_NOT_HTTP: Kinds = (BadStatusLine, LineTooLong, UnknownProtocol, exceptions.InvalidHeader)


def fault_of(error: BaseException, exchange: Exchange) -> TransportFault:
    """Say what went wrong. The detail comes from the system's own tables, never from a peer."""
    chain = list(chain_of(error))
    return fault_from(_kind(chain, exchange), chain)


def _kind(chain: list[BaseException], exchange: Exchange) -> FaultKind:
    # urllib3 also blames the proxy for a tunnel that a server ended.
    if is_any(chain, (exceptions.ProxyError,)) and not exchange.connected:
        return FaultKind.PROXY
    begun = exchange.received > 0
    for kinds, kind in _TABLE:
        if is_any(chain, kinds):
            return kind
    if is_any(chain, _SILENCE):
        return FaultKind.SLOW if begun else FaultKind.SILENT
    if is_any(chain, _NOT_HTTP) and not is_any(chain, (RemoteDisconnected,)):
        return FaultKind.GARBLED
    if (
        is_any(chain, (ssl.SSLError, exceptions.SSLError))
        and not begun
        and not is_any(chain, _ENDED)
    ):
        return FaultKind.TLS
    return FaultKind.CUT if begun else FaultKind.DROPPED


def fault_from(kind: FaultKind, chain: list[BaseException]) -> TransportFault:
    """Return the fault of a kind, told by the system's word and the names of a chain."""
    return TransportFault(kind, detail_of(chain), names_of(chain))


def names_of(chain: list[BaseException]) -> str:
    return " < ".join(type(each).__name__ for each in chain)


def is_any(chain: list[BaseException], kinds: Kinds) -> bool:
    return any(isinstance(error, kinds) for error in chain)


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and those it wraps, in arguments, attributes or as causes."""
    inner = (
        *error.args,
        getattr(error, "reason", None),
        getattr(error, "original_error", None),
        getattr(error, "os_error", None),
        error.__cause__,
    )
    yield error
    for found in inner:
        if isinstance(found, BaseException) and found is not error:
            yield from chain_of(found)


def detail_of(chain: list[BaseException]) -> str:
    return next((word for error in chain if (word := _word(error))), "no details")


def _word(error: BaseException) -> str:
    """Return the system's word for an exception, "" where it has none."""
    word: str | None = ""
    if isinstance(error, ssl.SSLCertVerificationError):
        word = getattr(error, "verify_message", "")  # aiohttp's own of this class has none
    elif isinstance(error, ssl.SSLError):
        word = (error.reason or "TLS failed").replace("_", " ").lower()
    elif isinstance(error, socket.gaierror):
        word = error.strerror
    elif isinstance(error, OSError) and isinstance(error.errno, int):
        word = os.strerror(error.errno)
    elif isinstance(error, TimeoutError):
        word = "timed out"
    elif isinstance(error, OSError) and (found := _REFUSED_TUNNEL.match(str(error))):
        word = f"HTTP {found[1]}"
    return word or ""
