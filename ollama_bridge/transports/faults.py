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

_Kinds = tuple[type[BaseException], ...]

# The first row that any exception of the chain belongs to, from special to general.
_TABLE: tuple[tuple[_Kinds, FaultKind], ...] = (
    ((exceptions.NameResolutionError,), FaultKind.UNRESOLVED),
    ((ssl.SSLCertVerificationError,), FaultKind.TLS),
    ((ConnectionRefusedError,), FaultKind.REFUSED),
    ((exceptions.NewConnectionError,), FaultKind.UNREACHABLE),
    ((exceptions.ConnectTimeoutError,), FaultKind.CONNECT_TIMEOUT),
)
_ENDED: _Kinds = (ssl.SSLEOFError, ssl.SSLZeroReturnError)
_SILENCE: _Kinds = (exceptions.ReadTimeoutError, TimeoutError)
# As http.client words it; what follows the status is the proxy's own text.
_REFUSED_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})\b", re.ASCII)
_NOT_HTTP: _Kinds = (BadStatusLine, LineTooLong, UnknownProtocol, exceptions.InvalidHeader)


def fault_of(error: BaseException, exchange: Exchange) -> TransportFault:
    """Say what went wrong. The detail comes from the system's own tables, never from a peer."""
    chain = list(_chain(error))
    kind = _kind(chain, exchange)
    return TransportFault(kind, _detail(chain), " < ".join(type(each).__name__ for each in chain))


def _kind(chain: list[BaseException], exchange: Exchange) -> FaultKind:
    # urllib3 also blames the proxy for a tunnel that a server ended.
    if _any(chain, (exceptions.ProxyError,)) and not exchange.connected:
        return FaultKind.PROXY
    begun = exchange.received > 0
    for kinds, kind in _TABLE:
        if _any(chain, kinds):
            return kind
    if _any(chain, _SILENCE):
        return FaultKind.SLOW if begun else FaultKind.SILENT
    if _any(chain, _NOT_HTTP) and not _any(chain, (RemoteDisconnected,)):
        return FaultKind.GARBLED
    if _any(chain, (ssl.SSLError, exceptions.SSLError)) and not begun and not _any(chain, _ENDED):
        return FaultKind.TLS
    return FaultKind.CUT if begun else FaultKind.DROPPED


def _any(chain: list[BaseException], kinds: _Kinds) -> bool:
    return any(isinstance(error, kinds) for error in chain)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and those it wraps, in arguments, attributes or as causes."""
    inner = (
        *error.args,
        getattr(error, "reason", None),
        getattr(error, "original_error", None),
        error.__cause__,
    )
    yield error
    for found in inner:
        if isinstance(found, BaseException) and found is not error:
            yield from _chain(found)


def _detail(chain: list[BaseException]) -> str:
    return next((word for error in chain if (word := _word(error))), "no details")


def _word(error: BaseException) -> str:
    """Return the system's word for an exception, "" where it has none."""
    word: str | None = ""
    if isinstance(error, ssl.SSLCertVerificationError):
        word = error.verify_message
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
